"""Schemas, patterns and grammars that somebody may send to take everybody's time, and what should become of each.

They are made when they are asked for: some have 10 MB.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from gateway.structured.limits import SchemaLimits, check_choice, check_grammar, check_regex, check_size

_MB = 1_000_000

Kind = Literal["json", "choice", "regex", "grammar"]
CHECKS: dict[Kind, Callable[[Any, SchemaLimits, str], None]] = {
    "json": check_size,
    "choice": check_choice,
    "regex": check_regex,
    "grammar": check_grammar,
}


@dataclass(frozen=True, slots=True)
class Hostile:
    """What `make` makes, of a kind of `structured_outputs`.

    Refused by the limit `limit`, or by `enforceable` at the place `pointer`; or else left to the compiler for `reason`: it
    does no harm there, or is stopped there after its time.
    """

    name: str
    make: Callable[[], Any]
    kind: Kind = "json"
    limit: str | None = None
    pointer: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        return self.name


def hostile() -> Iterator[Hostile]:
    """All of them; their names are unique."""
    yield from _BEYOND_LIMITS
    yield from _UNENFORCEABLE
    yield from _LEFT_TO_THE_COMPILER


# How they are put together.


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _text(**keywords: Any) -> dict[str, Any]:
    return _object(a={"type": "string", **keywords})


def _pattern(pattern: str) -> dict[str, Any]:
    return _text(pattern=pattern)


def _wrapped(times: int, wrap: Callable[[Any], Any], kernel: Any) -> Any:
    for _ in range(times):
        kernel = wrap(kernel)
    return kernel


def _doubled(keyword: str, levels: int) -> Any:
    """Two of the same within each other: as many alternatives as 2 to the power of `levels`, in a text as long."""
    text = _wrapped(levels, lambda inner: f'{{"{keyword}":[{inner},{inner}]}}', '{"type":"null"}')
    return json.loads(text)


def _chain(levels: int, link: Callable[[str], Any], end: Any) -> dict[str, Any]:
    """Definitions of which each refers to the next."""
    links = {f"d{n}": link(f"#/$defs/d{n + 1}") for n in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{levels}": end}}


def _long_names() -> dict[str, Any]:
    return {"n" * 9_999 + last: {} for last in "abcdefgh"}


def _lengths(first: int, last: int) -> dict[str, Any]:
    return {f"text_{n}": {"type": "string", "maxLength": n} for n in range(first, last)}


def _named(count: int, value: Any) -> dict[str, Any]:
    return {f"property_{n}": value for n in range(count)}


_BEYOND_LIMITS = (
    Hostile("an enum of 200,000 values", lambda: {"enum": [f"v{n}" for n in range(200_000)]}, limit="ENUM_VALUES"),
    Hostile("an enum of 5,000 short values", lambda: {"enum": list(range(5_000))}, limit="ENUM_VALUES"),
    Hostile("enums of 3,000 values together", lambda: _object(**_named(60, {"enum": list(range(50))})), limit="ENUM_VALUES"),
    Hostile("100,000 objects deep", lambda: _wrapped(100_000, lambda inner: {"items": inner}, {}), limit="DEPTH"),
    Hostile("5,000 unions deep", lambda: _wrapped(5_000, lambda inner: {"anyOf": [inner]}, True), limit="DEPTH"),
    Hostile("exponential alternatives", lambda: _doubled("anyOf", 13), limit="ALTERNATIVES"),
    Hostile("a bomb of allOf", lambda: _doubled("allOf", 13), limit="ALTERNATIVES"),
    Hostile("10 MB in a text", lambda: {"const": "x" * (10 * _MB)}, limit="KIB"),
    Hostile("10 MB in a name", lambda: _object(**{"k" * (10 * _MB): True}), limit="KIB"),
    Hostile("10 MB of properties", lambda: _object(**_named(600_000, {})), limit="PROPERTIES"),
    Hostile("10 MB of numbers", lambda: {"examples": [[1.5e300] * 10] * 170_000}, limit="KIB"),
    Hostile("10 MB of empty arrays", lambda: {"default": [[[], []]] * 1_250_000}, limit="KIB"),
    Hostile("10 MB of levels", lambda: _wrapped(5 * _MB, lambda inner: [inner], []), limit="DEPTH"),
    Hostile("texts that six bytes stand for each character of", lambda: {"enum": ["\0" * 60_000]}, limit="KIB"),
    Hostile("names that differ in their last character only", lambda: _object(**_long_names()), limit="KIB"),
    Hostile("maxLength in the millions", lambda: _text(maxLength=5_000_000), limit="REPETITIONS"),
    Hostile("minLength beyond all numbers", lambda: _text(minLength=1e300), limit="REPETITIONS"),
    Hostile("maxItems in the millions", lambda: {"type": "array", "items": {}, "maxItems": 10**9}, limit="REPETITIONS"),
    Hostile("minItems in the millions", lambda: {"type": "array", "items": {}, "minItems": 2_000_000}, limit="REPETITIONS"),
    Hostile("1,000 optional properties", lambda: {"properties": _named(1_000, {"type": "null"})}, limit="OPTIONAL_PROPERTIES"),
    Hostile("2,000 required properties", lambda: {"properties": _named(2_000, {})}, limit="PROPERTIES"),
    Hostile("2,000 patterns of properties", lambda: {"patternProperties": _named(2_000, {})}, limit="PROPERTIES"),
    Hostile("an array of 5,000 places", lambda: {"type": "array", "prefixItems": [{}] * 5_000}, limit="PROPERTIES"),
    Hostile(
        "optional properties that are counted",
        lambda: {"type": "object", "properties": _named(100, {"type": "null"}), "minProperties": 50},
        limit="REPETITIONS",
    ),
    Hostile("a chain of 1,000 references", lambda: _chain(1_000, lambda to: {"$ref": to}, {}), limit="DEFINITIONS"),
    Hostile("1,025 references", lambda: {"items": [{"$ref": "#/x"}] * 1_024, "x": {"$ref": "#/y"}}, limit="REFERENCES"),
    Hostile("lengths that all differ", lambda: _object(**_lengths(1, 100)), limit="POSITIONS"),
    Hostile("a long repetition", lambda: _pattern("^[a-z]{1,1000000}$"), limit="PATTERN_REPETITIONS"),
    Hostile("a repetition that takes 20 ms for each token", lambda: _pattern("^.{1,256}$"), limit="PATTERN_REPETITIONS"),
    Hostile("nested repetition", lambda: _pattern("^(((a{100}){100}){100})$"), limit="POSITIONS"),
    Hostile("nested maybes", lambda: _pattern(_wrapped(6, lambda p: f"({p}){{10}}", "a?")), limit="POSITIONS"),
    Hostile("an alternation of 3,000 words", lambda: _pattern("|".join(map(str, range(3_000)))), limit="PATTERN_CHARACTERS"),
    Hostile("30,000 parentheses", lambda: "(" * 30_000 + "a" + ")" * 30_000, "regex", limit="PATTERN_CHARACTERS"),
    Hostile("500 parentheses", lambda: _pattern("(" * 500 + "a" + ")" * 500), limit="DEPTH"),
    Hostile("a pattern of 2,049 classes", lambda: "[^a]" * 2_047 + "{3}", "regex", limit="POSITIONS"),
    Hostile("a regular expression of nested repetition", lambda: "(a{100}){100}", "regex", limit="POSITIONS"),
    Hostile("100,000 choices", lambda: [f"c{n}" for n in range(100_000)], "choice", limit="ENUM_VALUES"),
    Hostile("choices of 1 MB", lambda: ["x" * 1_000] * 1_000, "choice", limit="KIB"),
    Hostile("a grammar of 10,000 rules", lambda: 'root ::= "a"\n' * 10_000, "grammar", limit="GRAMMAR_KIB"),
    Hostile("a grammar of 8,000 parentheses", lambda: f"root ::= {'(' * 8_000}", "grammar", limit="DEPTH"),
    Hostile("a long grammar", lambda: 'root ::= ("a" | "b" root){1,5000000}', "grammar", limit="REPETITIONS"),
    Hostile("a nested grammar", lambda: 'root ::= ((("a"?){0,100}){0,100}){0,100}', "grammar", limit="REPETITIONS"),
)  # fmt: skip

_UNENFORCEABLE = (
    Hostile("a reference to itself", lambda: {"$ref": "#"}, pointer="/$ref"),
    Hostile(
        "two that refer to each other",
        lambda: _chain(1, lambda to: {"$ref": to}, {"$ref": "#/$defs/d0"}),
        pointer="/$ref",
    ),
    Hostile("a union of nothing but itself", lambda: {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, pointer="/anyOf/0/$ref"),
    Hostile("an object that needs itself", lambda: _object(again={"$ref": "#"}), pointer=""),
    Hostile("a reference to another host", lambda: {"$ref": "http://169.254.169.254/latest/meta-data"}, pointer="/$ref"),
    Hostile("a reference to a file", lambda: {"$ref": "file:///etc/passwd"}, pointer="/$ref"),
    Hostile("a reference to nothing", lambda: _object(a={"$ref": "#/$defs/x"}), pointer="/properties/a/$ref"),
    Hostile(
        "a loop of $dynamicRef",
        lambda: {"$dynamicAnchor": "node", "type": "array", "items": {"$dynamicRef": "#node"}},
        pointer="/items/$dynamicRef",
    ),
    Hostile("a lookahead", lambda: _pattern("^(?=.*[a-z])(?=.*[0-9]).+$"), pointer="/properties/a/pattern"),
    Hostile("a backreference", lambda: _pattern(r"^(a+)b\1$"), pointer="/properties/a/pattern"),
    Hostile("an enum of nothing", lambda: {"enum": []}, pointer="/enum"),
    Hostile("what is not what it is", lambda: {"type": "string", "not": {"type": "string"}}, pointer=""),
)

_LEFT_TO_THE_COMPILER = (
    Hostile(
        "doubling references",
        lambda: _chain(60, lambda to: _object(a={"$ref": to}, b={"$ref": to}), {"type": "null"}),
        reason="a rule for each definition, and never one for each way to it",
    ),
    Hostile(
        "500 references to a definition of 300 properties",
        lambda: {**_object(**_named(500, {"$ref": "#/$defs/d"})), "$defs": {"d": _object(**_named(300, {"type": "null"}))}},
        reason="one rule, 500 mentions of it",
    ),
    Hostile(
        "an enum as large as may be",
        lambda: {"type": "string", "enum": [f"value number {n}" for n in range(2_048)]},
        reason="0.1 s",
    ),
    Hostile(
        "64 objects to tell apart",
        lambda: {"oneOf": [_object(kind={"const": n}, a={"type": "string"}) for n in range(64)]},
        reason="16 ms",
    ),
    Hostile("a catastrophic pattern", lambda: _pattern("^(a+)+$"), reason="it becomes an automaton, which does not go back"),
    Hostile(
        "alternatives that only their length tells apart",
        lambda: {"anyOf": list(_lengths(1, 60).values())},
        reason="more than 20 s: what alternatives have in common cannot be counted beforehand",
    ),
    Hostile(
        "repetitions that only their end tells apart",
        lambda: _pattern("|".join(f"^.{{1,60}}{letter}$" for letter in "abcdefghijklmnop")),
        reason="8 s: what alternatives have in common cannot be counted beforehand",
    ),
    Hostile(
        "a grammar with left recursion",
        lambda: 'root ::= root "a" | "a"',
        "grammar",
        reason="xgrammar 0.2.8 parses as Earley did",
    ),
    Hostile(
        "a grammar that may be read in many ways",
        lambda: 'root ::= root root | "a" | ""',
        "grammar",
        reason="xgrammar 0.2.8 parses as Earley did",
    ),
)
