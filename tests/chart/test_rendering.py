"""Every scenario renders, into documents that an API server of three versions takes and that fit one another."""

import base64
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest

from deploy.chart.schema import CHART
from tests.chart.references import references
from tests.chart.rendering import (
    LONG_RELEASE,
    NAMESPACE,
    SCENARIOS,
    Document,
    Pod,
    Rendered,
    application,
    default_values,
    merged,
    render,
    scenario,
    scenario_values,
)
from tests.chart.selectors import selects
from tests.chart.validation import KUBERNETES_VERSIONS, problems

_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")

_COMMON_LABELS = {
    *("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version"),
    *("app.kubernetes.io/managed-by", "app.kubernetes.io/component", "helm.sh/chart"),
}
_RAY_POD_LABELS = {"app.kubernetes.io/instance", "app.kubernetes.io/component", "fovea.dev/model"}


def test_the_scenarios_are_those_of_the_folder() -> None:
    assert {path.name for path in (CHART / "ci").iterdir()} == {f"{name}-values.yaml" for name in SCENARIOS}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_makes_one_gateway_and_an_engine_for_each_model(name: str) -> None:
    release = scenario(name)

    assert len([one for one in release.of_kind("Deployment") if one.name.endswith("-gateway")]) == 1
    assert sorted(application(service)["name"] for service in release.of_kind("RayService")) == sorted(release.models)
    assert release.models
    assert release.notes.strip()
    for part in ("gateway", "engines"):
        repository = merged(default_values(), release.values)[part]["image"]["repository"]
        is_in_no_registry = repository.startswith("fovea/")
        assert (f"{part}.image.repository ({repository})" in release.notes) is is_in_no_registry


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_document_is_valid(name: str, version: str) -> None:
    wrong = {document.title: problems(document.body, version) for document in scenario(name).documents}

    assert {title: found for title, found in wrong.items() if found} == {}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"spec": {"replicaz": 2}}, "replicaz"),
        ({"spec": {"replicas": "two"}}, "replicas"),
        ({"spec": {"template": {"spec": {"enableServiceLink": False}}}}, "enableServiceLink"),
        ({"metadata": {"label": {}}}, "label"),
    ],
)
def test_a_mistake_in_a_deployment_is_found(change: dict[str, Any], named: str) -> None:
    body = merged(scenario("default").one("Deployment", "-gateway").body, change)

    for version in KUBERNETES_VERSIONS:
        assert any(named in problem for problem in problems(body, version))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"spec": {"serveConfig": ""}}, "serveConfig"),
        ({"spec": {"rayClusterConfig": {"enableInTreeAutoscaling": "no"}}}, "enableInTreeAutoscaling"),
        ({"spec": {"rayClusterConfig": {"headGroupSpec": {"rayStartParams": {"num-cpus": 0}}}}}, "num-cpus"),
        ({"spec": {"rayClusterConfig": {"headGroupSpec": {"template": {"spec": {"restartPolice": ""}}}}}}, "restartPolice"),
        ({"spec": {"rayClusterConfig": {"workerGroupSpecs": [{"replica": 1}]}}}, "replica"),
    ],
)
def test_a_mistake_in_a_ray_service_is_found(change: dict[str, Any], named: str) -> None:
    body = merged(scenario("default").of_kind("RayService")[0].body, change)

    assert any(named in problem for problem in problems(body, KUBERNETES_VERSIONS[0]))


@pytest.mark.parametrize(
    ("name", "kind", "spoilt", "named"),
    [
        ("keda", "ScaledObject", {"spec": {"minReplicas": 1}}, "minReplicas"),
        ("everything", "ServiceMonitor", {"spec": {"endpoint": []}}, "endpoint"),
        ("everything", "PodMonitor", {"spec": {"podMetricsEndpoints": [{"targetPort": 1}]}}, "targetPort"),
        ("everything", "HTTPRoute", {"spec": {"rules": [{"timeout": "1s"}]}}, "timeout"),
    ],
)
def test_a_mistake_in_what_an_operator_reads_is_found(name: str, kind: str, spoilt: dict[str, Any], named: str) -> None:
    body = merged(scenario(name).of_kind(kind)[0].body, spoilt)

    assert any(named in problem for problem in problems(body, KUBERNETES_VERSIONS[0]))


