"""One release of the chart, with one model, as processes here: its pods in the order in which they come up in a cluster.

Ports and addresses are all that differs from what the chart says, because the pods share a machine: each port is a free one,
services are at 127.0.0.1 and Ray's two nodes at addresses of their own beside it, and HAProxy's files and ports, which are at
fixed places in a pod, are elsewhere. What would be in the image is what this process has, with `deploy/cpu_torch` on the
PYTHONPATH as the engine's image for CPUs has it.

Not as in a cluster: head and worker share the folder of `/models`, and Services lead to pods whether they are ready or not.
"""

import os
import pathlib
import random
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import httpx
import psutil

from deploy.cpu_torch import with_cpu_torch
from deploy.processes import adopt_orphans
from tests.conftest import PATIENCE_S
from tests.pods.kuberay import Dashboard, RayGroup, added_environment, groups, serve_config, token
from tests.pods.pods import Addresses, Document, Manifests, Pod, PodError, Running, run, run_to_end, volume_mounts, wait_until
from tests.processes import still_running

NODE_WITHIN_S = 120
ENGINE_WITHIN_S = 240
READY_WITHIN_S = 120
_HOST = "127.0.0.1"
_NODES = {"head": "127.0.0.2", "worker": "127.0.0.3"}
"""Ray takes 127.0.0.1 for one that others must not be told of, and looks for another; all of 127.0.0.0/8 is this machine."""
_PORTS = {"redis-answers": 6379, "grammar": 8200, "gateway": 8000}
"""Of the Deployments, in the order in which they are started."""
_SERVE_PORT = 8000
_AGENT_PORT = 52365


