import gc
import json
import subprocess
import sys
import time
import tracemalloc
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.structured.fault import DEEPEST, Fault
from gateway.structured.validate import Check, Checker, Choice, JsonObject, Regex

INVOICE: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string", "maxLength": 20},
        "date": {"type": "string", "format": "date"},
        "lines": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Line"}},
        "note": {"anyOf": [{"$ref": "#/$defs/Note"}, {"type": "null"}]},
        "currency": {"enum": ["EUR", "USD"]},
    },
    "required": ["vendor", "lines"],
    "additionalProperties": False,
    "$defs": {
        "Line": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "price": {"type": "number", "multipleOf": 0.01, "minimum": 0}},
            "required": ["name", "price"],
        },
        "Note": {"type": "object", "properties": {"text": {"type": "string", "pattern": "^[a-z]+$"}}},
    },
}
GOOD = '{"vendor": "ACME", "lines": [{"name": "a", "price": 19.99}], "note": null, "date": "2026-02-28"}'


def fault(schema: Any, text: str) -> Fault:
    found = Checker(schema).fault(text)
    assert found is not None
    return found


def test_a_fault_far_behind_in_a_long_answer_is_found_and_beyond_that_it_is_still_a_fault() -> None:
    schema = {"items": {"properties": {"a": {"type": "integer"}, "b": True}}}
    for length, pointer in ((2000, "/2000/a"), (100_000, "")):
        answer = json.dumps([{"a": 1, "b": 2}] * length + [{"a": "x"}])
        found = fault(schema, answer)
        assert (found.reason, found.pointer) == ("schema", pointer)


def nested_schema(levels: int) -> dict[str, Any]:
    return {} if levels == 0 else {"items": nested_schema(levels - 1)}


def fits(schema: Mapping[str, Any], text: str) -> bool:
    return Checker(schema).fault(text) is None


def test_an_answer_that_fits_has_no_fault() -> None:
    assert Checker(INVOICE).fault(GOOD) is None


@pytest.mark.parametrize(
    ("answer", "pointer", "words"),
    [
        (
            '{"vendor": "ACME", "lines": [{"name": "a", "price": 19.995}]}',
            "/lines/0/price",
            "19.995 is not a multiple of 0.01.",
        ),
        ('{"vendor": "ACME", "lines": [{"name": "a", "price": "1"}]}', "/lines/0/price", '"1" is not of type "number".'),
        ('{"vendor": "ACME", "lines": []}', "/lines", "The array has less than 1 item."),
        ('{"vendor": "ACME"}', "", '"lines" is a required property.'),
        ('{"vendor": "ACME", "lines": [{"name": "a"}]}', "/lines/0", '"price" is a required property.'),
        (GOOD.replace("2026-02-28", "2026-02-29"), "/date", '"2026-02-29" is not a "date".'),
        (GOOD.replace("null", '{"text": "A"}'), "/note/text", '"A" does not match "^[a-z]+$".'),
        (GOOD.replace("null", "5"), "/note", '5 does not fit "anyOf".'),
        (GOOD.replace("null", 'null, "b~/": 1'), "", 'The property "b~/" is none that the schema allows.'),
        (GOOD.replace("null", 'null, "currency": "GBP"'), "/currency", '"GBP" is not one of "EUR" or "USD".'),
        ("[]", "", 'The array is not of type "object".'),
    ],
)
def test_a_fault_says_where_and_what(answer: str, pointer: str, words: str) -> None:
    assert Checker(INVOICE).fault(answer) == Fault("schema", pointer, words)


