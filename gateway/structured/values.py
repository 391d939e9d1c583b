"""Whether a value fits a schema: for the values of `enum` and `const`, which are tried one by one."""

import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeAlias

from gateway.structured import formats, patterns
from gateway.structured.keywords import KEYWORDS, is_number
from gateway.structured.references import Document, LeadsNowhere, step

_DEEPEST = 60
_MOST_STEPS = 200_000

Same: TypeAlias = Any
"""Equal for values that JSON Schema calls equal: 1 and 1.0, but not 1 and true."""


class Undecided(Exception):
    """Whether the value fits cannot be said here."""


def exact(number: float) -> Fraction:
    """The number that a parsed JSON number was written as."""
    return Fraction(number) if isinstance(number, int) else Fraction(Decimal(repr(number)))


def same(value: Any) -> Same:
    """What two equal values have in common, hashable."""
    match value:
        case bool() | None | str():
            return (type(value).__name__, value)
        case int() | float():
            return ("number", exact(value) if math.isfinite(value) else str(value))
        case list():
            return ("list", tuple(map(same, value)))
        case _:
            return ("object", frozenset((name, same(part)) for name, part in value.items()))


def type_of(value: Any) -> str:
    """The JSON type of a parsed value; whole numbers are integers."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case int() | float():
            return "integer" if math.isfinite(value) and value == int(value) else "number"
        case list():
            return "array"
        case _:
            return "object"


class Values:
    """Tries values against the parts of one document; all together within a bounded number of steps."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._steps = 0
        self._listed: dict[str, frozenset[Same]] = {}
        self._machines: dict[str, patterns.Matcher] = {}

    def fits(self, value: Any, pointer: str, depth: int = 0) -> bool:
        """Whether `value` fits the schema at `pointer`. Raises Undecided."""
        self._steps += 1
        if self._steps > _MOST_STEPS or depth > _DEEPEST:
            raise Undecided
        try:
            schema = self._document.at(pointer)
        except LeadsNowhere as error:
            raise Undecided from error
        if isinstance(schema, bool):
            return schema
        for name in schema:
            if name.startswith(("unevaluated", "$dynamicRef", "$recursiveRef")):
                raise Undecided
            if name in KEYWORDS and KEYWORDS[name].fault(schema[name]) is not None:
                raise Undecided
        return (
            self._fits_itself(value, schema, pointer)
            and self._fits_type(value, schema, pointer, depth)
            and all(self._applied(value, schema, pointer, depth))
        )

    def _fits_itself(self, value: Any, schema: dict[str, Any], pointer: str) -> bool:
        if "type" in schema:
            names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
            kind = type_of(value)
            if kind not in names and not (kind == "integer" and "number" in names):
                return False
        if "const" in schema and same(schema["const"]) != same(value):
            return False
        if "enum" not in schema:
            return True
        if pointer not in self._listed:
            self._listed[pointer] = frozenset(map(same, schema["enum"]))
        return same(value) in self._listed[pointer]

    def _applied(self, value: Any, schema: dict[str, Any], pointer: str, depth: int) -> Iterator[bool]:
        def each(keyword: str) -> Iterator[bool]:
            below = step(pointer, keyword)
            return (self.fits(value, step(below, place), depth + 1) for place in range(len(schema[keyword])))

        if "$ref" in schema:
            try:
                yield self.fits(value, self._document.target(schema["$ref"]), depth + 1)
            except LeadsNowhere as error:
                raise Undecided from error
        if "allOf" in schema:
            yield all(each("allOf"))
        if "anyOf" in schema:
            yield any(each("anyOf"))
        if "oneOf" in schema:
            yield sum(each("oneOf")) == 1
        if "not" in schema:
            yield not self.fits(value, step(pointer, "not"), depth + 1)
        if "if" in schema:
            branch = "then" if self.fits(value, step(pointer, "if"), depth + 1) else "else"
            yield branch not in schema or self.fits(value, step(pointer, branch), depth + 1)

    def _fits_type(self, value: Any, schema: dict[str, Any], pointer: str, depth: int) -> bool:
        if isinstance(value, str):
            return self._fits_string(value, schema)
        if is_number(value):
            return _fits_number(exact(value), schema)
        if isinstance(value, list):
            return all(self._list(value, schema, pointer, depth))
        if isinstance(value, dict):
            return all(self._object(value, schema, pointer, depth))
        return True

    def _fits_string(self, value: str, schema: dict[str, Any]) -> bool:
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            return False
        if "pattern" in schema and not self.matches(schema["pattern"], value):
            return False
        name = schema.get("format")
        if name is None or name in formats.NOTES or name in formats.BOUNDS:
            return True
        if name not in formats.ENFORCED:
            raise Undecided
        return self._run(f"format {name}", lambda: formats.format_node(name), value)

    def matches(self, pattern: str, value: str) -> bool:
        """Whether a search for `pattern` in `value` finds something. Raises Undecided."""
        try:
            return self._run(f"pattern {pattern}", lambda: patterns.whole(patterns.parse(pattern)), value)
        except patterns.PatternRefused as error:
            raise Undecided from error

    def _run(self, name: str, node: Callable[[], patterns.Node], value: str) -> bool:
        if name not in self._machines:
            try:
                self._machines[name] = patterns.Matcher(patterns.automaton(node()))
            except patterns.PatternRefused as error:
                raise Undecided from error
        self._steps += len(value)
        return self._machines[name].matches(value)

    def _list(self, value: list[Any], schema: dict[str, Any], pointer: str, depth: int) -> Iterator[bool]:
        yield schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        if schema.get("uniqueItems"):
            yield len({same(one) for one in value}) == len(value)
        if "contains" in schema:
            found = sum(self.fits(one, step(pointer, "contains"), depth + 1) for one in value)
            yield schema.get("minContains", 1) <= found <= schema.get("maxContains", found)
        keyword = "items" if isinstance(schema.get("items"), list) else "prefixItems"
        fixed = len(schema.get(keyword, ()))
        rest = "additionalItems" if keyword == "items" else "items"
        for place, one in enumerate(value):
            if place < fixed:
                yield self.fits(one, step(step(pointer, keyword), place), depth + 1)
            elif rest in schema:
                yield self.fits(one, step(pointer, rest), depth + 1)

    def _object(self, value: dict[str, Any], schema: dict[str, Any], pointer: str, depth: int) -> Iterator[bool]:
        if "dependencies" in schema or "dependentSchemas" in schema:
            raise Undecided
        yield schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value))
        yield all(name in value for name in schema.get("required", ()))
        yield all(
            name in value for given, names in schema.get("dependentRequired", {}).items() if given in value for name in names
        )
        for name, part in value.items():
            if "propertyNames" in schema:
                yield self.fits(name, step(pointer, "propertyNames"), depth + 1)
            known = name in schema.get("properties", {})
            if known:
                yield self.fits(part, step(step(pointer, "properties"), name), depth + 1)
            for pattern in schema.get("patternProperties", {}):
                if self.matches(pattern, name):
                    known = True
                    yield self.fits(part, step(step(pointer, "patternProperties"), pattern), depth + 1)
            if not known and "additionalProperties" in schema:
                yield self.fits(part, step(pointer, "additionalProperties"), depth + 1)


def _fits_number(value: Fraction, schema: dict[str, Any]) -> bool:
    bounds = {
        name: exact(schema[name]) for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") if name in schema
    }
    return (
        value >= bounds.get("minimum", value)
        and value <= bounds.get("maximum", value)
        and value > bounds.get("exclusiveMinimum", value - 1)
        and value < bounds.get("exclusiveMaximum", value + 1)
        and ("multipleOf" not in schema or value % exact(schema["multipleOf"]) == 0)
    )
