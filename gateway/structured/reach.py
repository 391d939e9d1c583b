"""How far a JSON Schema makes its validator go: jsonschema-rs 0.60 follows a schema by recursion, without a bound of its own.

Chains of a thousand references overflow the stack, which ends the process, and twenty definitions that each refer to the next
one twice take a million steps for one value.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from gateway.structured.fault import pointer_to

_LONGEST_CHAIN: Final = 64
"""Schemas that apply to one value one through another. With 200 levels of an answer that is 1 MiB of stack at most."""
_MOST_WAYS: Final = 50_000
"""Schemas that apply to one value and those around it, each as often as it is come to: 0.1 µs each, 5 ms."""
_MOST_WAYS_ROUND: Final = 512
"""The same where a schema comes back to itself: two rounds of it may be 512² steps."""
_MOST_COLLECTED: Final = 2500
"""Schemas below all `unevaluated...`, which are compiled anew for each: 25 ms."""

_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_BY_NAME: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"})
_IN_PLACE: Final = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
_ONE_OF_THESE: Final = ("properties", "additionalProperties", "prefixItems", "items", "additionalItems")
_ALL_OF_THESE: Final = ("patternProperties", "propertyNames", "contains", "unevaluatedProperties", "unevaluatedItems")
_TO_NOBODY: Final = ("$defs", "definitions")
"""They apply nothing, but what they hold may have an anchor, or an $id."""
_EDGES: Final = {
    **dict.fromkeys(_IN_PLACE, "in_place"),
    **dict.fromkeys(_ONE_OF_THESE, "alternatives"),
    **dict.fromkeys(_ALL_OF_THESE, "together"),
    **dict.fromkeys(_TO_NOBODY, "unapplied"),
}
_NAMES_OF_PLACES: Final = ("$anchor", "$dynamicAnchor")

_Schema = Mapping[str, Any]
_Path = tuple[str | int, ...]
_PLACE = re.compile(r"0|[1-9][0-9]*")


class Unfollowable(ValueError):
    """A reference that leads nowhere or outside, or a schema that would make its validator go too far."""


@dataclass(slots=True)
class _Node:
    path: _Path
    schema: _Schema
    in_place: list["_Node"] = field(default_factory=list)
    alternatives: list["_Node"] = field(default_factory=list)
    """For values within: at most one of these applies to one of them..."""
    together: list["_Node"] = field(default_factory=list)
    """... and with it all of these."""
    unapplied: list["_Node"] = field(default_factory=list)
    chain: int = 1
    ways: int = 1
    collected: int = 1


def check_reach(schema: _Schema) -> int:
    """How many patterns a schema has with which no answer of 200 levels costs more than 1 MiB of stack, or much time.

    Raises Unfollowable, with the JSON pointer of what is wrong.
    """
    graph = _Graph(schema)
    root, nodes = graph.root, graph.nodes
    is_round = _measure(root)
    collected = sum(node.collected for node in nodes if _collects(node.schema))
    if collected > _MOST_COLLECTED:
        raise Unfollowable("The schemas below unevaluatedProperties and unevaluatedItems are too many.")
    most = _MOST_WAYS_ROUND if is_round else _MOST_WAYS
    if root.ways > most:
        raise Unfollowable(f"Its schemas combine in more than {most} ways: refer to one from fewer alternatives.")
    return sum(("pattern" in node.schema) + _length(node.schema.get("patternProperties")) for node in nodes)


def _length(found: Any) -> int:
    return len(found) if isinstance(found, Mapping) else 0


def resolved(root: _Schema, reference: str) -> tuple[_Path, Any]:
    """What a reference such as `#/$defs/item` leads to, and where that is; anchors are not among them.

    Raises Unfollowable.
    """
    if not _is_pointer(reference):
        raise Unfollowable(f'The reference "{reference}" is no pointer into the schema.')
    path: _Path = ()
    found: Any = root
    for part in unquote(reference).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and name in found:
            path, found = (*path, name), found[name]
        elif isinstance(found, list) and _PLACE.fullmatch(name) and int(name) < len(found):
            path, found = (*path, int(name)), found[int(name)]
        else:
            raise Unfollowable(f'The reference "{reference}" leads nowhere in the schema.')
    return path, found


class _Graph:
    """A schema and all that it applies, each once, with the edges between them."""

    def __init__(self, schema: _Schema) -> None:
        self._schema = schema
        self.root = _Node((), schema)
        self.nodes: list[_Node] = []
        self._known: dict[_Path, _Node] = {(): self.root}
        self._waiting = [self.root]
        self._named: dict[str, list[_Node]] = {}
        while self._waiting:
            node = self._waiting.pop()
            self.nodes.append(node)
            self._enter(node)
        for node in self.nodes:
            for reference in _references(node.schema):
                if not _is_pointer(reference):
                    node.in_place.extend(self._anchored(reference))

    def _enter(self, node: _Node) -> None:
        if node.path and isinstance(node.schema.get("$id", node.schema.get("id")), str):
            raise Unfollowable(f"There is an $id at {pointer_to(node.path)}: references are followed within one schema only.")
        for keyword in _NAMES_OF_PLACES:
            name = node.schema.get(keyword)
            if isinstance(name, str):
                self._named.setdefault(name, []).append(node)
        for keyword, found in node.schema.items():
            kind = _EDGES.get(keyword)
            if kind is not None:
                self._add_all(getattr(node, kind), (*node.path, keyword), found)
        for reference in _references(node.schema):
            if _is_pointer(reference):
                self._add(node.in_place, *resolved(self._schema, reference))

    def _add_all(self, edges: list[_Node], path: _Path, found: Any) -> None:
        if isinstance(found, list):
            for place, part in enumerate(found):
                self._add(edges, (*path, place), part)
        elif path[-1] in _BY_NAME:
            for name, part in found.items() if isinstance(found, Mapping) else ():
                self._add(edges, (*path, name), part)
        else:
            self._add(edges, path, found)

    def _add(self, edges: list[_Node], path: _Path, found: Any) -> None:
        if not isinstance(found, Mapping):
            return  # true or false, which apply nothing; what else it may be is the meta-schema's affair
        node = self._known.get(path)
        if node is None:
            node = self._known[path] = _Node(path, found)
            self._waiting.append(node)
        edges.append(node)

    def _anchored(self, reference: str) -> list[_Node]:
        """What an anchor names: of a dynamic one all that have the name."""
        found = self._named.get(reference[1:]) if reference.startswith("#") else None
        if found is None and reference.startswith("#"):
            raise Unfollowable(f'The reference "{reference}" leads nowhere in the schema.')
        if found is None:
            raise Unfollowable(
                f'The reference "{reference}" leads out of the schema; put it under "$defs" and write "#/$defs/...".'
            )
        return found


def _is_pointer(reference: str) -> bool:
    return reference == "#" or reference.startswith("#/")


def _references(schema: _Schema) -> Iterator[str]:
    for keyword in _REFERENCES:
        reference = schema.get(keyword)
        if isinstance(reference, str):
            yield reference or "#"


def _collects(schema: _Schema) -> bool:
    return "unevaluatedProperties" in schema or "unevaluatedItems" in schema


def _measure(root: _Node) -> bool:
    """Sets each node's chain, ways and collected, those within first; whether any comes back to itself.

    Raises Unfollowable: a schema that comes back to itself for the same value, or too long a chain.
    """
    done: set[_Path] = set()
    way: dict[_Path, int] = {root.path: 0}
    entered_in_place = [False]
    stack = [(root, _edges(root))]
    is_round = False
    while stack:
        node, edges = stack[-1]
        edge = next(edges, None)
        if edge is None:
            stack.pop()
            entered_in_place.pop()
            del way[node.path]
            done.add(node.path)
            _sum_up(node)
            continue
        is_in_place, child = edge
        if child.path in way:
            if is_in_place and all(entered_in_place[way[child.path] + 1 :]):
                raise Unfollowable(
                    f"The schema at {pointer_to(child.path) or 'the root'} refers to itself and to nothing else."
                )
            is_round = True
        elif child.path not in done and (child.in_place or child.alternatives or child.together):
            way[child.path] = len(stack)
            entered_in_place.append(is_in_place)
            stack.append((child, _edges(child)))
    return is_round


def _edges(node: _Node) -> Iterator[tuple[bool, _Node]]:
    for child in node.in_place:
        yield True, child
    for child in (*node.alternatives, *node.together):
        yield False, child


def _sum_up(node: _Node) -> None:
    # A node that is come back to has the measures that it was made with: its round counts once.
    node.chain = 1 + max((child.chain for child in node.in_place), default=0)
    if node.chain > _LONGEST_CHAIN:
        raise Unfollowable(f"More than {_LONGEST_CHAIN} schemas apply to one value through another at {pointer_to(node.path)}.")
    within = max((child.ways for child in node.alternatives), default=0)
    ways = 1 + within + sum(child.ways for child in (*node.in_place, *node.together))
    node.ways = min(ways, _MOST_WAYS + 1)
    node.collected = min(1 + sum(child.collected for child in node.in_place), _MOST_COLLECTED + 1)
