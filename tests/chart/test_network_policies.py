"""Who may reach whom in a release: a table of connections, each by what the chart's NetworkPolicies say together."""

import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.chart.entries import MODEL
from tests.chart.network_policies import Place, may_reach
from tests.chart.rendering import NAMESPACE, Pod, Rendered, Values, merged, render, scenario_values
from tests.chart.selectors import selects

ENGINES, GRAMMAR, METRICS, REDIS = 8000, 8200, 8080, 6379
DASHBOARD, AGENT = 8265, 52365
RAY_ONLY = (6379, 8265, 10001, 52365, 8404, 9101, 30000, 40000)
"""GCS, dashboard, Ray's client, agent, HAProxy's statistics and metrics, and the ports of replicas, HTTP and gRPC."""
TRACES = 4318

VALUES: Values = {
    "models": {"a": MODEL, "b": MODEL},
    "gateway": {"settings": {"allow_anonymous": True}, "tracing": {"endpoint": f"http://collector.tracing:{TRACES}/v1/traces"}},
    "redis": {"answers": {"kind": "bundled"}, "rayState": {"kind": "bundled"}},
    "networkPolicy": {
        "monitoring": {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]}
    },
    "kuberay": {"operatorNamespace": "kuberay"},
}


def elsewhere(name: str, address: str, labels: Mapping[str, str]) -> Place:
    return Place(address, name, labels, {"kubernetes.io/metadata.name": name})


OPERATOR = {"app.kubernetes.io/name": "kuberay-operator", "app.kubernetes.io/component": "kuberay-operator"}
"""Of the operator's pods, as its own chart labels them."""

OTHERS = {
    "stranger": elsewhere(NAMESPACE, "10.1.0.1", {"app": "stranger"}),
    "visitor": elsewhere("shop", "10.1.0.2", {"app": "till"}),
    "operator": elsewhere("kuberay", "10.1.0.3", OPERATOR),
    "prometheus": elsewhere("monitoring", "10.1.0.4", {"app.kubernetes.io/name": "prometheus"}),
    "collector": elsewhere("tracing", "10.1.0.5", {"app": "collector"}),
    "dns": elsewhere("kube-system", "10.1.0.6", {"k8s-app": "kube-dns"}),
    "node cache of names": Place("169.254.20.10"),
    "internet": Place("93.184.216.34"),
    "internet by IPv6": Place("2606:2800:220:1::1"),
    "private network": Place("192.168.7.7"),
    "metadata of the cloud": Place("169.254.169.254"),
    "api server": Place("172.16.0.10"),
}


@dataclass(frozen=True)
class Network:
    """A release, what else is in its cluster, and what its policies let through."""

    places: Mapping[str, Place]
    policies: tuple[Mapping[str, Any], ...]

    def lets(self, source: str, target: str, port: int) -> bool:
        return may_reach(self.policies, self.places[source], self.places[target], port, "UDP" if port == 53 else "TCP")

    def open(self, source: str, target: str, ports: Iterable[int]) -> set[int]:
        return {port for port in ports if self.lets(source, target, port)}


def network(values: Mapping[str, Any], *also: Rendered) -> Network:
    release = render(values)
    policies = [document.body for one in (release, *also) for document in one.of_kind("NetworkPolicy")]
    places = dict(OTHERS) | dict(_pods(release))
    for other in also:
        places |= {f"other {name}": place for name, place in _pods(other)}
    return Network(places, tuple(policies))


@functools.cache
def usual() -> Network:
    """The values above."""
    return network(VALUES)


def changed(values: Mapping[str, Any]) -> Network:
    return network(merged(VALUES, values))


def _pods(release: Rendered) -> Iterable[tuple[str, Place]]:
    for number, pod in enumerate(release.pods):
        place = elsewhere(release.namespace, f"10.2.0.{number + 1}", pod.labels_in_cluster)
        place = replace(
            place, ports={p["name"]: p["containerPort"] for c in pod.containers for p in c.get("ports", []) if "name" in p}
        )
        if pod.owner.kind != "RayService":
            yield pod.labels["app.kubernetes.io/component"], place
        else:
            yield from _ray_pods(pod, place)


