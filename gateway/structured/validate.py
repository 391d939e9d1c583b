"""An answer against what its caller was promised: JSON that fits a schema, any JSON object, one of a few texts, a pattern.

JSON is what RFC 8259 says and every reader agrees about: no name twice in an object, no half of a surrogate pair, no number
that is infinite as a double (orjson 3.13), at most 200 levels (so jiter). Numbers are compared as they are written, in decimal.
"""

import json
import re
from collections.abc import Container, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Protocol

import jsonschema_rs
import orjson

from gateway.structured.explain import explained
from gateway.structured.fault import DEEPEST, Fault, Reason, pointer_to, quoted
from gateway.structured.flow import JsonFlow
from gateway.structured.making import UnknownDraft, make_validator
from gateway.structured.patterns import without_lookaheads
from gateway.structured.reach import check_reach

__all__ = ["Check", "Checker", "Choice", "Fault", "JsonObject", "Reason", "Regex"]

_LONGEST_REASON: Final = 300
_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^\[\]{}"]++', re.DOTALL)
"""Of whole JSON, what is no bracket."""


class Check(Protocol):
    """What an answer's text must be."""

    def fault(self, text: str) -> Fault | None:
        """What is wrong with an answer's text; None if it is what was promised."""
        ...

    def may_go_on(self, text: str) -> bool:
        """Whether a text that is as promised may be the beginning of another one that is."""
        ...


class Checker:
    """JSON that fits a schema: of draft 2020-12, or of that which its `$schema` names.

    Formats are checked, where the validator knows them; of an unknown format every string is. Nothing outside the schema is
    ever read. Patterns are matched in linear time. It keeps nothing of the answers.
    """

    __slots__ = ("_schema", "_validator")

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises ValueError, in words for the caller: it is no JSON Schema, or none that can be checked in bounded time."""
        patterns = check_reach(schema)
        self._schema = schema
        self._validator = _validator(schema, patterns)

    def fault(self, text: str) -> Fault | None:
        """What is wrong with an answer's text; None if it is JSON that fits the schema."""
        value = _read(text)
        if isinstance(value, Fault):
            return value
        return None if self._validator.is_valid(value) else explained(self._schema, value)

    def may_go_on(self, text: str) -> bool:
        """Whether a text that is as promised may be the beginning of another one: of JSON, numbers only are."""
        return text[-1:].isdigit()


_VALUES: Final = frozenset({"enum", "const", "default", "examples", "example"})
_WITH_TUPLES: Final = "https://json-schema.org/draft/2019-09/schema"


def checkable(schema: Mapping[str, Any], relaxed: Container[str] = ()) -> dict[str, Any]:
    """The schema as a `Checker` can take it: the validator's patterns know no look-around.

    What looks ahead was held to say no more than its format does, but at the pointers in `relaxed`, and is left out. A schema
    that names no draft, and whose `items` is an array, is of the last draft that knew such.
    """
    made: dict[str, Any] = _without_lookaheads(schema, "", relaxed)
    return {"$schema": _WITH_TUPLES, **made} if "$schema" not in made and _has_tuples(made) else made


def _without_lookaheads(part: Any, pointer: str, relaxed: Container[str]) -> Any:
    if isinstance(part, list):
        return [_without_lookaheads(one, f"{pointer}/{place}", relaxed) for place, one in enumerate(part)]
    if not isinstance(part, Mapping):
        return part
    made = {
        name: value if name in _VALUES else _without_lookaheads(value, f"{pointer}{pointer_to((name,))}", relaxed)
        for name, value in part.items()
    }
    if isinstance(part.get("pattern"), str) and f"{pointer}/pattern" not in relaxed:
        made["pattern"] = without_lookaheads(part["pattern"])[0]
    return made


def _has_tuples(part: Any) -> bool:
    if isinstance(part, list):
        return any(map(_has_tuples, part))
    if not isinstance(part, Mapping):
        return False
    return isinstance(part.get("items"), list) or any(_has_tuples(inner) for name, inner in part.items() if name not in _VALUES)


class JsonObject:
    """Any JSON object."""

    __slots__ = ()

    def fault(self, text: str) -> Fault | None:
        """What is wrong with an answer's text; None if it is a JSON object."""
        value = _read(text)
        if isinstance(value, Fault):
            return value
        return None if isinstance(value, dict) else Fault("schema", "", "The answer is JSON, and no object.")

    def may_go_on(self, text: str) -> bool:  # noqa: ARG002  # whatever it is, it is whole
        """An object is whole."""
        return False


