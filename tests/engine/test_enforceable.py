"""What is called enforceable holds on the real xgrammar: whatever its matcher lets pass fits the caller's own schema."""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel
from vllm.v1.structured_output.backend_xgrammar import has_xgrammar_unsupported_json_features

from gateway.structured.enforceable import Enforceable, Unenforceable, enforceable
from gateway.structured.references import Document
from tests.engine.walks import compiled, read, walked
from tests.pydantic_models import MODELS, Loose
from tests.schema_rows import ROWS, table

SUITE = pathlib.Path(__file__).parents[2] / "build" / "json-schema-test-suite" / "draft2020-12"
# Python's `re`, which is what the validator here has, does not read these, or reads them otherwise than ECMA-262.
NOT_PYTHON = ("\\c", "\\/", "\\ud83d")


def suite() -> Iterator[tuple[str, dict[str, Any]]]:
    assert SUITE.is_dir(), "make build/json-schema-test-suite"
    for path in sorted(SUITE.rglob("*.json")):
        for case in json.loads(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(SUITE).with_suffix('')}: {case['description']}", case["schema"]


def faults(schema: dict[str, Any], engines: Enforceable) -> list[str]:
    """What is wrong with the answers to what the engines get, held against the caller's own schema."""
    if has_xgrammar_unsupported_json_features(engines.schema):
        return ["vLLM refuses it"]
    text = json.dumps(schema)
    words = sorted(set(re.findall(r"[A-Za-z0-9]{1,12}", text))) if "attern" in text else []
    hints = [*words, *(f"a{word}" for word in words)]
    found = walked(engines.schema, hints)
    made = validator_for(schema, default=Draft202012Validator)
    validator = made(read(text), format_checker=made.FORMAT_CHECKER)
    wrong = [f"never ends: {raw[:100]!r}" for raw in found.endless]
    wrong.extend(f"does not fit: {one[:200]}" for one in found.texts if not _fits(validator, one))
    if not found.texts:
        wrong.append("says nothing")
    return wrong


def _fits(validator: Any, text: str) -> bool:
    try:
        return bool(validator.is_valid(read(text)))
    except ValueError:
        return False


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.at is None], ids=lambda row: f"{row.keyword}-{json.dumps(row.schema)[:60]}"
)
def test_every_answer_to_an_enforced_schema_fits_it(row: Any) -> None:
    assert faults(row.schema, enforceable(row.schema, strict=True)) == []


def test_the_table_of_decisions_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("", *table(), sep="\n")


def test_every_schema_of_the_official_suite_is_enforced_or_refused_where_it_says() -> None:
    wrong: dict[str, Any] = {}
    enforced = refused = 0
    for name, schema in suite():
        try:
            engines = enforceable(schema, strict=True)
        except Unenforceable as error:
            refused += 1
            if isinstance(schema, dict):
                astray = [finding for finding in error.findings if not _exists(schema, finding.pointer)]
                wrong |= {name: astray} if astray else {}
            continue
        enforced += 1
        if not any(escape in json.dumps(schema) for escape in NOT_PYTHON):
            found = faults(schema, engines)
            wrong |= {name: found[:3]} if found else {}
    assert wrong == {}
    assert enforced > 260
    assert refused > 150


def _exists(schema: dict[str, Any], pointer: str) -> bool:
    return Document(schema).at(pointer) is not ...


def test_what_is_refused_in_the_suite_is_relaxed_to_something_that_compiles_or_makes_no_sense() -> None:
    relaxed = 0
    for _, schema in suite():
        try:
            enforceable(schema, strict=True)
        except Unenforceable:
            try:
                engines = enforceable(schema, strict=False)
            except Unenforceable:
                continue
            assert engines.checked_after
            assert not has_xgrammar_unsupported_json_features(engines.schema)
            compiled(engines.schema)
            relaxed += 1
    assert relaxed > 80


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@pytest.mark.parametrize("is_openais", [False, True], ids=["pydantic", "openai"])
def test_every_answer_to_a_pydantic_model_is_one_of_it(model: type[BaseModel], is_openais: bool) -> None:  # noqa: FBT001
    schema = to_strict_json_schema(model) if is_openais else model.model_json_schema()
    engines = enforceable(schema, strict=True)
    assert faults(schema, engines) == []
    if model is not Loose:
        for text in walked(engines.schema, ["x_"], count=50).texts:
            model.model_validate_json(text)


def test_keys_come_in_the_callers_order() -> None:
    names = ["zebra", "title", "apple", "description", "mango"]
    schema = {
        "type": "object",
        "properties": {name: {"type": "integer"} for name in names},
        "required": sorted(names),
        "additionalProperties": False,
    }
    for text in walked(enforceable(schema, strict=True).schema, [], count=20).texts:
        assert list(json.loads(text)) == names


def test_a_key_that_is_declared_does_not_come_again_by_another_spelling() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "integer"}}
    grammar = compiled(enforceable(schema, strict=True).schema)
    assert _accepts(grammar, '{"a":"x","b":3}') or _accepts(grammar, '{"a":"x", "b":3}')
    assert not _accepts(grammar, '{"a":"x","\\u0061":3}')
    assert not _accepts(grammar, '{"a":"x", "\\u0061":3}')


def _accepts(grammar: Any, text: str) -> bool:
    import xgrammar  # noqa: PLC0415

    matcher = xgrammar.GrammarMatcher(grammar, terminate_without_stop_token=True)
    return bool(matcher.accept_string(text)) and bool(matcher.is_terminated() or matcher.is_completed())
