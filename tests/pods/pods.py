"""The pods of rendered manifests, as processes on this machine: what a kubelet does with them, as far as processes can.

A container gets the environment that its pod gives it and no other: from the manifest, from Secrets, ConfigMaps and fields of
the pod, over what an image would set (`image`). Its volumes are folders below a folder that stands for its root, and paths
below a mount become paths below that. Its own ports, and the addresses of services, become free ports of 127.0.0.1, because
all pods share this machine; nothing else of what a manifest says is changed.

Not done: users, read-only roots, limits of resources, network policies, and no image is pulled.
"""

import base64
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

import deploy
from tests.conftest import PATIENCE_S

Document = dict[str, Any]

_NOT_OURS = ("/dev/shm",)
"""Mounts at places that programs find by themselves."""
_TO_END_AT_LEAST_S = 2.0
"""So long does a kubelet wait after SIGTERM even where `preStop` has used up the pod's grace."""


class PodError(Exception):
    """A pod cannot be run, or has not done what it should; the message says which, with the end of its log."""


@dataclass(frozen=True)
class Manifests:
    """Rendered documents, in one namespace."""

    documents: Sequence[Document]
    namespace: str

    def of_kind(self, kind: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] == kind]

    def find(self, kind: str, name: str) -> Document:
        for document in self.of_kind(kind):
            if document["metadata"]["name"] == name:
                return document
        raise PodError(f"the manifests have no {kind} {name}")

    def values_of(self, kind: str, name: str) -> dict[str, str]:
        """What a Secret or a ConfigMap holds, decoded."""
        document = self.find(kind, name)
        if kind == "ConfigMap":
            return dict(document["data"])
        encoded = document.get("data") or {}
        decoded = {key: base64.b64decode(value, validate=True).decode() for key, value in encoded.items()}
        return decoded | (document.get("stringData") or {})


@dataclass(frozen=True)
class Addresses:
    """What stands here for which port of a service (`NAME:PORT`, however far NAME is qualified)."""

    here: Mapping[tuple[str, int], tuple[str, int]]

    def put_into(self, text: str) -> str:
        for (service, port), (host, local_port) in self.here.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(service)}(\.[a-z0-9.-]+)?:{port}(?!\d)", f"{host}:{local_port}", text)
        return text


def volume_mounts(template: Document) -> list[Document]:
    """Where a pod's containers have volumes, but for those that programs find by themselves."""
    spec = template["spec"]
    mounts = [mount for one in (*spec["containers"], *spec.get("initContainers", ())) for mount in one.get("volumeMounts", ())]
    return [mount for mount in mounts if mount["mountPath"] not in _NOT_OURS]


