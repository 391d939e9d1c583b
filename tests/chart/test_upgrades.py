"""What a change of the values does to engines that run: nothing, something in place, or a Ray cluster made anew.

A cluster made anew takes as many GPUs again until it is up, and minutes: whoever changes a price must not pay for that.
"""

import functools

import pytest

from tests.chart.rendering import Rendered, Values, merged, render
from tests.chart.upgrading import VALUES, Effect, effect


@functools.cache
def before() -> Rendered:
    return render(VALUES)


def effects(after: Rendered) -> dict[str, Effect]:
    """On the engines of each model."""
    return {model: effect(before().engine(model).body, after.engine(model).body) for model in VALUES["models"]}


# What changes, and whether gateways are rolled out for it.
NOTHING_ON_RAY: list[tuple[str, Values, bool]] = [
    ("price", {"models": {"changed": {"price": 3.0}}}, True),
    ("languages", {"models": {"changed": {"languages": ["de"]}}}, True),
    ("tier", {"models": {"changed": {"tier": "other"}, "still": {"tier": "other"}}}, True),
    ("max_image_pixels", {"models": {"changed": {"max_image_pixels": 1000000}}}, True),
    ("auto_detail", {"models": {"changed": {"auto_detail": "low"}}}, True),
    ("cache", {"models": {"changed": {"cache": {"ttl_s": 60.0}}}}, True),
    ("image_processor", {"models": {"changed": {"image_processor": {"max_pixels": 12845056}}}}, True),
    ("routing", {"routing": {"prefer": "accurate"}}, True),
    ("settings", {"gateway": {"settings": {"log_level": "debug"}}}, True),
    ("gateway's image", {"gateway": {"image": {"tag": "2.0.0"}}}, True),
    ("gateway's annotations", {"gateway": {"podAnnotations": {"a": "b"}}}, True),
    ("gateway's replicas", {"gateway": {"replicas": 3}}, False),
    ("gateway's service", {"gateway": {"service": {"annotations": {"a": "b"}}}}, False),
    ("a common label", {"commonLabels": {"team": "vision"}}, True),
    ("monitoring", {"monitoring": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}, False),
    ("network policies", {"networkPolicy": {"enabled": False}}, False),
    ("grammar", {"grammar": {"replicas": 2, "seconds": 4}}, False),
    ("initializing timeout", {"engines": {"model": {"initializingTimeout": "90m"}}}, False),
    ("upgrade strategy", {"engines": {"model": {"upgradeStrategy": "None"}}}, False),
    ("test", {"test": {"enabled": False}}, False),
]


@pytest.mark.parametrize(("change", "rolls"), [row[1:] for row in NOTHING_ON_RAY], ids=[row[0] for row in NOTHING_ON_RAY])
def test_what_is_the_gateway_s_alone_does_nothing_to_engines(change: Values, *, rolls: bool) -> None:
    after = render(merged(VALUES, change))
    assert set(effects(after).values()) == {"nothing"}
    assert (after.gateway.template != before().gateway.template) == rolls


OF_ONE_MODEL: list[tuple[str, Values, Effect]] = [
    ("replicas", {"replicas": 5}, "Serve adds or removes replicas"),
    ("one replica instead of two", {"replicas": 1}, "Serve restarts replicas"),
    ("queue_depth", {"queue_depth": 64}, "Serve restarts replicas"),
    ("context_tokens", {"context_tokens": 16384}, "Serve restarts replicas"),
    ("engine_args", {"engine_args": {"max_num_batched_tokens": 8192}}, "Serve restarts replicas"),
    ("revision", {"revision": "eed13092ef92e448dd6875b2a00151bd3f7db0ac"}, "Serve restarts replicas"),
    ("longest_answer_s", {"longest_answer_s": 240}, "new Ray cluster"),
    ("tensor_parallel", {"tensor_parallel": 2}, "new Ray cluster"),
    ("resources", {"kubernetes": {"resources": {"requests": {"cpu": "4"}}}}, "new Ray cluster"),
    ("shared memory", {"kubernetes": {"sharedMemory": "8Gi"}}, "new Ray cluster"),
    ("environment", {"kubernetes": {"extraEnv": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}]}}, "new Ray cluster"),
    ("node selector", {"kubernetes": {"nodeSelector": {"zone": "a"}}}, "new Ray cluster"),
    ("annotations", {"kubernetes": {"annotations": {"a": "b"}}}, "new Ray cluster"),
]


@pytest.mark.parametrize(("change", "expected"), [row[1:] for row in OF_ONE_MODEL], ids=[row[0] for row in OF_ONE_MODEL])
def test_what_is_one_model_s_is_done_to_that_model_s_engines(change: Values, expected: Effect) -> None:
    after = render(merged(VALUES, {"models": {"changed": change}}))
    assert effects(after) == {"still": "nothing", "scaling": "nothing", "changed": expected}


OF_ALL_ENGINES: list[tuple[str, Values]] = [
    ("image", {"engines": {"image": {"tag": "2.0.0"}}}),
    ("body_mib", {"limits": {"body_mib": 32}}),
    ("token of Hugging Face", {"engines": {"huggingFace": {"existingSecret": "hub"}}}),
    ("state of Ray", {"redis": {"rayState": {"kind": "none"}}}),
    ("head", {"engines": {"head": {"resources": {"requests": {"cpu": "2"}}}}}),
]


@pytest.mark.parametrize("change", [row[1] for row in OF_ALL_ENGINES], ids=[row[0] for row in OF_ALL_ENGINES])
def test_what_all_engines_share_makes_new_clusters_of_all(change: Values) -> None:
    assert set(effects(render(merged(VALUES, change))).values()) == {"new Ray cluster"}


BOUNDS: list[tuple[Values, Effect]] = [
    ({"min_replicas": 2}, "Serve adds or removes replicas"),
    ({"max_replicas": 2}, "Serve adds or removes replicas"),
    ({"max_replicas": 6}, "Serve adds or removes replicas"),
    ({"target_in_flight": 7.5}, "Serve adds or removes replicas"),
    ({"upscale_delay_s": 0}, "Serve adds or removes replicas"),
    ({"downscale_delay_s": 60}, "Serve adds or removes replicas"),
    # Between one and several nobody, and somebody, chooses.
    ({"max_replicas": 1}, "Serve restarts replicas"),
]


@pytest.mark.parametrize(("change", "expected"), BOUNDS, ids=[str(change) for change, _ in BOUNDS])
def test_bounds_of_autoscaling_change_beside_engines_that_run(change: Values, expected: Effect) -> None:
    after = render(merged(VALUES, {"models": {"scaling": {"autoscaling": change}}}))
    assert effects(after) == {"still": "nothing", "changed": "nothing", "scaling": expected}


def test_between_a_number_of_replicas_and_autoscaling_there_is_a_new_cluster() -> None:
    autoscaling = {"min_replicas": 1, "max_replicas": 3, "target_in_flight": 12}
    after = render(merged(VALUES, {"models": {"changed": {"replicas": None, "autoscaling": autoscaling}}}))
    assert effects(after)["changed"] == "new Ray cluster"


def test_two_renderings_of_the_same_values_are_the_same_to_engines_and_gateways() -> None:
    assert set(effects(render(VALUES)).values()) == {"nothing"}
    assert render(VALUES).gateway.template == before().gateway.template
