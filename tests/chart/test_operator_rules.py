"""What KubeRay (1.6 and 1.7) refuses at run time although its schema lets it pass, or takes without a word and does not do."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.chart.rendering import SCENARIOS, scenario
from tests.chart.spoiling import GONE, spoilt

_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(h|ms|m|s))+")
_RESOURCE_PARAMS = ("num-cpus", "num-gpus", "memory", "resources")

Body = dict[str, Any]


def _cluster(body: Body) -> dict[str, Any]:
    cluster: dict[str, Any] = body["spec"]["rayClusterConfig"]
    return cluster


def _head(body: Body) -> dict[str, Any]:
    head: dict[str, Any] = _cluster(body)["headGroupSpec"]
    return head


def _groups(body: Body) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = _cluster(body)["workerGroupSpecs"]
    return groups


def _all_groups(body: Body) -> list[dict[str, Any]]:
    return [_head(body), *_groups(body)]


def _variables(group: dict[str, Any]) -> set[str]:
    return {entry["name"] for container in group["template"]["spec"]["containers"] for entry in container.get("env", [])}


def _scales(body: Body) -> bool:
    return bool(_cluster(body).get("enableInTreeAutoscaling"))


def _scales_by_v2(body: Body) -> bool:
    return _scales(body) and _cluster(body).get("autoscalerOptions", {}).get("version") == "v2"


def _ray(body: Body) -> tuple[int, ...]:
    return tuple(int(part) for part in _cluster(body)["rayVersion"].split("."))


def _keeps_state(body: Body) -> bool:
    return "gcsFaultToleranceOptions" in _cluster(body)


def the_name_leaves_room_for_what_is_made_of_it(body: Body) -> bool:
    name = body["metadata"]["name"]
    return len(name) <= 47 and _DNS_1035.fullmatch(name) is not None


def the_time_to_start_is_a_positive_duration(body: Body) -> bool:
    said = body["metadata"].get("annotations", {}).get("ray.io/initializing-timeout", "1s")
    return (_DURATION.fullmatch(said) is not None or said.isdecimal()) and re.search("[1-9]", said) is not None


def the_upgrade_strategy_is_the_service_s(body: Body) -> bool:
    return "upgradeStrategy" not in _cluster(body)


def the_upgrade_strategy_is_one_that_the_gateway_s_address_survives(body: Body) -> bool:
    """By the third one, `<name>-serve-svc` is no longer where a model answers."""
    said: str = body["spec"].get("upgradeStrategy", {}).get("type", "NewCluster")
    return said in {"NewCluster", "None"}


def the_head_service_has_the_operator_s_name(body: Body) -> bool:
    return "name" not in _head(body).get("headService", {}).get("metadata", {})


def every_group_has_a_container(body: Body) -> bool:
    return all(group["template"]["spec"]["containers"] for group in _all_groups(body))


def no_two_groups_share_a_name(body: Body) -> bool:
    names = [group["groupName"] for group in _groups(body)]
    return len(set(names)) == len(names)


def the_head_has_a_port_called_serve(body: Body) -> bool:
    """Without it there is no `<name>-serve-svc`."""
    ports = _head(body)["template"]["spec"]["containers"][0].get("ports", [])
    return any(port.get("name") == "serve" for port in ports)


def pods_that_the_autoscaler_rules_never_restart(body: Body) -> bool:
    policies = {group["template"]["spec"].get("restartPolicy", "Never") for group in _all_groups(body)}
    return not _scales_by_v2(body) or policies == {"Never"}


def the_autoscaler_s_version_is_not_a_variable(body: Body) -> bool:
    return "RAY_enable_autoscaler_v2" not in _variables(_head(body))


def only_the_second_autoscaler_knows_idle_times_of_groups(body: Body) -> bool:
    return _scales_by_v2(body) or not any("idleTimeoutSeconds" in group for group in _groups(body))


def only_the_second_autoscaler_knows_priorities(body: Body) -> bool:
    knows = _scales_by_v2(body) and _ray(body) >= (2, 56)
    return knows or not any("priority" in group for group in _groups(body))


def ray_is_new_enough_for_tokens(body: Body) -> bool:
    asks = _cluster(body).get("authOptions", {}).get("mode") == "token"
    return not asks or _ray(body) >= (2, 52)


def labels_are_not_start_parameters(body: Body) -> bool:
    return not any("labels" in group["rayStartParams"] for group in _all_groups(body))


def resources_are_said_in_one_place(body: Body) -> bool:
    return not any(
        group.get("resources") and any(param in group["rayStartParams"] for param in _RESOURCE_PARAMS)
        for group in _all_groups(body)
    )


def redis_is_named_in_its_own_place(body: Body) -> bool:
    """With the options, and without: then a variable alone would switch fault tolerance on."""
    params, variables = _head(body)["rayStartParams"], _variables(_head(body))
    return not (
        {"redis-password", "redis-username"} & params.keys()
        or {"REDIS_USERNAME", "RAY_REDIS_ADDRESS"} & variables
        or (_keeps_state(body) and "REDIS_PASSWORD" in variables)
    )


def fault_tolerance_is_not_annotated(body: Body) -> bool:
    annotated = body["metadata"].get("annotations", {}).keys()
    return not {"ray.io/ft-enabled", "ray.io/external-storage-namespace"} & annotated


def both_ends_of_a_group_are_said(body: Body) -> bool:
    return all({"minReplicas", "maxReplicas"} <= group.keys() for group in _groups(body))


def no_group_begins_outside_its_ends(body: Body) -> bool:
    return all(
        group.get("minReplicas", 0) <= group.get("replicas", 0) <= group.get("maxReplicas", 2**31 - 1)
        for group in _groups(body)
    )


def a_group_that_nobody_scales_has_one_size(body: Body) -> bool:
    """The operator corrects nothing: it would stay at the number that it had."""
    return _scales(body) or all(group.get("minReplicas") == group.get("maxReplicas") for group in _groups(body))


def the_head_offers_nothing_to_replicas(body: Body) -> bool:
    """An engine on the head would have neither its memory nor its grace."""
    params: dict[str, str] = _head(body)["rayStartParams"]
    return params.get("num-cpus") == "0" and params.get("num-gpus", "0") == "0"


def the_head_takes_no_requests(body: Body) -> bool:
    return body["spec"].get("excludeHeadPodFromServeSvc") is True


def nobody_gets_in_without_a_token(body: Body) -> bool:
    options = _cluster(body).get("authOptions", {})
    return options.get("mode") == "token" and bool(options.get("secretName"))


def heads_keep_the_labels_that_the_operator_selects_them_by(body: Body) -> bool:
    """Its Services of the head want them with its own values."""
    labels = _head(body)["template"].get("metadata", {}).get("labels", {}).keys()
    return not {"app.kubernetes.io/name", "app.kubernetes.io/created-by"} & labels and not any(
        label.startswith("ray.io/") for label in labels
    )


def every_port_has_its_protocol(body: Body) -> bool:
    """The API server knows ports by both: one that is applied without is not the one that is there."""
    return all(
        "protocol" in port
        for group in _all_groups(body)
        for container in group["template"]["spec"]["containers"]
        for port in container.get("ports", [])
    )


RULES: tuple[Callable[[Body], bool], ...] = (
    the_name_leaves_room_for_what_is_made_of_it,
    the_time_to_start_is_a_positive_duration,
    the_upgrade_strategy_is_the_service_s,
    the_upgrade_strategy_is_one_that_the_gateway_s_address_survives,
    the_head_service_has_the_operator_s_name,
    every_group_has_a_container,
    no_two_groups_share_a_name,
    the_head_has_a_port_called_serve,
    pods_that_the_autoscaler_rules_never_restart,
    the_autoscaler_s_version_is_not_a_variable,
    only_the_second_autoscaler_knows_idle_times_of_groups,
    only_the_second_autoscaler_knows_priorities,
    ray_is_new_enough_for_tokens,
    labels_are_not_start_parameters,
    resources_are_said_in_one_place,
    redis_is_named_in_its_own_place,
    fault_tolerance_is_not_annotated,
    both_ends_of_a_group_are_said,
    no_group_begins_outside_its_ends,
    a_group_that_nobody_scales_has_one_size,
    the_head_offers_nothing_to_replicas,
    the_head_takes_no_requests,
    nobody_gets_in_without_a_token,
    heads_keep_the_labels_that_the_operator_selects_them_by,
    every_port_has_its_protocol,
)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_operator_takes_every_ray_service(name: str) -> None:
    services = scenario(name).of_kind("RayService")

    assert services
    broken = {service.name: [rule.__name__ for rule in RULES if not rule(service.body)] for service in services}
    assert {service: rules for service, rules in broken.items() if rules} == {}


def _good() -> Body:
    """One that every rule takes, with all that a rule is about."""
    port = {"name": "serve", "containerPort": 8000, "protocol": "TCP"}
    container = {"name": "ray", "image": "i", "env": [], "ports": [port]}
    group = {"rayStartParams": {"num-cpus": "0"}, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    cluster = {
        "rayVersion": "2.60.0",
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"version": "v2"},
        "authOptions": {"mode": "token", "secretName": "s"},
        "gcsFaultToleranceOptions": {"redisAddress": "redis:6379"},
        "headGroupSpec": copy.deepcopy(group) | {"headService": {"metadata": {}}},
        "workerGroupSpecs": [
            copy.deepcopy(group)
            | {"groupName": "w", "replicas": 1, "minReplicas": 1, "maxReplicas": 2, "idleTimeoutSeconds": 60, "priority": 1}
        ],
    }
    return {
        "metadata": {"name": "r-fovea-small", "annotations": {"ray.io/initializing-timeout": "60m"}},
        "spec": {
            "upgradeStrategy": {"type": "NewCluster"},
            "excludeHeadPodFromServeSvc": True,
            "rayClusterConfig": cluster,
        },
    }


_CLUSTER = "spec/rayClusterConfig"
_HEAD = f"{_CLUSTER}/headGroupSpec"
_WORKER = f"{_CLUSTER}/workerGroupSpecs/0"
_HEAD_ENV = f"{_HEAD}/template/spec/containers/0/env"
_ANNOTATIONS = "metadata/annotations"
_METADATA = f"{_HEAD}/template/metadata"


def _variable(name: str) -> list[dict[str, str]]:
    return [{"name": name, "value": "1"}]


_SPOILT: list[tuple[Callable[[Body], bool], str, Any]] = [
    (the_name_leaves_room_for_what_is_made_of_it, "metadata/name", "a" * 48),
    (the_name_leaves_room_for_what_is_made_of_it, "metadata/name", "7b"),
    (the_name_leaves_room_for_what_is_made_of_it, "metadata/name", "qwen2.5"),
    (the_time_to_start_is_a_positive_duration, _ANNOTATIONS, {"ray.io/initializing-timeout": "soon"}),
    (the_time_to_start_is_a_positive_duration, _ANNOTATIONS, {"ray.io/initializing-timeout": "0s"}),
    (the_time_to_start_is_a_positive_duration, _ANNOTATIONS, {"ray.io/initializing-timeout": "-5m"}),
    (the_time_to_start_is_a_positive_duration, _ANNOTATIONS, {"ray.io/initializing-timeout": "0"}),
    (the_upgrade_strategy_is_the_service_s, f"{_CLUSTER}/upgradeStrategy", {"type": "Recreate"}),
    (
        the_upgrade_strategy_is_one_that_the_gateway_s_address_survives,
        *("spec/upgradeStrategy/type", "NewClusterWithIncrementalUpgrade"),
    ),
    (the_head_service_has_the_operator_s_name, f"{_HEAD}/headService/metadata/name", "h"),
    (every_group_has_a_container, f"{_HEAD}/template/spec/containers", []),
    (every_group_has_a_container, f"{_WORKER}/template/spec/containers", []),
    (no_two_groups_share_a_name, f"{_CLUSTER}/workerGroupSpecs", [{"groupName": "w"}, {"groupName": "w"}]),
    (the_head_has_a_port_called_serve, f"{_HEAD}/template/spec/containers/0/ports", [{"name": "http"}]),
    (pods_that_the_autoscaler_rules_never_restart, f"{_HEAD}/template/spec/restartPolicy", "Always"),
    (pods_that_the_autoscaler_rules_never_restart, f"{_WORKER}/template/spec/restartPolicy", "OnFailure"),
    (the_autoscaler_s_version_is_not_a_variable, _HEAD_ENV, _variable("RAY_enable_autoscaler_v2")),
    (only_the_second_autoscaler_knows_idle_times_of_groups, f"{_CLUSTER}/autoscalerOptions/version", "v1"),
    (only_the_second_autoscaler_knows_idle_times_of_groups, f"{_CLUSTER}/enableInTreeAutoscaling", False),
    (only_the_second_autoscaler_knows_priorities, f"{_CLUSTER}/autoscalerOptions/version", "v1"),
    (only_the_second_autoscaler_knows_priorities, f"{_CLUSTER}/rayVersion", "2.55.1"),
    (ray_is_new_enough_for_tokens, f"{_CLUSTER}/rayVersion", "2.51.2"),
    (labels_are_not_start_parameters, f"{_HEAD}/rayStartParams/labels", "a=b"),
    (labels_are_not_start_parameters, f"{_WORKER}/rayStartParams/labels", "a=b"),
    (resources_are_said_in_one_place, f"{_HEAD}/resources", {"CPU": "1"}),
    (resources_are_said_in_one_place, f"{_WORKER}/resources", {"CPU": "1"}),
    (redis_is_named_in_its_own_place, f"{_HEAD}/rayStartParams/redis-password", "p"),
    (redis_is_named_in_its_own_place, f"{_HEAD}/rayStartParams/redis-username", "u"),
    (redis_is_named_in_its_own_place, _HEAD_ENV, _variable("REDIS_PASSWORD")),
    (redis_is_named_in_its_own_place, _HEAD_ENV, _variable("REDIS_USERNAME")),
    (redis_is_named_in_its_own_place, _HEAD_ENV, _variable("RAY_REDIS_ADDRESS")),
    (fault_tolerance_is_not_annotated, _ANNOTATIONS, {"ray.io/ft-enabled": "true"}),
    (fault_tolerance_is_not_annotated, _ANNOTATIONS, {"ray.io/external-storage-namespace": "n"}),
    (both_ends_of_a_group_are_said, f"{_WORKER}/minReplicas", GONE),
    (both_ends_of_a_group_are_said, f"{_WORKER}/maxReplicas", GONE),
    (no_group_begins_outside_its_ends, f"{_WORKER}/replicas", 0),
    (no_group_begins_outside_its_ends, f"{_WORKER}/replicas", 3),
    (no_group_begins_outside_its_ends, f"{_WORKER}/minReplicas", 3),
    (a_group_that_nobody_scales_has_one_size, f"{_CLUSTER}/enableInTreeAutoscaling", False),
    (the_head_offers_nothing_to_replicas, f"{_HEAD}/rayStartParams/num-cpus", GONE),
    (the_head_offers_nothing_to_replicas, f"{_HEAD}/rayStartParams/num-gpus", "1"),
    (the_head_takes_no_requests, "spec/excludeHeadPodFromServeSvc", GONE),
    (nobody_gets_in_without_a_token, f"{_CLUSTER}/authOptions", GONE),
    (nobody_gets_in_without_a_token, f"{_CLUSTER}/authOptions/secretName", GONE),
    (heads_keep_the_labels_that_the_operator_selects_them_by, _METADATA, {"labels": {"app.kubernetes.io/name": "fovea"}}),
    (heads_keep_the_labels_that_the_operator_selects_them_by, _METADATA, {"labels": {"app.kubernetes.io/created-by": "helm"}}),
    (heads_keep_the_labels_that_the_operator_selects_them_by, _METADATA, {"labels": {"ray.io/node-type": "worker"}}),
    (every_port_has_its_protocol, f"{_HEAD}/template/spec/containers/0/ports/0/protocol", GONE),
    (every_port_has_its_protocol, f"{_WORKER}/template/spec/containers/0/ports/0/protocol", GONE),
]


def test_the_good_one_breaks_no_rule() -> None:
    assert [rule.__name__ for rule in RULES if not rule(_good())] == []


@pytest.mark.parametrize(("rule", "path", "value"), _SPOILT)
def test_a_rule_finds_what_it_is_about(rule: Callable[[Body], bool], path: str, value: Any) -> None:
    assert not rule(spoilt(_good(), path, value))


def test_a_redis_without_its_options_is_found() -> None:
    body = spoilt(spoilt(_good(), f"{_CLUSTER}/gcsFaultToleranceOptions", GONE), _HEAD_ENV, _variable("RAY_REDIS_ADDRESS"))

    assert not redis_is_named_in_its_own_place(body)


def test_no_rule_is_without_a_case() -> None:
    assert set(RULES) == {rule for rule, _, _ in _SPOILT}
