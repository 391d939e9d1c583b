"""What a schema's answers look like, type by type.

A place of an answer has to fit several parts of the schema at once: a `$ref` and what stands beside it, all branches of
`allOf`, one of each `anyOf`, the `properties` of all of these. Such a set of parts, by their pointers, is a `Key`; `Shapes`
works out each set once, so that recursion ends and a schema that doubles at every `$ref` costs no more than its length.
"""

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, TypeAlias

from gateway.structured import formats, patterns
from gateway.structured.findings import Findings
from gateway.structured.keywords import ASSERTIONS, KEYWORDS, is_draft, nearest, place_of
from gateway.structured.references import Document, LeadsNowhere, step
from gateway.structured.values import Undecided, Values, exact, same, type_of

Key: TypeAlias = tuple[str, ...]
"""The parts of a schema that one place of an answer has to fit, by their pointers; none of them is any JSON."""

_MOST_KEYS = 8192
_MOST_WAYS = 128
_MOST_STEPS = 60_000
_STEPS_OF_TEXTS = 1000
"""What it counts to hold two patterns against each other, which takes up to 20 ms."""
_MOST_MULTIPLES = 512
_MOST_IN_A_SET = 6
_MOST_COMPARED = 24
_OBJECT_KEYWORDS = frozenset({
    "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties", "maxProperties",
    "unevaluatedProperties", "dependentRequired", "dependentSchemas", "dependencies",
})  # fmt: skip
_ARRAY_KEYWORDS = frozenset({
    "items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains", "minContains", "maxContains",
    "unevaluatedItems",
})  # fmt: skip
_STRING_KEYWORDS = frozenset({"minLength", "maxLength", "pattern", "format"})
_NUMBER_KEYWORDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_ALL_TYPES: Final = ("object", "array", "string", "number", "integer", "boolean", "null")


@dataclass(frozen=True, slots=True)
class AnyJson:
    """Whatever JSON there is."""


@dataclass(frozen=True, slots=True)
class Plain:
    """All values of a type: null, boolean."""

    type: str


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """One of these values."""

    values: list[Any]


@dataclass(frozen=True, slots=True)
class Number:
    """A number within its bounds; each with whether it is in."""

    is_integer: bool
    least: Fraction | None = None
    most: Fraction | None = None
    least_is_in: bool = True
    most_is_in: bool = True


@dataclass(frozen=True, slots=True)
class String:
    """A string of these texts; None is any."""

    texts: patterns.Node | None


@dataclass(frozen=True, slots=True)
class Array:
    """`first`, one by one, and then `rest`, of which there is none where it is None."""

    first: tuple[Key, ...]
    rest: Key | None
    least: int
    most: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Object:
    """Properties in their order, and others: `extra` with keys of `extra_names`, and those of `by_pattern`."""

    properties: dict[str, Key]
    required: frozenset[str]
    extra: Key | None
    extra_names: patterns.Node | None
    by_pattern: tuple[tuple[patterns.Node, Key], ...]
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Either:
    """What another set of parts allows."""

    key: Key


Shape: TypeAlias = AnyJson | Plain | Listed | Number | String | Array | Object | Either


@dataclass(slots=True)
class _Way:
    """A set of parts on its way to be taken apart: what is still to be read, what was, and the choices that are still open."""

    waiting: list[str]
    own: list[str]
    choices: list[tuple[str, str]]
    seen: set[str]

    def chosen(self, pointer: str) -> "_Way":
        return _Way([pointer], list(self.own), list(self.choices), set(self.seen))


