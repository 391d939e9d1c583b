import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import SchemaOverLimit, SchemaRefused
from gateway.structured.limits import SchemaLimits, check_choice, check_grammar, check_regex, check_size

DEFAULTS = SchemaLimits()
PARAM = "response_format.json_schema.schema"


def over(schema: Any, check: Callable[[Any, SchemaLimits, str], None] = check_size, **limits: int) -> tuple[str, str, int, int]:
    """Of a refusal: the limit, the place, the value and what is allowed."""
    with pytest.raises(SchemaOverLimit) as caught:
        check(schema, dataclasses.replace(DEFAULTS, **limits), PARAM)
    details = caught.value.details
    assert details is not None
    assert f"{details['limit']} allows {details['allowed']}." in caught.value.message
    assert caught.value.param == PARAM
    return details["limit"].removeprefix("FOVEA_SCHEMA_"), details["pointer"], details["value"], details["allowed"]


def named(count: int, value: object = ()) -> dict[str, Any]:
    return {f"p{n}": value for n in range(count)}


def nested(levels: int) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


def test_the_message_names_the_limit_its_value_and_the_schemas_own() -> None:
    schema = {"type": "object", "properties": named(2311), "required": list(named(2311))}
    with pytest.raises(SchemaOverLimit) as caught:
        check_size(schema, DEFAULTS, PARAM)
    assert caught.value.message == (
        "The schema has 2,311 properties or more (at /properties); FOVEA_SCHEMA_PROPERTIES allows 1024."
    )
    assert caught.value.status == 400
    assert caught.value.error_code == "schema_over_limit"
    assert caught.value.details == {
        "pointer": "/properties",
        "limit": "FOVEA_SCHEMA_PROPERTIES",
        "value": 2311,
        "allowed": 1024,
    }