@dataclass
class Release:
    """Its containers run from `with` on; whatever is left of them at the end is killed.

    Raises PodError: on the way in, one does not come up; at the end, something that it started still runs.
    """

    manifests: Manifests
    folder: pathlib.Path = field(init=False)
    running: dict[str, Running] = field(init=False, default_factory=dict)
    dashboard: Dashboard = field(init=False)

    def __post_init__(self) -> None:
        (self._service,) = self.manifests.of_kind("RayService")
        self._free = _free_ports()
        self._ports: dict[str, int] = {}
        self._others: list[int] = []
        self._head, self._workers = groups(self._service)
        engines = f"{self._service['metadata']['name']}-serve-svc"
        self._addresses = Addresses(
            {(engines, _SERVE_PORT): (_NODES["worker"], self._port("worker-serve"))}
            | {(self._deployment(name)["metadata"]["name"], port): (_HOST, self._port(name)) for name, port in _PORTS.items()}
        )

    @property
    def url(self) -> str:
        """Where the gateway answers."""
        return f"http://{_HOST}:{self._port('gateway')}"

    @property
    def engine_url(self) -> str:
        """Where the worker's HAProxy answers."""
        return f"http://{_NODES['worker']}:{self._port('worker-serve')}"

    def __enter__(self) -> Self:
        adopt_orphans()
        self._others = [child.pid for child in psutil.Process().children()]
        # Not a folder of pytest's: the sockets that Ray makes below it have names of 108 bytes at most.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fovea-"))
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in reversed(self.running.values()):
            one.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        left = still_running(besides=self._others)
        if left:
            raise PodError(f"the release has ended, and still there run: {', '.join(left)}")

    def _start(self) -> None:
        self._start_node(self._head, "head")
        self._start_node(self._workers, "worker")
        self.dashboard = Dashboard(f"http://{_HOST}:{self._port('dashboard')}", self._token)
        config = serve_config(self._service)
        config["http_options"]["port"] = self._port("head-serve")
        self.dashboard.put(config)
        for name in _PORTS:
            self._start_pod(name)
        all_of_them = list(self.running.values())
        wait_until(self.dashboard.has_started, all_of_them, ENGINE_WITHIN_S, "all applications run")
        for one in all_of_them:
            wait_until(partial(one.probe, "readinessProbe"), all_of_them, READY_WITHIN_S, f"{one.pod.name} is ready")
        wait_until(self._is_available, all_of_them, READY_WITHIN_S, "the gateway has found the engine well")

    def _is_available(self) -> bool:
        """A gateway is ready before its engines are, and asks them again every now and then."""
        rows = httpx.get(f"{self.url}/metrics", timeout=PATIENCE_S).text.splitlines()
        return any(row.startswith("fovea_model_available{") and float(row.split()[-1]) == 1 for row in rows)

    def _start_node(self, group: RayGroup, name: str) -> None:
        """A Ray node: what runs before it, then `ray start`, until it is alive."""
        ports = {_AGENT_PORT: self._port(f"{name}-agent"), _SERVE_PORT: self._port(f"{name}-serve")}
        both = [volume_mounts(one.template) for one in (self._head, self._workers)]
        mounts = frozenset(mount["mountPath"] for mounts in both for mount in mounts)
        pod = Pod(name, group.template, self.manifests, self._addresses, **self._place("ray", _NODES[name], _for_torch()))
        pod = replace(pod, ports=ports, mounts=mounts)
        _run_first(pod)
        gcs = f"{_NODES['head']}:{self._port('gcs')}"
        container = group.container
        added = added_environment(group, self._service, self._token, gcs) | self._for_node(name)
        if not group.is_head:
            run_to_end(pod, container | {"name": "wait-gcs-ready"}, ["ray", "health-check", "--address", gcs], **added)
        node = run(pod, container, group.command(gcs, self._params(group, name)), **added)
        self.running[name] = node
        wait_until(partial(node.probe, "livenessProbe"), [node], NODE_WITHIN_S, f"{name} is alive")

    def _start_pod(self, name: str) -> None:
        """A pod of a Deployment, up to the start of its container."""
        template = self._deployment(name)["spec"]["template"]
        port = self._port(name)
        image = _image() if name != "grammar" else _for_torch()
        pod = Pod(name, template, self.manifests, self._addresses, **self._place(name, _HOST, image))
        mounts = frozenset(mount["mountPath"] for mount in volume_mounts(template))
        pod = replace(pod, ports={_PORTS[name]: port}, mounts=mounts)
        _run_first(pod)
        container = pod.container
        # Redis has its port from nowhere: neither argument nor variable says the default one.
        command = [*pod.command(container), "--port", str(port)] if name == "redis-answers" else None
        self.running[name] = run(pod, container, command)

    def _place(self, root: str, address: str, image: Mapping[str, str]) -> dict[str, Any]:
        folder = self.folder / root
        for made in ("tmp", "home"):
            (folder / made).mkdir(parents=True, exist_ok=True)
        here = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        return {"root": folder, "address": address, "image": {**image, **here}}

    def _deployment(self, component: str) -> Document:
        found = [one for one in self.manifests.of_kind("Deployment") if one["metadata"]["name"].endswith(f"-{component}")]
        if len(found) != 1:
            raise PodError(f"the manifests have {len(found)} Deployments of the {component}")
        return found[0]

    @property
    def _token(self) -> str:
        return token(self._service, self.manifests)

    def _port(self, name: str) -> int:
        if name not in self._ports:
            self._ports[name] = next(self._free)
        return self._ports[name]

    def _params(self, group: RayGroup, name: str) -> dict[str, str]:
        """The parameters of `ray start` that are about ports and addresses."""
        params = {
            "node-ip-address": _NODES[name],
            "dashboard-agent-listen-port": str(self._port(f"{name}-agent")),
            "metrics-export-port": str(self._port(f"{name}-metrics")),
            # Any: two nodes would both begin at 10002.
            "min-worker-port": "0",
            "max-worker-port": "0",
        }
        if not group.is_head:
            return params
        return params | {
            "port": str(self._port("gcs")),
            "dashboard-host": _HOST,
            "dashboard-port": str(self._port("dashboard")),
            "ray-client-server-port": str(self._port("client")),
        }

    def _for_node(self, name: str) -> dict[str, str]:
        """Variables about ports and files that one machine has once."""
        haproxy = self.folder / "h"  # Ray puts a folder of the node's id into it, and HAProxy's sockets have 97 bytes at most
        haproxy.mkdir(exist_ok=True)
        return {
            "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(self._port("worker-serve")),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(self._port("fallback-http")),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(self._port("fallback-grpc")),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(self._port(f"{name}-haproxy-metrics")),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(self._port(f"{name}-haproxy-stats")),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        }


def _run_first(pod: Pod) -> None:
    """Makes the pod's volumes, and runs the containers that run before its others."""
    pod.make_volumes()
    for container in pod.spec.get("initContainers", ()):
        run_to_end(pod, container)


def _for_torch() -> dict[str, str]:
    """What the engine's image for CPUs would set."""
    return _image() | {"PYTHONPATH": with_cpu_torch(os.environ.get("PYTHONPATH"))}


def _image() -> dict[str, str]:
    """What an image would set: where programs are, and nothing that is meant for this process."""
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    kept = {name: os.environ[name] for name in ("LANG", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": path, **kept}


def _free_ports() -> Iterator[int]:
    """Ports that are free now, each once, from below the range from which the kernel hands out ports for connections."""
    for port in random.sample(range(20000, 30000), 200):
        with socket.socket() as probe:
            is_free = probe.connect_ex((_HOST, port)) != 0
        if is_free:
            yield port
    raise PodError("no port between 20000 and 29999 is free")