def _ray_pods(pod: Pod, place: Place) -> Iterable[tuple[str, Place]]:
    """The clean-up is a copy of the head."""
    title = f"{pod.role} of {pod.labels['fovea.dev/model']}"
    yield title, place
    if pod.role == "head":
        name = f"clean-up of {pod.labels['fovea.dev/model']}"
        labels = {**place.labels, "ray.io/node-type": "redis-cleanup"}
        yield name, replace(place, address=place.address.replace("10.2.", "10.3."), labels=labels)


RAY_PODS = ("head of a", "worker of a")
ALL_RAY_PODS = tuple(f"{role} of {model}" for model in "ab" for role in ("head", "worker", "clean-up"))
PODS = ("gateway", "grammar", "redis-answers", "redis-ray-state", "test", *ALL_RAY_PODS)

PORTS = tuple(sorted({22, 53, 80, 443, TRACES, 6443, 8001, ENGINES, GRAMMAR, METRICS, REDIS, DASHBOARD, AGENT, *RAY_ONLY}))
"""Every port that something of a release listens at, those of what is outside, and 22 for all the others."""

Opening = tuple[str, str, int]
"""From, to, port."""


def each(sources: Iterable[str], targets: Iterable[str], *ports: int) -> frozenset[Opening]:
    return frozenset(itertools.product(sources, targets, ports))


STORES = ("internet", "internet by IPv6")

OPEN: dict[str, frozenset[Opening]] = {
    "whoever is not of the release calls the gateway": each(OTHERS, ["gateway"], 8000),
    "the test calls the gateway": each(["test"], ["gateway"], 8000),
    # Clean-ups have their head's labels, and nothing that listens.
    "the gateway asks engines": each(["gateway"], ALL_RAY_PODS, ENGINES),
    "the gateway asks the grammar process": each(["gateway"], ["grammar"], GRAMMAR),
    "the gateway keeps answers": each(["gateway"], ["redis-answers"], REDIS),
    "the gateway fetches images": each(["gateway"], STORES, 443),
    "the gateway sends traces": each(["gateway"], ["collector"], TRACES),
    "all but the Redis ask for names": each(["gateway", "grammar", "test", *ALL_RAY_PODS], ["dns", "node cache of names"], 53),
    "the pods of one Ray cluster talk at any port": each(ALL_RAY_PODS[:3], ALL_RAY_PODS[:3], *PORTS)
    | each(ALL_RAY_PODS[3:], ALL_RAY_PODS[3:], *PORTS),
    "Ray keeps its state": each(ALL_RAY_PODS, ["redis-ray-state"], REDIS),
    "weights are downloaded, and what tells grammars tokens": each(["grammar", *ALL_RAY_PODS], STORES, 443),
    "KubeRay applies Serve's config and asks how it is": each(["operator"], ALL_RAY_PODS, DASHBOARD, AGENT, ENGINES),
    "Prometheus reads Ray's metrics": each(["prometheus"], ALL_RAY_PODS, METRICS),
}
"""All that is let through, and what for."""


def openings(of: Network) -> set[Opening]:
    """By TCP or UDP; of what a release has a part in."""
    return {
        (source, target, port)
        for source, target in itertools.product(of.places, repeat=2)
        if not {source, target} <= OTHERS.keys()
        for port in PORTS
        if any(may_reach(of.policies, of.places[source], of.places[target], port, protocol) for protocol in ("TCP", "UDP"))
    }


@pytest.mark.parametrize("purpose", OPEN)
def test_what_works_together_may_reach_each_other(purpose: str) -> None:
    assert [opening for opening in sorted(OPEN[purpose]) if not usual().lets(*opening)] == []


def test_nothing_else_is_let_through() -> None:
    assert usual().places.keys() == {*OTHERS, *PODS}
    assert sorted(openings(usual()) - frozenset().union(*OPEN.values())) == []