@pytest.mark.parametrize(
    ("limit", "at_most"),
    [
        ("schema_values", lambda n: {"examples": [0] * (n - 1)}),
        ("schema_depth", nested),
        ("schema_properties", lambda n: {"properties": named(n - 9), "patternProperties": named(5), "items": [{}] * 4}),
        ("schema_optional_properties", lambda n: {"properties": named(n + 5), "required": list(named(5))}),
        ("schema_enum_values", lambda n: {"enum": list(range(n - 3)), "items": {"enum": ["a", "b", None]}}),
        ("schema_alternatives", lambda n: {"anyOf": [{}] * (n - 5), "oneOf": [{}] * 3, "items": {"allOf": [{}] * 2}}),
        ("schema_definitions", lambda n: {"$defs": named(n - 3), "definitions": named(3)}),
        ("schema_references", lambda n: {"prefixItems": [{"$ref": "#"}] * (n - 1), "items": {"$dynamicRef": "#a"}}),
        ("schema_repetitions", lambda n: {"maxItems": n, "items": {"minLength": n, "maxLength": float(n)}}),
        ("schema_repetitions", lambda n: {"properties": named(n // 8), "maxProperties": 8}),
        ("schema_repetitions", lambda n: {"anyOf": [{"minItems": n}, {"minProperties": n}, {"maxProperties": n}]}),
        ("schema_repetitions", lambda n: {"contains": {}, "minContains": n, "maxContains": n}),
        ("schema_pattern_characters", lambda n: {"anyOf": [{"pattern": c * (n // 16)} for c in "abcdefghijklmnop"]}),
        ("schema_pattern_repetitions", lambda n: {"pattern": f"^a{{2,{n}}}b{{{n}}}c{{{n},}}$"}),
        ("schema_pattern_repetitions", lambda n: {"patternProperties": {f"^a{{{n}}}$": {}}}),
        ("schema_pattern_repetitions", lambda n: {"propertyNames": {"pattern": f"a{{{n}}}"}}),
        ("schema_positions", lambda n: {"pattern": f"(ab{{15}}){{{n // 16}}}"}),
        ("schema_positions", lambda n: {"pattern": f"([^{{}}]{{8}}){{{n // 16}}}", "not": {"pattern": r"\{" * (n // 2)}}),
        ("schema_positions", lambda n: {"anyOf": [{"maxLength": 300 + m} for m in range(n // 256)], "maxLength": n % 256}),
        ("schema_positions", lambda n: {"anyOf": [{"minLength": m, "maxLength": 256} for m in range(n // 256)]}),
        ("schema_depth", lambda n: {"pattern": "(" * n + "a" + ")" * n + "(b)"}),
    ],
)  # fmt: skip
def test_what_is_at_a_limit_passes_and_one_more_does_not(limit: str, at_most: Callable[[int], Any]) -> None:
    roomy = {field.name: 10**6 for field in dataclasses.fields(SchemaLimits)}
    value = getattr(DEFAULTS, limit)
    check_size(at_most(value), SchemaLimits(**roomy | {limit: value}), PARAM)
    assert over(at_most(value), **roomy | {limit: value - 1})[0] == limit.removeprefix("schema_").upper()


def test_every_limit_is_one_of_a_table_row_or_of_a_test_by_name() -> None:
    assert [field.name for field in dataclasses.fields(SchemaLimits)] == [
        "schema_kib", "schema_values", "schema_depth", "schema_properties", "schema_optional_properties", "schema_enum_values",
        "schema_alternatives", "schema_definitions", "schema_references", "schema_repetitions", "schema_pattern_characters",
        "schema_pattern_repetitions", "schema_positions", "schema_grammar_kib",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["x" * 65_000, "é" * 33_000, "\0" * 11_000, '"' * 33_000],
    ids=["plain", "two bytes for each", "six characters for each", "two characters for each"],
)
def test_bytes_are_those_of_the_schema_as_json(text: str) -> None:
    schema = {"description": text}
    kib = -(-len(json.dumps(schema, ensure_ascii=False, separators=(",", ":")).encode()) // 1024)
    check_size(schema, SchemaLimits(schema_kib=kib), PARAM)
    assert over(schema, schema_kib=kib - 1)[::2] == ("KIB", kib)


def test_numbers_count_by_their_digits() -> None:
    assert over({"examples": [1.2345678901234567e100] * 4_000}, schema_values=5_000)[0] == "KIB"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"maxLength": {"type": "integer"}, "enum": {"type": "string"}, "properties": {"type": "object"}}},
        {"$defs": {"pattern": {"type": "string"}, "minItems": {"maximum": 10**9}}},
        {"dependentSchemas": {"maxItems": {"type": "null"}}},
        True,
        {},
        {"type": "integer", "maximum": 10**12, "minimum": -(10**12)},
        {"maxLength": "5000000", "enum": "none", "properties": 7, "pattern": {"{": 9}, "$ref": None},
    ],
)
def test_names_of_the_callers_own_and_nonsense_are_no_keywords(schema: object) -> None:
    check_size(schema, SchemaLimits(schema_enum_values=0, schema_references=0, schema_repetitions=0), PARAM)


def test_a_bomb_in_a_place_that_a_reference_may_lead_to_is_seen() -> None:
    hidden = {"type": "string", "maxLength": 5_000_000}
    for place in ("default", "x-mine", "components"):
        assert over({"$ref": f"#/{place}/a", place: {"a": hidden}})[:2] == ("REPETITIONS", f"/{place}/a/maxLength")


def test_the_pointer_leads_to_the_place() -> None:
    schema = {"properties": {"a/b~c": {"anyOf": [{}, {"pattern": "x{999}"}]}}}
    assert over(schema) == ("PATTERN_REPETITIONS", "/properties/a~1b~0c/anyOf/1/pattern", 999, 128)


def test_a_pointer_that_is_long_is_cut() -> None:
    assert len(over({"properties": {"k" * 60_000: {"maxLength": 10**9}}})[1]) == 500


@pytest.mark.parametrize("value", [10**4_000, 1e308, float("inf")])
def test_a_number_beyond_all_is_told_as_one_that_can_be_written(value: float) -> None:
    assert over({"maxItems": value})[2] == 2**53


def test_what_json_could_not_have_said_is_refused() -> None:
    with pytest.raises(SchemaRefused, match="no JSON"):
        check_size({"const": "\ud800"}, DEFAULTS, PARAM)


@pytest.mark.parametrize(
    ("pattern", "positions"),
    [
        (r"(\d{2}:){3}", 9),
        ("a{2,}", 2),
        ("a{0}b{00}", 2),
        ("(a{3}(b{2}c){4}){5}", 75),
        (r"\({4}[(){]{3}", 7),
        ("(((a{9}){9}){9}){9}", 9**4),
        ("a{99999999999999999999}", 10**9),
        ("(" * 30 + "a" + "{1000}){1000}" * 30, 10**9),
    ],
)
def test_counts_are_written_out(pattern: str, positions: int) -> None:
    roomy = {"schema_pattern_repetitions": 10**9}
    assert over(pattern, check_regex, schema_positions=positions - 1, **roomy)[::2] == ("POSITIONS", positions)
    check_regex(pattern, dataclasses.replace(DEFAULTS, schema_positions=positions, **roomy), PARAM)


@pytest.mark.parametrize("pattern", ["[abc{9", ")){3}", "{5}", "a{,", "(((", "[]", "[^]", "\\", "", "(?=a{3})", "a{2,1}"])
def test_what_is_no_pattern_is_not_judged_here(pattern: str) -> None:
    check_regex(pattern, DEFAULTS, PARAM)
    check_size({"pattern": pattern}, DEFAULTS, PARAM)


def test_one_pattern_or_length_in_many_places_counts_once() -> None:
    check_size({"prefixItems": [{"pattern": "[a-z]" * 100}, {"maxLength": 1_000}] * 100}, DEFAULTS, PARAM)


def test_choices_are_counted_and_weighed() -> None:
    check_choice(["yes", "no"], DEFAULTS, PARAM)
    assert over(["a"] * 2049, check_choice) == ("ENUM_VALUES", "", 2049, 2048)
    assert over(["é" * 1024] * 32, check_choice) == ("KIB", "", 65, 64)


def test_a_regular_expression_has_the_limits_of_a_pattern() -> None:
    check_regex("^[A-Z]{2}[0-9]{1,12}$", DEFAULTS, PARAM)
    assert over("a" * 8193, check_regex)[0] == "PATTERN_CHARACTERS"
    assert over("[a-z]{129}", check_regex) == ("PATTERN_REPETITIONS", "", 129, 128)
    assert over("(" * 33, check_regex)[:3:2] == ("DEPTH", 33)


def test_a_grammar_is_weighed_and_its_counts_are_multiplied() -> None:
    check_grammar('root ::= "(((((" * 40 [({"] ("a" | "b"{1,4096})', DEFAULTS, PARAM)
    assert over("é" * 8193, check_grammar) == ("GRAMMAR_KIB", "", 17, 16)
    assert over(f"root ::= {'(' * 33}", check_grammar)[0] == "DEPTH"
    assert over('root ::= (("a" "b"{8}){16} | "c"){33}', check_grammar) == ("REPETITIONS", "", 8 * 16 * 33, 4096)


def _levels(times: int, *, as_object: bool) -> Any:
    node: Any = 0
    for _ in range(times):
        node = {"a": node} if as_object else [node]
    return node


@pytest.mark.parametrize(
    "schema",
    [
        _levels(100_000, as_object=True),
        _levels(100_000, as_object=False),
        named(100_000),
        [0] * 1_000_000,
        [[0] * 100] * 100_000,
        ["ab"] * 1_000_000,
        {"const": "é" * 5_000_000},
        {"k" * 10_000_000: True},
        [1.5e300] * 1_000_000,
        {"pattern": "(a|" * 3_000_000},
        {"properties": {"a": {}}, "required": ["a"] * 1_000_000},
        [{"pattern": f"[a]{{{n}}}" * 200} for n in range(1_000)],
        [[[]] * 4_000, [{}] * 4_000],
        [{"minItems": 1}] * 4_000,
    ],
    ids=[
        "deep objects", "deep arrays", "wide object", "wide array", "many arrays", "many texts", "a long text", "a long name",
        "many numbers", "a long pattern", "required", "many patterns", "just within, empty", "just within, keywords",
    ],
)  # fmt: skip
def test_whatever_it_is_given_it_ends_soon(schema: Any) -> None:
    took = []
    for _ in range(5):  # the machine may stand still; 2 ms where it does not
        start = time.thread_time()
        with contextlib.suppress(SchemaOverLimit):
            check_size(schema, DEFAULTS, PARAM)
        took.append(time.thread_time() - start)
    assert min(took) < 0.010