@pytest.mark.parametrize(
    ("schema", "answer", "pointer"),
    [
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, "3", ""),
        ({"not": {"type": "string"}}, '"a"', ""),
        ({"properties": {"a": {"not": {"$ref": "#/$defs/s"}}}, "$defs": {"s": {"type": "string"}}}, '{"a": "b"}', "/a"),
        ({"if": {"type": "string"}, "then": {"minLength": 2}}, '"a"', ""),
        ({"items": {"contains": {"const": 1}}}, "[[1], [2]]", "/1"),
        ({"properties": {"a": False}}, '{"a": 1}', "/a"),
        ({"prefixItems": [True, {"type": "null"}], "items": {"type": "string"}}, '[1, null, "a", 1]', "/3"),
        ({"allOf": [{"properties": {"a": {"$ref": "#/properties/b"}}}], "properties": {"b": {"maximum": 1}}}, '{"a": 2}', "/a"),
        ({"patternProperties": {"^a": {"type": "null"}}}, '{"ab": 2}', ""),
        ({"additionalProperties": {"type": "null"}}, '{"ab": 2}', "/ab"),
        ({"properties": {"a": {}}, "unevaluatedProperties": False}, '{"b": 2}', ""),
        ({"$defs": {"t": {"items": {"$ref": "#/$defs/t"}, "type": "array"}}, "$ref": "#/$defs/t"}, "[[], [[1]]]", "/1/0/0"),
        ({"dependentRequired": {"a": ["b"]}}, '{"a": 2}', ""),
        ({"propertyNames": {"maxLength": 2}}, '{"abc": 2}', ""),
    ],
)
def test_whatever_keyword_it_is_there_is_a_fault_as_near_as_it_can_be_told(
    schema: Mapping[str, Any], answer: str, pointer: str
) -> None:
    found = fault(schema, answer)
    assert (found.reason, found.pointer) == ("schema", pointer)


@pytest.mark.parametrize(
    "schema",
    [{"type": "null"}, {"maxLength": 5}, {"pattern": "^b$"}, {"enum": ["b"]}, {"const": {}}, {"not": {}}, {"maxProperties": 1},
     {"additionalProperties": False}, {"unevaluatedProperties": False}, {"propertyNames": {"maxLength": 3}}, {"maxItems": 1},
     {"uniqueItems": True}, {"items": {"type": "null"}}, {"anyOf": [{"type": "null"}, {"type": "boolean"}]}],
)  # fmt: skip
@pytest.mark.parametrize("secret", ["S" * 5000, {"S" * 5000: 1, "S" * 5001: 2}, ["S" * 5000, "S" * 5000], int("9" * 300)])
def test_a_message_has_at_most_100_characters_of_the_answer(schema: Mapping[str, Any], secret: Any) -> None:
    found = Checker(schema).fault(json.dumps(secret))
    if found is not None:
        assert found.message.count("S") + found.message.count("9") <= 100
        assert len(found.message) <= 300
        assert found == Checker(schema).fault(json.dumps(secret)), "it is the same each time"


@pytest.mark.parametrize(
    ("answer", "reason", "pointer"),
    [
        ("", "cut_short", ""),
        ("   ", "cut_short", ""),
        ('{"a": [1, {"b": "x', "cut_short", "/a/1/b"),
        ("[1, -", "cut_short", "/1"),
        ("[1,]", "not_json", "/1"),
        ("{} {}", "not_json", ""),
        ("```json\n{}\n```", "not_json", ""),
        ("NaN", "not_json", ""),
        ("[Infinity]", "not_json", "/0"),
        ("[-Infinity]", "not_json", "/0"),
        ("[1e400]", "not_json", ""),
        ("9" * 400, "not_json", ""),
        ('"\\ud800"', "not_json", ""),
        ('"\ud800"', "not_json", ""),
        ("\ufeff{}", "not_json", ""),
        ('"a\nb"', "not_json", ""),
        ('"a\x00b"', "not_json", ""),
        ('[{"a": 1, "b": 2, "a": 1}]', "duplicate_key", ""),
        ('{"a": 1, "\\u0061": 1}', "duplicate_key", ""),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "too_deep", "/0" * DEEPEST),
        ("[" * 100_000, "too_deep", "/0" * DEEPEST),
        ("[" * 100_000 + "]" * 100_000, "too_deep", "/0" * DEEPEST),
    ],
)
def test_what_is_no_json_for_every_reader_is_a_fault(answer: str, reason: str, pointer: str) -> None:
    for check in (Checker({}), JsonObject()):
        found = check.fault(answer)
        assert found is not None
        assert (found.reason, found.pointer) == (reason, pointer)
        found.message.encode()