class Choice:
    """One of a few texts, to the letter."""

    __slots__ = ("_choices",)

    def __init__(self, choices: Sequence[str]) -> None:
        self._choices = frozenset(choices)

    def fault(self, text: str) -> Fault | None:
        """What is wrong with an answer's text; None if it is one of them."""
        return None if text in self._choices else Fault("choice", "", f'"{quoted(text)}" is none of the choices.')

    def may_go_on(self, text: str) -> bool:
        """Whether another choice begins with this one."""
        return any(choice != text and choice.startswith(text) for choice in self._choices)


class Regex:
    """A text that a pattern matches from its first character to its last, in linear time."""

    __slots__ = ("_validator",)

    def __init__(self, pattern: str) -> None:
        """Raises ValueError: the pattern is none, or one that needs backtracking."""
        # By itself first: `a)|(b` is no pattern, though it would be one in parentheses.
        _validator({"pattern": pattern})
        self._validator = _validator({"pattern": f"^(?:{pattern})$"})

    def fault(self, text: str) -> Fault | None:
        """What is wrong with an answer's text; None if the pattern matches all of it."""
        if _is_text(text) and self._validator.is_valid(text):
            return None
        return Fault("regex", "", f'"{quoted(text)}" does not match the pattern.')

    def may_go_on(self, text: str) -> bool:  # noqa: ARG002  # it would have to be asked of the pattern
        """It may, for all that is known."""
        return True


def _validator(schema: Mapping[str, Any], patterns: int = 1) -> jsonschema_rs.Validator:
    try:
        return make_validator(schema, patterns)
    except jsonschema_rs.ValidationError as error:
        raise ValueError(_refused(error)) from error
    except jsonschema_rs.ReferencingError as error:
        raise ValueError(f"It is no JSON Schema: {_short(str(error))}") from error
    except UnknownDraft:
        raise
    except ValueError as error:
        raise ValueError("It is nested too deeply.") from error


def _refused(error: jsonschema_rs.ValidationError) -> str:
    at = pointer_to(tuple(error.instance_path)) or "the root"
    if error.schema_path[-1:] == ["format"] or error.kind.name in {"format", "pattern"}:
        return (
            f"The pattern at {at} cannot be matched in linear time: look-around, back references and long"
            f" repetitions of large classes (maxLength does more than .{{0,1000}}) are not supported: {_short(error.message)}."
        )
    return f"It is no JSON Schema, at {at}: {_short(error.message)}"


def _short(message: str) -> str:
    return message if len(message) <= _LONGEST_REASON else f"{message[: _LONGEST_REASON - 3]}..."


class _Twice(Exception):
    """An object has two members of one name."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Twice(name)
            seen.add(name)
    return members


_EXACT = json.JSONDecoder(parse_float=Decimal, object_pairs_hook=_members)
"""CPython's own: it takes more than JSON, and keeps every digit of what orjson has found to be JSON."""


def _read(text: str) -> Any | Fault:
    """The value of a JSON text, with whole numbers as int and others as Decimal; or what is wrong with it."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _not_json(text, str(error.args[0]))
    if text.count("[") + text.count("{") > DEEPEST and _depth(text) > DEEPEST:
        return _too_deep(text)
    try:
        return _EXACT.decode(text)
    except ArithmeticError:
        return Fault("not_json", "", "A number has an exponent that no reader can take.")
    except _Twice as twice:
        name = quoted(json.dumps(str(twice)[:100], ensure_ascii=False))
        return Fault("duplicate_key", "", f"An object has two members {name}: readers differ in which they take.")


def _not_json(text: str, found: str) -> Fault:
    flow = JsonFlow()
    fault = flow.add(text)
    # Blanks without end are the stream's affair: here something else is wrong.
    if fault is not None and fault.reason != "whitespace":
        return fault
    if fault is None and not flow.is_whole:
        return Fault("cut_short", flow.pointer, "The answer ends before its JSON does.")
    return Fault("not_json", "", f"The answer is no JSON that can be read: {_short(found)}.")


def _too_deep(text: str) -> Fault:
    fault = JsonFlow().add(text)
    pointer = fault.pointer if fault is not None and fault.reason == "too_deep" else ""
    return Fault("too_deep", pointer, f"More than {DEEPEST} arrays and objects are within each other.")


def _depth(text: str) -> int:
    deepest = depth = 0
    for bracket in _BRACKETS.sub("", text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _is_text(text: str) -> bool:
    """Whether it can be sent: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
