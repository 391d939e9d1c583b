"""Where an answer leaves its schema, and how: found by walking both, in a bounded number of steps.

The validator's own account of a fault goes through all alternatives of all levels: jsonschema-rs 0.60 takes seconds for one
that it finds in a millisecond, and may overflow the stack over it.
"""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import jsonschema_rs

from gateway.structured.fault import Fault, pointer_to, quoted
from gateway.structured.making import make_validator
from gateway.structured.reach import Unfollowable, resolved

_MOST_STEPS: Final = 5000
"""Pairs of a value and a schema that are looked at, 6 µs each."""
_LONGEST_MESSAGE: Final = 300
_VALUE: Final = "\x00"
"""Stands for the value in the validator's words."""

_PLAIN: Final = frozenset({
    "type", "enum", "const", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength",
    "maxLength", "pattern", "format", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "required",
    "dependentRequired", "contentEncoding", "contentMediaType",
})  # fmt: skip
_COMBINING: Final = (
    ("anyOf",), ("oneOf",), ("not",), ("if", "then", "else"), ("contains", "minContains", "maxContains"),
    ("dependentSchemas",), ("dependencies",), ("propertyNames",), ("patternProperties",),
)  # fmt: skip
_CHOOSING: Final = ("anyOf", "oneOf")
_DEFINITIONS: Final = ("$schema", "$defs", "definitions")
_TYPES: Final[Mapping[type, frozenset[str]]] = {
    dict: frozenset({"object"}),
    list: frozenset({"array"}),
    str: frozenset({"string"}),
    bool: frozenset({"boolean"}),
    int: frozenset({"integer", "number"}),
    Decimal: frozenset({"integer", "number"}),
    type(None): frozenset({"null"}),
}

_Path = tuple[str | int, ...]
_Step = tuple[Any, Any, _Path]
_Made = dict[tuple[int, str], jsonschema_rs.Validator | None]
"""By the address of a part of the schema, which outlives it, and the first keyword that is looked at there."""


def explained(schema: Mapping[str, Any], answer: Any) -> Fault:
    """What is wrong with an answer that does not fit a schema, as near to it as a bounded number of steps leads."""
    waiting: list[_Step] = [(schema, answer, ())]
    made: _Made = {}
    for _ in range(_MOST_STEPS):
        if not waiting:
            return _fault((), "The answer does not fit the schema where that combines others (anyOf, oneOf, not, if, ...).")
        part, value, path = waiting.pop()
        if part is False:
            return _fault(path, f"{_shown(value)} is in a place where the schema allows nothing.")
        if not isinstance(part, Mapping):
            continue
        message = _wrong_here(schema, part, value, made)
        if message is not None:
            return _fault(path, message)
        steps = [*_same_value(schema, part, value, path), *_within(part, value, path)]
        waiting.extend(step for step in reversed(steps) if step[0] is not True)
    return _fault((), "The answer does not fit the schema.")


def _fault(path: _Path, message: str) -> Fault:
    short = message if len(message) <= _LONGEST_MESSAGE else f"{message[: _LONGEST_MESSAGE - 3]}..."
    return Fault("schema", pointer_to(path), short)


def _shown(value: Any) -> str:
    """A value as JSON, shortened; its beginning is enough, however large it is."""
    if isinstance(value, str):
        return quoted(json.dumps(value[:100], ensure_ascii=False))
    if isinstance(value, Mapping | list):
        return "The object" if isinstance(value, Mapping) else "The array"
    return quoted(str(value) if isinstance(value, Decimal) else json.dumps(value))


def _wrong_here(root: Mapping[str, Any], part: Mapping[str, Any], value: Any, made: _Made) -> str | None:
    """What is wrong with the value itself, in words."""
    validator = _plain(root, part, made)
    if validator is not None and not validator.is_valid(value):
        return _said(validator, value)
    unknown = _unknown_name(part, value)
    if unknown is not None:
        return f"The property {quoted(json.dumps(unknown[:100], ensure_ascii=False))} is none that the schema allows."
    for keywords in _COMBINING:
        keyword = keywords[0]
        if keyword not in part or (keyword in _CHOOSING and _meant(root, part[keyword], value) is not None):
            continue  # the fault of an alternative that is meant says more
        validator = _combining(root, part, keywords, made)
        if validator is not None and not validator.is_valid(value):
            return f'{_shown(value)} does not fit "{keyword}".'
    return None


