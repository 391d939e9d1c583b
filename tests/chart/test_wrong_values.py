"""Wrong values are refused before anything is sent to a cluster, with a sentence that names the key."""

import functools
import hashlib

import helm_python
import pytest

from gateway.settings import Settings
from tests.chart.entries import ENTRY, NAME, PROVIDER, of_model
from tests.chart.environment import environment
from tests.chart.rendering import Values, loaded_chart, merged, refusal, render, scenario_values

_HPA = {"gateway": {"autoscaling": {"hpa": {"enabled": True}}}}
_KEDA = {"gateway": {"autoscaling": {"keda": {"enabled": True, "serverAddress": "http://p:9090"}}}}

_WRONG: dict[str, tuple[Values, tuple[str, ...]]] = {
    # Typos, at every depth.
    "a typo at the top": ({"gatway": {}}, ("gatway",)),
    "a typo below": ({"gateway": {"replcas": 3}}, ("gateway", "replcas")),
    "a typo in a model's kubernetes": (of_model(kubernetes={"sharedMem": "1Gi"}), (NAME, "kubernetes", "sharedMem")),
    "a typo in a profile": ({"profiles": {"default": {"nodeSelektor": {}}}}, ("profiles", "nodeSelektor")),
    # Types and ranges.
    "a word for a number": ({"gateway": {"replicas": "two"}}, ("gateway", "replicas")),
    "a number for a yes or no": ({"grammar": {"enabled": 1}}, ("grammar", "enabled")),
    "no gateways": ({"gateway": {"replicas": 0}}, ("gateway", "replicas")),
    "a word for a list": ({"imagePullSecrets": "registry"}, ("imagePullSecrets",)),
    "a kind that there is not": ({"redis": {"answers": {"kind": "built-in"}}}, ("redis", "answers", "kind")),
    "a kind of cache that there is not": (
        of_model(kubernetes={"modelCache": {"kind": "hostPath"}}),
        (NAME, "modelCache", "kind"),
    ),
    "an upgrade by which addresses change": (
        {"engines": {"model": {"upgradeStrategy": "NewClusterWithIncrementalUpgrade"}}},
        ("engines", "upgradeStrategy"),
    ),
    "a digest that is none": ({"gateway": {"image": {"digest": "latest"}}}, ("gateway", "image", "digest")),
    "a name of Ray's pods, which KubeRay gives": (
        {"engines": {"model": {"labels": {"app.kubernetes.io/name": "vision"}}}},
        ("engines", "labels", "app.kubernetes.io", "name"),
    ),
    "an API server whose ports are taken away": ({"networkPolicy": {"apiServer": {"ports": None}}}, ("apiServer", "ports")),
    "an API server without ports, which would be all": (
        {"networkPolicy": {"apiServer": {"ports": []}}},
        ("apiServer", "ports"),
    ),
    "a quantity that is none": ({"engines": {"model": {"sharedMemory": "16 gigs"}}}, ("engines", "sharedMemory")),
    "a duration that is none": ({"engines": {"model": {"initializingTimeout": "soon"}}}, ("initializingTimeout",)),
    # Models.
    "an address of engines": (of_model(engine_url="http://elsewhere:8000"), (NAME, "engine_url")),
    "addresses of engines": (of_model(engine_urls=["http://elsewhere:8000"]), (NAME, "engine_urls")),
    "a profile that there is not": (
        of_model(kubernetes={"profile": "h200"}),
        (NAME, "kubernetes.profile", "h200", "default"),
    ),
    "more GPUs than a node has, and no multiple": (
        of_model(tensor_parallel=12, kv_cache={"attention_heads": 24, "kv_heads": 12}),
        (f"models.{NAME}.tensor_parallel", "12", "does not fit"),
    ),
    "more GPUs than all nodes have": (
        merged(of_model(tensor_parallel=28), {"profiles": {"default": {"hardware": {"nodes": 3, "gpus_per_node": 7}}}}),
        (f"models.{NAME}.tensor_parallel", "28", "does not fit", "nodes"),
    ),
    "profiles of two kinds": (
        {
            "profiles": {"cpus": {"hardware": {"kind": "cpu"}}},
            "models": {
                "other": {
                    **ENTRY,
                    "kubernetes": {"profile": "cpus"},
                    "kv_cache": {"layers": 1, "attention_heads": 1, "kv_heads": 1, "head_dim": 1, "memory_gib": 1},
                }
            },
        },
        ("profiles.cpus.hardware.kind", "profiles.default.hardware.kind"),
    ),
    "GPUs that a replica does not have": (
        of_model(kubernetes={"resources": {"limits": {"nvidia.com/gpu": 4}}}),
        (f"models.{NAME}.kubernetes.resources.limits", "4", "nvidia.com/gpu", "tensor_parallel"),
    ),
    "environment of engines that is the chart's": (
        {"engines": {"model": {"extraEnv": [{"name": "HF_HOME", "value": "/models/hf"}]}}},
        (f"models.{NAME}.kubernetes.extraEnv", "HF_HOME"),
    ),
    "a volume of engines that is the chart's": (
        of_model(kubernetes={"extraVolumes": [{"name": "models", "emptyDir": {}}]}),
        (f"models.{NAME}.kubernetes.extraVolumes", "models"),
    ),
    "a place in engines that is the chart's": (
        of_model(kubernetes={"extraVolumeMounts": [{"name": "weights", "mountPath": "/models"}]}),
        (f"models.{NAME}.kubernetes.extraVolumeMounts", "/models"),
    ),
    "a chart that is switched off and asked for": ({"enabled": False}, ("enabled",)),
    "no claim to use": (
        of_model(kubernetes={"modelCache": {"kind": "existingClaim"}}),
        (f"models.{NAME}.kubernetes.modelCache.existingClaim",),
    ),
    "a model from elsewhere that nobody may fetch": (
        {"engines": {"offline": True}},
        ("engines.offline", f"models.{NAME} ", "kubernetes.modelCache.kind", "emptyDir"),
    ),
    "an adapter from elsewhere that nobody may fetch": (
        merged(
            {"engines": {"offline": True}}, of_model(source="/models/here", adapters={"forms": {"source": "somebody/forms"}})
        ),
        ("engines.offline", f"models.{NAME} ", "kubernetes.modelCache.kind", "emptyDir"),
    ),
    "a demo model where nothing can be written": (
        merged({"grammar": {"modelCache": {"existingClaim": "weights"}}}, of_model(source="demo:small")),
        ("grammar.modelCache.existingClaim", "weights", f"models.{NAME}.source", "demo:small"),
    ),
    # What leads to models, and away.
    "a provider's key and no keys": (
        {"providers": {"p": {**PROVIDER, "key": "k"}}, "data_may_leave": True},
        ("gateway.providerKeys.existingSecret", "p"),
    ),
    # Callers and settings.
    "nobody's keys": ({"gateway": {"apiKeys": {"existingSecret": ""}}}, ("gateway.apiKeys.existingSecret", "fovea key")),
    "a setting that there is not": ({"gateway": {"settings": {"log_levels": "debug"}}}, ("settings", "log_levels")),
    "a setting with a value that it cannot have": ({"gateway": {"settings": {"log_level": "loud"}}}, ("settings", "log_level")),
    "a setting as a variable": (
        {"gateway": {"extraEnv": [{"name": "FOVEA_PORT", "value": "1"}]}},
        ("gateway.extraEnv", "FOVEA_PORT"),
    ),
    "bodies that find no room": (
        {"gateway": {"settings": {"body_mib_in_flight": 32}}},
        ("gateway.settings.body_mib_in_flight", "limits.body_mib"),
    ),
    "a pod without room for bodies": (
        {"gateway": {"resources": {"requests": {"memory": "512Mi"}}}},
        ("gateway.resources.requests.memory", "body_mib_in_flight"),
    ),
    # How many gateways.
    "two that scale": (
        merged(_HPA, _KEDA),
        ("gateway.autoscaling.hpa.enabled", "gateway.autoscaling.keda.enabled"),
    ),
    "KEDA without a Prometheus": (
        {"gateway": {"autoscaling": {"keda": {"enabled": True}}}},
        ("gateway.autoscaling.keda.serverAddress",),
    ),
    "the least above the most, HPA": (
        merged(_HPA, {"gateway": {"autoscaling": {"hpa": {"minReplicas": 11}}}}),
        ("gateway.autoscaling.hpa.minReplicas", "11", "10"),
    ),
    "the least above the most, KEDA": (
        merged(_KEDA, {"gateway": {"autoscaling": {"keda": {"minReplicas": 11}}}}),
        ("gateway.autoscaling.keda.minReplicas", "11", "10"),
    ),
    "all gateways away at once": (
        {"gateway": {"podDisruptionBudget": {"maxUnavailable": 2}}},
        ("gateway.podDisruptionBudget.maxUnavailable", "2"),
    ),
    # Ways in.
    "an Ingress of nothing": ({"gateway": {"ingress": {"enabled": True}}}, ("gateway.ingress.hosts",)),
    "an HTTPRoute of nobody": ({"gateway": {"httpRoute": {"enabled": True}}}, ("gateway.httpRoute.parentRefs",)),
    # Redis.
    "a Redis elsewhere without its address": (
        {"redis": {"answers": {"kind": "external"}}},
        ("redis.answers.external.existingSecret",),
    ),
    "a state elsewhere without its address": (
        {"redis": {"rayState": {"kind": "external"}}},
        ("redis.rayState.external.address",),
    ),
    "a state's address without its port": (
        {"redis": {"rayState": {"kind": "external", "external": {"address": "rediss://redis.data.svc"}}}},
        ("redis", "rayState", "external", "address"),
    ),
    "a state's address with its password": (
        {"redis": {"rayState": {"kind": "external", "external": {"address": "rediss://:secret@redis.data.svc:6379"}}}},
        ("redis", "rayState", "external", "address"),
    ),
    "a state's address of another protocol": (
        {"redis": {"rayState": {"kind": "external", "external": {"address": "https://redis.data.svc:6379"}}}},
        ("redis", "rayState", "external", "address"),
    ),
    # Names.
    "a name that is too long": ({"fullnameOverride": "a" * 37}, ("fullnameOverride",)),
    "a name that begins with a digit": ({"fullnameOverride": "7b"}, ("fullnameOverride",)),
    "two models with one RayService": (
        {"models": dict.fromkeys(("a.b", f"a-b-{hashlib.sha256(b'a.b').hexdigest()[:5]}"), ENTRY)},
        ("models.", "a.b", "RayService"),
    ),
    # The cluster.
    "a cluster without KubeRay": ({"kuberay": {"skipCheck": False}}, ("kuberay.skipCheck", "ray.io/v1")),
}


