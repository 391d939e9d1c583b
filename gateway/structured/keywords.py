"""Every keyword has its place: what becomes of it in a schema, and of which form its value has to be."""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

Place: TypeAlias = Literal["enforced", "partly", "note", "refused"]
"""Held by the engine; held in some forms and refused in others; says nothing about answers; refused."""

TYPES: Final = ("null", "boolean", "object", "array", "number", "string", "integer")


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword's place, what is wrong with a value of it (None: nothing), and what to write instead of a refused one."""

    place: Place
    fault: Callable[[Any], str | None]
    reason: str = ""
    rewrite: str | None = None


def _anything(_: Any) -> str | None:
    return None


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict | bool)


def _schema(value: Any) -> str | None:
    return None if _is_schema(value) else "has to be a schema, an object or a boolean"


def _schemas(value: Any) -> str | None:
    return (
        None if isinstance(value, list) and value and all(map(_is_schema, value)) else "has to be a list of schemas, not empty"
    )


def _schema_map(value: Any) -> str | None:
    fits = isinstance(value, dict) and all(map(_is_schema, value.values()))
    return None if fits else "has to be an object of which each value is a schema"


def _items(value: Any) -> str | None:
    return None if isinstance(value, list) and all(map(_is_schema, value)) else _schema(value)


def _string(value: Any) -> str | None:
    return None if isinstance(value, str) else "has to be a string"


def _strings(value: Any) -> str | None:
    return None if isinstance(value, list) and all(isinstance(one, str) for one in value) else "has to be a list of strings"


def _string_lists(value: Any) -> str | None:
    fits = isinstance(value, dict) and not any(map(_strings, value.values()))
    return None if fits else "has to be an object of which each value is a list of strings"


def _dependencies(value: Any) -> str | None:
    fits = isinstance(value, dict) and all(_is_schema(one) or not _strings(one) for one in value.values())
    return None if fits else "has to be an object of schemas and lists of strings"


