"""What becomes of each keyword: schemas, and where they are refused. `python -m tests.schema_rows` prints the table of the docs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.structured.enforceable import Unenforceable, enforceable
from gateway.structured.keywords import KEYWORDS, place_of
from gateway.structured.validate import Checker, checkable


@dataclass(frozen=True)
class Row:
    """A schema that shows what becomes of `keyword`: enforced where `at` is None, else refused there, by `by` or itself."""

    keyword: str
    schema: dict[str, Any]
    at: str | None = None
    is_hopeless: bool = False
    by: str | None = None


def _integer(**more: Any) -> dict[str, Any]:
    return {"type": "integer", **more}


def _string(**more: Any) -> dict[str, Any]:
    return {"type": "string", **more}


def _object(**more: Any) -> dict[str, Any]:
    return {"type": "object", **more}


def _array(**more: Any) -> dict[str, Any]:
    return {"type": "array", **more}


A, B = {"type": "integer"}, {"type": "boolean"}
CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": A}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"const": "dog"}, "name": {"type": "string"}}, "required": ["kind"]}

ROWS = [
    Row("type", {"type": "string"}),
    Row("type", {"type": ["string", "null"]}),
    Row("type", {"type": ["integer", "number"]}),
    Row("type", {"type": "object"}),
    Row("type", {"type": "array"}),
    Row("type", {"type": "float"}, "/type", is_hopeless=True),
    Row("type", {"type": []}, "/type", is_hopeless=True),
    Row("enum", {"enum": ["a", 'q"\\\n\u2028/\x7f', 1, 2.0, 0.1, 19.99, -0.0, 1e15, None, True, [1, 0.1], {"title": 1}, {}, []]}),
    Row("enum", {"enum": [1, 5, "a"], "type": "integer", "minimum": 3}),
    Row("enum", {"enum": [{"title": 1}, {"title": 2}, {"description": [0.3]}]}),
    Row("enum", {"enum": [{"type": "array", "uniqueItems": True}]}),
    Row("enum", {"enum": []}, "/enum", is_hopeless=True),
    Row("enum", {"enum": ["a"], "type": "integer"}, "", is_hopeless=True, by=""),
    Row("enum", {"enum": [1, 2**70]}, "/enum"),
    Row("enum", {"enum": [1, 1e-9]}, "/enum"),
    Row("const", {"const": {"b": [1.5, None], "a": 'x"y'}}),
    Row("const", {"type": "object", "properties": {"k": {"const": "x"}}, "required": ["k"]}),
    Row("const", {"const": "\ud800"}, "/const", is_hopeless=True),
    Row("properties", _object(properties={"a": A, "b": B})),
    Row("properties", _object(properties={'q"\\\n/\u00e9\x01\u2028': A, "": B, "title": A})),
    Row("properties", {"anyOf": [_object(properties={"title": A}, required=["title"]), _object(properties={"title": B}, required=["title"])]}),
    Row("properties", _object(properties={})),
    Row("properties", {"properties": {"a": A}}),
    Row("properties", _object(properties=[]), "/properties", is_hopeless=True),
    Row("required", _object(properties={"a": A, "b": B}, required=["b"])),
    Row("required", _object(properties={"a": A}, required=["z"])),
    Row("required", _object(properties={"a": A}, required=["z"], additionalProperties=B)),
    Row("required", _object(required=["z"])),
    Row("required", _object(required="a"), "/required", is_hopeless=True),
    Row("additionalProperties", _object(additionalProperties=A)),
    Row("additionalProperties", _object(properties={"a": A}, additionalProperties=False)),
    Row("additionalProperties", _object(properties={"a": A, "ab": A}, required=["a"], additionalProperties={"type": "string"})),
    Row("additionalProperties", _object(properties={"a": A}, additionalProperties=True)),
    Row("additionalProperties", _object(required=["a"], additionalProperties=False), "", is_hopeless=True, by=""),
    Row("patternProperties", _object(patternProperties={"^x_[a-z]+$": A})),
    Row("patternProperties", _object(patternProperties={"^x": A, "^y": B}, additionalProperties=False)),
    Row("patternProperties", _object(properties={"a": B}, patternProperties={"^x": A})),
    Row("patternProperties", _object(properties={"xa": {"minimum": 3}}, patternProperties={"^x": A})),
    Row("patternProperties", _object(patternProperties={"^x": A, "y$": B}), "/patternProperties"),
    Row("patternProperties", _object(patternProperties={"^(?=x)": A}), "/patternProperties"),
    Row("propertyNames", _object(propertyNames={"pattern": "^[a-z]{2}$"}, additionalProperties=A)),
    Row("propertyNames", _object(properties={"a": A}, propertyNames={"pattern": "^\\p{L}+$"}), "/propertyNames"),
    Row("propertyNames", _object(propertyNames={"enum": ["a"], "format": "regex"}), "/propertyNames"),
    Row("properties", {"properties": {"a": False, "b": A}, "additionalProperties": True}),
    Row("patternProperties", _object(properties={"xa": {"not": {}}}, patternProperties={"^x": A})),
    Row("oneOf", {"oneOf": [{"enum": ["auto", "manual"]}, {"type": "string"}]}, "/oneOf"),
    Row("oneOf", {"oneOf": [_object(properties={"a": A}, required=["a"]), _object(properties={"a": False, "b": B})]}),
    Row("pattern", _string(pattern="^" + "(" * 20 + "a" + "+)" * 20 + "$"), "/pattern"),
    Row("pattern", _string(format="email", pattern="^(?!\\.)(?!.*\\.\\.)([A-Za-z0-9_'+\\-\\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\\-]*\\.)+[A-Za-z]{2,}$")),
    Row("propertyNames", _object(propertyNames={"enum": ["a", "b"]}, additionalProperties=A)),
    Row("propertyNames", _object(propertyNames={"maxLength": 3})),
    Row("propertyNames", _object(properties={"long": A, "ab": A}, propertyNames={"maxLength": 3})),
    Row("propertyNames", _object(propertyNames={"anyOf": [{"maxLength": 3}, {"pattern": "^x"}]}), "/propertyNames"),
    Row("minProperties", _object(properties={"a": A, "b": B, "c": A}, minProperties=2)),
    Row("minProperties", _object(additionalProperties=A, minProperties=1)),
    Row("minProperties", _object(additionalProperties=A, minProperties=2), "/minProperties"),
    Row("minProperties", _object(minProperties=-1), "/minProperties", is_hopeless=True),
    Row("maxProperties", _object(properties={"a": A, "b": B, "c": A}, required=["b"], maxProperties=2)),
    Row("maxProperties", _object(maxProperties=2)),
    Row("maxProperties", _object(maxProperties=0)),
    Row("maxProperties", _object(required=["a", "b"], maxProperties=1), "", is_hopeless=True, by=""),
    Row("items", _array(items=A)),
    Row("items", _array(items=False)),
    Row("items", {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [A, B]}),
    Row("items", {"items": {"type": "array", "items": {"type": "null"}}}),
    Row("items", _array(items=3), "/items", is_hopeless=True),
    Row("additionalItems", {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [A], "additionalItems": B}),
    Row("additionalItems", {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [A], "additionalItems": False}),
    Row("prefixItems", _array(prefixItems=[A, B])),
    Row("prefixItems", _array(prefixItems=[A, True], items={"type": "null"}, minItems=2)),
    Row("prefixItems", _array(prefixItems=[A, False])),
    Row("prefixItems", _array(prefixItems=[A], minItems=3)),
    Row("prefixItems", _array(prefixItems=[]), "/prefixItems", is_hopeless=True),
    Row("minItems", _array(items=A, minItems=2)),
    Row("minItems", {"minItems": 2}),
    Row("minItems", _array(items=False, minItems=1), "", is_hopeless=True, by=""),
    Row("maxItems", _array(items=A, minItems=1, maxItems=3)),
    Row("maxItems", _array(prefixItems=[A, B], maxItems=1)),
    Row("maxItems", _array(maxItems=0)),
    Row("maxItems", _array(minItems=3, maxItems=2), "", is_hopeless=True, by=""),
    Row("uniqueItems", _array(items=A, uniqueItems=False)),
    Row("uniqueItems", _array(items=A, uniqueItems=True, maxItems=1)),
    Row("uniqueItems", {"enum": [[1, 1], [1, 2]], "uniqueItems": True}),
    Row("uniqueItems", _array(items=A, uniqueItems=True), "/uniqueItems"),
    Row("uniqueItems", _array(items={"enum": ["a", "b", 3]}, uniqueItems=True, minItems=1)),
    Row("uniqueItems", {"uniqueItems": True}, "/uniqueItems"),
    Row("contains", _array(items=A, contains=B, minContains=0)),
    Row("contains", _array(contains=A), "/contains"),
    Row("minContains", _array(items=A, minContains=3)),
    Row("minContains", _array(contains=A, minContains=2), "/minContains"),
    Row("maxContains", _array(items=A, maxContains=3)),
    Row("maxContains", _array(contains=A, maxContains=2), "/maxContains"),
    Row("minLength", _string(minLength=2)),
    Row("minLength", {"minLength": 2}),
    Row("minLength", _string(minLength=3, maxLength=2), "", is_hopeless=True, by=""),
    Row("minLength", _string(minLength=1, pattern="^a*b*$")),
    Row("minLength", _string(minLength=3, pattern="^(ab)+$"), "/minLength"),
    Row("maxLength", _string(maxLength=5)),
    Row("maxLength", _string(minLength=3, maxLength=4000)),
    Row("maxLength", _string(maxLength=8, pattern="^[a-z]+-[0-9]+$")),
    Row("maxLength", _string(maxLength=254, format="email")),
    Row("maxLength", _string(minLength=1, maxLength=2083, format="uri")),
    Row("maxLength", _string(maxLength=10, pattern="^(ab|cde)+x?(ab|c)*$"), "/maxLength"),
    Row("maxLength", _string(maxLength="5"), "/maxLength", is_hopeless=True),
    Row("minimum", _integer(minimum=-3, maximum=1234)),
    Row("minimum", {"type": "number", "minimum": 0.15, "maximum": 0.2}),
    Row("minimum", {"minimum": 3}),
    Row("minimum", _integer(minimum=-(2**80), maximum=2**80)),
    Row("minimum", {"type": "number", "minimum": -1e300, "maximum": 1.7976931348623157e308}),
    Row("minimum", _integer(minimum=3, maximum=2), "", is_hopeless=True, by=""),
    Row("minimum", {"type": "number", "minimum": 0.12345671, "maximum": 0.12345679}, "", is_hopeless=True, by=""),
    Row("maximum", {"type": "number", "maximum": 7}),
    Row("maximum", _integer(maximum=7.5)),
    Row("maximum", _integer(maximum="7"), "/maximum", is_hopeless=True),
    Row("exclusiveMinimum", {"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
    Row("exclusiveMinimum", _integer(exclusiveMinimum=0, exclusiveMaximum=3)),
    Row("exclusiveMinimum", {"type": "number", "exclusiveMinimum": True}, "/exclusiveMinimum", is_hopeless=True),
    Row("exclusiveMaximum", {"type": "number", "minimum": -0.5, "exclusiveMaximum": 0}),
    Row("exclusiveMaximum", _integer(exclusiveMinimum=0, exclusiveMaximum=1), "", is_hopeless=True, by=""),
    Row("multipleOf", _integer(multipleOf=1)),
    Row("multipleOf", _integer(multipleOf=5, minimum=0, maximum=100)),
    Row("multipleOf", {"type": "number", "multipleOf": 0.1, "minimum": 0, "maximum": 5}),
    Row("multipleOf", {"type": "number", "multipleOf": 1}),
    Row("multipleOf", {"multipleOf": 3}, "/multipleOf"),
    Row("multipleOf", {"type": "number", "multipleOf": 0.01}, "/multipleOf"),
    Row("multipleOf", _integer(multipleOf=0), "/multipleOf", is_hopeless=True),
    Row("pattern", _string(pattern="^[A-Z]{3}-\\d+$")),
    Row("pattern", _string(pattern="@")),
    Row("pattern", _string(pattern='^[^,]"\\\\\\n$')),
    Row("pattern", _string(pattern="^(\\w+|\\W|\\S{2}|\u00e9|\\ud83d\\ude00)$")),
    Row("pattern", _string(pattern="^\\d{4}-\\d{2}-\\d{2}$", format="date")),
    Row("pattern", {"pattern": "^a|b$"}),
    Row("pattern", _string(pattern="^(?=a)b$"), "/pattern"),
    Row("pattern", _string(pattern="\\bword\\b"), "/pattern"),
    Row("pattern", _string(pattern="^(a)\\1$"), "/pattern"),
    Row("pattern", _string(pattern="^\\p{L}+$"), "/pattern"),
    Row("pattern", _string(pattern="^a+$", format="uuid"), "/pattern"),
    Row("pattern", _string(pattern="("), "/pattern", is_hopeless=True),
    *(
        Row("format", _string(format=name))
        for name in (
            "date", "time", "date-time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6", "uri", "iri",
            "uri-reference", "iri-reference", "uri-template", "uuid", "json-pointer", "relative-json-pointer", "byte", "password",
        )
    ),
    Row("format", _integer(format="int32")),
    Row("format", {"type": "number", "format": "double"}),
    Row("format", _string(format="regex"), "/format"),
    Row("format", _string(format="phone"), "/format"),
    Row("anyOf", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
    Row("anyOf", {"type": "object", "properties": {"a": A, "b": B}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
    Row("anyOf", {"anyOf": [A, {"type": "string", "format": "regex"}]}, "/anyOf/1/format", by="format"),
    Row("anyOf", {"anyOf": []}, "/anyOf", is_hopeless=True),
    Row("oneOf", {"oneOf": [{"type": "string"}, {"type": "null"}]}),
    Row("oneOf", {"oneOf": [CAT, DOG], "discriminator": {"propertyName": "kind"}}),
    Row("oneOf", {"oneOf": [_object(properties={"a": A}, required=["a"]), _object(properties={"b": A}, required=["b"])]}),
    Row("oneOf", {"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]}),
    Row("oneOf", {"oneOf": [_integer(maximum=3), _integer(exclusiveMinimum=3)]}),
    Row("oneOf", {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "/oneOf"),
    Row("oneOf", {"properties": {"b": A}, "oneOf": [_object(properties={"a": A}, required=["a"]), _object(required=["b"])]}, "/oneOf"),
    Row("allOf", {"allOf": [A]}),
    Row("allOf", {"allOf": [_object(properties={"a": A}), _object(properties={"b": B, "a": {"minimum": 2}}, required=["b"])]}),
    Row("allOf", {"type": "string", "allOf": [{"minLength": 2}, {"maxLength": 3}]}),
    Row("allOf", {"allOf": [{"type": "string"}, {"type": "null"}]}, "", is_hopeless=True, by=""),
    Row("not", {"not": {"type": ["object", "array"]}}),
    Row("not", {"enum": ["a", "b"], "not": {"const": "a"}}),
    Row("not", {"type": "string", "not": {"const": "a"}}, "/not"),
    Row("not", {"not": {}}, "", is_hopeless=True, by=""),
    Row("if", {"if": {"type": "string"}, "type": "string"}),
    Row("if", {"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}, "/if"),
    Row("then", {"type": "string", "then": {"minLength": 3}}),
    Row("then", {"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}, "/then"),
    Row("else", {"type": "string", "else": {"minLength": 3}}),
    Row("else", {"type": "object", "if": {"required": ["a"]}, "else": {"required": ["b"]}}, "/else"),
    Row("dependentRequired", _object(dependentRequired={})),
    Row("dependentRequired", _object(properties={"a": A, "b": A}, dependentRequired={"a": ["b"]}), "/dependentRequired"),
    Row("dependentSchemas", _object(dependentSchemas={"a": True})),
    Row("dependentSchemas", _object(dependentSchemas={"a": {"required": ["b"]}}), "/dependentSchemas"),
    Row("dependencies", _object(dependencies={"a": ["b"]}), "/dependencies"),
    Row("unevaluatedProperties", _object(properties={"a": A}, unevaluatedProperties=False)),
    Row("unevaluatedProperties", _object(allOf=[{"properties": {"a": A}}], properties={"b": B}, unevaluatedProperties=False)),
    Row("unevaluatedProperties", _object(unevaluatedProperties=A)),
    Row("unevaluatedProperties", {"allOf": [{"properties": {"a": A}}, {"unevaluatedProperties": False}]}, "/allOf/1/unevaluatedProperties"),
    Row("unevaluatedItems", _array(prefixItems=[A], unevaluatedItems=False)),
    Row("unevaluatedItems", _array(unevaluatedItems=A)),
    Row("unevaluatedItems", {"allOf": [{"prefixItems": [A]}, {"unevaluatedItems": False}]}, "/allOf/1/unevaluatedItems"),
    Row("$ref", {"$ref": "#/$defs/a", "$defs": {"a": A}}),
    Row("$ref", {"$ref": "#/$defs/a", "maximum": 5, "$defs": {"a": _integer(minimum=3)}}),
    Row("$ref", {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": A}}),
    Row("$ref", _object(properties={"v": A, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, required=["v"])),
    Row("$ref", {"$ref": "#/definitions/tree", "definitions": {"tree": _array(items={"$ref": "#/definitions/tree"})}}),
    Row("$ref", {"$ref": "#there", "$defs": {"a": {"$anchor": "there", "type": "integer"}}}),
    Row("$ref", {"$ref": "#/$defs/none"}, "/$ref", is_hopeless=True),
    Row("$ref", {"$ref": "https://example.com/a.json"}, "/$ref", is_hopeless=True),
    Row("$ref", {"$ref": "#"}, "/$ref", is_hopeless=True),
    Row("$ref", _object(properties={"n": {"$ref": "#"}}, required=["n"]), "", is_hopeless=True, by=""),
    Row("$dynamicRef", {"type": "object", "properties": {"a": {"$dynamicRef": "#a"}}}, "/properties/a/$dynamicRef"),
    Row("$recursiveRef", {"type": "object", "properties": {"a": {"$recursiveRef": "#"}}}, "/properties/a/$recursiveRef"),
    Row("$vocabulary", {"type": "string", "$vocabulary": {}}, "/$vocabulary"),
    Row("id", {"type": "string", "id": "https://example.com"}, "/id"),
    Row("nullable", {"type": "string", "nullable": False}),
    Row("nullable", {"type": "string", "nullable": True}, "/nullable"),
    Row("$schema", {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "string"}),
    Row("$schema", {"$schema": "https://example.com/mine", "type": "string"}, "/$schema"),
    Row("$id", {"$id": "https://example.com/x", "$ref": "#/$defs/a", "$defs": {"a": A}}),
    Row("$id", {"properties": {"p": {"$id": "other", "$ref": "#/$defs/a"}}, "$defs": {"a": A}}, "/properties/p/$ref", is_hopeless=True, by="$ref"),
    *(
        Row(name, {name: value, "type": "integer"})
        for name, value in {
            "$anchor": "a", "$dynamicAnchor": "a", "$recursiveAnchor": True, "$comment": "a", "$defs": {}, "definitions": {}, "components": {},
            "title": "a", "description": "a", "default": 1, "examples": [1], "example": 1, "deprecated": True, "readOnly": True,
            "writeOnly": True, "contentEncoding": "base64", "contentMediaType": "text/plain", "contentSchema": {}, "discriminator": {},
            "externalDocs": {}, "xml": {}, "x-order": 3,
        }.items()
    ),
    Row("minlength", {"type": "string", "minlength": 3}, "/minlength"),
    Row("optional", {"type": "string", "optional": True}, "/optional"),
]  # fmt: skip


def names() -> list[str]:
    """The keywords, those of JSON Schema first, in the table's order."""
    return [*KEYWORDS, *dict.fromkeys(row.keyword for row in ROWS if row.keyword not in KEYWORDS)]