@pytest.mark.parametrize("what", _WRONG)
def test_it_is_refused_with_its_key(what: str) -> None:
    change, words = _WRONG[what]
    message = refusal(merged(scenario_values("default"), change))

    missing = [word for word in words if word not in message]
    assert missing == [], message


def test_the_scenario_that_is_spoilt_is_a_good_one() -> None:
    assert render(scenario_values("default")).documents


@pytest.mark.parametrize("setting", sorted(Settings.model_fields))
def test_a_setting_is_taken_or_said_to_be_the_chart_s(setting: str) -> None:
    """Every one of the gateway's own is among them, and no other."""
    if setting in _OF_THE_CHART:
        assert setting in refusal(_with_settings({setting: "of the chart"}))
    else:
        assert f"FOVEA_{setting.upper()}" in _variables()


@functools.cache
def _variables() -> set[str]:
    """What the gateway finds where every setting is said."""
    release = render(_with_settings(_SETTINGS))
    return set(environment(release, release.gateway))


def _with_settings(settings: Values) -> Values:
    return merged(scenario_values("default"), {"gateway": {"settings": settings}})


_OF_THE_CHART = {
    *("catalog", "engines_url", "engines_api_key", "grammar_url", "host", "port", "api_keys_file"),
    *("provider_keys_file", "redis_url", "otlp_endpoint", "drain_delay_s"),
}
_SETTINGS = {
    name: list(field.default) if isinstance(field.default, tuple) else field.default
    for name, field in Settings.model_fields.items()
    if name not in _OF_THE_CHART
}


