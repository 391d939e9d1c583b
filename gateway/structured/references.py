"""A schema as a document: its parts by their JSON pointers, and where a `$ref` leads."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote


class LeadsNowhere(Exception):
    """A `$ref` that leads to no schema of the document; the message says why."""


def step(pointer: str, token: str | int) -> str:
    """The pointer of what is under `token` at `pointer` (RFC 6901)."""
    return f"{pointer}/{str(token).replace('~', '~0').replace('/', '~1')}"


class Document:
    """A schema, by pointers."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[str, Any] = {"": root}
        self._targets: dict[str, str] = {}
        self._anchors: dict[str, str] | None = None
        self._moves_base = False

    def at(self, pointer: str) -> Any:
        """What is at `pointer`. Raises LeadsNowhere."""
        if pointer not in self._known:
            self._known[pointer] = self._found(pointer)
        return self._known[pointer]

    def target(self, reference: str) -> str:
        """The pointer to which a `$ref` leads. Raises LeadsNowhere."""
        if reference not in self._targets:
            self._targets[reference] = self._target(reference)
        return self._targets[reference]

    def _target(self, reference: str) -> str:
        location, _, fragment = reference.partition("#")
        if location and location != str(self._root.get("$id", "")).partition("#")[0]:
            raise LeadsNowhere(f"It leads out of the schema, to '{location[:80]}': nothing is fetched.")
        anchors = self._index()
        if self._moves_base:
            raise LeadsNowhere("A part of the schema has an $id of its own, which changes where a $ref leads.")
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            if fragment not in anchors:
                raise LeadsNowhere(f"There is no $anchor '{fragment[:80]}'.")
            return anchors[fragment]
        tokens = [part.replace("~1", "/").replace("~0", "~") for part in fragment.split("/")[1:]]
        pointer = ""
        for token in tokens:
            pointer = step(pointer, token)
        if not isinstance(self.at(pointer), dict | bool):
            raise LeadsNowhere("It leads to something that is no schema.")
        return pointer

    def _found(self, pointer: str) -> Any:
        here: Any = self._root
        for part in pointer.split("/")[1:]:
            token = part.replace("~1", "/").replace("~0", "~")
            if isinstance(here, dict) and token in here:
                here = here[token]
            elif isinstance(here, list) and token.isascii() and token.isdigit() and int(token) < len(here):
                here = here[int(token)]
            else:
                raise LeadsNowhere("It leads to nothing: the schema has no such part.")
        return here

    def _index(self) -> dict[str, str]:
        if self._anchors is None:
            self._anchors = {}
            for pointer, part in _objects(self._root):
                for keyword in ("$anchor", "$dynamicAnchor"):
                    if isinstance(part.get(keyword), str):
                        self._anchors[part[keyword]] = pointer
                identity = part.get("$id")
                self._moves_base = self._moves_base or (
                    pointer != "" and isinstance(identity, str) and not identity.startswith("#")
                )
        return self._anchors


def _objects(root: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        pointer, part = waiting.pop()
        if isinstance(part, Mapping):
            yield pointer, part
            waiting.extend(
                (step(pointer, name), value) for name, value in part.items() if name not in {"const", "enum", "examples"}
            )
        elif isinstance(part, list):
            waiting.extend((step(pointer, place), value) for place, value in enumerate(part))
