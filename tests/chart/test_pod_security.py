"""Every pod passes PodSecurity's profile `restricted`, as Kubernetes' documents define it, and has no more than it needs."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.chart.rendering import SCENARIOS, Pod, Rendered, Values, merged, render, scenario, scenario_values
from tests.chart.spoiling import GONE, spoilt

Spec = dict[str, Any]

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_CAPABILITIES = {"NET_BIND_SERVICE"}
_SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
    *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}


def _containers(spec: Spec) -> list[dict[str, Any]]:
    return [container for kind in ("initContainers", "containers", "ephemeralContainers") for container in spec.get(kind, [])]


def _contexts(spec: Spec) -> list[dict[str, Any]]:
    """The pod's, then the containers'."""
    return [spec.get("securityContext", {}), *(container.get("securityContext", {}) for container in _containers(spec))]


def _in_effect(spec: Spec, field: str) -> list[Any]:
    """What holds for each container: its own word, or the pod's."""
    pod, *containers = _contexts(spec)
    return [own.get(field, pod.get(field)) for own in containers]


def no_part_of_the_host(spec: Spec) -> bool:
    return not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))


def no_port_of_the_host(spec: Spec) -> bool:
    return not any(port.get("hostPort") for container in _containers(spec) for port in container.get("ports", []))


def no_other_host_is_asked(spec: Spec) -> bool:
    return not any("host" in asked for container in _containers(spec) for asked in _asked(container))