def test_a_profile_of_another_kind_is_of_no_matter_while_no_model_uses_it() -> None:
    assert render(merged(scenario_values("default"), {"profiles": {"cpus": {"hardware": {"kind": "cpu"}}}})).documents


@pytest.mark.parametrize(
    "own",
    [
        {"source": "/models/here"},
        {"kubernetes": {"modelCache": {"kind": "persistentVolumeClaim"}}},
        {"kubernetes": {"modelCache": {"kind": "existingClaim", "existingClaim": "weights"}}},
    ],
)
def test_a_model_that_is_here_needs_nothing_from_elsewhere(own: Values) -> None:
    assert render(merged(scenario_values("default"), {"engines": {"offline": True}} | of_model(**own))).documents


def test_gpus_that_are_said_as_the_chart_would_say_them_are_no_mistake() -> None:
    own = of_model(kubernetes={"resources": {"limits": {"nvidia.com/gpu": 1}}})
    assert render(merged(scenario_values("default"), own)).documents


def test_a_chart_that_this_is_a_part_of_may_take_it_by_a_condition() -> None:
    of_the_whole = {"enabled": True, "global": {"imageRegistry": "registry.example.org"}}
    titles = [document.title for document in render(merged(scenario_values("default"), of_the_whole)).documents]
    assert titles == [document.title for document in render(scenario_values("default")).documents]


def test_what_the_schema_says_it_says_without_rendering() -> None:
    with pytest.raises(helm_python.HelmValuesError, match="replcas"):
        loaded_chart().validate_schema(merged(scenario_values("default"), {"gateway": {"replcas": 3}}))
