"""A release from its installation to its end, by the real Helm: what an upgrade changes, and what an uninstall leaves."""

import copy
import pathlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import helm_python
import pytest

from deploy.chart.schema import CHART
from tests.chart import rendering
from tests.chart.cluster_kinds import CORE, KUBERAY
from tests.chart.entries import MODEL
from tests.chart.field_ownership import Manager
from tests.chart.releases import NAMESPACE, Helm, helm, secret_texts
from tests.chart.rendering import Document, Values, application, merged, scenario_values
from tests.chart.upgrading import VALUES, effect

GATEWAY = "r-fovea-gateway"
GENERATED = ("r-fovea-engines", "r-fovea-redis")


def service_of(release: Helm, model: str) -> dict[str, Any]:
    return release.get("RayService", f"r-fovea-{model}")


def gateway_pods(release: Helm) -> dict[str, Any]:
    """What the gateway's pods are made of: a change of it is a roll-out."""
    template: dict[str, Any] = release.get("Deployment", GATEWAY)["spec"]["template"]
    return template


@pytest.fixture(scope="module")
def _installed() -> Iterator[Helm]:
    with helm() as release:
        release.install(VALUES)
        yield release


@pytest.fixture
def release(_installed: Helm) -> Helm:
    """A release with VALUES, in a cluster of several tests."""
    _installed.upgrade(VALUES)
    return _installed


KEPT: dict[str, list[str]] = {
    "default": [],
    "many-models": ["r-fovea-qwen2-vl-2b-models", "r-fovea-qwen2-vl-7b-models"],
    "90b-two-nodes": ["r-fovea-internvl3-78b-models"],
    "external-redis": [],
    "hpa": [],
    "keda": [],
    "no-monitoring": [],
    "cpu-demo": [],
    "long-names": ["a-release-whose-name-is-as-lon-abfaf-qwen-66b58-models"],
    "everything": ["vlm-production-qwen2-vl-2b-models"],
}
"""The volumes of weights that outlive a release; that of Ray's state, which no StatefulSet makes, goes with it."""


@pytest.mark.parametrize("scenario", rendering.SCENARIOS)
def test_every_scenario_lives_its_whole_life_and_nothing_but_kept_volumes_is_left(scenario: str) -> None:
    values = scenario_values(scenario)
    model = min(values["models"])
    changed = merged(values, {"gateway": {"image": {"tag": "9.9.9"}}, "models": {model: {"queue_depth": 40}}})
    with helm() as cluster:
        release = replace(cluster, release=rendering.LONG_RELEASE) if scenario == "long-names" else cluster
        before = release.everywhere()
        release.install(values)
        installed, annotated = release.own(), _kept(release)
        assert {"Deployment", "Service", "ConfigMap", "RayService"} <= {kind for kind, _ in installed}
        release.test()
        release.upgrade(changed)
        assert _changes(installed, release.own()) == {model}
        replicas = _scale(release, changed)
        assert replicas != _gateway(installed)["spec"]["replicas"]
        release.rollback(1)
        back = {key: _content(document) for key, document in installed.items()}
        if _has_autoscaler(values):
            _gateway(back)["spec"]["replicas"] = replicas
        assert {key: _content(document) for key, document in release.own().items()} == back
        assert release.statuses() == ["superseded"] * 3 + ["deployed"]
        release.uninstall()
        left = release.everywhere().keys() - before.keys()
    assert left == annotated == {("PersistentVolumeClaim", NAMESPACE, name) for name in KEPT[scenario]}