def test_whatever_else_is_let_through_is_found() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "192.168.7.0/24"}}], "ports": [{"port": 22, "protocol": "UDP"}]}
    more = changed({"networkPolicy": {"gateway": {"to": [rule]}}})
    assert openings(more) - openings(usual()) == {("gateway", "private network", 22)}


TRACED = {
    "collector": {"stranger"},
    "collector.tracing": {"collector"},
    "collector.tracing.svc": {"collector"},
    "collector.tracing.svc.cluster.local": {"collector"},
    "collector.shop": {"visitor"},
    "93.184.216.34": {"internet", "internet by IPv6"},
    "api.collector.example": {"internet", "internet by IPv6"},
    # Names that cannot be told from a Service's: networkPolicy.gateway.to has to let out to them.
    "collector.example": set[str](),
}
"""Whom the gateway may send traces to beside what it asks anyhow, by the host of gateway.tracing.endpoint."""


@pytest.mark.parametrize("host", TRACED)
def test_traces_go_to_the_namespace_that_the_endpoint_names_or_outside(host: str) -> None:
    traced = changed({"gateway": {"tracing": {"endpoint": f"http://{host}:{TRACES}/v1/traces"}}})
    assert {target for target in traced.places if traced.lets("gateway", target, TRACES)} == TRACED[host]


def test_every_pod_of_a_release_has_a_policy_for_both_directions() -> None:
    release = render(VALUES)
    covered = [document.spec for document in release.of_kind("NetworkPolicy")]
    for pod in release.pods:
        types = {t for spec in covered if selects(spec["podSelector"], pod.labels) for t in spec["policyTypes"]}
        assert types == {"Ingress", "Egress"}, pod.title


def test_a_release_beside_another_one_reaches_none_of_its_pods_and_callers_reach_its_gateway() -> None:
    both = network(VALUES, render(VALUES, release="s"))
    sources, targets = [*PODS, *OTHERS], [f"other {name}" for name in PODS]
    assert both.places.keys() == {*sources, *targets}
    found = {opening for opening in openings(both) if opening[0] in sources and opening[1] in targets}
    ours = {opening for opening in found if opening[0] in PODS}
    assert ours == set()
    # From outside the other release is as open as this one.
    alone = {(source, f"other {target}", port) for source, target, port in openings(usual()) if source in OTHERS}
    assert found == alone >= each(OTHERS, ["other gateway"], 8000)


def test_engines_that_are_offline_reach_no_model_store() -> None:
    offline = changed({"engines": {"offline": True, "model": {"modelCache": {"kind": "persistentVolumeClaim"}}}})
    for pod in (*RAY_PODS, "grammar"):
        assert not offline.lets(pod, "internet", 443)
        assert not offline.lets(pod, "internet by IPv6", 443)
    assert offline.lets("worker of a", "dns", 53)


def test_a_grammar_process_that_is_given_its_tokenizers_reaches_no_model_store() -> None:
    given = changed({"grammar": {"modelCache": {"existingClaim": "weights"}}})
    assert usual().lets("grammar", "internet", 443)
    assert not given.lets("grammar", "internet", 443)
    assert given.lets("worker of a", "internet", 443)


def test_models_that_are_here_need_no_store() -> None:
    here = changed({"models": {name: {"source": "/models/weights"} for name in "ab"}})
    assert not any(here.lets(pod, "internet", 443) for pod in (*RAY_PODS, "grammar"))


def test_a_store_of_ones_own_is_reached_instead_of_the_internet() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "192.168.7.0/24"}}], "ports": [{"port": 443}]}
    mirror = changed({"networkPolicy": {"modelStore": {"to": [rule]}}})
    for pod in ("worker of a", "grammar"):
        assert mirror.lets(pod, "private network", 443)
        assert not mirror.lets(pod, "internet", 443)


def test_without_a_namespace_of_the_operator_any_may_be_its() -> None:
    anywhere = changed({"kuberay": {"operatorNamespace": ""}})
    assert anywhere.lets("operator", "head of a", DASHBOARD)
    closed = changed({"kuberay": {"operatorNamespace": "elsewhere"}})
    assert not closed.lets("operator", "head of a", DASHBOARD)


