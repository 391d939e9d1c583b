"""What `--schema` may be."""

import json
import pathlib

import pytest

from deploy.demo.inspection import ProductInspectionResult
from deploy.evaluation.schemas import SchemaError, response_format

SCHEMA = {"type": "object", "properties": {"part": {"type": "string"}}, "required": ["part"]}


def test_a_file_is_sent_as_a_strict_schema_under_its_name(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "what part?.v2.json"
    path.write_text(json.dumps(SCHEMA))
    expected = {"type": "json_schema", "json_schema": {"name": "what_part_v2", "strict": True, "schema": SCHEMA}}
    assert response_format(str(path)) == expected


def test_a_pydantic_class_is_taken_by_its_name() -> None:
    made = response_format("deploy.demo.inspection:ProductInspectionResult")["json_schema"]
    assert made["name"] == "ProductInspectionResult"
    assert made["schema"] == ProductInspectionResult.model_json_schema()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("nowhere.json", "cannot be read"),
        ("deploy.demo.inspection:Nothing", "has no attribute 'Nothing'"),
        ("no_such_module:Class", "No module named 'no_such_module'"),
        ("deploy.demo.conversation:hold_conversation", "is no pydantic class"),
    ],
)
def test_what_is_no_schema_is_named(said: str, reason: str) -> None:
    with pytest.raises(SchemaError, match=f"--schema: .*{reason}"):
        response_format(said)


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "is not JSON"), ("[]", "must hold an object, got list"), ('{"type": 3}', "is no JSON Schema")]
)
def test_a_file_that_holds_no_schema_is_named(tmp_path: pathlib.Path, text: str, reason: str) -> None:
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(SchemaError, match=reason):
        response_format(str(path))
