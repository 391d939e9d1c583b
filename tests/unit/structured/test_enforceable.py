import json
import pathlib
import time
from typing import Any

import pytest
from jsonschema_specifications import REGISTRY

from gateway.structured.enforceable import Enforceable, Unenforceable, enforceable
from gateway.structured.keywords import KEYWORDS, place_of
from gateway.structured.references import Document
from tests.pydantic_models import MODELS
from tests.schema_rows import ROWS, Row, table

DOCS = pathlib.Path(__file__).parents[3] / "docs" / "structured-outputs.md"
VOCABULARIES = ("core", "applicator", "unevaluated", "validation", "meta-data", "format-annotation", "content")


def refused(schema: Any, *, strict: bool = True) -> list[tuple[str, str]]:
    with pytest.raises(Unenforceable) as caught:
        enforceable(schema, strict=strict)
    assert all(finding.reason.endswith(".") for finding in caught.value.findings)
    return [(finding.pointer, finding.keyword) for finding in caught.value.findings]


def names_it(row: Row) -> tuple[str | None, str]:
    return row.at, row.keyword if row.by is None else row.by


def label(row: Row) -> str:
    return f"{row.keyword}-{json.dumps(row.schema)[:60]}"


@pytest.mark.parametrize("row", [row for row in ROWS if row.at is None], ids=label)
def test_what_is_enforced_is_accepted_strict_or_not(row: Row) -> None:
    for strict in (True, False):
        made = enforceable(row.schema, strict=strict)
        assert isinstance(made, Enforceable)
        assert made.checked_after == ()
        assert made.schema


@pytest.mark.parametrize("row", [row for row in ROWS if row.at is not None], ids=label)
def test_what_is_not_enforced_is_refused_by_its_pointer(row: Row) -> None:
    assert names_it(row) in refused(row.schema)


@pytest.mark.parametrize("row", [row for row in ROWS if row.at is not None and not row.is_hopeless], ids=label)
def test_what_is_not_enforced_is_checked_afterwards_where_that_is_allowed(row: Row) -> None:
    made = enforceable(row.schema, strict=False)
    assert names_it(row) in [(finding.pointer, finding.keyword) for finding in made.checked_after]


@pytest.mark.parametrize("row", [row for row in ROWS if row.is_hopeless], ids=label)
def test_what_makes_no_sense_is_refused_strict_or_not(row: Row) -> None:
    refused(row.schema, strict=False)


def test_every_keyword_of_the_draft_has_its_place_and_its_row() -> None:
    base = "https://json-schema.org/draft/2020-12/meta/"
    keywords = {name for vocabulary in VOCABULARIES for name in REGISTRY.contents(f"{base}{vocabulary}")["properties"]}
    assert len(keywords) > 50
    assert keywords - KEYWORDS.keys() == set()
    assert KEYWORDS.keys() - {row.keyword for row in ROWS} == set()


def test_every_refusal_points_at_a_part_of_the_schema() -> None:
    for row in ROWS:
        if row.at is not None:
            for pointer, _ in refused(row.schema):
                Document(row.schema).at(pointer)


def test_no_unknown_keyword_passes() -> None:
    assert place_of("minlength") == "refused"
    with pytest.raises(Unenforceable) as caught:
        enforceable({"type": "string", "minlength": 3}, strict=True)
    (finding,) = caught.value.findings
    assert finding.rewrite == "minLength"


def test_the_docs_have_the_table_that_the_code_decides() -> None:
    assert "\n".join(table()) in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_pydantic_model_is_accepted_as_it_is(model: Any) -> None:
    assert enforceable(model.model_json_schema(), strict=True).checked_after == ()


def test_the_callers_schema_is_left_as_it_was() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    before = json.dumps(schema)
    enforceable(schema, strict=True)
    assert json.dumps(schema) == before


def test_two_objects_that_xgrammar_would_take_for_one_are_told_apart() -> None:
    schema = {
        "anyOf": [
            {"type": "object", "properties": {"title": {"type": kind}}, "required": ["title"]} for kind in ("string", "null")
        ]
    }
    one, other = enforceable(schema, strict=True).schema["anyOf"]
    assert one["x-number"] != other["x-number"]


def test_control_characters_stay_out_of_bounded_strings() -> None:
    written = enforceable({"type": "string", "maxLength": 5}, strict=True).schema
    assert "maxLength" not in written
    assert "{0,5}" in written["pattern"]


def doubling(levels: int) -> dict[str, Any]:
    definitions = {f"d{level}": {"anyOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": {"type": "null"}}}


def doubling_objects(levels: int) -> dict[str, Any]:
    definitions = {
        f"d{level}": {
            "type": "object",
            "properties": {side: {"$ref": f"#/$defs/d{level + 1}"} for side in "lr"},
            "required": ["l", "r"],
        }
        for level in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": {"type": "null"}}}


def crossed(groups: int) -> dict[str, Any]:
    return {"allOf": [{"anyOf": [{"minimum": group}, {"maximum": -group}, {"const": group}]} for group in range(groups)]}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


HOSTILE = {
    "a $ref that doubles": doubling(400),
    "objects that double": doubling_objects(400),
    "crossed branches": crossed(300),
    "crossed branches of references": {
        "allOf": [{"$ref": "#/$defs/a"}] * 500,
        "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}, {"type": "null"}]}, "b": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
    },
    "a chain of references": {
        "$ref": "#/$defs/d0",
        "$defs": {**{f"d{level}": {"$ref": f"#/$defs/d{level + 1}"} for level in range(1000)}, "d1000": {"type": "null"}},
    },
    "a ring of references": {"$ref": "#/$defs/d0", "$defs": {f"d{level}": {"$ref": f"#/$defs/d{(level + 1) % 1000}"} for level in range(1000)}},
    "deep": nested(32),
    "many properties": {"type": "object", "properties": {f"a{count}": {"type": "string"} for count in range(1024)}},
    "many properties, and others": {
        "type": "object", "properties": {f"a{count}": {"type": "string"} for count in range(1024)}, "additionalProperties": {"type": "null"},
    },
    "many values": {"enum": [f"value {count}" for count in range(2048)], "pattern": "^(value|[a-z]* )+[0-9]+$"},
    "many branches of oneOf": {"oneOf": [{"type": "object", "properties": {"k": {"const": count}}, "required": ["k"]} for count in range(256)]},
    "nested repetition": {"type": "string", "pattern": "^((((a{100}){100}){100}){100})+$"},
    "a pattern that backtracks": {"enum": ["a" * 60], "pattern": "^(a+)+(b|c)$"},
    "patterns to compare": {"allOf": [{"pattern": "^(a|b)*a(a|b){14}$"}, {"pattern": "^(a|b)*b(a|b){14}$"}]},
    "a long pattern": {"type": "string", "pattern": "(a|b)?" * 2000},
    "many parentheses": {"type": "string", "pattern": "(" * 30000 + ")" * 30000},
    "long names": {"type": "object", "properties": {"k" * 20000 + str(count): {} for count in range(3)}, "additionalProperties": True},
    "ways of length": {"type": "string", "pattern": "^a*b*c*d*e*f*$", "minLength": 40, "maxLength": 90},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_takes_little_time(name: str) -> None:
    took_s = []
    for _ in range(3):
        began_s = time.perf_counter()
        try:
            made = enforceable(HOSTILE[name], strict=False)
        except Unenforceable:
            pass
        else:
            assert len(json.dumps(made.schema)) < 2_000_000
        took_s.append(time.perf_counter() - began_s)
    assert min(took_s) < 0.5
