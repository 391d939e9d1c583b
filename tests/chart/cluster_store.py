"""The objects of a cluster in memory, and what its controllers would do to them at once."""

import base64
import copy
import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tests.chart.cluster_kinds import Kind
from tests.chart.field_ownership import Conflict, Manager, Owned, managed_fields
from tests.chart.object_rules import Refused, check_change, check_object

_NOW = "2026-01-01T00:00:00Z"
_CONTROLLER = Manager("kube-controller-manager")


class ApiError(Exception):
    """What the API server answers instead of an object."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    def document(self) -> dict[str, Any]:
        failure = {"status": "Failure", "code": self.status, "reason": self.reason, "message": str(self)}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}} | failure


@dataclass(frozen=True)
class Key:
    """Where an object is; the namespace is empty for those without one."""

    kind: Kind
    namespace: str
    name: str

    def missing(self) -> ApiError:
        return ApiError(404, "NotFound", f'{self.kind.resource} "{self.name}" not found')


@dataclass(frozen=True)
class Event:
    """Of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    key: Key
    document: dict[str, Any]


@dataclass
class Cluster:
    """All objects, by the rules of the API.

    `end_of_pod` says in which phase a pod ends that no controller watches over.
    """

    kinds: tuple[Kind, ...]
    kubernetes: str = "1.34"
    end_of_pod: Callable[[dict[str, Any]], str] = lambda _: "Succeeded"

    def __post_init__(self) -> None:
        self._objects: dict[Key, Owned] = {}
        self._events: list[Event] = []
        self._versions = itertools.count(1)
        self._changed = threading.Condition(threading.RLock())

    def kind(self, name: str) -> Kind:
        return next(kind for kind in self.kinds if kind.name == name)

    def get(self, key: Key) -> dict[str, Any]:
        """Raises ApiError."""
        with self._changed:
            if key not in self._objects:
                raise key.missing()
            return self._shown(self._objects[key])

    def all(self, kind: Kind | None = None, namespace: str = "") -> list[dict[str, Any]]:
        """Those of a kind, or all; of one namespace, or of any."""
        with self._changed:
            return [
                self._shown(owned)
                for key, owned in self._objects.items()
                if kind in {None, key.kind} and namespace in {"", key.namespace}
            ]

    def create(self, key: Key, document: dict[str, Any], manager: Manager, *, dry_run: bool = False) -> dict[str, Any]:
        """Raises ApiError."""
        with self._changed:
            if key in self._objects:
                raise ApiError(409, "AlreadyExists", f'{key.kind.resource} "{key.name}" already exists')
            return self._keep(key, Owned({}).update(_plain(document), manager), dry_run=dry_run)

    def replace(self, key: Key, document: dict[str, Any], manager: Manager, *, dry_run: bool = False) -> dict[str, Any]:
        """Raises ApiError."""
        with self._changed:
            if key not in self._objects:
                raise key.missing()
            return self._keep(key, self._objects[key].update(_plain(document), manager), dry_run=dry_run)

    def merge(self, key: Key, patch: dict[str, Any], manager: Manager, *, dry_run: bool = False) -> dict[str, Any]:
        """A merge patch. Raises ApiError."""
        with self._changed:
            if key not in self._objects:
                raise key.missing()
            owned = self._objects[key]
            return self._keep(key, owned.update(_merged(owned.document, patch), manager), dry_run=dry_run)

    def apply(
        self, key: Key, document: dict[str, Any], manager: Manager, *, force: bool = False, dry_run: bool = False
    ) -> dict[str, Any]:
        """Server-side apply. Raises ApiError."""
        with self._changed:
            wanted = _plain(document)
            before = self._objects.get(key, Owned({"apiVersion": wanted["apiVersion"], "kind": wanted["kind"], "metadata": {}}))
            try:
                after = before.apply(wanted, manager, force=force)
            except Conflict as conflict:
                raise ApiError(409, "Conflict", str(conflict)) from conflict
            after.document["metadata"]["name"] = key.name
            return self._keep(key, after, dry_run=dry_run)

    def scale(self, key: Key, replicas: int, manager_name: str = "kube-controller-manager") -> dict[str, Any]:
        """As an autoscaler does, and `kubectl scale`. Raises ApiError."""
        return self.merge(key, {"spec": {"replicas": replicas}}, Manager(manager_name, subresource="scale"))

    def delete(self, key: Key) -> dict[str, Any]:
        """At once; nothing that belonged to it goes with it. Raises ApiError."""
        with self._changed:
            if key not in self._objects:
                raise key.missing()
            owned = self._objects.pop(key)
            owned.document["metadata"]["resourceVersion"] = str(next(self._versions))
            self._tell(Event("DELETED", key, self._shown(owned)))
            return self._shown(owned)

    def version(self) -> str:
        """Of the last change; the next event has a greater one."""
        with self._changed:
            return self._events[-1].document["metadata"]["resourceVersion"] if self._events else "0"

    def events(self, since: int, is_open: Callable[[], bool]) -> Iterator[Event | None]:
        """Those after a version, as they come; None whenever none has come for a moment."""
        at = 0
        while is_open():
            with self._changed:
                if at == len(self._events):
                    self._changed.wait(0.2)
                found, at = self._events[at:], len(self._events)
            yield from (event for event in found if int(event.document["metadata"]["resourceVersion"]) > since)
            yield None

    def _shown(self, owned: Owned) -> dict[str, Any]:
        document = copy.deepcopy(owned.document)
        document["metadata"]["managedFields"] = managed_fields(owned)
        return document

    def _check(self, document: dict[str, Any]) -> None:
        try:
            check_object(_said(document), self.kubernetes)
        except Refused as refused:
            raise _error(refused) from refused

    def _keep(self, key: Key, owned: Owned, *, dry_run: bool) -> dict[str, Any]:
        document = owned.document
        before = self._objects.get(key)
        self._check(document)
        if key.namespace and Key(self.kind("Namespace"), "", key.namespace) not in self._objects:
            raise ApiError(404, "NotFound", f'namespaces "{key.namespace}" not found')
        if before is not None:
            try:
                check_change(before.document, document)
            except Refused as refused:
                raise _error(refused) from refused
        self._number(key, document, before)
        _default(document)
        _settle(document, self.end_of_pod)
        if dry_run:
            return self._shown(owned)
        is_same = before is not None and _content(before.document) == _content(document)
        if is_same and before is not None:
            document["metadata"]["resourceVersion"] = before.document["metadata"]["resourceVersion"]
        self._objects[key] = owned
        if not is_same:
            self._tell(Event("MODIFIED" if before else "ADDED", key, self._shown(owned)))
        for volume in _volumes_of(document):
            self._claim(key, volume)
        return self._shown(owned)

    def _number(self, key: Key, document: dict[str, Any], before: Owned | None) -> None:
        metadata = document["metadata"]
        old = before.document["metadata"] if before else {}
        if key.namespace:
            metadata["namespace"] = key.namespace
        is_new_spec = before is None or before.document.get("spec") != document.get("spec")
        metadata["uid"] = old.get("uid", str(uuid.uuid4()))
        metadata["creationTimestamp"] = _NOW
        metadata["generation"] = old.get("generation", 0) + is_new_spec
        metadata["resourceVersion"] = str(next(self._versions))

    def _claim(self, owner: Key, claim: dict[str, Any]) -> None:
        """A StatefulSet's volume: the one that is there, or a new one."""
        key = Key(self.kind("PersistentVolumeClaim"), owner.namespace, claim["metadata"]["name"])
        if key not in self._objects:
            self.create(key, claim, _CONTROLLER)

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        self._changed.notify_all()