def _plain(root: Mapping[str, Any], part: Mapping[str, Any], made: _Made) -> jsonschema_rs.Validator | None:
    """Of what a part says about a value without other schemas."""
    known = (id(part), "")
    if known not in made:
        plain = {keyword: part[keyword] for keyword in part if keyword in _PLAIN}
        draft = {"$schema": root["$schema"]} if "$schema" in root else {}
        made[known] = make_validator({**draft, **plain}, mask=_VALUE) if plain else None
    return made[known]


def _combining(
    root: Mapping[str, Any], part: Mapping[str, Any], keywords: tuple[str, ...], made: _Made
) -> jsonschema_rs.Validator | None:
    """Of keywords that combine schemas; None where a reference from there needs more than the definitions."""
    known = (id(part), keywords[0])
    if known not in made:
        definitions = {keyword: root[keyword] for keyword in _DEFINITIONS if keyword in root}
        combined = {keyword: part[keyword] for keyword in keywords if keyword in part}
        try:
            made[known] = make_validator({**definitions, **combined})
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
            made[known] = None
    return made[known]


def _said(validator: jsonschema_rs.Validator, value: Any) -> str:
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return error.message.replace(_VALUE, _shown(value)) + "."
    raise AssertionError("the same validator found it invalid")


def _unknown_name(part: Mapping[str, Any], value: Any) -> str | None:
    if not isinstance(value, Mapping) or part.get("additionalProperties") is not False or "patternProperties" in part:
        return None
    known = part.get("properties", {})
    return next((name for name in value if name not in known), None)


def _same_value(root: Mapping[str, Any], part: Mapping[str, Any], value: Any, path: _Path) -> Iterator[_Step]:
    """The schemas that the same value must fit: where one alternative alone is of its type, that is meant."""
    reference = part.get("$ref")
    if isinstance(reference, str):
        try:
            yield resolved(root, reference or "#")[1], value, path
        except Unfollowable:
            return
    for found in part.get("allOf", ()):
        yield found, value, path
    for keyword in _CHOOSING:
        meant = _meant(root, part[keyword], value) if keyword in part else None
        if meant is not None:
            yield meant, value, path


def _within(part: Mapping[str, Any], value: Any, path: _Path) -> Iterator[_Step]:
    if isinstance(value, Mapping):
        known = part.get("properties", {})
        other = True if "patternProperties" in part else part.get("additionalProperties", True)
        for name, inner in value.items():
            yield known.get(name, other), inner, (*path, name)
    elif isinstance(value, list):
        first = part.get("prefixItems", [])
        items = part.get("items", True)
        if isinstance(items, list):  # before 2020-12
            first, items = items, part.get("additionalItems", True)
        for place, inner in enumerate(value):
            yield (first[place] if place < len(first) else items), inner, (*path, place)


def _meant(root: Mapping[str, Any], alternatives: Any, value: Any) -> Any:
    """The one alternative that a value of this type can fit, None if there are more or none."""
    types = _TYPES[type(value)]
    fitting = [found for found in alternatives if _may_be(root, found, types)]
    return fitting[0] if len(fitting) == 1 else None


def _may_be(root: Mapping[str, Any], found: Any, types: frozenset[str]) -> bool:
    if not isinstance(found, Mapping):
        return bool(found)
    if "type" not in found and isinstance(found.get("$ref"), str):
        try:
            found = resolved(root, found["$ref"] or "#")[1]
        except Unfollowable:
            return True
    of = found.get("type") if isinstance(found, Mapping) else None
    if of is None:
        return True
    return not types.isdisjoint([of] if isinstance(of, str) else of)
