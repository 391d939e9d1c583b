"""What xgrammar 0.2.8 truly enforces of a JSON Schema: the schema that the engine gets, or why there is none.

The engine never gets the caller's own words. What an answer may look like is worked out type by type (`shapes`), and written
anew in the few forms that were seen to hold, on xgrammar's own matcher: one keyword that decides, nothing beside it.
"""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.structured import patterns
from gateway.structured.findings import Finding, Findings, Unenforceable
from gateway.structured.references import Document
from gateway.structured.shapes import (
    AnyJson,
    Array,
    Either,
    Key,
    Listed,
    Number,
    Object,
    Plain,
    Shape,
    Shapes,
    String,
    has_six_decimals,
    keys_of,
)

__all__ = ["Enforceable", "Finding", "Unenforceable", "enforceable"]

_DEEPEST_INLINE = 6
_SIX_TYPES: Final = ("object", "array", "string", "number", "boolean", "null")


@dataclass(frozen=True, slots=True)
class Enforceable:
    """The schema that the engine gets, as narrow as the caller's or narrower, and what is left to be checked afterwards."""

    schema: dict[str, Any]
    checked_after: tuple[Finding, ...]


def enforceable(schema: Mapping[str, Any], *, strict: bool) -> Enforceable:
    """The schema that the engine gets for the caller's. With `strict`, all of it is enforced; else what is not is listed.

    Raises Unenforceable: it makes no sense, nothing can fit it, or, if `strict`, it asks for what is not enforced.
    """
    findings = Findings()
    shapes = Shapes(Document(schema), findings)
    shapes.work_out()
    findings.check(strict=strict)
    possible = _possible(shapes.of)
    if ("",) not in possible:
        findings.hopeless(
            "",
            "",
            "Nothing can be promised to fit it: its parts exclude each other, numbers are beyond 10^15, or it never ends.",
        )
        findings.check(strict=strict)
    try:
        return Enforceable(_Writer(shapes.of, possible).schema(), findings.relaxed)
    except patterns.PatternRefused as error:
        raise Unenforceable((Finding("", "", error.reason, error.rewrite),)) from None


def _possible(shapes: Mapping[Key, tuple[Shape, ...]]) -> set[Key]:
    """The places for which there is an answer that ends."""
    possible: set[Key] = set()
    asked_by: dict[Key, list[Key]] = {}
    for key, options in shapes.items():
        for below in itertools.chain.from_iterable(map(keys_of, options)):
            asked_by.setdefault(below, []).append(key)
    waiting = list(shapes)
    while waiting:
        key = waiting.pop()
        if key not in possible and any(_is_possible(shape, possible) for shape in shapes[key]):
            possible.add(key)
            waiting.extend(asked_by.get(key, ()))
    return possible


def _is_possible(shape: Shape, possible: set[Key]) -> bool:
    match shape:
        case Either():
            return shape.key in possible
        case Array():
            fixed = all(key in possible for key in shape.first[: shape.least])
            return fixed and (len(shape.first) >= shape.least or shape.rest in possible)
        case Object():
            if any(shape.properties[name] not in possible for name in shape.required):
                return False
            is_open = shape.extra in possible or any(key in possible for _, key in shape.by_pattern)
            return is_open or sum(key in possible for key in shape.properties.values()) >= shape.least
        case _:
            return True