@dataclass(frozen=True)
class Pod:
    """A pod template, and what stands for its surroundings here."""

    name: str
    template: Document
    manifests: Manifests
    addresses: Addresses
    root: pathlib.Path
    """What stands for `/`. Two pods may share one: their volumes are the same folders then, and paths mean the same in both."""
    image: Mapping[str, str]
    ports: Mapping[int, int] = field(default_factory=dict)
    """The local ports in place of its containers' own."""
    address: str = "127.0.0.1"
    mounts: frozenset[str] = frozenset()
    """Paths below which everything is below the root: where its containers, or those of its companions, have volumes."""

    @property
    def spec(self) -> Document:
        spec: Document = self.template["spec"]
        return spec

    @property
    def grace_s(self) -> float:
        return float(self.spec.get("terminationGracePeriodSeconds", 30))

    @property
    def container(self) -> Document:
        """The one that it is there for: the first, beside which the chart's pods have none."""
        (container,) = self.spec["containers"]
        found: Document = container
        return found

    def make_volumes(self) -> None:
        """Makes the folders that its containers mount, with what is in them."""
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes", ())}
        for mount in volume_mounts(self.template):
            self._make_volume(volumes[mount["name"]], mount)

    def _make_volume(self, volume: Document, mount: Document) -> None:
        place = self.root / mount["mountPath"].lstrip("/")
        sub_path = mount.get("subPath")
        match volume:
            case {"configMap": {"name": name}}:
                files = self.manifests.values_of("ConfigMap", name)
            case {"secret": {"secretName": name}}:
                files = self.manifests.values_of("Secret", name)
            case {"emptyDir": _} | {"persistentVolumeClaim": _}:
                place.mkdir(parents=True, exist_ok=True)
                return
            case _:
                raise PodError(f"{self.name}: volume {volume['name']} is of a kind that is not known here")
        if sub_path is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(self.addresses.put_into(files[sub_path]))
            return
        place.mkdir(parents=True, exist_ok=True)
        source = volume.get("configMap") or volume["secret"]
        items = source.get("items") or [{"key": key, "path": key} for key in files]
        for item in items:
            (place / item["path"]).write_text(self.addresses.put_into(files[item["key"]]))

    def environment(self, container: Document) -> dict[str, str]:
        """What the container's first process finds in its environment."""
        environment = dict(self.image)
        for entry in container.get("env", ()):
            value = self._value(entry)
            if value is not None:
                environment[entry["name"]] = self.here(_expanded(value, environment))
        return environment

    def _value(self, entry: Document) -> str | None:
        match entry:
            case {"value": str(value)}:
                return value
            case {"valueFrom": {"secretKeyRef": reference}}:
                return self._referred("Secret", reference)
            case {"valueFrom": {"configMapKeyRef": reference}}:
                return self._referred("ConfigMap", reference)
            case {"valueFrom": {"fieldRef": {"fieldPath": path}}}:
                return self._field(path)
            case {"name": _, **others} if not others:
                return ""
        raise PodError(f"{self.name}: {entry} is of a kind that is not known here")

    def _referred(self, kind: str, reference: Document) -> str | None:
        try:
            return self.manifests.values_of(kind, reference["name"])[reference["key"]]
        except (PodError, KeyError):
            if reference.get("optional"):
                return None
            raise

    def _field(self, path: str) -> str:
        labels: dict[str, str] = self.template["metadata"].get("labels", {})
        known: dict[str, str] = {
            "metadata.name": self.name,
            "metadata.namespace": self.manifests.namespace,
            "status.podIP": self.address,
            "status.hostIP": "127.0.0.1",
        } | {f"metadata.labels['{key}']": value for key, value in labels.items()}
        return known[path]

    def command(self, container: Document) -> list[str]:
        """Its command and arguments. Raises PodError: it leaves its command to the image."""
        if not container.get("command"):
            raise PodError(f"{self.name}: the container {container['name']} leaves its command to the image")
        environment = self.environment(container)
        words = [*container["command"], *container.get("args", ())]
        return [self.here(_expanded(word, environment)) for word in words]

    def here(self, text: str) -> str:
        """A text of the manifests, with what stands here for its ports, addresses and paths."""
        for port, local_port in self.ports.items():
            text = re.sub(rf"^((?:--[\w-]+=)?){port}$", rf"\g<1>{local_port}", text)
        text = self.addresses.put_into(text)
        ours = [re.escape(mount) for mount in sorted(self.mounts, key=len, reverse=True)]
        return re.sub(rf"(?<![\w./-])({'|'.join(ours)})(?=[/:,\s\"']|$)", rf"{self.root}\1", text) if ours else text


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    """With `$(NAME)` replaced as Kubernetes does: one that is not known stays as it is."""
    return re.sub(r"\$\(([\w.-]+)\)", lambda found: environment.get(found[1], found[0]), text)