def _error(refused: Refused) -> ApiError:
    return ApiError(400, "BadRequest", str(refused)) if refused.is_unreadable else ApiError(422, "Invalid", str(refused))


def _content(document: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in document["metadata"].items() if key not in {"resourceVersion", "managedFields"}}
    return document | {"metadata": metadata}


def _said(document: dict[str, Any]) -> dict[str, Any]:
    """What of it clients have said."""
    server_s = {"uid", "creationTimestamp", "generation", "resourceVersion", "managedFields"}
    metadata = {key: value for key, value in document["metadata"].items() if key not in server_s}
    return {key: value for key, value in document.items() if key != "status"} | {"metadata": metadata}


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """Without what a client may not say; a Secret's texts as its data."""
    plain = copy.deepcopy(document)
    plain.setdefault("metadata", {}).pop("managedFields", None)
    plain["metadata"].pop("creationTimestamp", None)
    if plain.get("kind") == "Secret" and "stringData" in plain:
        texts = {key: base64.b64encode(value.encode()).decode() for key, value in plain.pop("stringData").items()}
        plain["data"] = (plain.get("data") or {}) | texts
    return plain


def _merged(document: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _default(document: dict[str, Any]) -> None:
    """What the API server itself fills in, as far as an upgrade can meet it."""
    if document["kind"] in {"Deployment", "StatefulSet"}:
        document["spec"].setdefault("replicas", 1)
    elif document["kind"] == "Service":
        document["spec"].setdefault("clusterIP", "10.96.0.10")


def _settle(document: dict[str, Any], end_of_pod: Callable[[dict[str, Any]], str]) -> None:
    """The status that controllers and the kubelet would give it in the end, if all goes well."""
    generation = document["metadata"]["generation"]
    if document["kind"] in {"Deployment", "StatefulSet"}:
        counts = ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "currentReplicas")
        document["status"] = dict.fromkeys(counts, document["spec"]["replicas"]) | {"observedGeneration": generation}
        document["status"] |= {"currentRevision": str(generation), "updateRevision": str(generation)}
        document["status"]["conditions"] = [_condition("Available"), _condition("Progressing", "NewReplicaSetAvailable")]
    elif document["kind"] == "Pod":
        phase = end_of_pod(document)
        document["status"] = {"phase": phase, "conditions": [_condition("Ready")] if phase == "Running" else []}
    elif document["kind"] == "Job":
        document["status"] = {"succeeded": 1, "startTime": _NOW, "completionTime": _NOW, "conditions": [_condition("Complete")]}
    elif document["kind"] == "PersistentVolumeClaim":
        document["status"] = {"phase": "Bound"}
    elif document["kind"] == "Service":
        document["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.10"}]}}
    elif document["kind"] == "Namespace":
        document["status"] = {"phase": "Active"}
    elif document["kind"] == "PodDisruptionBudget":
        document["status"] = {"observedGeneration": generation, "currentHealthy": 1, "desiredHealthy": 1}


def _condition(name: str, reason: str = "Settled") -> dict[str, str]:
    return {"type": name, "status": "True", "reason": reason, "message": "", "lastTransitionTime": _NOW}


def _volumes_of(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if document["kind"] != "StatefulSet":
        return
    for claim in document["spec"].get("volumeClaimTemplates", []):
        for replica in range(document["spec"]["replicas"]):
            name = f"{claim['metadata']['name']}-{document['metadata']['name']}-{replica}"
            labels = document["spec"]["selector"].get("matchLabels", {})
            metadata = {"name": name, "labels": labels | claim["metadata"].get("labels", {})}
            yield {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim["spec"]}
