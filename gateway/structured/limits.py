"""The budget of a schema: what it may hold before anybody reads it in earnest.

An engine turns a schema into a grammar twice: on the thread that serves all its streams, and before the first token. Then it
fills a mask of tokens for every token of the answer, between two steps of all that it generates. So one caller's schema can
take everybody's time; what takes it was measured (docs/structured-outputs-costs.md), and is counted here.

Counting costs no more than the budget: whatever is given, it ends at the first limit, and 64 KiB are through in 2 ms.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.errors import SchemaOverLimit, SchemaRefused, shortened

_KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class SchemaLimits:
    """What a schema may hold; each is a setting, in capitals after `FOVEA_`.

    The largest of the 200 schemas in tests/structured_corpus needs a fourth of each or less. In brackets what OpenAI allows in
    its strict mode, and what xgrammar 0.2.8 takes at the limit, with 32,000 tokens and one thread of an old core: "read" is on
    the engine's own thread, where all its streams wait; "compiled" is not.
    """

    schema_kib: int = 64
    """Bytes of the schema as JSON, in KiB [120,000 characters of names and values; up to 5 ms read]."""
    schema_values: int = 8192
    """Members of objects and items of arrays in the document, in all [no such limit]: 64 KiB of real schemas have 5,000."""
    schema_depth: int = 32
    """Levels of objects and arrays in the document; of groups in a pattern or grammar [10 levels of objects in the answer, some
    30 of these; 14 ms read, and 67 ms at 60; vLLM 0.32 refuses 65]."""
    schema_properties: int = 1024
    """Properties, patterns of properties and places of `prefixItems`, in all [5,000; 4 ms read, 0.13 s compiled; 5,000 of them
    take 80 ms and 2.6 s]."""
    schema_optional_properties: int = 128
    """Properties of one object that are not in `required` [none]: each of them may come after each; with
    `additionalProperties`, 200 take 2 s."""
    schema_enum_values: int = 2048
    """Values of all `enum`, or of `choice` [1,000; 2 ms read, 0.1 s compiled]."""
    schema_alternatives: int = 1024
    """Branches of all `anyOf`, `oneOf` and `allOf` [no such limit; some 25 ms read, and 70 ms for twice as many]: two for each
    property that may be null."""
    schema_definitions: int = 256
    """Definitions in `$defs` and `definitions`, in all [no such limit]."""
    schema_references: int = 1024
    """References, in all [no such limit]: whoever follows them has no more to do than whoever reads the rest."""
    schema_repetitions: int = 4096
    """The largest of `minItems`, `maxItems`, `minLength`, `maxLength`, `minProperties`, `maxProperties`, `minContains` and
    `maxContains`, and of a count in a grammar; and the optional properties of an object times its `minProperties` or
    `maxProperties` [no such limit; the former cost the same at any value, 1.6 s compiled and 0.3 ms for each token's mask with
    `maxLength`; of the latter, 5,000 take 1 s]. A text of 4,096 characters is some 1,000 tokens."""
    schema_pattern_characters: int = 8192
    """Characters of all patterns that differ [no such limit; 9 ms read, 0.04 s compiled]."""
    schema_pattern_repetitions: int = 128
    """The largest count of a pattern's `{m,n}` [no such limit; 7 ms read for `.{1,128}` and 0.03 ms for each token's mask; from
    129 on xgrammar takes another way: `.{1,256}` takes 34 ms read and 20 ms for each token, in which nobody gets one]."""
    schema_positions: int = 2048
    """Characters and classes of all patterns that differ, their counts written out: `(\\d{2}:){3}` has 9; and for each text of
    another `maxLength` as many, up to 256 [no such limit; a class or any character costs 2 to 6 ms compiled for each of its
    positions, so that a `maxLength` of 64 takes 0.5 s and eight of some hundred take 15 s, where eight threads are faster]."""
    schema_grammar_kib: int = 16
    """Bytes of a grammar, in KiB [a grammar of 34 KB and 1,000 rules takes 0.14 s compiled]."""


def check_size(schema: object, limits: SchemaLimits, param: str) -> None:
    """Passes a schema, parsed, that is within its limits.

    Raises SchemaOverLimit: it is not; SchemaRefused: it is nothing that JSON could have said.
    """
    _Count(limits, param).take(schema)


def check_choice(choices: Sequence[str], limits: SchemaLimits, param: str) -> None:
    """Passes a list of choices within the limits of values and of bytes. Raises SchemaOverLimit."""
    refuse = _Refusal("The list of choices", limits, param)
    if len(choices) > limits.schema_enum_values:
        refuse("schema_enum_values", len(choices), "has {value:,} values")
    _check_bytes(choices, refuse)


def check_regex(pattern: str, limits: SchemaLimits, param: str) -> None:
    """Passes a regular expression within the limits of patterns. Raises SchemaOverLimit."""
    refuse = _Refusal("The regular expression", limits, param)
    positions = _check_pattern(pattern, refuse, None)
    if positions > limits.schema_positions:
        refuse("schema_positions", positions, "has {value:,} positions, its counts written out")


def check_grammar(grammar: str, limits: SchemaLimits, param: str) -> None:
    """Passes a grammar within the limits of bytes, of groups within groups, and of repetitions. Raises SchemaOverLimit."""
    refuse = _Refusal("The grammar", limits, param)
    _check_bytes([grammar], refuse, "schema_grammar_kib")
    extent = _extent(grammar, _GRAMMAR_TOKEN, limits.schema_depth)
    _check_groups(extent, refuse, None)
    if extent.nested > limits.schema_repetitions:
        refuse("schema_repetitions", extent.nested, "repeats {value:,} times")


_Path = tuple[Any, str | int]
"""A place in the document: the place of what holds it, None for the document, and the name or number in there."""

_SHOWN_POINTER: Final = 500
_SHOWN_NUMBER: Final = 2**53
"""The largest number that every reader of JSON takes as it is."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Says which limit, and by how much."""

    subject: str
    limits: SchemaLimits
    param: str

    def __call__(self, limit: str, value: float, says: str, path: _Path | None = None) -> None:
        setting, allowed = f"FOVEA_{limit.upper()}", getattr(self.limits, limit)
        shown = int(min(value, _SHOWN_NUMBER))
        pointer = _pointer(path)
        where = f" (at {shortened(pointer)})" if pointer else ""
        raise SchemaOverLimit(
            f"{self.subject} {says.format(value=shown)}{where}; {setting} allows {allowed}.",
            param=self.param,
            details={"pointer": pointer, "limit": setting, "value": shown, "allowed": allowed},
        )