class Shapes:
    """The shapes of every place, from the root on; what is not enforced goes into `findings`."""

    def __init__(self, document: Document, findings: Findings) -> None:
        self.document = document
        self.of: dict[Key, tuple[Shape, ...]] = {}
        self._findings = findings
        self._values = Values(document)
        self._read: dict[str, dict[str, Any] | bool] = {}
        self._ways: dict[Key, list[Key]] = {}
        self._settled: set[str] = set()
        self._objects: dict[Key, Object | None] = {}
        self._steps = 0

    def work_out(self) -> None:
        """Fills `of` from the root on."""
        waiting: list[Key] = [("",)]
        while waiting:
            key = waiting.pop()
            if key in self.of:
                continue
            if len(self.of) >= _MOST_KEYS or self._steps > _MOST_STEPS:
                self._findings.refuse(key[0], "", "Its parts combine in too many ways.", "fewer branches of anyOf within allOf")
                self.of[key] = (AnyJson(),)
                continue
            self.of[key] = self._shapes(key)
            waiting.extend(following for shape in self.of[key] for following in keys_of(shape) if following not in self.of)

    # One place.

    def _shapes(self, key: Key) -> tuple[Shape, ...]:
        if not key:
            return (AnyJson(),)
        alias = self._alias(key)
        if alias is not None:
            return (Either((alias,)),)
        way = self._conjunction(_Way(list(key), [], [], set()))
        if way is None:
            return ()
        listed = self._listed(key, way.own)
        if listed is not None:
            return (Listed(listed),) if listed else ()
        if len(way.choices) == 1 and not any(map(self._asserts, way.own)) and not self._is_tried(way):
            pointer, keyword = way.choices.pop()
            if keyword == "oneOf":
                self._check_one_of(pointer, way)
            return tuple(Either((branch,)) for branch in self._branches(pointer, keyword))
        return tuple(shape for own in self._all_ways(way) for shape in self._typed(own, key))

    def _alias(self, key: Key) -> str | None:
        """Where a single part leads that says nothing but `$ref`: what is there is worked out once for all who lead to it."""
        part = self._part(key[0]) if len(key) == 1 else False
        if not isinstance(part, dict) or "$ref" not in part or not part.keys().isdisjoint(ASSERTIONS - {"$ref"}):
            return None
        return self.document.target(part["$ref"])

    def _is_tried(self, way: _Way) -> bool:
        """Whether a branch of its `oneOf` lists values: these are tried on the whole of it."""
        pointer, keyword = way.choices[0]
        if keyword != "oneOf":
            return False
        ways = [own for branch in self._branches(pointer, keyword) for own in self._ways_of((branch,))]
        return any(
            any(self._has(pointer, "const") for pointer in own) or any(self._has(pointer, "enum") for pointer in own)
            for own in ways
        )

    def _conjunction(self, way: _Way) -> _Way | None:
        """Follows `$ref` and `allOf` until only parts are left that say something themselves; None: nothing can fit."""
        while way.waiting:
            pointer = way.waiting.pop(0)
            if pointer in way.seen:
                continue
            way.seen.add(pointer)
            self._steps += 1
            part = self._part(pointer)
            if part is True:
                continue
            if part is False:
                return None
            assert isinstance(part, dict)
            way.own.append(pointer)
            # In the order of the document: who inherits says so by where `allOf` stands.
            following: list[str] = []
            for keyword in part:
                if keyword == "$ref":
                    following.append(self.document.target(part["$ref"]))
                elif keyword == "allOf":
                    following.extend(self._branches(pointer, keyword))
                elif keyword in {"anyOf", "oneOf"}:
                    way.choices.append((pointer, keyword))
            way.waiting[:0] = following
        return way

    def _all_ways(self, way: _Way) -> list[Key]:
        """Every choice of branches, as the parts that then apply."""
        found: list[Key] = []
        waiting = [way]
        while waiting:
            here = waiting.pop()
            if not here.choices:
                found.append(tuple(here.own))
            else:
                pointer, keyword = here.choices.pop(0)
                if keyword == "oneOf":
                    self._check_one_of(pointer, here)
                onward = [self._conjunction(here.chosen(branch)) for branch in self._branches(pointer, keyword)]
                waiting.extend(one for one in reversed(onward) if one is not None)
            if len(waiting) + len(found) > _MOST_WAYS:
                self._findings.refuse(
                    way.own[0], "", "Its branches combine in too many ways.", "one anyOf, with whole branches"
                )
                return [tuple(way.own)]
        return found

    def _ways_of(self, key: Key) -> list[Key]:
        if key not in self._ways:
            way = self._conjunction(_Way(list(key), [], [], set()))
            self._ways[key] = [] if way is None else self._all_ways(way)
        return self._ways[key]

    def _branches(self, pointer: str, keyword: str) -> list[str]:
        part = self.document.at(pointer)
        return [step(step(pointer, keyword), place) for place in range(len(part[keyword]))]

    def _asserts(self, pointer: str) -> bool:
        part = self._part(pointer)
        return isinstance(part, dict) and not part.keys().isdisjoint(ASSERTIONS - {"anyOf", "oneOf", "allOf", "$ref"})

    # Values.

    def _listed(self, key: Key, own: Iterable[str]) -> list[Any] | None:
        """The values of the first `enum` or `const`, as far as all of `key` allows them; None where there is none."""
        for pointer in own:
            part = self._part(pointer)
            assert isinstance(part, dict)
            if "const" in part or "enum" in part:
                keyword = "const" if "const" in part else "enum"
                values = [part["const"]] if keyword == "const" else part["enum"]
                return self._tried(values, key, pointer, keyword)
        return None

    def _tried(self, values: list[Any], key: Key, pointer: str, keyword: str) -> list[Any]:
        kept: dict[Any, Any] = {}
        try:
            for value in values:
                if all(self._values.fits(value, part) for part in key):
                    kept.setdefault(same(value), value)
        except (Undecided, RecursionError):
            self._findings.refuse(pointer, keyword, "What stands beside it cannot be tried on its values.", f"{keyword} alone")
            kept = {same(value): value for value in values}
        unwritable = [value for value in kept.values() if not _is_writable(value)]
        if unwritable:
            self._findings.refuse(
                pointer, keyword, "xgrammar 0.2.8 cannot write a value of it: of more than 64 bits, or half a surrogate pair.",
                "a string",
            )  # fmt: skip
        return [value for value in kept.values() if _is_writable(value)]

    # Reading a part.

    def _part(self, pointer: str) -> dict[str, Any] | bool:
        """The part of the schema at `pointer`, of which every keyword that is left can be relied on."""
        if pointer not in self._read:
            part = self.document.at(pointer)
            self._read[pointer] = part if isinstance(part, bool) else self._allowed(pointer, part)
        return self._read[pointer]

    def _allowed(self, pointer: str, part: dict[str, Any]) -> dict[str, Any] | bool:
        return False if part.get("not") in ({}, True) and "not" in part else self._checked(pointer, part)

    def _checked(self, pointer: str, part: dict[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        is_listed = "const" in part or "enum" in part
        for name, value in part.items():
            place = place_of(name)
            known = KEYWORDS.get(name)
            fault = known.fault(value) if known is not None else None
            if fault is not None:
                self._findings.hopeless(pointer, name, f"It {fault}.")
            elif place == "refused":
                self._refuse_keyword(pointer, name)
            elif name == "$schema" and not is_draft(value):
                self._findings.refuse(
                    pointer, name, f"Nothing here knows '{value[:80]}'.", "https://json-schema.org/draft/2020-12/schema"
                )
            elif name == "enum" and not value:
                self._findings.hopeless(pointer, name, "It is empty: nothing could ever fit.")
            elif name == "$ref":
                kept |= self._reference(pointer, value)
            elif place == "partly" and not is_listed and not self._is_kept(pointer, name, part):
                continue
            else:
                kept[name] = value
        return kept

    def _refuse_keyword(self, pointer: str, name: str) -> None:
        known = KEYWORDS.get(name)
        if known is not None:
            self._findings.refuse(pointer, name, known.reason, known.rewrite)
            return
        meant = nearest(name)
        self._findings.refuse(
            pointer,
            name,
            "JSON Schema has no such keyword, so nothing would hold it.",
            meant or f"x-{name[:40]}, if it is a note",
        )

    def _reference(self, pointer: str, value: str) -> dict[str, Any]:
        try:
            self.document.target(value)
        except LeadsNowhere as error:
            self._findings.hopeless(pointer, "$ref", str(error), "#/$defs/...")
            return {}
        if self._leads_back(pointer):
            self._findings.hopeless(pointer, "$ref", "It leads back to itself, and says nothing on the way.")
            return {}
        return {"$ref": value}

    def _leads_back(self, pointer: str) -> bool:
        """Whether a part applies to the place that it applies to itself, by way of others; each is walked through once."""
        if pointer in self._settled:
            return False
        path = {pointer}
        stack = [(pointer, iter(self._onward(pointer)))]
        while stack:
            here, onward = stack[-1]
            following = next(onward, None)
            if following is None:
                self._settled.add(here)
                path.discard(here)
                stack.pop()
            elif following in path:
                return True
            elif following not in self._settled:
                path.add(following)
                stack.append((following, iter(self._onward(following))))
        return False

    def _onward(self, pointer: str) -> list[str]:
        """The parts that apply where the part at `pointer` does."""
        part = self.document.at(pointer)
        self._steps += 1
        if not isinstance(part, dict):
            return []
        applied = [name for name in ("allOf", "anyOf", "oneOf") if name in part and KEYWORDS[name].fault(part[name]) is None]
        onward = [branch for name in applied for branch in self._branches(pointer, name)]
        if isinstance(part.get("$ref"), str):
            with contextlib.suppress(LeadsNowhere):
                onward.append(self.document.target(part["$ref"]))
        return onward

    def _is_kept(self, pointer: str, name: str, part: dict[str, Any]) -> bool:
        """Whether a keyword that is enforced in some forms only is in one of them; else it is a finding, or says nothing."""
        sound = {one: value for one, value in part.items() if one not in KEYWORDS or KEYWORDS[one].fault(value) is None}
        refusal = _REFUSALS.get(name, lambda _: None)(sound)
        if refusal is None:
            return name not in _SILENT
        if refusal is not _NOTHING:
            self._findings.refuse(pointer, name, *refusal)
        return False

    # Choices.

    def _check_one_of(self, pointer: str, way: _Way) -> None:
        branches = self._branches(pointer, "oneOf")
        try:
            made = [self._ways_with(way, branch) for branch in branches]
            if self._told_apart_by_a_property(branches, made):
                return
            if len(branches) > _MOST_COMPARED:
                raise Undecided
            for first, second in itertools.permutations(range(len(branches)), 2):
                tried = self._ways_of((branches[second],))
                if not all(self._ways_apart(one, other) for one in made[first] for other in tried):
                    self._findings.refuse(
                        pointer, "oneOf", f"Its branches {first} and {second} are not sure to exclude each other.",
                        "anyOf, if an answer may fit both; else a required property with another const in each branch",
                    )  # fmt: skip
                    return
        except (Undecided, patterns.PatternRefused, RecursionError):
            self._findings.refuse(pointer, "oneOf", "Whether its branches exclude each other cannot be said.", "anyOf")

    def _told_apart_by_a_property(self, branches: list[str], made: list[list[Key]]) -> bool:
        """Whether there is a property that every branch requires, with values of its own in each."""
        parts = [self._quiet_object(own) for ways in made for own in ways]
        if not parts or any(part is None for part in parts):
            return False
        common = frozenset.intersection(*(part.required for part in parts if part is not None))
        return any(self._has_own_values(name, branches) for name in common)

    def _has_own_values(self, name: str, branches: list[str]) -> bool:
        seen: set[Any] = set()
        for branch in branches:
            mine: set[Any] = set()
            for own in self._ways_of((branch,)):
                part = self._quiet_object(own)
                if part is None or self._types(own, guess=True) != {"object"} or not any(self._declares(own, name)):
                    return False
                for way in self._ways_of(part.properties[name]) if name in part.properties else ():
                    values = self._values_of(way)
                    if values is None:
                        return False
                    mine.update(map(same, values))
            if not mine.isdisjoint(seen):
                return False
            seen |= mine
        return True

    def _declares(self, own: Key, name: str) -> Iterator[bool]:
        return (name in self._of(pointer, "properties", {}) for pointer in own)

    def _quiet_object(self, own: Key) -> Object | None:
        if own not in self._objects:
            self._objects[own] = self._object(own, own, quiet=True)
        return self._objects[own]

    def _ways_with(self, way: _Way, branch: str) -> list[Key]:
        onward = self._conjunction(way.chosen(branch))
        return [] if onward is None else self._all_ways(onward)

    def _ways_apart(self, made: Key, tried: Key) -> bool:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise Undecided
        if self._values_of(made) is not None:
            return True  # each is tried on the whole schema, where it is listed
        others = self._values_of(tried)
        if others is not None and not any(type_of(value) in self._types(made, guess=True) for value in others):
            return True
        # Not on the whole of this oneOf: a value that fits both branches does not fit that.
        parts = [pointer for pointer in made if not self._has(pointer, "oneOf")]
        if others is not None and not any(all(self._values.fits(value, part) for part in parts) for value in others):
            return True
        common = self._types(made, guess=True) & self._types(tried, guess=False)
        return all(self._type_apart(kind, made, tried) for kind in common)

    def _type_apart(self, kind: str, made: Key, tried: Key) -> bool:
        if kind == "object":
            return self._objects_apart(made, tried)
        if kind in {"integer", "number"}:
            one, other = self._bounds(made), self._bounds(tried)
            return _is_below(one, other) or _is_below(other, one)
        if kind == "string":
            return self._strings_apart(made, tried)
        if kind == "array":
            one_array, other_array = self._array(made), self._array(tried)
            return (one_array.most is not None and one_array.most < other_array.least) or (
                other_array.most is not None and other_array.most < one_array.least
            )
        return False

    def _strings_apart(self, made: Key, tried: Key) -> bool:
        one, other = self._string(made, quiet=True), self._string(tried, quiet=True)
        if one is None or other is None or one.texts is None or other.texts is None:
            return False
        low, high = patterns.lengths(one.texts), patterns.lengths(other.texts)
        if (low[1] is not None and low[1] < high[0]) or (high[1] is not None and high[1] < low[0]):
            return True
        self._steps += _STEPS_OF_TEXTS
        return patterns.disjoint(patterns.automaton(one.texts), patterns.automaton(other.texts))

    def _objects_apart(self, made: Key, tried: Key) -> bool:
        one, other = self._quiet_object(made), self._quiet_object(tried)
        if one is None or other is None:
            return one is None
        is_closed = one.extra is None and not one.by_pattern
        if is_closed and any(name not in one.properties for name in other.required):
            return True
        says_closed = any(self._all(tried, "additionalProperties", False)) and not any(
            self._has(pointer, "patternProperties") for pointer in tried
        )
        declared = {name for pointer in tried for name in self._of(pointer, "properties", {})}
        if says_closed and any(name not in declared for name in one.required):
            return True
        return any(name in declared and self._property_apart(name, one, other) for name in one.required)

    def _property_apart(self, name: str, one: Object, other: Object) -> bool:
        # One that nothing can fit is not among the properties.
        return name not in other.properties or self._keys_apart(one.properties[name], other.properties[name])

    def _keys_apart(self, made: Key, tried: Key) -> bool:
        """Whether two properties exclude each other by their values or types; their own properties are not looked at."""
        for one in self._ways_of(made):
            for other in self._ways_of(tried):
                values = self._values_of(one)
                if values is not None:
                    if any(all(self._values.fits(value, pointer) for pointer in other) for value in values):
                        return False
                elif self._types(one, guess=False) & self._types(other, guess=False):
                    return False
        return True

    def _values_of(self, own: Key) -> list[Any] | None:
        for pointer in own:
            values = [self._of(pointer, "const", None)] if self._has(pointer, "const") else self._of(pointer, "enum", None)
            if values is not None:
                return [value for value in values if all(self._values.fits(value, part) for part in own)]
        return None

    # By type.

    def _of(self, pointer: str, keyword: str, default: Any) -> Any:
        part = self._part(pointer)
        return part.get(keyword, default) if isinstance(part, dict) else default

    def _has(self, pointer: str, keyword: str) -> bool:
        part = self._part(pointer)
        return isinstance(part, dict) and keyword in part

    def _all(self, own: Iterable[str], keyword: str, value: object) -> Iterator[bool]:
        return (self._of(pointer, keyword, None) is value for pointer in own)

    def _types(self, own: Key, *, guess: bool) -> frozenset[str]:
        """The types that all of `own` allow. With `guess`, parts without any type mean the one whose keywords they have."""
        types = set(_ALL_TYPES)
        is_said = False
        for pointer in own:
            said = self._of(pointer, "type", None)
            if said is not None:
                is_said = True
                types &= _widened([said] if isinstance(said, str) else said)
            types -= self._excluded(pointer)
        if is_said or not guess:
            return frozenset(types)
        names = {name for pointer in own for name in _keys(self._part(pointer))}
        found = [kind for kind, keywords in _KEYWORDS_OF if not names.isdisjoint(keywords)]
        return frozenset(types & set(found[0])) if len(found) == 1 else frozenset(types)

    def _excluded(self, pointer: str) -> set[str]:
        names = self._of(pointer, "not", {})
        if not isinstance(names, dict) or "type" not in names:
            return set()
        return {names["type"]} if isinstance(names["type"], str) else set(names["type"])

    def _typed(self, own: Key, key: Key) -> Iterator[Shape]:
        listed = self._listed(tuple(dict.fromkeys((*key, *own))), own)
        if listed is not None:
            if listed:
                yield Listed(listed)
            return
        types = self._types(own, guess=True)
        if types == frozenset(_ALL_TYPES) and not any(map(self._asserts, own)):
            yield AnyJson()
            return
        for kind in _ALL_TYPES:
            if kind not in types or (kind == "integer" and "number" in types):
                continue
            shape = self._shape(kind, own, key)
            if shape is not None:
                yield shape

    def _shape(self, kind: str, own: Key, key: Key) -> Shape | None:
        match kind:
            case "object":
                return self._object(own, key)
            case "array":
                self._check_unevaluated(own, key, self._findings)
                subsets = self._subsets(own, key)
                if subsets is not None:
                    return Listed(subsets) if subsets else None
                array = self._array(own)
                return None if array.most is not None and array.most < array.least else array
            case "string":
                return self._string(own)
            case "number" | "integer":
                return self._number(own, is_integer=kind == "integer")
            case _:
                return Plain(kind)

    # Numbers.

    def _bounds(self, own: Iterable[str]) -> Number:
        found = Number(is_integer=False)
        for pointer in own:
            for keyword in ("minimum", "exclusiveMinimum"):
                value = self._of(pointer, keyword, None)
                if value is not None and (
                    found.least is None or (exact(value), keyword != "minimum") > (found.least, not found.least_is_in)
                ):
                    found = replace(found, least=exact(value), least_is_in=keyword == "minimum")
            for keyword in ("maximum", "exclusiveMaximum"):
                value = self._of(pointer, keyword, None)
                if value is not None and (
                    found.most is None or (-exact(value), keyword != "maximum") > (-found.most, not found.most_is_in)
                ):
                    found = replace(found, most=exact(value), most_is_in=keyword == "maximum")
            low, high = formats.BOUNDS.get(self._of(pointer, "format", ""), (None, None))
            if low is not None and (found.least is None or found.least < low):
                found = replace(found, least=Fraction(low), least_is_in=True)
            if high is not None and (found.most is None or found.most > high):
                found = replace(found, most=Fraction(high), most_is_in=True)
        return found

    def _number(self, own: Key, *, is_integer: bool) -> Shape | None:
        bounds = replace(self._bounds(own), is_integer=is_integer)
        steps = [(pointer, exact(self._of(pointer, "multipleOf", 1))) for pointer in own if self._has(pointer, "multipleOf")]
        if not steps:
            return _writable(bounds)
        factor = Fraction(1) if is_integer else steps[0][1]
        for _, one in steps:
            factor = _common_multiple(factor, one)
        if factor == 1:
            return _writable(replace(bounds, is_integer=True))
        multiples = _multiples(bounds, factor)
        if multiples is None:
            self._findings.refuse(
                steps[0][0], "multipleOf", f"xgrammar 0.2.8 cannot count by it; up to {_MOST_MULTIPLES} values are listed.",
                "minimum and maximum beside it, near each other, or an integer in a smaller unit",
            )  # fmt: skip
            return _writable(bounds)
        return Listed(multiples) if multiples else None

    # Strings.

    def _string(self, own: Key, *, quiet: bool = False) -> String | None:
        findings = Findings() if quiet else self._findings
        least = max((int(self._of(pointer, "minLength", 0)) for pointer in own), default=0)
        mosts = [int(self._of(pointer, "maxLength", 0)) for pointer in own if self._has(pointer, "maxLength")]
        most = min(mosts) if mosts else None
        if most is not None and most < least:
            return None
        texts = self._texts(own, findings)
        if texts is None:
            if least == 0 and most is None:
                return String(None)
            return String(patterns.Row((patterns.Repeat(patterns.Chars(patterns.ANY), least, most),)))
        try:
            texts = patterns.bounded(texts, least, most)
        except patterns.PatternRefused as error:
            keyword = "maxLength" if mosts else "minLength"
            pointer = next(pointer for pointer in own if self._has(pointer, keyword))
            findings.refuse(pointer, keyword, error.reason, error.rewrite)
        try:
            patterns.written(texts)  # in the end it is written there where nothing can be refused any more
        except patterns.PatternRefused as error:
            pointer = next((pointer for pointer in own if self._has(pointer, "pattern")), own[0])
            findings.refuse(pointer, "pattern", error.reason, error.rewrite)
            return String(None)
        return None if patterns.is_impossible(texts) else String(texts)

    def _texts(self, own: Key, findings: Findings) -> patterns.Node | None:
        """What `pattern` and `format` of all parts say together."""
        found: patterns.Node | None = None
        lookaheads: list[tuple[str, bool, str]] = []
        for pointer in own:
            for keyword in ("format", "pattern"):
                try:
                    one = self._text(pointer, keyword, lookaheads)
                    if one is not None:
                        found = one if found is None else self._together(found, one, own)
                except patterns.PatternRefused as error:
                    add = findings.hopeless if error.invalid else findings.refuse
                    add(pointer, keyword, error.reason, error.rewrite)
        for pointer, is_wanted, ahead in lookaheads:
            try:
                _check_lookahead(found, ahead, is_wanted=is_wanted)
            except patterns.PatternRefused as error:
                findings.refuse(pointer, "pattern", error.reason, error.rewrite)
        return found

    def _text(self, pointer: str, keyword: str, lookaheads: list[tuple[str, bool, str]]) -> patterns.Node | None:
        value = self._of(pointer, keyword, None)
        if value is None:
            return None
        if keyword == "format":
            if value in formats.ENFORCED:
                return formats.format_node(value)
            if value in formats.NOTES or value in formats.BOUNDS:
                return None
            raise patterns.PatternRefused(f"The format '{value[:40]}' is none that can be held.", "a pattern, or no format")
        rest, ahead = patterns.without_lookaheads(value)
        node = patterns.whole(patterns.parse(rest))
        lookaheads.extend((pointer, *one) for one in ahead)
        return node

    def _together(self, found: patterns.Node, one: patterns.Node, own: Key) -> patterns.Node:
        if found == one:
            return found
        names = {self._of(pointer, "format", "") for pointer in own}
        narrower = [node for node in map(formats.narrower_node, sorted(names)) if node is not None]
        for node in narrower:
            if patterns.included(patterns.automaton(node), patterns.automaton(one)):
                return node if not _is_narrower(found, one) else found
        return _narrower(found, one)

    # Arrays.

    def _subsets(self, own: Key, key: Key) -> list[Any] | None:
        """The arrays of different values out of a few, in the order of these; None where no part asks for such."""
        for pointer in own:
            part = self._part(pointer)
            values = _set_of(part) if isinstance(part, dict) else None
            if values is not None:
                subsets = [list(one) for size in range(len(values) + 1) for one in itertools.combinations(values, size)]
                return self._tried(subsets, tuple(dict.fromkeys((*key, *own))), pointer, "uniqueItems")
        return None

    def _array(self, own: Key) -> Array:
        parts = [self._array_part(pointer) for pointer in own]
        least = max((int(self._of(pointer, "minItems", 0)) for pointer in own), default=0)
        mosts = [int(self._of(pointer, "maxItems", 0)) for pointer in own if self._has(pointer, "maxItems")]
        most = min(mosts) if mosts else None
        length = max((len(first) for first, _ in parts), default=0)
        length = length if most is None else min(length, most)
        first = tuple(
            tuple(dict.fromkeys(name for fixed, rest in parts for name in ((fixed[place],) if place < len(fixed) else rest)))
            for place in range(length)
        )
        rest: Key | None = tuple(dict.fromkeys(name for _, rest in parts for name in rest))
        # `prefixItems` alone closes the array, as xgrammar's strict mode has it.
        if length and not rest and least <= length:
            rest = None
        if rest is None and (most is None or most > length):
            most = length
        return Array(first, rest, least, most)

    def _array_part(self, pointer: str) -> tuple[list[str], tuple[str, ...]]:
        keyword = "items" if isinstance(self._of(pointer, "items", None), list) else "prefixItems"
        rest = "additionalItems" if keyword == "items" else "items"
        below = step(pointer, keyword)
        first = [step(below, place) for place in range(len(self._of(pointer, keyword, ())))]
        return first, tuple(step(pointer, name) for name in (rest, "unevaluatedItems") if self._has(pointer, name))

    # Objects.

    def _object(self, own: Key, key: Key, *, quiet: bool = False) -> Object | None:
        findings = Findings() if quiet else self._findings
        self._check_unevaluated(own, key, findings)
        names = list(dict.fromkeys(name for pointer in own for name in self._of(pointer, "properties", {})))
        required = frozenset(name for pointer in own for name in self._of(pointer, "required", ()))
        names.extend(name for pointer in own for name in self._of(pointer, "required", ()) if name not in names)
        names.extend(name for name in self._listed_names(own) if name not in names)
        properties = self._properties(dict.fromkeys(names), own)
        if any(name not in properties for name in required):
            return None
        least = max((int(self._of(pointer, "minProperties", 0)) for pointer in own), default=0)
        mosts = [int(self._of(pointer, "maxProperties", 0)) for pointer in own if self._has(pointer, "maxProperties")]
        most = min(mosts) if mosts else None
        extra, extra_names, by_pattern = self._others(own, properties, findings)
        is_open = extra is not None or bool(by_pattern)
        if most is not None and most < max(least, len(required)):
            return None
        if not is_open and least > len(properties):
            if any(self._all(own, "additionalProperties", False)):
                return None
            findings.refuse(
                own[0],
                "minProperties",
                "It asks for more properties than are declared.",
                "additionalProperties, or more properties",
            )
            least = 0
        if is_open and least <= len(required):
            least = 0
        if is_open and least > 1:
            pointer = next(pointer for pointer in own if self._of(pointer, "minProperties", 0) == least)
            findings.refuse(
                pointer, "minProperties", "A key may come twice where keys are free, and counts once.",
                "a list of objects with key and value",
            )  # fmt: skip
            least = 1
        return Object(properties, required, extra, extra_names, by_pattern, least, most)

    def _check_unevaluated(self, own: Key, key: Key, findings: Findings) -> None:
        """What is evaluated can be said where all that applies to the place comes from the part that asks."""
        for pointer in own:
            for keyword in ("unevaluatedProperties", "unevaluatedItems"):
                if self._of(pointer, keyword, True) is not True and not self._is_outermost(pointer, key):
                    findings.refuse(
                        pointer, keyword, "What the parts around it allow is not seen from there.", "additionalProperties"
                    )

    def _is_outermost(self, pointer: str, key: Key) -> bool:
        here = key[0]
        while here != pointer:
            part = self._part(here)
            if not isinstance(part, dict) or "$ref" not in part or not part.keys().isdisjoint({"anyOf", "oneOf", "allOf"}):
                return False
            if self._asserts(here):
                return False
            here = self.document.target(part["$ref"])
        return len(key) == 1

    def _listed_names(self, own: Key) -> list[str]:
        """The keys that `propertyNames` lists, where it does."""
        for pointer in own:
            if isinstance(self._of(pointer, "propertyNames", None), dict):
                names = step(pointer, "propertyNames")
                ways = self._ways_of((names,))
                try:
                    values = self._values_of(ways[0]) if len(ways) == 1 else None
                except Undecided:
                    self._findings.refuse(pointer, "propertyNames", "Its values cannot be tried.", "an enum of the names alone")
                    continue
                if values is not None:
                    return [value for value in values if isinstance(value, str)]
        return []

    def _properties(self, names: Iterable[str], own: Key) -> dict[str, Key]:
        """The parts that each property has to fit; one that nothing can fit is left out."""
        found: dict[str, Key] = {}
        for name in names:
            applied: list[str] = []
            if not self._is_name(name, own):
                continue
            try:
                for pointer in own:
                    applied.extend(self._applied_to(pointer, name))
                if not applied:
                    applied.extend(self._where(own, "unevaluatedProperties"))
            except Undecided:
                # What a pattern of names says is a finding already, where it is read.
                pass
            if not any(self._part(pointer) is False for pointer in applied):
                found[name] = tuple(dict.fromkeys(applied))
        return found

    def _is_name(self, name: str, own: Key) -> bool:
        """Whether `propertyNames` lets a property be called so; where that cannot be said, it is a finding."""
        for pointer in own:
            try:
                if not self._may_be_named(pointer, name):
                    return False
            except Undecided:
                self._findings.refuse(
                    pointer,
                    "propertyNames",
                    "It cannot be tried on the names of the properties.",
                    "leave it out: they are listed",
                )
        return True

    def _may_be_named(self, pointer: str, name: str) -> bool:
        return not self._has(pointer, "propertyNames") or self._values.fits(name, step(pointer, "propertyNames"))

    def _where(self, own: Key, keyword: str) -> list[str]:
        return [step(pointer, keyword) for pointer in own if self._has(pointer, keyword)]

    def _applied_to(self, pointer: str, name: str) -> Iterator[str]:
        known = name in self._of(pointer, "properties", {})
        if known:
            yield step(step(pointer, "properties"), name)
        for pattern in self._of(pointer, "patternProperties", {}):
            if self._values.matches(pattern, name):
                known = True
                yield step(step(pointer, "patternProperties"), pattern)
        if not known and self._has(pointer, "additionalProperties"):
            yield step(pointer, "additionalProperties")

    def _others(
        self, own: Key, properties: dict[str, Key], findings: Findings
    ) -> tuple[Key | None, patterns.Node | None, tuple[tuple[patterns.Node, Key], ...]]:
        """The properties beside the declared: what they have to fit, how they are called, and those that go by patterns.

        Where any part has `properties` and none says otherwise, there are none, as in xgrammar's strict mode.
        """
        speaking = [pointer for pointer in own if any(self._has(pointer, name) for name in _SAY_MORE)]
        declares = any(self._has(pointer, "properties") for pointer in own)
        if declares and not speaking:
            return None, None, ()
        # One that nothing can fit is not among the properties, and may not come back as one of the others.
        declared = {name: None for pointer in own for name in self._of(pointer, "properties", {})} | dict.fromkeys(properties)
        with_patterns = [pointer for pointer in own if self._of(pointer, "patternProperties", {})]
        if with_patterns:
            return None, None, self._by_pattern(own, with_patterns, declared, findings)
        extra = [
            step(pointer, name)
            for pointer in own
            for name in ("additionalProperties", "unevaluatedProperties")
            if self._has(pointer, name)
        ]
        if any(self._part(pointer) is False for pointer in extra):
            return None, None, ()
        named = [pointer for pointer in own if self._has(pointer, "propertyNames")]
        if not named:
            # A key may be spelled with escapes: what is declared would come again, in another type.
            return tuple(extra), patterns.but_not(declared) if declared else None, ()
        if declared or self._listed_names(own):
            return None, None, ()
        return self._with_names(tuple(extra), named, findings)

    def _with_names(
        self, extra: Key, named: list[str], findings: Findings
    ) -> tuple[Key | None, patterns.Node | None, tuple[tuple[patterns.Node, Key], ...]]:
        keys: Key = tuple(step(pointer, "propertyNames") for pointer in named)
        ways = self._ways_of(keys)
        if len(ways) != 1:
            if ways:
                findings.refuse(named[0], "propertyNames", "The names that it allows are of several kinds.", "one pattern")
            return (extra, None, ()) if ways else (None, None, ())
        if "string" not in self._types(ways[0], guess=False):
            return None, None, ()
        names = self._string(ways[0])
        if names is None:
            return None, None, ()
        return extra, names.texts, ()

    def _by_pattern(
        self, own: Key, with_patterns: list[str], declared: Iterable[str], findings: Findings
    ) -> tuple[tuple[patterns.Node, Key], ...]:
        pointer = with_patterns[0]
        found: list[tuple[patterns.Node, Key]] = []
        for pattern in self._of(pointer, "patternProperties", {}):
            below = step(step(pointer, "patternProperties"), pattern)
            try:
                node = patterns.whole(patterns.parse(pattern))
                machine = patterns.automaton(node)
                if any(not patterns.disjoint(machine, patterns.automaton(other)) for other, _ in found):
                    findings.refuse(
                        pointer,
                        "patternProperties",
                        "A key can match two of its patterns.",
                        "patterns of which one key matches one",
                    )
                    continue
                if any(patterns.matches(machine, name) for name in declared):
                    continue  # what is declared would come again, in another type
            except patterns.PatternRefused as error:
                findings.refuse(pointer, "patternProperties", error.reason, error.rewrite)
                continue
            if self._part(below) is not False:
                found.append((node, (below,)))
        if len(with_patterns) > 1 or any(self._has(other, "additionalProperties") for other in own if other != pointer):
            return ()
        if any(self._has(pointer, "propertyNames") for pointer in own):
            findings.refuse(
                pointer, "patternProperties", "propertyNames beside it cannot be held.", "one pattern that says both"
            )
        return tuple(found)


_NOTHING: Final = ("", None)
_SAY_MORE = ("additionalProperties", "patternProperties", "propertyNames")
_KEYWORDS_OF = (
    (("object",), _OBJECT_KEYWORDS),
    (("array",), _ARRAY_KEYWORDS),
    (("string",), _STRING_KEYWORDS),
    (("number", "integer"), _NUMBER_KEYWORDS),
)
# Read together with what they belong to, and of no more use after that.
_SILENT = frozenset(
    {
        "contains",
        "minContains",
        "maxContains",
        "if",
        "then",
        "else",
        "nullable",
        "dependentSchemas",
        "dependentRequired",
        "dependencies",
    }
)

Refusal: TypeAlias = tuple[str, str | None]


def _refuse_not(part: dict[str, Any]) -> Refusal | None:
    inner = part["not"]
    if inner is False:
        return _NOTHING
    if isinstance(inner, dict) and inner.keys() == {"type"} and KEYWORDS["type"].fault(inner["type"]) is None:
        names = {inner["type"]} if isinstance(inner["type"], str) else set(inner["type"])
        if names.isdisjoint({"integer", "number"}) or {"integer", "number"} <= names:
            return None
    return "xgrammar 0.2.8 ignores it.", "say what is allowed: the types, an enum, or a pattern"


def _set_of(part: dict[str, Any]) -> list[Any] | None:
    """The values of which an array holds each once at most, where they are so few that their subsets can be listed."""
    items = part.get("items")
    if not (part.get("uniqueItems") and isinstance(items, dict) and items.keys() <= {"type", "enum", "title", "description"}):
        return None
    values = items.get("enum")
    if not isinstance(values, list) or "prefixItems" in part:
        return None
    different = list({same(value): value for value in values}.values())
    return different if len(different) <= _MOST_IN_A_SET else None


def _refuse_unique(part: dict[str, Any]) -> Refusal | None:
    if not part["uniqueItems"] or part.get("maxItems", 2) <= 1:
        return _NOTHING
    if _set_of(part) is not None:
        return None
    return (
        "vLLM 0.32 refuses it and xgrammar 0.2.8 ignores it.",
        "an object with a boolean for each value, or drop it and remove doubles",
    )


def _refuse_contains(part: dict[str, Any]) -> Refusal | None:
    if part.get("minContains", 1) == 0 and "maxContains" not in part:
        return _NOTHING
    return "vLLM 0.32 refuses it and xgrammar 0.2.8 ignores it.", "prefixItems for the item that has to be there"


def _refuse_beside_contains(part: dict[str, Any]) -> Refusal | None:
    return _NOTHING if "contains" not in part else _refuse_contains(part)


def _refuse_if(part: dict[str, Any]) -> Refusal | None:
    if "if" not in part or ("then" not in part and "else" not in part):
        return _NOTHING
    return "xgrammar 0.2.8 ignores it.", "anyOf of two objects, each with its own const"


def _refuse_dependent(name: str) -> Any:
    def refuse(part: dict[str, Any]) -> Refusal | None:
        if all(entry in ([], True, {}) for entry in part[name].values()):
            return _NOTHING
        return "xgrammar 0.2.8 ignores it.", "anyOf of two objects: with the properties and without"

    return refuse


def _refuse_nullable(part: dict[str, Any]) -> Refusal | None:
    if not part["nullable"]:
        return _NOTHING
    return "It is OpenAPI 3.0's; JSON Schema does not know it.", '"type": ["string", "null"], or anyOf with {"type": "null"}'


_REFUSALS: Final[dict[str, Any]] = {
    "not": _refuse_not,
    "uniqueItems": _refuse_unique,
    "contains": _refuse_contains,
    "minContains": _refuse_beside_contains,
    "maxContains": _refuse_beside_contains,
    "if": _refuse_if,
    "then": _refuse_if,
    "else": _refuse_if,
    "dependentRequired": _refuse_dependent("dependentRequired"),
    "dependentSchemas": _refuse_dependent("dependentSchemas"),
    "dependencies": _refuse_dependent("dependencies"),
    "nullable": _refuse_nullable,
}


def _keys(part: dict[str, Any] | bool) -> Iterable[str]:  # noqa: FBT001
    return part.keys() if isinstance(part, dict) else ()


def _widened(names: Iterable[str]) -> set[str]:
    types = set(names)
    return types | {"integer"} if "number" in types else types


def _is_narrower(one: patterns.Node, other: patterns.Node) -> bool:
    return patterns.included(patterns.automaton(one), patterns.automaton(other))


def _check_lookahead(found: patterns.Node | None, ahead: str, *, is_wanted: bool) -> None:
    """Raises PatternRefused: not all that is `found` has, or has not, what is looked for at its start."""
    looked_for = patterns.automaton(patterns.whole(patterns.parse(f"^(?:{ahead})")))
    if found is not None:
        made = patterns.automaton(found)
        if patterns.included(made, looked_for) if is_wanted else patterns.disjoint(made, looked_for):
            return
    raise patterns.PatternRefused("It looks ahead: xgrammar 0.2.8 ignores that.", "a pattern without (?= and (?!")


def _narrower(one: patterns.Node, other: patterns.Node) -> patterns.Node:
    """That of the two whose texts are all texts of the other. Raises PatternRefused: neither is."""
    first, second = patterns.automaton(one), patterns.automaton(other)
    if patterns.included(first, second):
        return one
    if patterns.included(second, first):
        return other
    raise patterns.PatternRefused("It cannot be held together with another pattern or format.")


def _is_below(one: Number, other: Number) -> bool:
    if one.most is None or other.least is None:
        return False
    return one.most < other.least or (one.most == other.least and not (one.most_is_in and other.least_is_in))


def _common_multiple(one: Fraction, other: Fraction) -> Fraction:
    denominator = math.lcm(one.denominator, other.denominator)
    return Fraction(math.lcm(int(one * denominator), int(other * denominator)), denominator)


def _multiples(bounds: Number, factor: Fraction) -> list[Any] | None:
    """All multiples of `factor` within `bounds`; None where they are too many, or too fine to be written."""
    if bounds.least is None or bounds.most is None:
        return None
    low, high = math.ceil(bounds.least / factor), math.floor(bounds.most / factor)
    if high - low > _MOST_MULTIPLES or (10**6 * factor).denominator != 1:
        return None
    found = [factor * count for count in range(low, high + 1)]
    if found and found[0] == bounds.least and not bounds.least_is_in:
        found = found[1:]
    if found and found[-1] == bounds.most and not bounds.most_is_in:
        found = found[:-1]
    return [int(value) if value.denominator == 1 else float(value) for value in found]


_SIX = 10**6
_FURTHEST = Fraction(10**15)


def _writable(bounds: Number) -> Number | None:
    """`bounds` as xgrammar 0.2.8 can hold them: integers of 64 bits, others with six decimals; None: nothing is left."""
    least, most = bounds.least, bounds.most
    if bounds.is_integer:
        if least is not None:
            least = Fraction(math.ceil(least) + (least.denominator == 1 and not bounds.least_is_in))
            least = max(least, Fraction(-(2**63)))
        if most is not None:
            most = Fraction(math.floor(most) - (most.denominator == 1 and not bounds.most_is_in))
            most = min(most, Fraction(2**63 - 1))
    else:
        least = least if least is None else max(_rounded(least, bounds.least_is_in, up=True), -_FURTHEST)
        most = most if most is None else min(_rounded(most, bounds.most_is_in, up=False), _FURTHEST)
    furthest = Fraction(2**63 - 1) if bounds.is_integer else _FURTHEST
    if (least is not None and least > (furthest if most is None else most)) or (most is not None and most < -furthest):
        return None
    return Number(bounds.is_integer, least, most)


def _rounded(value: Fraction, is_in: bool, *, up: bool) -> Fraction:  # noqa: FBT001
    scaled = value * _SIX
    if up:
        whole = math.ceil(scaled) + (scaled.denominator == 1 and not is_in)
    else:
        whole = math.floor(scaled) - (scaled.denominator == 1 and not is_in)
    return Fraction(whole, _SIX)


def has_six_decimals(value: float) -> bool:
    """Whether it is one of the numbers that xgrammar 0.2.8 writes for bounds; its own way for values is C's `%.17g`."""
    return abs(value) < 10**9 and (exact(value) * _SIX).denominator == 1


def _is_writable(value: Any) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if any(0xD800 <= ord(character) < 0xE000 for character in one):
                return False
        elif isinstance(one, int) and not isinstance(one, bool):
            if not -(2**63) <= one < 2**63:
                return False
        elif isinstance(one, float):
            if not math.isfinite(one) or not (
                has_six_decimals(one) or exact(float(f"{one:.17g}")) == Fraction(Decimal(f"{one:.17g}"))
            ):
                return False
        elif isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, dict):
            waiting.extend([*one, *one.values()])
    return True


def keys_of(shape: Shape) -> Iterator[Key]:
    """The places below a shape."""
    match shape:
        case Either():
            yield shape.key
        case Array():
            yield from shape.first
            if shape.rest is not None:
                yield shape.rest
        case Object():
            yield from shape.properties.values()
            if shape.extra is not None:
                yield shape.extra
            yield from (key for _, key in shape.by_pattern)
