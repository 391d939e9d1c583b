"""What an API server refuses of an object: fields that its kind does not have, and what no schema says."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.chart import validation
from tests.chart.selectors import selects

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_LARGEST_DATA = 2**20
# The controller adds a hash to a StatefulSet's name and writes the two into a label.
_LONGEST_STATEFUL_NAME = 52

_KEYS_OF_LISTS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
"""Lists whose items are told apart by these keys: applying two items of the same key fails."""


class Refused(Exception):
    """The object is wrong; `is_unreadable` says that it has fields which its kind does not know, or of a wrong type."""

    def __init__(self, message: str, *, is_unreadable: bool = False) -> None:
        super().__init__(message)
        self.is_unreadable = is_unreadable


def check_object(document: dict[str, Any], kubernetes: str) -> None:
    """Raises Refused."""
    wrong = validation.problems(document, kubernetes)
    if wrong:
        raise Refused(f"strict decoding error: {'; '.join(wrong[:3])}", is_unreadable=True)
    _check_metadata(document)
    for path, value in _nodes(document, ""):
        _check_duplicates(path, value)
    for path, template in _pod_templates(document):
        _check_pod(path, template, _claimed(document))
    if document["kind"] in _RULES:
        _RULES[document["kind"]](document)


def check_change(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Raises Refused: a field has changed that cannot be changed in an object that is there."""
    frozen = _FROZEN.get(after["kind"])
    if frozen and frozen(before) != frozen(after):
        raise Refused(f'{after["kind"]} "{after["metadata"]["name"]}" is invalid: spec: Forbidden: field is immutable')


def _pod_templates(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All of an object, wherever they are: what has a `spec` with `containers`."""
    for path, value in _nodes(document, ""):
        if isinstance(value, dict) and isinstance(value.get("spec"), dict) and "containers" in value["spec"]:
            yield path, value


def _nodes(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _nodes(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _nodes(inner, f"{path}[{position}]")


def _check_metadata(document: dict[str, Any]) -> None:
    metadata = document["metadata"]
    pattern = {"Service": _SERVICE_NAME, "Namespace": _LABEL}.get(document["kind"], _SUBDOMAIN)
    if not pattern.fullmatch(metadata["name"]):
        raise Refused(f"metadata.name: Invalid value: {metadata['name']!r}")
    for path, value in _nodes(document, ""):
        if path.rpartition(".")[2] in {"labels", "matchLabels"} and isinstance(value, dict):
            for key, text in value.items():
                if not isinstance(text, str) or not _LABEL_VALUE.fullmatch(text):
                    raise Refused(f"{path}: Invalid value: {key}={text!r}")


def _check_duplicates(path: str, value: Any) -> None:
    name = path.rpartition(".")[2]
    if name not in _KEYS_OF_LISTS or not isinstance(value, list):
        return
    keys = [tuple(item.get(key) for key in _KEYS_OF_LISTS[name]) for item in value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise Refused(f"failed to create typed patch object: .{path}: duplicate entries for key {sorted(map(str, twice))}")


def _claimed(document: dict[str, Any]) -> set[str]:
    """The volumes that a StatefulSet makes for its pods."""
    claims = document.get("spec", {}).get("volumeClaimTemplates", []) if document["kind"] == "StatefulSet" else []
    return {claim["metadata"]["name"] for claim in claims}


def _check_pod(path: str, template: dict[str, Any], claimed: set[str]) -> None:
    spec = template["spec"]
    volumes = claimed | {volume["name"] for volume in spec.get("volumes", [])}
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        where = f"{path}.spec.containers[{container['name']}]"
        if not _LABEL.fullmatch(container["name"]):
            raise Refused(f"{where}.name: Invalid value")
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                raise Refused(f"{where}.volumeMounts: Not found: {mount['name']!r}")
        for port in container.get("ports", []):
            if "name" in port and not _PORT_NAME.fullmatch(port["name"]):
                raise Refused(f"{where}.ports: Invalid value: {port['name']!r}")
        _check_resources(where, container.get("resources", {}))
        for variable in container.get("env", []):
            if not isinstance(variable.get("value", ""), str):
                raise Refused(f"{where}.env[{variable['name']}]: a value must be a string", is_unreadable=True)


def _check_resources(where: str, resources: dict[str, Any]) -> None:
    limits = resources.get("limits", {})
    for name, asked in resources.get("requests", {}).items():
        if quantity(asked) > quantity(limits.get(name, asked)):
            raise Refused(f"{where}.resources.requests.{name}: Invalid value: {asked}: must be less than or equal to its limit")
    for name, limit in limits.items():
        if "/" in name and quantity(resources.get("requests", {}).get(name, limit)) != quantity(limit):
            raise Refused(f"{where}.resources.requests.{name}: must be equal to its limit")


_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text: str | int) -> float:
    """Of a resource, as `500m` and `16Gi` say it. Raises Refused."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m|[kMGT]|[KMGT]i)?", str(text))
    if not found:
        raise Refused(f"quantities must match the regular expression: {text!r}", is_unreadable=True)
    return float(found[1]) * _UNITS[found[2] or ""]


def _check_workload(document: dict[str, Any]) -> None:
    spec, name = document["spec"], document["metadata"]["name"]
    labels = spec["template"].get("metadata", {}).get("labels", {})
    if not selects(spec["selector"], labels):
        raise Refused(f'{document["kind"]} "{name}" is invalid: spec.template.metadata.labels: `selector` does not match them')
    if document["kind"] == "StatefulSet" and len(name) > _LONGEST_STATEFUL_NAME:
        raise Refused(f"the pods of StatefulSet {name} could not be labelled with its name and a hash")


def _check_data(document: dict[str, Any]) -> None:
    size = sum(len(value) for value in (document.get("data") or {}).values())
    if size > _LARGEST_DATA:
        raise Refused(f"data: Too long: may not be more than {_LARGEST_DATA} bytes")


def _check_budget(document: dict[str, Any]) -> None:
    if {"minAvailable", "maxUnavailable"} <= document["spec"].keys():
        raise Refused("spec: Invalid value: minAvailable and maxUnavailable cannot be both set")


def _check_scaler(document: dict[str, Any]) -> None:
    if document["spec"].get("minReplicas", 1) > document["spec"]["maxReplicas"]:
        raise Refused("spec.maxReplicas: Invalid value: must be greater than or equal to `minReplicas`")


_RULES: dict[str, Callable[[dict[str, Any]], None]] = {
    "Deployment": _check_workload,
    "StatefulSet": _check_workload,
    "ConfigMap": _check_data,
    "Secret": _check_data,
    "PodDisruptionBudget": _check_budget,
    "HorizontalPodAutoscaler": _check_scaler,
}

_CHANGEABLE_OF_STATEFUL_SETS = {
    *("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit"),
    *("persistentVolumeClaimRetentionPolicy", "minReadySeconds"),
}


def _all_but(*changeable: str) -> Callable[[dict[str, Any]], Any]:
    return lambda document: {key: value for key, value in document.get("spec", {}).items() if key not in changeable}


def _volume(document: dict[str, Any]) -> Any:
    spec = document["spec"]
    return {**spec, "resources": None}


_FROZEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Deployment": lambda document: document["spec"]["selector"],
    "StatefulSet": _all_but(*_CHANGEABLE_OF_STATEFUL_SETS),
    "PersistentVolumeClaim": _volume,
    "Job": _all_but("parallelism", "suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit"),
    "Pod": _all_but("tolerations", "activeDeadlineSeconds"),
}