@pytest.mark.parametrize("answer", [
    "null", " 1 ", '"\\ud83d\\ude00 \x7f"', "[" * DEEPEST + "]" * DEEPEST, "-0", "[]" + " " * 500,
                                    '"' + "[" * 5000 + '\\"{"'])  # fmt: skip
def test_what_is_json_is_none(answer: str) -> None:
    assert Checker({}).fault(answer) is None


KEYWORDS: list[dict[str, Any]] = [
    {"type": "null"}, {"const": 1}, {"const": [[[]]]}, {"enum": [1, [[1]]]}, {"not": {}}, {"items": {"const": 5}},
    {"maxItems": 0},
    {"maxProperties": 0}, {"contains": {"const": 1}}, {"unevaluatedItems": False}, {"anyOf": [{"type": "null"}, {"const": []}]},
    {"additionalProperties": {"enum": [{}]}}, {"uniqueItems": True, "minItems": 9}, {"required": ["b"]},
]  # fmt: skip


@pytest.mark.parametrize("schema", KEYWORDS)
@pytest.mark.parametrize(("opener", "closer"), [("[", "]"), ('{"a": ', "}")])
def test_the_deepest_answer_can_be_compared_and_explained(schema: dict[str, Any], opener: str, closer: str) -> None:
    deep = opener * (DEEPEST - 1) + "1" + closer * (DEEPEST - 1)
    answers = [deep, f"[{deep}, {deep}]"]
    found = [Checker(schema).fault(answer) for answer in answers]
    validator = jsonschema.Draft202012Validator(schema)
    assert [fault is None for fault in found] == [validator.is_valid(json.loads(answer)) for answer in answers]


def number(**keywords: Any) -> dict[str, Any]:
    return {"type": "number", **keywords}


@pytest.mark.parametrize(
    ("schema", "answer", "is_fitting"),
    [
        ({"type": "integer"}, "1.0", True),
        ({"type": "integer"}, "1e2", True),
        ({"type": "integer"}, "1.5", False),
        ({"type": "integer"}, "-0", True),
        ({"type": "integer"}, "-0.0", True),
        (number(minimum=0), "-0.0", True),
        ({"const": 0}, "-0.0", True),
        ({"const": 1}, "1.0", True),
        ({"const": 1}, "true", False),
        ({"type": "integer", "maximum": 2**63}, str(2**63), True),
        ({"type": "integer", "maximum": 2**63}, str(2**63 + 1), False),
        ({"const": 2**53}, str(2**53 + 1), False),
        ({"maximum": 2**200}, str(2**200 + 1), False),
        ({"maximum": 2**200}, str(2**200), True),
        (number(multipleOf=0.01), "19.99", True),
        (number(multipleOf=0.01), "0.07", True),
        (number(multipleOf=0.01), "1e20", True),
        (number(multipleOf=0.01), "19.995", False),
        (number(multipleOf=0.1), "0.30000000000000000001", False),
        (number(maximum=0.3), "0.30000000000000000001", False),
        (number(exclusiveMinimum=0), "1e-400", True),
        (number(maximum=1), "0." + "9" * 5000, True),
        ({"uniqueItems": True}, "[1, 1.0]", False),
        ({"uniqueItems": True}, "[0.1, 0.10000000000000000001]", True),
    ],
)
def test_numbers_are_those_that_are_written(schema: Mapping[str, Any], answer: str, *, is_fitting: bool) -> None:
    assert fits(schema, answer) == is_fitting