def test_a_kind_without_a_schema_and_a_null_are_found() -> None:
    service = merged(scenario("default").one("Service", "-gateway").body, {})
    service["spec"]["clusterIP"] = None

    assert problems({"apiVersion": "example.org/v1", "kind": "Unheard"}, "1.34")
    assert problems(service, "1.34") == ["$.spec.clusterIP: is null"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_helm_lint_has_nothing_to_say(name: str) -> None:
    values = merged({"kuberay": {"skipCheck": True}}, scenario_values(name))

    report = helm_python.lint(CHART, values=values, strict=True, namespace=NAMESPACE, kube_version="v1.34.0")

    assert [found for found in report["messages"] if found["severity"] > 1] == []
    assert report["errors"] in ([], None)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_pod_is_hidden_from_these_tests(name: str) -> None:
    for document in scenario(name).documents:
        assert len(document.pods) == _counted(document.body, "containers"), document.title


def _counted(value: Any, key: str) -> int:
    if isinstance(value, dict):
        return (key in value) + sum(_counted(child, key) for child in value.values())
    return sum(_counted(child, key) for child in value) if isinstance(value, list) else 0


@pytest.mark.parametrize("name", SCENARIOS)
def test_names_are_labels_and_no_two_objects_share_one(name: str) -> None:
    documents = scenario(name).documents

    assert [document.title for document in scenario(name).own if not _LABEL.fullmatch(document.name)] == []
    assert [title for title, count in Counter(document.title for document in documents).items() if count > 1] == []
    for service in scenario(name).of_kind("RayService"):
        # The longest names that the operator makes of it, and a cluster's has eleven characters more.
        assert len(service.name) <= 47


def test_the_names_of_a_long_release_are_cut_and_stay_apart() -> None:
    values = scenario_values("long-names")
    one, other = render(values, release=LONG_RELEASE), render(values, release=LONG_RELEASE[:-1] + "4")

    assert {document.title for document in one.own} & {document.title for document in other.own} == set()


@pytest.mark.parametrize("name", SCENARIOS)
def test_objects_are_in_the_release_s_namespace_and_carry_the_common_labels(name: str) -> None:
    for document in scenario(name).own:
        assert document.body["metadata"].get("namespace", NAMESPACE) == NAMESPACE, document.title
        assert _COMMON_LABELS - document.labels.keys() == set(), document.title
        assert document.labels["app.kubernetes.io/managed-by"] == "Helm"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_ray_pod_carries_nothing_that_an_upgrade_of_the_chart_would_change(name: str) -> None:
    """What its template says is part of the hash by which the operator makes a new cluster."""
    release = scenario(name)
    for service in release.of_kind("RayService"):
        for pod in service.pods:
            extra = set(_engine_setting(release, service, "labels"))
            assert pod.labels.keys() - extra == _RAY_POD_LABELS, pod.title
            text = str(pod.template)
            assert "checksum" not in text
            assert "helm.sh/" not in text


def _engine_setting(release: Rendered, service: Document, key: str) -> dict[str, Any]:
    defaults = release.values.get("engines", {}).get("model", {}).get(key, {})
    own_values = release.models[application(service)["name"]].get("kubernetes", {}).get(key, {})
    return {**defaults, **own_values}


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_selected_is_there(name: str) -> None:
    release = scenario(name)
    pods = release.own_pods
    for document, selector in _selectors(release):
        assert [pod for pod in pods if selects(selector, pod.labels_in_cluster)], f"{document.title} selects nobody: {selector}"


def _selectors(release: Rendered) -> Iterator[tuple[Document, dict[str, Any]]]:
    for document in release.own:
        match document.kind:
            case "Service":
                yield document, {"matchLabels": document.spec["selector"]}
            case "Deployment" | "StatefulSet" | "PodDisruptionBudget" | "PodMonitor":
                yield document, document.spec["selector"]
            case "NetworkPolicy":
                yield document, document.spec["podSelector"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_deployment_selects_its_own_pods_only(name: str) -> None:
    release = scenario(name)
    pods = release.own_pods
    for document, selector in _selectors(release):
        if document.kind in {"Deployment", "StatefulSet"}:
            assert [pod.title for pod in pods if selects(selector, pod.labels_in_cluster)] == [document.title]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_service_s_ports_are_ports_of_its_pods(name: str) -> None:
    release = scenario(name)
    for service in release.of_kind("Service"):
        selected = [pod for pod in release.pods if selects({"matchLabels": service.spec["selector"]}, pod.labels_in_cluster)]
        for port in service.spec["ports"]:
            assert all(port["targetPort"] in _ports(pod) for pod in selected), service.title


def _ports(pod: Pod) -> set[int | str]:
    return set().union(*map(_ports_of, pod.containers))


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_a_probe_asks_is_a_port_of_its_container(name: str) -> None:
    for pod in scenario(name).pods:
        for container in pod.containers:
            ports = _ports_of(container) | ({_RAY_AGENT} if pod.owner.kind == "RayService" else set())
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                for asked in ("httpGet", "tcpSocket"):
                    port = container.get(probe, {}).get(asked, {}).get("port")
                    assert port is None or port in ports, f"{pod.title}: {probe}"


_RAY_AGENT = 52365
"""Where Ray's agent of a node listens; KubeRay asks it there, too."""


def _ports_of(container: dict[str, Any]) -> set[int | str]:
    ports = container.get("ports", [])
    return {port["containerPort"] for port in ports} | {port["name"] for port in ports if "name" in port}


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_scales_has_somebody_to_scale_and_sole_say_over_the_number(name: str) -> None:
    """Helm 4 takes the number back at each upgrade, and fails."""
    release = scenario(name)
    scalers = [*release.of_kind("HorizontalPodAutoscaler"), *release.of_kind("ScaledObject")]
    assert len(scalers) == (name in {"hpa", "keda", "everything"})
    for scaler in scalers:
        target = release.one("Deployment", scaler.spec["scaleTargetRef"]["name"])
        assert target.name == scaler.spec["scaleTargetRef"]["name"]
        assert "replicas" not in target.spec
    if not scalers:
        assert release.one("Deployment", "-gateway").spec["replicas"] >= 1


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_a_pod_mounts_or_reads_is_rendered_or_named_in_the_values(name: str) -> None:
    release = scenario(name)
    rendered = {document.title: document for document in release.documents}
    named = _texts(release.values)
    for document in release.own:
        for one in references(document.body):
            there = rendered.get(f"{one.kind}/{one.name}")
            assert there or one.name in named, f"{document.title}: {one}"
            if there and one.key:
                keys = {**there.body.get("data", {}), **there.body.get("stringData", {})}
                assert one.key in keys, f"{document.title}: {one}"


def _texts(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(_texts, value.values()))
    if isinstance(value, list):
        return set().union(*map(_texts, value))
    return {value} if isinstance(value, str) else set()


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_mount_has_its_volume_and_every_volume_its_mount(name: str) -> None:
    for pod in scenario(name).pods:
        volumes = [volume["name"] for volume in pod.spec.get("volumes", [])]
        volumes += [claim["metadata"]["name"] for claim in pod.owner.body["spec"].get("volumeClaimTemplates", [])]
        mounts = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])}
        assert sorted(volumes) == sorted(mounts), pod.title


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_secret_is_nowhere_but_in_its_secret(name: str) -> None:
    release = scenario(name)
    encoded = [value for one in release.of_kind("Secret") for value in _secret_values(one)]
    secrets = encoded + [base64.b64decode(value).decode() for value in encoded]
    rest = [str(one.body) for one in release.documents if one.kind != "Secret"] + [release.notes]

    assert [value for value in secrets if any(value in text for text in rest)] == []
    assert all(len(value) >= 24 for value in secrets)
    for document in release.own:
        for variable in [entry for pod in document.pods for one in pod.containers for entry in one.get("env", [])]:
            is_secret = re.search(r"KEY$|TOKEN$|PASSWORD$|SECRET$", variable["name"])
            assert not is_secret or "valueFrom" in variable, f"{document.title}: {variable['name']}"


def _secret_values(secret: Document) -> list[str]:
    assert "stringData" not in secret.body
    return list(secret.body["data"].values())


@pytest.mark.parametrize("name", ["external-redis", "everything"])
def test_secrets_that_are_named_are_not_made(name: str) -> None:
    release = scenario(name)
    named = _texts(release.values)

    assert [secret.name for secret in release.of_kind("Secret") if secret.name in named] == []


@pytest.mark.parametrize("name", ["default", "everything"])
def test_the_same_values_give_the_same_but_for_secrets(name: str) -> None:
    again = render(scenario_values(name))

    first = [document.body for document in scenario(name).documents if document.kind != "Secret"]
    assert [document.body for document in again.documents if document.kind != "Secret"] == first


def test_a_new_catalog_makes_new_gateways() -> None:
    """They read it at their start only."""
    values = scenario_values("default")
    (model,) = list(values["models"])[:1]
    changed = render(merged(values, {"models": {model: {"price": 17.5}}}))

    assert changed.gateway.template != scenario("default").gateway.template