@dataclass(frozen=True)
class Running:
    """A container that runs, below a guardian that ends with it whatever it leaves."""

    pod: Pod
    container: Document
    process: subprocess.Popen[bytes]
    log: pathlib.Path

    def require_running(self) -> None:
        if self.process.poll() is not None:
            raise PodError(f"{self.pod.name} has ended with status {self.process.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def probe(self, kind: str) -> bool:
        """Whether its probe (`readinessProbe`, `livenessProbe`, `startupProbe`) succeeds now."""
        probe = self.container[kind]
        match probe:
            case {"httpGet": {"path": path, "port": port}}:
                return self._answers(path, port)
            case {"tcpSocket": {"port": port}}:
                with socket.socket() as probing:
                    return probing.connect_ex((self.pod.address, self._port(port))) == 0
            case {"exec": {"command": command}}:
                return self._succeeds([str(word) for word in command])
        raise PodError(f"{self.pod.name}: the {kind} is of a kind that is not known here: {probe}")

    def _answers(self, path: str, port: int | str) -> bool:
        try:
            answer = httpx.get(f"http://{self.pod.address}:{self._port(port)}{path}", timeout=PATIENCE_S)
        except httpx.TransportError:
            return False
        return 200 <= answer.status_code < 400

    def _port(self, port: int | str) -> int:
        by_name = {named.get("name"): named["containerPort"] for named in self.container.get("ports", ())}
        number = by_name[port] if isinstance(port, str) else port
        return self.pod.ports.get(number, number)

    def _succeeds(self, command: list[str]) -> bool:
        words = [self.pod.here(word) for word in command]
        for port, local_port in self.pod.ports.items():
            words = [word.replace(f"localhost:{port}/", f"localhost:{local_port}/") for word in words]
            words = [word.replace("redis-cli ", f"redis-cli -p {local_port} ") for word in words]
        environment = self.pod.environment(self.container)
        return subprocess.run(words, env=environment, timeout=PATIENCE_S, check=False, capture_output=True).returncode == 0

    def end(self) -> int:
        """Ends it as a kubelet does from when its `preStop` is over. Its exit status, 137 if it had to be killed.

        SIGTERM, and SIGKILL when the pod's grace is over, of which `preStop` has taken its part.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(max(self.pod.grace_s - self._pre_stop_s(), _TO_END_AT_LEAST_S))
        except subprocess.TimeoutExpired:
            self.kill()
            return 128 + signal.SIGKILL

    def _pre_stop_s(self) -> float:
        match self.container.get("lifecycle", {}).get("preStop"):
            case None:
                return 0.0
            case {"sleep": {"seconds": seconds}}:
                return float(seconds)
            case other:
                raise PodError(f"{self.pod.name}: the preStop is of a kind that is not known here: {other}")

    def kill(self) -> None:
        """Ends it, and what is below it, at once: its guardian ends the rest once the first process is gone."""
        while self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            time.sleep(0.05)


def run(pod: Pod, container: Document, command: Sequence[str] | None = None, **more: str) -> Running:
    """Starts a container, with further variables, and with `command` in place of its own where that is given."""
    folder = pod.root / "containers" / pod.name
    folder.mkdir(parents=True, exist_ok=True)
    words = list(command) if command is not None else pod.command(container)
    log = folder / f"{container['name']}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.processes", str(os.getpid()), "tests.pods.run_container", str(folder), *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=pod.environment(container) | more,
            cwd=pathlib.Path(deploy.__file__).parents[1],
            start_new_session=True,
        )
    return Running(pod, container, process, log)


def run_to_end(pod: Pod, container: Document, command: Sequence[str] | None = None, **more: str) -> None:
    """Runs a container that ends, as those do that run before a pod's others.

    Raises PodError: it fails.
    """
    running = run(pod, container, command, **more)
    try:
        status = running.process.wait()
    finally:
        running.kill()
    if status != 0:
        raise PodError(f"{pod.name}: {container['name']} failed:\n{running.tail()}")


def wait_until(is_so: Callable[[], bool], running: Sequence[Running], within_s: float, what: str) -> None:
    """Waits for it, while the containers run.

    Raises PodError: it has not come to be so within that time, or a container has ended.
    """
    deadline = time.monotonic() + within_s
    while not is_so():
        for one in running:
            one.require_running()
        if time.monotonic() > deadline:
            tails = "\n\n".join(f"{one.pod.name}:\n{one.tail()}" for one in running)
            raise PodError(f"after {within_s:g} s still not: {what}\n{tails}")
        time.sleep(0.2)