@pytest.mark.parametrize(
    ("draft", "is_list_of_items"),
    [(None, False), ("https://json-schema.org/draft/2020-12/schema", False),
     ("https://json-schema.org/draft/2019-09/schema", True),
     ("http://json-schema.org/draft-07/schema#", True), ("http://json-schema.org/draft-06/schema#", True),
     ("http://json-schema.org/draft-04/schema#", True), ("https://json-schema.org/draft-07/schema", True)],
)  # fmt: skip
def test_the_draft_is_the_newest_unless_the_schema_names_another(draft: str | None, *, is_list_of_items: bool) -> None:
    named = {} if draft is None else {"$schema": draft}
    schema = {**named, "items": [{"type": "string"}]}
    if is_list_of_items:
        assert fault(schema, "[1]").pointer == "/0"
    else:
        with pytest.raises(ValueError, match="at /items"):
            Checker(schema)


@pytest.mark.parametrize("draft", ["https://example.com/mine", "", 5, "https://json-schema.org/draft/2020-12/hyper-schema"])
def test_another_meta_schema_is_refused(draft: Any) -> None:
    with pytest.raises(ValueError, match=r"\$schema"):
        Checker({"$schema": draft})


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "strin"}, "at /type"),
        ({"minimum": "1"}, "at /minimum"),
        ({"properties": {"a": {"required": "b"}}}, "at /properties/a/required"),
        ({"properties": {"a": 5}}, "at /properties/a"),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"$ref": "#none"}, "leads nowhere"),
        ({"allOf": [{"$ref": "#/allOf/1"}]}, "leads nowhere"),
        ({"$ref": "#"}, "refers to itself"),
        ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "refers to itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "refers to itself"),
        ({"properties": {"a": {"$id": "other", "$ref": "#/x"}}}, "There is an"),
        (nested_schema(300), "nested too deeply"),
        ({"pattern": "(?=a)b"}, r"at /pattern .*linear time"),
        ({"properties": {"a": {"pattern": "(a)\\1"}}}, r"at /properties/a/pattern .*linear time"),
        ({"patternProperties": {"(?<!a)b": {}}}, "linear time"),
        ({"pattern": "("}, "linear time"),
        ({"pattern": "(\\w{1,1000}){1,1000}"}, "linear time"),
    ],
)
def test_what_is_no_schema_or_cannot_be_checked_is_refused_in_words(schema: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Checker(schema)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"$ref": "#/$defs/a%20b~1c", "$defs": {"a b/c": {"const": 1}}}, "1", "2"),
        ({"$ref": "#here", "$defs": {"a": {"$anchor": "here", "const": 1}}}, "1", "2"),
        ({"$id": "https://example.com/x", "$ref": "#/$defs/a", "$defs": {"a": {"const": 1}}}, "1", "2"),
        ({"$dynamicAnchor": "t", "items": {"$dynamicRef": "#t"}, "type": "array"}, "[[]]", "[1]"),
        ({"properties": {"$id": {"const": 1}, "$ref": {"const": 2}}}, '{"$id": 1, "$ref": 2}', '{"$ref": 1}'),
    ],
)
def test_references_within_the_schema_are_followed(schema: Mapping[str, Any], good: str, bad: str) -> None:
    assert fits(schema, good)
    assert not fits(schema, bad)