class _Writer:
    """Writes shapes as JSON Schema for xgrammar 0.2.8."""

    def __init__(self, shapes: Mapping[Key, tuple[Shape, ...]], possible: set[Key]) -> None:
        self._shapes = shapes
        self._possible = possible
        self._numbers = itertools.count(1)
        self._names: dict[Key, str] = {}
        self._waiting: list[Key] = []
        below = itertools.chain.from_iterable(map(keys_of, itertools.chain.from_iterable(shapes.values())))
        self._asked = Counter(below)

    def schema(self) -> dict[str, Any]:
        written = self._key(("",), 0)
        # Where vLLM 0.32 gets an empty object, it takes it for no schema at all.
        written = written or {"type": list(_SIX_TYPES)}
        definitions: dict[str, Any] = {}
        while self._waiting:
            key = self._waiting.pop()
            definitions[self._names[key]] = self._options(key, 0)
        return {**written, "$defs": definitions} if definitions else written

    def _key(self, key: Key, depth: int) -> dict[str, Any]:
        is_shared = self._asked[key] > 1 or key in self._names or (key == ("",) and self._asked[key] > 0)
        if (is_shared or depth > _DEEPEST_INLINE) and not self._is_small(key):
            if key not in self._names:
                self._names[key] = f"d{len(self._names)}"
                self._waiting.append(key)
            return {"$ref": f"#/$defs/{self._names[key]}"}
        return self._options(key, depth)

    def _is_small(self, key: Key) -> bool:
        return all(isinstance(shape, AnyJson | Plain | Number) for shape in self._shapes[key])

    def _options(self, key: Key, depth: int) -> dict[str, Any]:
        options: list[dict[str, Any]] = []
        for shape in self._shapes[key]:
            if _is_possible(shape, self._possible):
                options.extend(self._shape(shape, depth))
        return options[0] if len(options) == 1 else {"anyOf": options}

    def _shape(self, shape: Shape, depth: int) -> list[dict[str, Any]]:  # noqa: PLR0911
        match shape:
            case AnyJson():
                return [{}]
            case Plain():
                return [{"type": shape.type}]
            case Listed():
                return self._listed(shape.values)
            case Number():
                return [_number(shape)]
            case String():
                return [_string(shape)]
            case Array():
                return [self._array(shape, depth)]
            case Object():
                return [self._object(shape, depth)]
            case Either():
                return [self._key(shape.key, depth + 1)]

    # Values. xgrammar 0.2.8 writes 0.1 as 0.10000000000000001, and takes {"title": 1} for {"title": 2}.

    def _listed(self, values: list[Any]) -> list[dict[str, Any]]:
        plain = [value for value in values if not isinstance(value, float | list | dict)]
        found: list[dict[str, Any]] = [{"enum": plain}] if plain else []
        found.extend(self._value(value) for value in values if isinstance(value, float | list | dict))
        return found

    def _value(self, value: Any) -> dict[str, Any]:
        match value:
            case float():
                if has_six_decimals(value):
                    return {"type": "number", "minimum": value, "maximum": value}
                return {"const": value}
            case list():
                if not value:
                    return {"type": "array", "items": {}, "maxItems": 0}
                first = [self._value(one) for one in value]
                return self._numbered({"type": "array", "prefixItems": first, "items": False, "minItems": len(first)})
            case dict():
                return self._numbered(
                    {
                        "type": "object",
                        "properties": {name: self._value(part) for name, part in value.items()},
                        "required": list(value),
                        "additionalProperties": False,
                    }
                )
            case _:
                return {"enum": [value]}

    def _numbered(self, written: dict[str, Any]) -> dict[str, Any]:
        # xgrammar 0.2.8 takes two objects for one if they differ in the order of their properties only, or in those called
        # title, description, default, examples, deprecated, readOnly or writeOnly. A keyword unknown to it tells them apart.
        return {**written, "x-number": next(self._numbers)}

    def _array(self, shape: Array, depth: int) -> dict[str, Any]:
        possible = list(itertools.takewhile(lambda key: key in self._possible, shape.first))
        is_open = len(possible) == len(shape.first) and shape.rest in self._possible
        most = shape.most if is_open else len(possible) if shape.most is None else min(len(possible), shape.most)
        bounds = {"minItems": shape.least} if shape.least else {}
        if most is not None and (is_open or not possible):
            bounds["maxItems"] = most
        rest = self._key(shape.rest, depth + 1) if is_open and shape.rest is not None else {}
        if not possible:
            if rest == {} and not bounds:
                return {"type": "array"}
            return {"type": "array", "items": rest, **bounds}
        first = [self._key(key, depth + 1) for key in possible]
        return {"type": "array", "prefixItems": first, "items": rest if is_open else False, **bounds}

    def _object(self, shape: Object, depth: int) -> dict[str, Any]:
        named = {name: key for name, key in shape.properties.items() if key in self._possible}
        properties = {name: self._key(key, depth + 1) for name, key in named.items()}
        written: dict[str, Any] = {"properties": properties} if properties else {}
        if shape.required:
            written["required"] = [name for name in properties if name in shape.required]
        if shape.least:
            written["minProperties"] = shape.least
        if shape.most is not None:
            written["maxProperties"] = shape.most
        return self._numbered(self._with_others(written, shape, depth))

    def _with_others(self, written: dict[str, Any], shape: Object, depth: int) -> dict[str, Any]:
        # Without a type where keys follow patterns: vLLM 0.32 refuses these beside others, in objects that say that they are.
        by_pattern = {
            patterns.written(node, one_spelling=True): self._key(key, depth + 1)
            for node, key in shape.by_pattern
            if key in self._possible
        }
        if by_pattern:
            return {**written, "patternProperties": by_pattern, "additionalProperties": False}
        if shape.extra is None or shape.extra not in self._possible:
            return {"type": "object", **written, "additionalProperties": False}
        extra = self._key(shape.extra, depth + 1)
        if shape.extra_names is None:
            return {"type": "object", **written, "additionalProperties": extra or True}
        names = {"type": "string", "pattern": patterns.written(shape.extra_names, one_spelling=True)}
        return {**written, "propertyNames": names, "additionalProperties": extra}


def _number(shape: Number) -> dict[str, Any]:
    written: dict[str, Any] = {"type": "integer" if shape.is_integer else "number"}
    for keyword, bound in (("minimum", shape.least), ("maximum", shape.most)):
        if bound is not None:
            written[keyword] = int(bound) if bound.denominator == 1 else float(bound)
    return written


def _string(shape: String) -> dict[str, Any]:
    return {"type": "string"} if shape.texts is None else {"type": "string", "pattern": patterns.written(shape.texts)}