def table() -> Iterator[str]:
    """The table of the docs, by what the code decides about the rows."""
    yield "| keyword | enforced | checked afterwards with `strict: false` | refused |"
    yield "| --- | --- | --- | --- |"
    for name in names():
        columns: list[list[str]] = [[], [], []]
        for row in ROWS:
            if row.keyword == name:
                columns[_column(row)].append(_example(row))
        if place_of(name) == "note":
            columns[0] = ["says nothing about answers"]
        yield f"| `{name}` | {' | '.join(', '.join(cell[:4]) or 'no' for cell in columns)} |"


def _column(row: Row) -> int:
    try:
        left = enforceable(row.schema, strict=False).checked_after
        Checker(checkable(row.schema, {finding.pointer for finding in left}))
    except (Unenforceable, ValueError):
        return 2
    return 1 if left else 0


def _example(row: Row) -> str:
    shown = json.dumps(
        {
            name: value
            for name, value in row.schema.items()
            if name not in {"$defs", "definitions", "$schema"} or name == row.keyword
        }
    )
    if len(shown) > 90:
        shown = json.dumps({row.keyword: row.schema[row.keyword]}) if row.keyword in row.schema else shown
    return f"`{shown if len(shown) <= 120 else shown[:117] + '...'}`".replace("|", "\\|")


if __name__ == "__main__":
    print("\n".join(table()))