def is_number(value: Any) -> bool:
    """Whether a parsed value is a JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> str | None:
    return None if is_number(value) else "has to be a number"


def _positive(value: Any) -> str | None:
    return None if is_number(value) and value > 0 else "has to be a number above 0"


def _count(value: Any) -> str | None:
    return None if is_number(value) and value >= 0 and value == int(value) else "has to be a whole number, not negative"


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "has to be true or false"


def _list(value: Any) -> str | None:
    return None if isinstance(value, list) else "has to be a list"


def _type(value: Any) -> str | None:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        return "has to be a type, or a list of types that is not empty"
    unknown = next((name for name in names if name not in TYPES), None)
    if unknown is None:
        return None
    return f"names the type '{unknown[:40]}', which JSON Schema does not know: {', '.join(TYPES)} are the types"


_CLOSED = "list the properties, and leave the others out"
_DYNAMIC = "a $ref to '#/$defs/...'"
_BRANCHES = "anyOf of two objects, each with its own const"

KEYWORDS: Final[dict[str, Keyword]] = {
    # Enforced: exactly, or narrower.
    "type": Keyword("enforced", _type),
    "enum": Keyword("enforced", _list),
    "const": Keyword("enforced", _anything),
    "properties": Keyword("enforced", _schema_map),
    "required": Keyword("enforced", _strings),
    "additionalProperties": Keyword("enforced", _schema),
    "maxProperties": Keyword("enforced", _count),
    "items": Keyword("enforced", _items),
    "prefixItems": Keyword("enforced", _schemas),
    "additionalItems": Keyword("enforced", _schema),
    "minItems": Keyword("enforced", _count),
    "maxItems": Keyword("enforced", _count),
    "minLength": Keyword("enforced", _count),
    "maxLength": Keyword("enforced", _count),
    "minimum": Keyword("enforced", _number),
    "maximum": Keyword("enforced", _number),
    "exclusiveMinimum": Keyword("enforced", _number),
    "exclusiveMaximum": Keyword("enforced", _number),
    "anyOf": Keyword("enforced", _schemas),
    "allOf": Keyword("enforced", _schemas),
    "$ref": Keyword("enforced", _string),
    # Enforced in the forms that can be; refused in others.
    "pattern": Keyword("partly", _string),
    "format": Keyword("partly", _string),
    "minProperties": Keyword("partly", _count),
    "patternProperties": Keyword("partly", _schema_map),
    "propertyNames": Keyword("partly", _schema),
    "unevaluatedProperties": Keyword("partly", _schema),
    "unevaluatedItems": Keyword("partly", _schema),
    "oneOf": Keyword("partly", _schemas),
    "multipleOf": Keyword("partly", _positive),
    "not": Keyword("partly", _schema),
    "uniqueItems": Keyword("partly", _boolean),
    "contains": Keyword("partly", _schema),
    "minContains": Keyword("partly", _count),
    "maxContains": Keyword("partly", _count),
    "if": Keyword("partly", _schema),
    "then": Keyword("partly", _schema),
    "else": Keyword("partly", _schema),
    "dependentRequired": Keyword("partly", _string_lists),
    "dependentSchemas": Keyword("partly", _schema_map),
    "dependencies": Keyword("partly", _dependencies),
    "nullable": Keyword("partly", _boolean),
    # Said about the schema, not about answers.
    "$schema": Keyword("note", _string),
    "$id": Keyword("note", _string),
    "$anchor": Keyword("note", _string),
    "$dynamicAnchor": Keyword("note", _string),
    "$recursiveAnchor": Keyword("note", _boolean),
    "$comment": Keyword("note", _anything),
    "$defs": Keyword("note", _schema_map),
    "definitions": Keyword("note", _schema_map),
    "components": Keyword("note", _anything),
    "title": Keyword("note", _anything),
    "description": Keyword("note", _anything),
    "default": Keyword("note", _anything),
    "examples": Keyword("note", _anything),
    "example": Keyword("note", _anything),
    "deprecated": Keyword("note", _anything),
    "readOnly": Keyword("note", _anything),
    "writeOnly": Keyword("note", _anything),
    "contentEncoding": Keyword("note", _anything),
    "contentMediaType": Keyword("note", _anything),
    "contentSchema": Keyword("note", _anything),
    "discriminator": Keyword("note", _anything),
    "externalDocs": Keyword("note", _anything),
    "xml": Keyword("note", _anything),
    # Refused wherever they stand.
    "$dynamicRef": Keyword("refused", _anything, "What it refers to depends on who refers to it.", _DYNAMIC),
    "$recursiveRef": Keyword("refused", _anything, "What it refers to depends on who refers to it.", _DYNAMIC),
    "$vocabulary": Keyword("refused", _anything, "It changes what the other keywords mean.", "the schema without it"),
    "id": Keyword("refused", _anything, "It is draft 4's; nobody reads it in later drafts.", "$id"),
}

DRAFTS: Final = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema",
)
"""What `$schema` may say, with or without `#` at the end, and with http for https."""

ASSERTIONS: Final = frozenset(name for name, keyword in KEYWORDS.items() if keyword.place != "note")


def place_of(name: str) -> Place:
    """What becomes of the keyword `name`."""
    known = KEYWORDS.get(name)
    if known is not None:
        return known.place
    return "note" if name.startswith(("x-", "x_")) else "refused"


def is_draft(uri: str) -> bool:
    """Whether `$schema` may say `uri`."""
    plain = uri.removesuffix("#").removeprefix("https").removeprefix("http")
    return any(plain == draft.removeprefix("https").removeprefix("http") for draft in DRAFTS)


def nearest(name: str) -> str | None:
    """The keyword that was meant, it may be."""
    lower = {known.lower(): known for known in KEYWORDS}
    found = difflib.get_close_matches(name[:40].lower(), list(lower), n=1, cutoff=0.75)
    return lower[found[0]] if found else None