def _kept(release: Helm) -> set[tuple[str, str, str]]:
    """What asks Helm to leave it, wherever it is."""
    return {
        key
        for key, document in release.everywhere().items()
        if document["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
    }


def _gateway(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    (found,) = (document for (kind, name), document in objects.items() if kind == "Deployment" and name.endswith("-gateway"))
    return found


def _changes(before: dict[tuple[str, str], dict[str, Any]], after: dict[tuple[str, str], dict[str, Any]]) -> set[str]:
    """The models whose replicas begin anew, after an upgrade that has changed the gateway's image too and no Ray cluster."""
    (container,) = _gateway(after)["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith("/gateway:9.9.9")
    effects = {
        application(Document("", document))["name"]: effect(document, after[key])
        for key, document in before.items()
        if key[0] == "RayService"
    }
    assert set(effects.values()) <= {"nothing", "Serve restarts replicas"}
    return {model for model, done in effects.items() if done != "nothing"}


def _has_autoscaler(values: Values) -> bool:
    autoscaling = values.get("gateway", {}).get("autoscaling", {})
    return any(autoscaling.get(kind, {}).get("enabled") for kind in ("hpa", "keda"))


def _scale(release: Helm, values: Values) -> int:
    """By the autoscaler, or by the values where there is none; an upgrade follows, and the number is as it was set."""
    if _has_autoscaler(values):
        release.cluster.scale(release.key("Deployment", _gateway(release.own())["metadata"]["name"]), 7)
        release.upgrade(merged(values, {"gateway": {"image": {"tag": "9.9.10"}}}))
    else:
        release.upgrade(merged(values, {"gateway": {"replicas": 7}}))
    replicas: int = _gateway(release.own())["spec"]["replicas"]
    assert replicas == 7
    return replicas


@pytest.mark.parametrize("kubernetes", ["1.30", "1.37"])
@pytest.mark.parametrize("scenario", ["everything", "cpu-demo"])
def test_the_oldest_and_the_newest_kubernetes_take_it(scenario: str, kubernetes: str) -> None:
    with helm(kubernetes=kubernetes) as release:
        release.install(scenario_values(scenario))
        assert release.statuses() == ["deployed"]


def test_a_cluster_with_kuberay_alone_is_enough() -> None:
    with helm(kinds=CORE + KUBERAY) as release:
        release.install(merged(VALUES, {"kuberay": {"skipCheck": False}}))
        assert ("RayService", "r-fovea-still") in release.own()


def test_a_cluster_without_kuberay_is_told_what_is_missing_and_gets_nothing() -> None:
    with helm(kinds=CORE) as release:
        with pytest.raises(helm_python.HelmError, match=r"ray\.io/v1") as refused:
            release.install(VALUES)
        assert "kuberay.skipCheck" in str(refused.value)
        assert not release.own()


def test_two_releases_stand_side_by_side_in_one_namespace_with_secrets_of_their_own(release: Helm) -> None:
    before = release.own()
    second = Helm(release.cluster, release.config, release.chart, "s")
    second.install(VALUES)
    assert before.items() <= release.own().items()
    ours, theirs = (
        {text for name in GENERATED for text in secret_texts(release.get("Secret", name.replace("r-", f"{of}-", 1))).values()}
        for of in "rs"
    )
    assert not ours & theirs
    second.uninstall()
    assert release.own().keys() - before.keys() == {("PersistentVolumeClaim", "s-fovea-changed-models")}


def test_the_helm_test_fails_where_its_pod_does() -> None:
    with helm() as release:
        release.install(VALUES)
        release.cluster.end_of_pod = lambda pod: "Failed" if pod["metadata"]["name"] == "r-fovea-test" else "Succeeded"
        with pytest.raises(helm_python.HelmError, match="r-fovea-test"):
            release.test()
        release.cluster.end_of_pod = lambda _: "Succeeded"
        release.test()
        assert ("Pod", "r-fovea-test") not in release.own(), "a test that went well leaves no pod"


def test_the_same_values_again_change_nothing_at_all(release: Helm) -> None:
    before = release.own()
    release.upgrade(VALUES)
    assert release.own() == before


def test_a_new_version_of_the_chart_alone_leaves_engines_as_they_are(release: Helm, tmp_path: pathlib.Path) -> None:
    chart = tmp_path / "fovea"
    shutil.copytree(CHART, chart)
    text = (chart / "Chart.yaml").read_text(encoding="utf-8")
    assert 'version: 0.1.0\nappVersion: "0.1.0"' in text
    text = text.replace('version: 0.1.0\nappVersion: "0.1.0"', 'version: 9.9.9\nappVersion: "9.9.9"')
    (chart / "Chart.yaml").write_text(text, encoding="utf-8")
    engines = {model: service_of(release, model) for model in VALUES["models"]}
    pods = gateway_pods(release)
    Helm(release.cluster, release.config, chart).upgrade(VALUES)
    assert service_of(release, "still")["metadata"]["labels"]["helm.sh/chart"] == "fovea-9.9.9"
    assert {effect(before, service_of(release, model)) for model, before in engines.items()} == {"nothing"}
    assert gateway_pods(release) == pods


def test_a_model_that_comes_or_goes_leaves_the_others_alone(release: Helm) -> None:
    engines = {model: service_of(release, model) for model in VALUES["models"]}
    release.upgrade(merged(VALUES, {"models": {"fresh": MODEL}}))
    assert ("RayService", "r-fovea-fresh") in release.own()
    assert {effect(before, service_of(release, model)) for model, before in engines.items()} == {"nothing"}
    release.upgrade(merged(VALUES, {"models": {"changed": None}}))
    own = release.own()
    assert ("RayService", "r-fovea-fresh") not in own
    assert ("RayService", "r-fovea-changed") not in own
    assert ("PersistentVolumeClaim", "r-fovea-changed-models") in own, "weights outlive their model"
    assert effect(engines["still"], service_of(release, "still")) == "nothing"


def test_secrets_that_the_chart_made_stay_as_they_are() -> None:
    with helm() as release:
        release.install(VALUES)
        first = {name: secret_texts(release.get("Secret", name)) for name in GENERATED}
        release.upgrade(merged(VALUES, {"gateway": {"replicas": 3}, "engines": {"image": {"tag": "2.0.0"}}}))
        assert {name: secret_texts(release.get("Secret", name)) for name in GENERATED} == first
        release.rollback(1)
        assert {name: secret_texts(release.get("Secret", name)) for name in GENERATED} == first
    texts = [text for secret in first.values() for text in secret.values()]
    assert len(set(texts)) == len(texts) >= 3, "each is of its own"
    assert all(len(text) >= 32 for text in texts)


def test_a_secret_of_ones_own_is_used_and_not_touched() -> None:
    mine = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "mine"},
        "data": {"api-key": "YQ==", "auth_token": "Yg=="},
    }
    with helm() as release:
        release.cluster.create(release.key("Secret", "mine"), mine, Manager("owner"))
        before = release.get("Secret", "mine")
        release.install(merged(VALUES, {"engines": {"secret": {"existingSecret": "mine"}}}))
        assert ("Secret", "r-fovea-engines") not in release.own()
        release.uninstall()
        assert release.get("Secret", "mine") == before


def test_a_rollback_restores_every_object(release: Helm) -> None:
    before = {key: _content(document) for key, document in release.own().items()}
    revision = release.revision
    release.upgrade(
        merged(VALUES, {"models": {"changed": {"queue_depth": 1}, "fresh": MODEL}, "engines": {"image": {"tag": "2.0.0"}}})
    )
    assert {key: _content(document) for key, document in release.own().items()} != before
    release.rollback(revision)
    assert {key: _content(document) for key, document in release.own().items()} == before


def _content(document: dict[str, Any]) -> dict[str, Any]:
    """Without what a server counts."""
    content = copy.deepcopy(document)
    for name in ("uid", "resourceVersion", "generation", "managedFields"):
        content["metadata"].pop(name, None)
    content.pop("status", None)
    return content


def test_volumes_can_be_made_larger_and_nothing_is_made_anew_for_it(release: Helm) -> None:
    before = service_of(release, "changed")
    cache = {"kubernetes": {"modelCache": {"size": "400Gi"}}}
    release.upgrade(merged(VALUES, {"models": {"changed": cache}, "redis": {"rayState": {"persistence": {"size": "4Gi"}}}}))
    sizes = {
        name: document["spec"]["resources"]["requests"]["storage"]
        for (kind, name), document in release.own().items()
        if kind == "PersistentVolumeClaim"
    }
    assert sizes["r-fovea-changed-models"] == "400Gi"
    assert sizes["r-fovea-redis-ray-state"] == "4Gi"
    assert effect(before, service_of(release, "changed")) == "nothing"


def test_an_autoscaler_that_is_switched_on_begins_with_one_gateway() -> None:
    """As docs/operations.md warns: a field that nobody sets any more is as Kubernetes has it, until the autoscaler sets it."""
    with helm() as release:
        release.install(VALUES)
        release.upgrade(merged(VALUES, {"gateway": {"autoscaling": {"hpa": {"enabled": True}}}}))
        assert release.get("Deployment", GATEWAY)["spec"]["replicas"] == 1
        assert release.get("HorizontalPodAutoscaler", GATEWAY)["spec"]["minReplicas"] == 2


def test_an_uninstall_leaves_volumes_and_an_installation_takes_them_again() -> None:
    kept = {("PersistentVolumeClaim", "r-fovea-changed-models")}
    with helm() as release:
        release.install(VALUES)
        assert kept < {key for key in release.own() if key[0] == "PersistentVolumeClaim"}, "that of Ray's state is there too"
        volumes = {name: release.get(kind, name)["metadata"]["uid"] for kind, name in kept}
        said = release.uninstall()
        assert release.own().keys() == kept
        assert "r-fovea-changed-models" in said
        release.install(VALUES)
        assert {name: release.get(kind, name)["metadata"]["uid"] for kind, name in kept} == volumes
        release.test()
