"""Who set which field of an object, and what may be applied beside it: the rules of server-side apply.

Lists are whole here: who changes an item of one owns all of it. The real rules know lists whose items have keys, and find fewer
conflicts in them.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str, ...]

_THE_SERVER_S = {
    *(
        ("apiVersion",),
        ("kind",),
        ("metadata", "name"),
        ("metadata", "namespace"),
        ("metadata", "uid"),
        ("metadata", "generation"),
    ),
    *(("metadata", "resourceVersion"), ("metadata", "creationTimestamp"), ("metadata", "managedFields")),
}


@dataclass(frozen=True)
class Manager:
    """Somebody who sets fields: by applying them, or by updates, perhaps of a subresource such as `scale`."""

    name: str
    operation: str = "Update"
    subresource: str = ""

    def __str__(self) -> str:
        return f'"{self.name}"' + (f' with subresource "{self.subresource}"' if self.subresource else "")


class Conflict(Exception):
    """What was to be applied has other values than fields that others own."""


@dataclass
class Owned:
    """An object, and who owns which of its fields."""

    document: dict[str, Any]
    owners: dict[Manager, set[Path]] = field(default_factory=dict)

    def apply(self, wanted: dict[str, Any], manager: Manager, *, force: bool) -> "Owned":
        """The object as `manager` wants it: what it no longer names is gone, unless somebody else set it too.

        Raises Conflict, unless `force` takes the fields away from the others.
        """
        mine = leaves(wanted)
        disputed = {path: who for path in mine for who in self._others(path, manager) if self._differs(path, mine[path])}
        if disputed and not force:
            raise Conflict(_told(disputed, wanted["apiVersion"]))
        owners = {who: {path for path in paths if path not in disputed} for who, paths in self.owners.items() if who != manager}
        document = copy.deepcopy(self.document)
        for path in self.owners.get(manager, set()) - mine.keys():
            if not any(path in paths for paths in owners.values()):
                _remove(document, path)
        for path, value in sorted(mine.items()):
            _put(document, path, value)
        return Owned(document, owners | {manager: set(mine)})

    def update(self, document: dict[str, Any], manager: Manager) -> "Owned":
        """The object with whatever `document` has; what is changed is `manager`'s own from now on."""
        before, after = leaves(self.document), leaves(document)
        changed = {path for path, value in after.items() if path not in before or before[path] != value}
        lost = changed | (before.keys() - after.keys())
        owners = {who: paths - lost for who, paths in self.owners.items()}
        if changed:
            owners[manager] = owners.get(manager, set()) | changed
        return Owned(copy.deepcopy(document), owners)

    def _others(self, path: Path, manager: Manager) -> list[Manager]:
        return [who for who, paths in self.owners.items() if who != manager and any(_touch(path, other) for other in paths)]

    def _differs(self, path: Path, value: Any) -> bool:
        at: Any = self.document
        for key in path:
            if not isinstance(at, dict) or key not in at:
                return False
            at = at[key]
        return bool(at != value)


def leaves(document: dict[str, Any]) -> dict[Path, Any]:
    """The fields that somebody can own, by their paths; empty maps and whole lists are fields too."""
    found: dict[Path, Any] = {}
    _collect(document, (), found)
    return {path: value for path, value in found.items() if path not in _THE_SERVER_S and path[0] != "status"}


def _collect(value: Any, path: Path, found: dict[Path, Any]) -> None:
    if path in _THE_SERVER_S:
        return
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _collect(inner, (*path, key), found)
    elif path and value is not None:
        found[path] = value


def managed_fields(owned: Owned) -> list[dict[str, Any]]:
    """As `metadata.managedFields` tells them."""
    entries = []
    for manager, paths in owned.owners.items():
        tree: dict[str, Any] = {}
        for path in paths:
            at = tree
            for key in path:
                at = at.setdefault(f"f:{key}", {})
        entry = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": owned.document["apiVersion"],
            "fieldsType": "FieldsV1",
            "fieldsV1": tree,
        }
        entries.append(entry | ({"subresource": manager.subresource} if manager.subresource else {}))
    return entries


def _touch(one: Path, other: Path) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _put(document: dict[str, Any], path: Path, value: Any) -> None:
    at = document
    for key in path[:-1]:
        if not isinstance(at.get(key), dict):
            at[key] = {}
        at = at[key]
    if value != {} or not isinstance(at.get(path[-1]), dict):
        at[path[-1]] = copy.deepcopy(value)


def _remove(document: dict[str, Any], path: Path) -> None:
    """The field, and the maps that are empty without it."""
    parents = [document]
    for key in path[:-1]:
        inner = parents[-1].get(key)
        if not isinstance(inner, dict):
            return
        parents.append(inner)
    parents[-1].pop(path[-1], None)
    for parent, key in reversed(list(zip(parents, path[:-1], strict=False))):
        if parent[key] == {}:
            del parent[key]


def _told(disputed: dict[Path, Manager], api_version: str) -> str:
    lines: Iterable[str] = (f"conflict with {who} using {api_version}: .{'.'.join(path)}" for path, who in disputed.items())
    return f"Apply failed with {len(disputed)} conflict{'s' if len(disputed) > 1 else ''}: {'; '.join(lines)}"