def test_metrics_of_ray_are_closed_unless_somebody_is_named() -> None:
    unnamed = changed({"networkPolicy": {"monitoring": {"from": []}}})
    assert not any(unnamed.lets(source, pod, METRICS) for source in ("prometheus", "stranger", "internet") for pod in RAY_PODS)


def test_only_who_is_named_reaches_the_gateway_and_the_test_still_does() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
    named = changed({"networkPolicy": {"gateway": {"from": [peer]}}})
    found = [
        source for source in ("visitor", "stranger", "internet", "prometheus", "test") if named.lets(source, "gateway", 8000)
    ]
    assert found == ["visitor", "test"]


def test_a_gateway_that_fetches_no_images_and_has_no_providers_reaches_nothing_outside() -> None:
    closed = changed({"gateway": {"settings": {"image_url_schemes": []}}})
    assert not closed.open("gateway", "internet", (80, 443))
    assert closed.lets("gateway", "worker of a", ENGINES)


def test_a_gateway_that_fetches_over_http_reaches_port_80_too() -> None:
    plain = changed({"gateway": {"settings": {"image_url_schemes": ["https", "http"]}}})
    assert plain.open("gateway", "internet", (80, 443)) == {80, 443}


def test_what_scales_a_model_reaches_the_api_server_and_no_other_pod_does() -> None:
    autoscaling = {"min_replicas": 1, "max_replicas": 3, "target_in_flight": 12}
    scaled = changed({"models": {"a": {"replicas": None, "autoscaling": autoscaling}}})
    assert scaled.open("head of a", "api server", (443, 6443)) == {443, 6443}
    assert not any(
        scaled.open(pod, "api server", (443, 6443)) for pod in ("worker of a", "head of b", "worker of b", "gateway")
    )


def test_where_the_api_server_is_the_owner_can_say() -> None:
    autoscaling = {"min_replicas": 1, "max_replicas": 3, "target_in_flight": 12}
    said = {"to": [{"ipBlock": {"cidr": "172.16.0.0/24"}}], "ports": [6443]}
    named = changed(
        {
            "models": {"a": {"replicas": None, "autoscaling": autoscaling}},
            "networkPolicy": {"apiServer": said},
            "engines": {"offline": True, "model": {"modelCache": {"kind": "persistentVolumeClaim"}}},
        }
    )
    assert named.open("head of a", "api server", PORTS) == {6443}
    assert not named.open("head of a", "internet", PORTS)


@pytest.mark.parametrize("address", [f"redis.private:{REDIS}", f"rediss://redis.private:{REDIS}"])
def test_a_redis_elsewhere_is_reached_by_who_uses_it(address: str) -> None:
    external = {
        "answers": {"kind": "external", "external": {"existingSecret": "answers"}},
        "rayState": {"kind": "external", "external": {"address": address, "existingSecret": "state"}},
    }
    elsewhere_ = changed({"redis": external})
    assert elsewhere_.lets("gateway", "private network", REDIS)
    assert all(elsewhere_.lets(pod, "private network", REDIS) for pod in (*RAY_PODS, "clean-up of a"))
    assert not elsewhere_.lets("grammar", "private network", REDIS)


def test_further_ways_out_of_the_gateway_are_the_owners_to_add() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "192.168.7.0/24"}}], "ports": [{"port": 8443}]}
    more = changed({"networkPolicy": {"gateway": {"to": [rule]}}})
    assert more.lets("gateway", "private network", 8443)
    assert not more.lets("gateway", "private network", 443)


def test_the_demo_on_one_machine_needs_nothing_from_outside() -> None:
    demo = network(scenario_values("cpu-demo"))
    engines = [name for name in demo.places if name.startswith(("head of", "worker of"))]
    assert len(engines) >= 4
    assert not any(demo.open(pod, "internet", (80, 443)) for pod in (*engines, "grammar"))


def test_switched_off_there_is_no_policy() -> None:
    assert changed({"networkPolicy": {"enabled": False}}).policies == ()