class _Listener(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing."""


@pytest.fixture
def listener() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), _Listener) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef", "$schema"])
def test_nothing_is_fetched(listener: HTTPServer, tmp_path: Path, keyword: str) -> None:
    (tmp_path / "any.json").write_text("{}")
    url = f"http://127.0.0.1:{listener.server_port}/schema.json"
    with urllib.request.urlopen(url) as response:
        assert response.status == 200
    for reference in (
        url,
        (tmp_path / "any.json").as_uri(),
        "any.json",
        "//127.0.0.1/x",
        "https://json-schema.org/draft-07/schema#",
    ):
        for schema in ({keyword: reference}, {"properties": {"a": {keyword: reference}}}, {"$id": url, keyword: reference}):
            if keyword != "$schema":
                with pytest.raises(ValueError, match="leads out of the schema"):
                    Checker(schema)
            elif "properties" not in schema and "draft-07" not in reference:
                with pytest.raises(ValueError, match="names none"):
                    Checker(schema)
    assert listener.asked == ["/schema.json"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", "2024-02-29", "2026-02-29"),
        ("time", "12:00:00Z", "12:00:00"),
        ("date-time", "2026-01-01T00:00:00+01:00", "2026-01-01 00:00:00"),
        ("duration", "P1DT2H", "P1YT"),
        ("email", "a@b.example", "a b@c"),
        ("hostname", "a.example", "-a"),
        ("ipv4", "127.0.0.1", "127.0.0.01"),
        ("ipv6", "::1", "1::2::3"),
        ("uuid", "00000000-0000-0000-0000-000000000000", "0"),
        ("uri", "urn:a:b", "a"),
        ("uri-reference", "/a?b", "a b"),
        ("uri-template", "{a}", "{"),
        ("json-pointer", "/a", "a"),
        ("relative-json-pointer", "0#", "01"),
        ("regex", "a+", "("),
    ],
)
@pytest.mark.parametrize("draft", [{}, {"$schema": "http://json-schema.org/draft-07/schema#"}])
def test_formats_are_checked_and_unknown_ones_are_not(name: str, good: str, bad: str, draft: Mapping[str, Any]) -> None:
    schema = {**draft, "type": "string", "format": name}
    assert fits(schema, json.dumps(good))
    found = fault(schema, json.dumps(bad))
    assert name in found.message
    assert fits({**schema, "format": "of-ours"}, json.dumps(bad))


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(.*)*b", "(a?){100}a{100}c"])
def test_no_pattern_backtracks(pattern: str) -> None:
    for check, text in ((Checker({"pattern": pattern}), json.dumps("a" * 5000 + "d")), (Regex(pattern), "a" * 5000 + "d")):
        start = time.process_time()
        assert check.fault(text) is not None
        assert time.process_time() - start < 0.5


def _chain(link: Any, length: int, last: Mapping[str, Any]) -> dict[str, Any]:
    defs = {f"d{place}": link({"$ref": f"#/$defs/d{place + 1}"}) for place in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{length}": last}}


LINKS = {
    "ref": (1, lambda ref: ref),
    "allOf": (2, lambda ref: {"allOf": [ref]}),
    "anyOf": (2, lambda ref: {"anyOf": [ref, {"type": "null"}]}),
    "oneOf": (2, lambda ref: {"oneOf": [ref, {"type": "null"}]}),
    "if": (2, lambda ref: {"if": True, "then": ref}),
    "not": (3, lambda ref: {"not": {"not": ref}}),
    "unevaluated": (2, lambda ref: {"allOf": [ref], "unevaluatedItems": False}),
}
AROUND = {"type": "array", "items": {"$ref": "#/$defs/d0"}}

IN_A_SMALL_STACK = """
import json, sys, threading
from gateway.structured.validate import Checker
def check():
    schema, answer = json.load(sys.stdin)
    print(Checker(schema).fault(answer) is not None)
threading.stack_size(2 << 20)
thread = threading.Thread(target=check)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("kind", LINKS)
def test_the_longest_chain_and_the_deepest_answer_do_not_overflow_the_stack(kind: str) -> None:
    steps, link = LINKS[kind]
    schema = _chain(link, 62 // steps, AROUND)
    answer = "[" * (DEEPEST - 1) + "1" + "]" * (DEEPEST - 1)
    ran = subprocess.run(
        [sys.executable, "-c", IN_A_SMALL_STACK],
        input=json.dumps([schema, answer]),
        text=True,
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "True\n", "")
    with pytest.raises(ValueError, match="More than 64 schemas apply to one value"):
        Checker(_chain(link, 1000, AROUND))


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf"])
@pytest.mark.parametrize("last", [{"type": "string"}, AROUND])
def test_alternatives_that_multiply_are_refused(keyword: str, last: Mapping[str, Any]) -> None:
    for link in (lambda ref: {keyword: [ref, ref]}, lambda ref: {keyword: [{"items": ref}, {"type": "array", "items": ref}]}):
        with pytest.raises(ValueError, match="combine in more than"):
            Checker(_chain(link, 25, last))


def test_many_schemas_below_unevaluated_are_refused() -> None:
    parts: list[dict[str, Any]] = [{"properties": {f"p{place}": {}}} for place in range(60)]
    nested = {"allOf": parts, "unevaluatedProperties": False}
    assert Checker({"properties": {"a": nested}}).fault('{"a": {"p1": 1}}') is None
    with pytest.raises(ValueError, match="unevaluated"):
        Checker({"properties": {f"a{place}": nested for place in range(60)}})


def test_a_fault_in_what_refers_to_itself_is_explained_in_bounded_time() -> None:
    tree = {
        "type": "object",
        "properties": {
            "left": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
            "right": {"oneOf": [{"$ref": "#"}, {"$ref": "#/$defs/leaf"}, {"type": "null"}]},
        },
        "required": ["left"],
        "$defs": {"leaf": {"type": "object", "properties": {"left": {"type": "integer"}}}},
    }
    answer = '{"left": null, "right": ' * 100 + '{"left": "x"}' + "}" * 100
    check = Checker(tree)
    start = time.process_time()
    assert check.fault(answer) is not None
    assert time.process_time() - start < 0.5


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "bb", "ccc"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
        max_leaves=8,
    ),
    st.recursive(
        st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["object", "array", "string", "integer", ["null", "object"]]),
                "minimum": st.integers(-2, 2), "maxLength": st.integers(0, 2), "enum": st.just([1, "a", None]),
                "required": st.just(["a"]), "minItems": st.integers(0, 2),
            },
        ),
        lambda inner: st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
                "additionalProperties": inner | st.just(False), "items": inner,
                "anyOf": st.lists(inner, min_size=1, max_size=2),
                "allOf": st.lists(inner, min_size=1, max_size=2), "not": inner,
                "prefixItems": st.lists(inner, min_size=1, max_size=2),
            },
        ),
        max_leaves=6,
    ),
)  # fmt: skip
def test_another_validator_finds_the_same_and_the_fault_is_where_it_finds_one(value: Any, schema: dict[str, Any]) -> None:
    found = Checker(schema).fault(json.dumps(value))
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(value))
    assert (found is None) == (not errors)
    if found is not None and "combines others" not in found.message:
        within = value
        for part in found.pointer.split("/")[1:]:
            within = within[int(part)] if isinstance(within, list) else within[part]