def _pointer(path: _Path | None) -> str:
    """A JSON pointer (RFC 6901) of at most 500 characters: one that is longer ends in dots, and points nowhere."""
    names: list[str] = []
    while path is not None:
        path, name = path
        names.append(str(name).replace("~", "~0").replace("/", "~1"))
    pointer = "".join(f"/{name}" for name in reversed(names))
    return pointer if len(pointer) <= _SHOWN_POINTER else f"{pointer[: _SHOWN_POINTER - 3]}..."


def _check_bytes(texts: Sequence[str], refuse: _Refusal, limit: str = "schema_kib") -> None:
    most = getattr(refuse.limits, limit) * _KIB
    at_least = sum(len(text) for text in texts)  # UTF-8 takes no fewer, and to make it of 10 MB takes long
    size = len(orjson.dumps(texts)) if at_least <= most else at_least
    if size > most:
        refuse(limit, -(-size // _KIB), "has {value:,} KiB")


# Of a schema.

_REPETITIONS: Final = frozenset({
    "minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties", "minContains", "maxContains",
})  # fmt: skip
_BY_NAME: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose objects have names of the caller's own, and not keywords."""


class _Count:
    """What has been seen of a schema.

    Every object is taken for a schema, be it within `default` or `x-anything`: a `$ref` may lead anywhere. Only where names are
    the caller's own they are not taken for keywords.
    """

    __slots__ = ("_bytes", "_limits", "_most_bytes", "_of", "_refuse", "_seen", "_waiting")

    def __init__(self, limits: SchemaLimits, param: str) -> None:
        self._limits = limits
        self._refuse = _Refusal("The schema", limits, param)
        self._bytes = 0
        self._most_bytes = limits.schema_kib * _KIB
        self._of: dict[str, int] = {}
        self._seen: set[object] = set()
        self._waiting: list[tuple[Any, _Path | None, int, bool]] = []

    def take(self, schema: object) -> None:
        self._array([schema], None, 0)
        while self._waiting:
            node, path, depth, are_names = self._waiting.pop()
            if isinstance(node, dict):
                self._object(node, path, depth, are_names=are_names)
            else:
                self._array(node, path, depth)
        # What was counted is the least that it can be: numbers and escapes take more.
        try:
            size = len(orjson.dumps(schema))
        except orjson.JSONEncodeError as error:
            raise SchemaRefused(f"The schema is no JSON: {error}.", param=self._refuse.param) from error
        self._add_bytes(size - self._bytes, None)

    def _array(self, items: list[Any], path: _Path | None, depth: int) -> None:
        size = 0
        for number, item in enumerate(items):
            kind = type(item)
            if kind is str:
                size += len(item)
            elif item and (kind is dict or kind is list):
                self._hold(item, (path, number) if depth else None, depth + 1, are_names=False)
        self._add_bytes(size, path)

    def _object(self, members: dict[str, Any], path: _Path | None, depth: int, *, are_names: bool) -> None:
        size = 0
        for name, value in members.items():
            size += len(name)
            if name in _KEYWORDS and not are_names:
                self._keyword(name, value, members, (path, name))
            kind = type(value)
            if kind is str:
                size += len(value)
            elif value and (kind is dict or kind is list):
                self._hold(value, (path, name), depth + 1, are_names=not are_names and name in _BY_NAME)
        self._add_bytes(size, path)

    def _hold(self, node: Any, path: _Path | None, depth: int, *, are_names: bool) -> None:
        """Keeps an object or array for later, and counts what it has: no more are looked at than may be."""
        if depth > self._limits.schema_depth:
            self._refuse("schema_depth", depth, "has {value:,} levels or more", path)
        # Each value takes a character and a comma, and a name two quotes and a colon.
        self._add_bytes(len(node) * (5 if isinstance(node, dict) else 2), path)
        self._add("schema_values", len(node), "values", path)
        self._waiting.append((node, path, depth, are_names))

    def _keyword(self, name: str, value: Any, members: Mapping[str, Any], path: _Path) -> None:
        if name in _REPETITIONS:
            self._repetitions(value, name, path)
            if name == "maxLength":
                self._length(members, path)
            return
        if (count := _COUNTED.get(name)) is not None and isinstance(value, count.kind):
            self._add(count.limit, len(value) if isinstance(value, dict | list) else 1, count.what, path)
        if name == "properties" and isinstance(value, dict):
            self._optional(value, members, path)
        elif name == "patternProperties" and isinstance(value, dict):
            for pattern in value:
                self._pattern(pattern, (path, pattern))
        elif name == "pattern" and isinstance(value, str):
            self._pattern(value, path)

    def _add_bytes(self, count: int, path: _Path | None) -> None:
        self._bytes += count
        if self._bytes > self._most_bytes:
            self._refuse("schema_kib", -(-self._bytes // _KIB), "has {value:,} KiB or more", path)

    def _add(self, limit: str, more: int, what: str, path: _Path | None) -> None:
        total = self._of[limit] = self._of.get(limit, 0) + more
        if total > getattr(self._limits, limit):
            self._refuse(limit, total, f"has {{value:,}} {what} or more", path)

    def _pattern(self, pattern: str, path: _Path) -> None:
        if pattern not in self._seen:
            self._seen.add(pattern)
            self._add("schema_pattern_characters", len(pattern), "characters of patterns", path)
            self._add("schema_positions", _check_pattern(pattern, self._refuse, path), _POSITIONS, path)

    def _length(self, members: Mapping[str, Any], path: _Path) -> None:
        """The automaton of a text with a `maxLength` is built once for each, and no larger from 256 on."""
        least, most = members.get("minLength"), members["maxLength"]
        if isinstance(most, int | float) and (key := (repr(least), most)) not in self._seen:
            self._seen.add(key)
            self._add("schema_positions", int(min(max(most, 0), _LONGEST_AUTOMATON)), _POSITIONS, path)

    def _optional(self, properties: dict[str, Any], members: Mapping[str, Any], path: _Path) -> None:
        limits, required = self._limits, members.get("required")
        # No more than may be: what has more ends when its turn comes.
        listed = required[: limits.schema_values] if isinstance(required, list) else ()
        optional = len(properties.keys() - {name for name in listed if isinstance(name, str)})
        if optional > limits.schema_optional_properties:
            self._refuse("schema_optional_properties", optional, "has an object with {value:,} optional properties", path)
        # Each of them has a state for each number of properties that may have come before.
        counts = [members.get(name) for name in ("minProperties", "maxProperties")]
        most = max((count for count in counts if isinstance(count, int)), default=0)
        if optional * most > limits.schema_repetitions:
            says = "has an object that tells {value:,} cases apart, of so many optional properties and of `minProperties` or"
            self._refuse("schema_repetitions", optional * most, f"{says} `maxProperties`", path)

    def _repetitions(self, value: object, name: str, path: _Path) -> None:
        if isinstance(value, int | float) and value > self._limits.schema_repetitions:
            self._refuse("schema_repetitions", value, f"has a `{name}` of {{value:,}}", path)


@dataclass(frozen=True, slots=True)
class _Counted:
    """A keyword of which there are so many in all: of its own, or of what its object or array holds."""

    limit: str
    what: str
    kind: type


_COUNTED: Final[Mapping[str, _Counted]] = {
    "properties": _Counted("schema_properties", "properties", dict),
    "patternProperties": _Counted("schema_properties", "properties", dict),
    "prefixItems": _Counted("schema_properties", "properties and places of arrays", list),
    "items": _Counted("schema_properties", "properties and places of arrays", list),
    "enum": _Counted("schema_enum_values", "enum values", list),
    "anyOf": _Counted("schema_alternatives", "alternatives", list),
    "oneOf": _Counted("schema_alternatives", "alternatives", list),
    "allOf": _Counted("schema_alternatives", "alternatives", list),
    "$defs": _Counted("schema_definitions", "definitions", dict),
    "definitions": _Counted("schema_definitions", "definitions", dict),
    "$ref": _Counted("schema_references", "references", str),
    "$dynamicRef": _Counted("schema_references", "references", str),
}
_POSITIONS: Final = "positions of patterns and lengths"
_LONGEST_AUTOMATON: Final = 256
_KEYWORDS: Final = frozenset({*_REPETITIONS, *_COUNTED, "pattern"})


# Of a pattern, or a grammar.

_CLASS: Final = r"\[\^?(?:\\.|[^\]\\])*+\]"
_COUNT: Final = r"\{(?P<least>\d*),?(?P<most>\d*)\}"
_PATTERN_TOKEN: Final = re.compile(
    rf"(?P<plain>[^\\\[(){{]++)|(?P<one>\\.|{_CLASS})|(?P<group>[()])|(?P<count>{_COUNT})|(?P<other>.)", re.DOTALL
)
_GRAMMAR_TOKEN: Final = re.compile(
    rf'(?P<plain>[^"\[(){{]++)|(?P<one>"(?:\\.|[^"\\])*+"|{_CLASS})|(?P<group>[()])|(?P<count>{_COUNT})|(?P<other>.)', re.DOTALL
)
_ENOUGH: Final = 10**9
"""Where counting ends: what is nested a hundred times would have hundreds of digits."""


@dataclass(frozen=True, slots=True)
class _Extent:
    positions: int
    most: int
    """The largest count."""
    nested: int
    """The largest product of counts within each other."""
    groups: int


def _extent(text: str, token: re.Pattern[str], most_groups: int) -> _Extent:
    """How much a pattern is with its counts written out, until more than `most_groups` are within each other.

    What is no pattern is counted as far as it makes sense.
    """
    outer: list[tuple[int, int]] = []
    before = last = 0  # positions: of the group before what came last, and of that
    within = repeats = 1  # products of counts: the largest of the group, and of what came last
    most = deepest = 0
    for match in token.finditer(text):
        kind, said = match.lastgroup, match[0]
        if kind == "count":
            times = _times(match)
            most = max(most, times)
            last, repeats = min(last * times, _ENOUGH), min(repeats * times, _ENOUGH)
            within = max(within, repeats)
        elif said == "(":
            outer.append((before + last, within))
            before, last, within, repeats = 0, 0, 1, 1
            deepest = max(deepest, len(outer))
            if deepest > most_groups:
                break
        elif said == ")":
            last, repeats = before + last, within
            before, within = outer.pop() if outer else (0, within)
            within = max(within, repeats)
        elif kind == "other" and said in _OPEN:
            break  # a class or text without its end: no pattern, and to look for the end from each of them takes long
        else:
            before, last = min(before + last + (len(said) - 1 if kind == "plain" else 0), _ENOUGH), 1
            repeats = 1
    return _Extent(sum(positions for positions, _ in outer) + before + last, most, within, deepest)


_OPEN: Final = frozenset({"[", '"'})


def _times(match: re.Match[str]) -> int:
    """Of `{m,n}` n, of `{m}` and `{m,}` m, and 1 at least: what may be none is still built once."""
    digits = (match["most"] or match["least"]).lstrip("0")
    return max(1, _ENOUGH if len(digits) > 9 else int(digits or 0))


def _check_pattern(pattern: str, refuse: _Refusal, path: _Path | None) -> int:
    """Its positions, once it has passed all limits but that of positions."""
    limits = refuse.limits
    if len(pattern) > limits.schema_pattern_characters:
        refuse("schema_pattern_characters", len(pattern), "has a pattern of {value:,} characters", path)
    if "{" not in pattern and pattern.count("(") <= limits.schema_depth:
        return len(pattern)
    extent = _extent(pattern, _PATTERN_TOKEN, limits.schema_depth)
    _check_groups(extent, refuse, path)
    if extent.most > limits.schema_pattern_repetitions:
        refuse("schema_pattern_repetitions", extent.most, "has a pattern that repeats {value:,} times", path)
    return extent.positions


def _check_groups(extent: _Extent, refuse: _Refusal, path: _Path | None) -> None:
    if extent.groups > refuse.limits.schema_depth:
        refuse("schema_depth", extent.groups, "has {value:,} groups within each other or more", path)