def _asked(container: dict[str, Any]) -> Iterator[dict[str, Any]]:
    handlers = [container.get(probe, {}) for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    handlers += container.get("lifecycle", {}).values()
    for handler in handlers:
        yield from (handler[way] for way in ("httpGet", "tcpSocket") if way in handler)


def no_process_of_a_windows_host(spec: Spec) -> bool:
    return not any(context.get("windowsOptions", {}).get("hostProcess") for context in _contexts(spec))


def nobody_is_privileged(spec: Spec) -> bool:
    return not any(context.get("privileged") for context in _contexts(spec))


def nobody_becomes_more(spec: Spec) -> bool:
    return all(context.get("allowPrivilegeEscalation") is False for context in _contexts(spec)[1:])


def capabilities_are_dropped(spec: Spec) -> bool:
    return all("ALL" in context.get("capabilities", {}).get("drop", []) for context in _contexts(spec)[1:])


def none_comes_back_but_for_low_ports(spec: Spec) -> bool:
    return all(set(context.get("capabilities", {}).get("add", [])) <= _CAPABILITIES for context in _contexts(spec)[1:])


def nobody_is_root(spec: Spec) -> bool:
    return all(said is True for said in _in_effect(spec, "runAsNonRoot"))


def no_user_is_root_s(spec: Spec) -> bool:
    return all(context.get("runAsUser") != 0 for context in _contexts(spec))


def system_calls_are_filtered(spec: Spec) -> bool:
    return all(
        (said or {}).get("type") in {"RuntimeDefault", "Localhost"} for said in _in_effect(spec, "seccompProfile")
    ) and all(context.get("seccompProfile", {}).get("type") != "Unconfined" for context in _contexts(spec))


def volumes_are_of_plain_kinds(spec: Spec) -> bool:
    return all(volume.keys() - {"name"} <= _VOLUMES for volume in spec.get("volumes", []))


def proc_is_masked(spec: Spec) -> bool:
    return all(context.get("procMount", "Default") == "Default" for context in _contexts(spec))


def selinux_is_not_bent(spec: Spec) -> bool:
    options = [context.get("seLinuxOptions", {}) for context in _contexts(spec)]
    return all(option.get("type") in _SELINUX_TYPES and not option.get("user") and not option.get("role") for option in options)


def apparmor_is_not_off(spec: Spec) -> bool:
    return all(context.get("appArmorProfile", {}).get("type") != "Unconfined" for context in _contexts(spec))


def sysctls_are_safe(spec: Spec) -> bool:
    return all(one["name"] in _SYSCTLS for one in spec.get("securityContext", {}).get("sysctls", []))


RESTRICTED: tuple[Callable[[Spec], bool], ...] = (
    *(no_part_of_the_host, no_port_of_the_host, no_other_host_is_asked, no_process_of_a_windows_host),
    *(nobody_is_privileged, nobody_becomes_more, capabilities_are_dropped, none_comes_back_but_for_low_ports),
    *(nobody_is_root, no_user_is_root_s, system_calls_are_filtered, volumes_are_of_plain_kinds),
    *(proc_is_masked, selinux_is_not_bent, apparmor_is_not_off, sysctls_are_safe),
)


def as_run(pod: Pod) -> Spec:
    """The pod with what KubeRay (1.6, 1.7) puts into it: an autoscaler beside a head, who waits for it before a worker."""
    spec = copy.deepcopy(pod.spec)
    if pod.role == "head":
        cluster = pod.owner.spec["rayClusterConfig"]
        if cluster.get("enableInTreeAutoscaling"):
            autoscaler = {key: value for key, value in cluster.get("autoscalerOptions", {}).items() if key == "securityContext"}
            spec["containers"].append({"name": "autoscaler", **autoscaler})
    if pod.role == "worker":
        waits = {key: value for key, value in pod.main.items() if key == "securityContext"}
        spec.setdefault("initContainers", []).append({"name": "wait-gcs-ready", **waits})
    return spec


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_pod_is_restricted(name: str) -> None:
    broken = {pod.title: [rule.__name__ for rule in RESTRICTED if not rule(as_run(pod))] for pod in scenario(name).pods}

    assert {title: rules for title, rules in broken.items() if rules} == {}


_ASSIGNED = ("runAsUser", "runAsGroup", "fsGroup")
"""What OpenShift assigns to each namespace, and refuses to be told."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_users_and_groups_can_be_left_to_the_cluster(name: str) -> None:
    """In every pod, hooks and the Redis that the chart brings included, and nothing else is given up with them."""
    values = scenario_values(name) | {"podSecurityContext": dict.fromkeys(_ASSIGNED)}

    pods = render(values).pods

    assert len(pods) == len(scenario(name).pods)
    for pod in pods:
        assert [key for context in _contexts(pod.spec) for key in _ASSIGNED if key in context] == [], pod.title
        assert [rule.__name__ for rule in RESTRICTED if not rule(as_run(pod))] == [], pod.title


def test_every_pod_of_the_chart_runs_as_the_values_say() -> None:
    said = {
        "runAsUser": 2001,
        "runAsGroup": 2002,
        "fsGroup": 2003,
        "supplementalGroups": [2004],
        "fsGroupChangePolicy": "Always",
    }
    for name in SCENARIOS:
        for pod in render(scenario_values(name) | {"podSecurityContext": said}).own_pods:
            there = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **said}
            assert pod.spec["securityContext"] == there, pod.title


def _with_one_model(model: str, kubernetes: Values) -> Rendered:
    """Of many, this one with something of its own."""
    return render(merged(scenario_values("many-models"), {"models": {model: {"kubernetes": kubernetes}}}))


_LOCKS_MEMORY = {"capabilities": {"add": ["IPC_LOCK"]}}


def test_a_model_s_workers_may_be_let_lock_memory_and_nobody_else_is() -> None:
    (one, *others) = scenario_values("many-models")["models"]
    release = _with_one_model(one, {"securityContext": _LOCKS_MEMORY})

    broken = {pod.title: {rule.__name__ for rule in RESTRICTED if not rule(as_run(pod))} for pod in release.pods}

    (worker,) = (pod for pod in release.engine(one).pods if pod.role == "worker")
    assert others
    assert {title: rules for title, rules in broken.items() if rules} == {worker.title: {"none_comes_back_but_for_low_ports"}}
    assert worker.main["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
    assert worker.main["securityContext"]["allowPrivilegeEscalation"] is False


def test_workers_have_the_account_that_is_named_and_heads_have_none_of_it() -> None:
    (one, other, *_) = scenario_values("many-models")["models"]
    release = _with_one_model(one, {"serviceAccountName": "reads-models"})
    (own,) = release.of_kind("ServiceAccount")

    accounts = {
        (model, pod.role): pod.spec.get("serviceAccountName") for model in (one, other) for pod in release.engine(model).pods
    }

    assert accounts == {
        (one, "head"): None,
        (one, "worker"): "reads-models",
        (other, "head"): None,
        (other, "worker"): own.name,
    }


def test_hooks_init_containers_and_the_autoscaler_are_among_what_is_looked_at() -> None:
    pods = [pod for name in SCENARIOS for pod in scenario(name).pods]

    assert any("helm.sh/hook" in pod.owner.annotations for pod in pods)
    assert any(pod.spec.get("initContainers") for pod in pods)
    names = {container["name"] for pod in pods for container in _containers(as_run(pod))}
    assert {"autoscaler", "wait-gcs-ready"} <= names


def _good() -> Spec:
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}
    container = {
        "name": "c",
        "securityContext": context,
        "ports": [{"containerPort": 1}],
        "readinessProbe": {"httpGet": {"port": 1}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    }
    return {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [copy.deepcopy(container)],
        "containers": [copy.deepcopy(container)],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }


_UNCONFINED = {"type": "Unconfined"}
_WINDOWS = {"hostProcess": True}

_OF_PODS: list[tuple[Callable[[Spec], bool], str, Any]] = [
    (no_part_of_the_host, "hostNetwork", True),
    (no_part_of_the_host, "hostPID", True),
    (no_part_of_the_host, "hostIPC", True),
    (no_process_of_a_windows_host, "securityContext/windowsOptions", _WINDOWS),
    (nobody_is_root, "securityContext/runAsNonRoot", GONE),
    (no_user_is_root_s, "securityContext/runAsUser", 0),
    (system_calls_are_filtered, "securityContext/seccompProfile", GONE),
    (system_calls_are_filtered, "securityContext/seccompProfile", _UNCONFINED),
    (volumes_are_of_plain_kinds, "volumes", [{"name": "v", "hostPath": {"path": "/"}}]),
    (volumes_are_of_plain_kinds, "volumes", [{"name": "v", "nfs": {"path": "/"}}]),
    (selinux_is_not_bent, "securityContext/seLinuxOptions", {"type": "spc_t"}),
    (selinux_is_not_bent, "securityContext/seLinuxOptions", {"user": "u"}),
    (apparmor_is_not_off, "securityContext/appArmorProfile", _UNCONFINED),
    (sysctls_are_safe, "securityContext/sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
]

_OF_CONTAINERS: list[tuple[Callable[[Spec], bool], str, Any]] = [
    (no_port_of_the_host, "ports", [{"containerPort": 1, "hostPort": 1}]),
    (no_other_host_is_asked, "readinessProbe", {"httpGet": {"host": "h", "port": 1}}),
    (no_other_host_is_asked, "lifecycle", {"preStop": {"tcpSocket": {"host": "h", "port": 1}}}),
    (no_process_of_a_windows_host, "securityContext/windowsOptions", _WINDOWS),
    (nobody_is_privileged, "securityContext/privileged", True),
    (nobody_becomes_more, "securityContext/allowPrivilegeEscalation", GONE),
    (nobody_becomes_more, "securityContext/allowPrivilegeEscalation", True),
    (capabilities_are_dropped, "securityContext/capabilities", {"drop": ["NET_RAW"]}),
    (none_comes_back_but_for_low_ports, "securityContext/capabilities", {"drop": ["ALL"], "add": ["IPC_LOCK"]}),
    (nobody_is_root, "securityContext/runAsNonRoot", False),
    (no_user_is_root_s, "securityContext/runAsUser", 0),
    (system_calls_are_filtered, "securityContext/seccompProfile", _UNCONFINED),
    (proc_is_masked, "securityContext/procMount", "Unmasked"),
    (apparmor_is_not_off, "securityContext/appArmorProfile", _UNCONFINED),
]

_SPOILT = _OF_PODS + [
    (rule, f"{kind}/0/{path}", value) for kind in ("initContainers", "containers") for rule, path, value in _OF_CONTAINERS
]


def test_the_good_pod_breaks_no_rule() -> None:
    assert [rule.__name__ for rule in RESTRICTED if not rule(_good())] == []


@pytest.mark.parametrize(("rule", "path", "value"), _SPOILT)
def test_a_rule_finds_what_it_forbids(rule: Callable[[Spec], bool], path: str, value: Any) -> None:
    assert not rule(spoilt(_good(), path, value))


def test_no_rule_is_without_a_case() -> None:
    assert set(RESTRICTED) == {rule for rule, _, _ in _SPOILT}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_pod_has_a_user_by_number(name: str) -> None:
    """A name in an image cannot be checked for being root's, and is refused."""
    for pod in scenario(name).pods:
        assert all(isinstance(user, int) and user > 0 for user in _in_effect(pod.spec, "runAsUser")), pod.title
        assert isinstance(pod.spec["securityContext"]["fsGroup"], int), pod.title


@pytest.mark.parametrize("name", SCENARIOS)
def test_only_engines_can_write_outside_their_volumes(name: str) -> None:
    for pod in scenario(name).pods:
        if pod.owner.kind != "RayService":
            read_only = [container["securityContext"].get("readOnlyRootFilesystem") for container in pod.containers]
            assert read_only == [True] * len(pod.containers), pod.title


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_pod_gets_a_token_of_the_cluster_but_the_head_that_scales(name: str) -> None:
    for pod in scenario(name).pods:
        scales = pod.role == "head" and pod.owner.spec["rayClusterConfig"].get("enableInTreeAutoscaling", False)
        assert pod.spec.get("automountServiceAccountToken", True) is scales, pod.title
        if scales:  # the operator's own account, which may do what the autoscaler must
            assert "serviceAccountName" not in pod.spec
    for account in scenario(name).of_kind("ServiceAccount"):
        assert account.body["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_pod_is_told_of_other_services_by_variables(name: str) -> None:
    """A Service called `fovea-...` would become FOVEA_..., which the gateway refuses as a setting that it does not know."""
    assert [pod.title for pod in scenario(name).pods if pod.spec.get("enableServiceLinks") is not False] == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_container_says_what_it_needs_and_how_much_memory_it_gets(name: str) -> None:
    for pod in scenario(name).pods:
        for container in pod.containers:
            resources = container.get("resources", {})
            assert {"cpu", "memory"} <= resources.get("requests", {}).keys(), f"{pod.title}: {container['name']}"
            assert "memory" in resources.get("limits", {}), f"{pod.title}: {container['name']}"


def test_a_pull_secret_reaches_every_pod() -> None:
    """A hook that lacks what the Deployment has is found out at the next upgrade."""
    for name in ("everything", "cpu-demo"):
        release = render(merged(scenario_values(name), {"imagePullSecrets": [{"name": "registry"}]}))
        without = [pod.title for pod in release.own_pods if pod.spec.get("imagePullSecrets") != [{"name": "registry"}]]
        assert without == []
