"""What the KubeRay operator makes of a RayService (v1.6 and v1.7, controllers/ray/common/pod.go), as far as processes notice.

The command of Ray's containers comes from `rayStartParams` and the containers' limits, their environment is theirs and the
operator's, and it hands the Serve configuration to the dashboard of the head. Probes it adds only where a container has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import yaml

from tests.conftest import PATIENCE_S
from tests.pods.pods import Document, Manifests, PodError

_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class RayGroup:
    """The head of a Ray cluster, or its workers."""

    is_head: bool
    group: Document

    @property
    def template(self) -> Document:
        template: Document = self.group["template"]
        return template

    @property
    def container(self) -> Document:
        container: Document = self.template["spec"]["containers"][0]
        return container

    def command(self, address: str, here: Mapping[str, str]) -> list[str]:
        """The command of its container; `here` goes over the group's parameters, and workers find the head at `address`."""
        params: dict[str, str] = dict(self.group.get("rayStartParams") or {})
        defaults = {"metrics-export-port": "8080", "dashboard-agent-listen-port": "52365"}
        defaults |= {"dashboard-host": "0.0.0.0"} if self.is_head else {"address": address}
        params = {**defaults, **self._resources(), **params, "block": "true", **here}
        words = ["ray", "start", *(["--head"] if self.is_head else []), *_flags(params)]
        return ["/bin/bash", "-c", "--", f"ulimit -n 65536; {' '.join(words)}"]

    def _resources(self) -> dict[str, str]:
        resources = self.container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        params: dict[str, str] = {}
        cpu = limits.get("cpu") or requests.get("cpu")
        if cpu is not None:
            params["num-cpus"] = str(-int(-_quantity(cpu) // 1))
        if "memory" in limits:
            params["memory"] = str(int(_quantity(limits["memory"])))
        for name, count in limits.items():
            if name.endswith("gpu"):
                params["num-gpus"] = str(count)
        return params


def _flags(params: Mapping[str, str]) -> list[str]:
    words = []
    for name, value in sorted(params.items()):
        if value.lower() == "true":
            words.append(f"--{name}")
        elif value.lower() != "false":
            words.append(f"--{name}={value}")
    return words


def _quantity(text: str | float) -> float:
    """A quantity of Kubernetes as a number."""
    text = str(text)
    for unit, size in _UNITS.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * size
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)


def groups(service: Document) -> tuple[RayGroup, RayGroup]:
    """The head and the one group of workers of a RayService."""
    cluster = service["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    return RayGroup(True, cluster["headGroupSpec"]), RayGroup(False, workers)


def token(service: Document, manifests: Manifests) -> str:
    """What calls of the cluster's parts, and of the operator, prove themselves by: the key is the operator's to choose."""
    options = service["spec"]["rayClusterConfig"]["authOptions"]
    if options["mode"] != "token":
        raise PodError(f"authOptions.mode is {options['mode']}")
    return manifests.values_of("Secret", options["secretName"])["auth_token"]


def added_environment(group: RayGroup, service: Document, token: str, gcs: str) -> dict[str, str]:
    """What the operator adds to a Ray container: who it is, where the head is, shorter waits, and the token."""
    name = service["metadata"]["name"]
    return {
        "RAY_CLUSTER_NAME": name,
        "RAY_CLUSTER_NAMESPACE": service["metadata"].get("namespace", "default"),
        "RAY_CLOUD_INSTANCE_ID": f"{name}-{'head' if group.is_head else 'worker'}",
        "RAY_NODE_TYPE_NAME": group.group.get("groupName", "headgroup"),
        "RAY_PORT": gcs.rpartition(":")[2],
        "RAY_ADDRESS": gcs,
        "RAY_timeout_ms_task_wait_for_death_info": "0",
        "RAY_gcs_server_request_timeout_seconds": "5",
        "RAY_SERVE_KV_TIMEOUT_S": "5",
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
    }


@dataclass(frozen=True)
class Dashboard:
    """The head's, as the operator speaks to it."""

    url: str
    token: str

    def put(self, config: Document) -> None:
        """Hands a Serve configuration over; Serve works on it from then on."""
        answer = httpx.put(f"{self.url}/api/serve/applications/", json=config, headers=self._headers(), timeout=120)
        if answer.status_code != httpx.codes.OK:
            raise PodError(f"the dashboard refused the Serve configuration: {answer.status_code} {answer.text}")

    def applications(self) -> dict[str, Any]:
        """What Serve says of each application."""
        answer = httpx.get(f"{self.url}/api/serve/applications/", headers=self._headers(), timeout=PATIENCE_S)
        applications: dict[str, Any] = answer.raise_for_status().json()["applications"]
        return applications

    def has_started(self) -> bool:
        """Whether all applications run. Raises PodError: one of them never will."""
        applications = self.applications()
        for name, application in applications.items():
            if application["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
                said = [application["message"], *(one["message"] for one in application["deployments"].values())]
                raise PodError(f"the application {name} is {application['status']}: {' '.join(filter(None, said))}")
        return bool(applications) and all(one["status"] == "RUNNING" for one in applications.values())

    def _headers(self) -> dict[str, str]:
        return {"x-ray-authorization": f"Bearer {self.token}"}


def serve_config(service: Document) -> Document:
    """The Serve configuration of a RayService: a text in it, which the operator takes for YAML."""
    config: Document = yaml.safe_load(service["spec"]["serveConfigV2"])
    return config
