"""An API server in memory, real enough that Helm installs into it.

It proves what templates do to objects that are there: what is refused, who owns a field, what an upgrade changes, what an
uninstall leaves. It schedules nothing, runs nothing and lets nobody in or out.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.chart.cluster_kinds import Kind
from tests.chart.cluster_store import ApiError, Cluster, Key
from tests.chart.field_ownership import Manager
from tests.chart.protobuf import NotASecret, read_object

_APPLY = "application/apply-patch+yaml"
_PROTOBUF = "application/vnd.kubernetes.protobuf"


@dataclass(frozen=True)
class _Target:
    """What the path of a request names; no name: the collection."""

    kind: Kind
    namespace: str
    name: str
    subresource: str

    @property
    def key(self) -> Key:
        return Key(self.kind, self.namespace, self.name)

    def holds(self, key: Key) -> bool:
        return key.kind == self.kind and self.namespace in {"", key.namespace}


@contextmanager
def served(cluster: Cluster) -> Iterator[str]:
    """The address of an API server of `cluster`, until the end of the block."""
    server = _Server(cluster)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.is_open = False
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cluster = cluster
        self.is_open = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def handle(self) -> None:
        with suppress(ConnectionError):  # whoever watches leaves without a word
            super().handle()

    def finish(self) -> None:
        with suppress(ConnectionError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's
        pass

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            found = self._found(url.path, body)
        except ApiError as error:
            self._send(error.status, error.document())
        else:
            if found is not None:
                self._send(201 if self.command == "POST" else 200, found)

    def _found(self, path: str, body: bytes) -> Any:
        """What to answer; None where it was sent already. Raises ApiError."""
        fixed = discovery(self.server.cluster, path)
        if fixed is not None:
            return fixed
        target = _target(self.server.cluster, path)
        if target.subresource == "log":
            return "what the pod has written\n"
        if self.command == "GET":
            return self._read(target)
        document = self._document(body)
        return self._written(target, document)

    def _read(self, target: _Target) -> Any:
        cluster = self.server.cluster
        if target.name:
            return _scale(cluster.get(target.key)) if target.subresource == "scale" else cluster.get(target.key)
        if self.query.get("watch") in {"1", "true"}:
            self._watch(target)
            return None
        items = [item for item in cluster.all(target.kind, target.namespace) if self._is_asked_for(item)]
        head = {"kind": f"{target.kind.name}List", "apiVersion": target.kind.api_version}
        return head | {"metadata": {"resourceVersion": cluster.version()}, "items": items}

    def _is_asked_for(self, document: dict[str, Any]) -> bool:
        metadata = document["metadata"]
        fields = {"metadata.name": metadata["name"], "metadata.namespace": metadata.get("namespace", "")}
        return selects(self.query.get("labelSelector", ""), metadata.get("labels", {})) and selects(
            self.query.get("fieldSelector", ""), fields
        )

    def _document(self, body: bytes) -> dict[str, Any]:
        if not body:
            return {}
        if self.headers.get("Content-Type", "").startswith(_PROTOBUF):
            try:
                return read_object(body)
            except NotASecret as error:
                raise ApiError(415, "UnsupportedMediaType", str(error)) from error
        document: dict[str, Any] = json.loads(body)
        return document

    def _written(self, target: _Target, document: dict[str, Any]) -> dict[str, Any]:
        cluster, dry_run = self.server.cluster, self.query.get("dryRun") == "All"
        if self.command == "DELETE":
            return cluster.get(target.key) if dry_run else cluster.delete(target.key)
        if target.subresource == "scale":
            return _scale(cluster.scale(target.key, document["spec"]["replicas"], self._manager().name))
        if self.command == "POST":
            key = Key(target.kind, target.namespace, document["metadata"]["name"])
            return cluster.create(key, document, self._manager(), dry_run=dry_run)
        if self.command == "PUT":
            return cluster.replace(target.key, document, self._manager(), dry_run=dry_run)
        if self.headers["Content-Type"].startswith(_APPLY):
            force = self.query.get("force") == "true"
            return cluster.apply(target.key, document, self._manager("Apply"), force=force, dry_run=dry_run)
        return cluster.merge(target.key, document, self._manager(), dry_run=dry_run)

    def _manager(self, operation: str = "Update") -> Manager:
        name = self.query.get("fieldManager") or self.headers.get("User-Agent", "").partition("/")[0]
        return Manager(name, operation)

    def _watch(self, target: _Target) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        since = self._first_events(target)
        for event in self.server.cluster.events(since, lambda: self.server.is_open):
            if event is None:
                self._send_event({})
            elif target.holds(event.key) and self._is_asked_for(event.document):
                self._send_event({"type": event.type, "object": event.document})

    def _first_events(self, target: _Target) -> int:
        """Sends what is there, where that is asked for; the version after which events follow."""
        cluster = self.server.cluster
        version = cluster.version()
        if self.query.get("sendInitialEvents") != "true":
            return int(self.query.get("resourceVersion") or version)
        for document in cluster.all(target.kind, target.namespace):
            if self._is_asked_for(document):
                self._send_event({"type": "ADDED", "object": document})
        metadata = {"resourceVersion": version, "annotations": {"k8s.io/initial-events-end": "true"}}
        mark = {"kind": target.kind.name, "apiVersion": target.kind.api_version, "metadata": metadata}
        self._send_event({"type": "BOOKMARK", "object": mark})
        return int(version)

    def _send_event(self, event: dict[str, Any]) -> None:
        """A line; without an event an empty one, which shows that the other side is still there."""
        self.wfile.write(json.dumps(event).encode() + b"\n" if event else b"\n")
        self.wfile.flush()

    def _send(self, status: int, content: Any) -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def selects(selector: str, labels: dict[str, str]) -> bool:
    """Whether a selector, as a query has it, takes what has these labels."""
    return all(_holds(part.strip(), labels) for part in re.split(r",(?![^(]*\))", selector) if part.strip())


def _holds(part: str, labels: dict[str, str]) -> bool:
    if among := re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", part):
        is_in = labels.get(among[1]) in {value.strip() for value in among[3].split(",")}
        return is_in == (among[2] == "in")
    if "!=" in part:
        name, _, value = part.partition("!=")
        return labels.get(name) != value
    if "=" in part:
        name, value = re.split(r"==?", part, maxsplit=1)
        return labels.get(name) == value
    return part in labels if not part.startswith("!") else part[1:] not in labels


def _scale(document: dict[str, Any]) -> dict[str, Any]:
    metadata = {name: document["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
    replicas = document["spec"]["replicas"]
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": {"replicas": replicas},
        "status": {"replicas": replicas},
    }


def _target(cluster: Cluster, path: str) -> _Target:
    """Raises ApiError."""
    for kind in cluster.kinds:
        pattern = rf"/{re.escape(kind.root)}(?:/namespaces/([^/]+))?/{kind.plural}(?:/([^/]+))?(?:/(scale|status|log))?"
        if not kind.is_namespaced:
            pattern = rf"/{re.escape(kind.root)}()/{kind.plural}(?:/([^/]+))?(?:/(status))?"
        if found := re.fullmatch(pattern, path):
            return _Target(kind, found[1] or "", found[2] or "", found[3] or "")
    raise ApiError(404, "NotFound", f"the server could not find the requested resource: {path}")


def discovery(cluster: Cluster, path: str) -> Any:
    """What the server says of itself at a path; None where the path is of objects."""
    fixed: dict[str, Callable[[], Any]] = {
        "/version": lambda: _version(cluster.kubernetes),
        "/api": lambda: {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": lambda: {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups(cluster)},
        "/openapi/v3": lambda: {
            "paths": {kind.root: {"serverRelativeURL": f"/openapi/v3/{kind.root}"} for kind in cluster.kinds}
        },
    }
    for kind in cluster.kinds:
        fixed[f"/{kind.root}"] = lambda root=kind.root: _resources(cluster, root)  # type: ignore[misc]
        fixed[f"/openapi/v3/{kind.root}"] = lambda root=kind.root: _openapi(cluster, root)  # type: ignore[misc]
    return fixed[path]() if path in fixed else None


def _version(kubernetes: str) -> dict[str, str]:
    major, minor = kubernetes.split(".")
    return {"major": major, "minor": minor, "gitVersion": f"v{kubernetes}.0", "platform": "linux/amd64"}


def _groups(cluster: Cluster) -> list[dict[str, Any]]:
    versions = {kind.group: kind for kind in cluster.kinds if kind.group}
    return [
        {"name": group, "versions": [version], "preferredVersion": version}
        for group, kind in versions.items()
        for version in [{"groupVersion": kind.api_version, "version": kind.version}]
    ]


def _resources(cluster: Cluster, root: str) -> dict[str, Any]:
    kinds = [kind for kind in cluster.kinds if kind.root == root]
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    resources: list[dict[str, Any]] = [
        {
            "name": kind.plural,
            "singularName": kind.name.lower(),
            "namespaced": kind.is_namespaced,
            "kind": kind.name,
            "verbs": verbs,
        }
        for kind in kinds
    ]
    scales = [
        {"name": f"{kind.plural}/scale", "namespaced": True, "kind": "Scale", "verbs": verbs} for kind in kinds if kind.scales
    ]
    head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": kinds[0].api_version}
    return head | {"resources": resources + scales}


def _openapi(cluster: Cluster, root: str) -> dict[str, Any]:
    """Just what makes a client leave the checking of fields to the server."""
    paths = {}
    for kind in cluster.kinds:
        if kind.root == root:
            meant = {"group": kind.group, "version": kind.version, "kind": kind.name}
            patch = {
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                "x-kubernetes-group-version-kind": meant,
            }
            middle = "/namespaces/{namespace}" if kind.is_namespaced else ""
            paths[f"/{root}{middle}/{kind.plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "test"}, "paths": paths}