def test_no_answer_is_kept() -> None:
    check = Checker(INVOICE)
    texts = [ending for place in range(20) for ending in (f'{{"vendor": "{place}{"x" * 50_000}"', f'["{place}{"x" * 50_000}"]')]
    assert check.fault(texts[0]) is not None
    tracemalloc.start()
    try:
        assert all(check.fault(text) is not None for text in texts)
        gc.collect()
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 50_000


def test_any_object_is_an_object_and_nothing_else_is() -> None:
    assert JsonObject().fault(' {"a": [1]} ') is None
    for text in ("[]", "1", '"{}"', "null"):
        found = JsonObject().fault(text)
        assert found is not None
        assert found.reason == "schema"


def test_a_choice_is_one_of_them_to_the_letter() -> None:
    check = Choice(["yes", "no"])
    assert check.fault("yes") is None
    for text in ("Yes", "yes ", "", "yesno", '"yes"'):
        found = check.fault(text)
        assert found is not None
        assert found.reason == "choice"


def test_a_pattern_matches_the_whole_text() -> None:
    check = Regex("a|b+")
    assert check.fault("bbb") is None
    for text in ("ab", "bbb\n", "\nb", "b\nb", "", "B"):
        found = check.fault(text)
        assert found is not None
        assert (found.reason, found.message) == ("regex", f'"{text.replace(chr(10), " ")}" does not match the pattern.')
    assert Regex(".*").fault("\ud800") is not None
    assert Regex("^a$").fault("a") is None


@pytest.mark.parametrize("pattern", ["a)|(b", "(", "(?=a)b", "(a)\\1"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Regex(pattern)


def test_all_of_them_are_checks() -> None:
    checks: list[Check] = [Checker({}), JsonObject(), Choice(["{}"]), Regex(r"\{\}")]
    assert [check.fault("{}") for check in checks] == [None] * 4
