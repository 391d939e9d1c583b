"""The JSON Schema that answers have to fit, from a file or from a class."""

import importlib
import json
import pathlib
import re
from typing import Any

import jsonschema_rs
from pydantic import BaseModel
from pydantic.errors import PydanticUserError

_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 64


class SchemaError(Exception):
    """What `--schema` says is no schema; the message says why."""


def response_format(said: str) -> dict[str, Any]:
    """The `response_format` of OpenAI's API, strict, of `said`: a file with a JSON Schema, or pydantic's `module:Class`.

    Raises SchemaError: there is no such file or class, or no schema in it.
    """
    if _CLASS.fullmatch(said) and not pathlib.Path(said).exists():
        name, schema = said.rsplit(":", 1)[1], _of_class(said)
    else:
        name, schema = pathlib.Path(said).stem, _of_file(pathlib.Path(said))
    name = _UNFIT.sub("_", name)[:_LONGEST_NAME] or "answer"
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


def _of_file(path: pathlib.Path) -> dict[str, Any]:
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SchemaError(f"--schema: {path} cannot be read: {error}") from error
    except ValueError as error:
        raise SchemaError(f"--schema: {path} is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise SchemaError(f"--schema: {path} must hold an object, got {type(schema).__name__}")
    try:
        jsonschema_rs.meta.validate(schema)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise SchemaError(f"--schema: {path} is no JSON Schema: {error}") from error
    return schema


def _of_class(said: str) -> dict[str, Any]:
    module, name = said.split(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SchemaError(f"--schema: {said}: {error}") from error
    if not isinstance(kind, type) or not issubclass(kind, BaseModel):
        raise SchemaError(f"--schema: {said} is no pydantic class")
    try:
        return kind.model_json_schema()
    except PydanticUserError as error:
        raise SchemaError(f"--schema: {said} has no JSON Schema: {error}") from error
