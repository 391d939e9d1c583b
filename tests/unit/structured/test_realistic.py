"""200 schemas as people write them: what is in them is theirs, and the gateway has to do with it."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from jsonschema.validators import validator_for

from gateway.structured.enforceable import Finding, Unenforceable, enforceable
from gateway.structured.limits import SchemaLimits, check_size
from gateway.structured.validate import Checker, checkable
from tests.structured_corpus import Realistic, realistic

ALL = list(realistic())

_ANNOTATIONS = frozenset({
    "$schema", "$id", "$comment", "title", "description", "default", "examples", "example", "deprecated", "readOnly",
    "writeOnly", "externalDocs",
})  # fmt: skip
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependentRequired"})


class _Renamed:
    """A schema without the words of whom it comes from: names, values and patterns by their order, annotations left out."""

    def __init__(self) -> None:
        self._words: dict[str, str] = {}

    def word(self, value: object) -> str:
        return self._words.setdefault(repr(value), f"w{len(self._words)}")

    def schema(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.schema(item) for item in node]
        if not isinstance(node, dict):
            return node
        asserted = sorted(name for name in node if name not in _ANNOTATIONS and not name.startswith("x-"))
        return {name: self.keyword(name, node[name]) for name in asserted}

    def keyword(self, name: str, value: Any) -> Any:
        if name in _NAMED and isinstance(value, dict):
            return {self.word(own): self.schema(inner) for own, inner in value.items()}
        if name in {"enum", "required"} and isinstance(value, list):
            return sorted(self.word(item) for item in value)
        if name == "$ref" and isinstance(value, str):
            return self.word(value.rsplit("/", 1)[-1])
        return self.word(value) if name in {"const", "pattern"} else self.schema(value)


def _refused(schema: Realistic) -> tuple[Finding, ...]:
    try:
        enforceable(schema.schema, strict=True)
    except Unenforceable as error:
        return error.findings
    return ()


def test_what_is_accepted_can_be_checked() -> None:
    for schema in ALL:
        if not _refused(schema):
            Checker(checkable(schema.schema))


def _at(schema: Mapping[str, Any], pointer: str) -> Any:
    node: Any = schema
    for name in pointer.split("/")[1:]:
        node = node[int(name)] if isinstance(node, list) else node[name.replace("~1", "/").replace("~0", "~")]
    return node


def test_there_are_200_from_many_sources() -> None:
    assert len(ALL) == 200
    sources = Counter(schema.source for schema in ALL)
    assert len(sources) >= 12
    assert max(sources.values()) <= 200 // 8


def test_no_two_are_alike_after_renaming() -> None:
    seen: dict[str, str] = {}
    for schema in ALL:
        assert seen.setdefault(repr(_Renamed().schema(schema.schema)), str(schema)) == str(schema)


def test_renaming_makes_alike_what_differs_in_words_only() -> None:
    one = {"title": "A", "properties": {"a": {"enum": ["x", "y"]}, "b": {"const": 1}}, "required": ["a"]}
    other = {"properties": {"c": {"enum": ["y", "z"]}, "d": {"const": "?", "description": "D"}}, "required": ["c"]}
    assert _Renamed().schema(one) == _Renamed().schema(other)
    assert _Renamed().schema(one) != _Renamed().schema(other | {"required": ["d"]})


@pytest.mark.parametrize("schema", ALL, ids=str)
def test_each_is_a_json_schema_within_the_limits(schema: Realistic) -> None:
    validator_for(schema.schema, default=jsonschema.Draft202012Validator).check_schema(schema.schema)
    check_size(schema.schema, SchemaLimits(), "response_format")


def test_at_least_95_percent_are_accepted_unchanged() -> None:
    refused = [str(schema) for schema in ALL if _refused(schema)]
    assert len(refused) <= len(ALL) * 0.05, refused


def test_a_refusal_says_where_what_why_and_what_to_do() -> None:
    for schema in ALL:
        for finding in _refused(schema):
            assert finding.pointer.endswith(f"/{finding.keyword}")
            _at(schema.schema, finding.pointer)
            assert re.match(r".{15,}", finding.reason)
            assert finding.rewrite is None or finding.rewrite.strip()
