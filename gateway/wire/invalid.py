"""pydantic's findings in OpenAI's words: which field, what was expected, what came."""

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from gateway.errors import GatewayError, InvalidField, UnknownField

_TYPE_NAMES: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}

_EXPECTED = {
    "bool_type": "a boolean",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}

Path = tuple[str | int, ...]

_SHOWN_CHARACTERS = 40
_DISAGREEMENT = "fields_disagree"


def first_finding(error: ValidationError, document: dict[str, Any]) -> GatewayError:
    """The first of pydantic's findings about `document`, as the error that the caller gets."""
    detail = error.errors()[0]
    if detail["type"] == _DISAGREEMENT:
        return InvalidField(detail["msg"], param=detail["ctx"]["field"])
    path = _path_in_document(detail, document)
    param = written(path)
    kind = detail["type"]
    if kind == "missing":
        return InvalidField(f"Missing required parameter: '{param}'.", param=param, reason="missing_required_parameter")
    if kind == "extra_forbidden":
        return UnknownField(f"Unknown parameter: '{param}'.", param=param)
    if kind in _EXPECTED:
        got = _TYPE_NAMES.get(type(detail["input"]), "something else")
        message = f"Invalid type for '{param}': expected {_EXPECTED[kind]}, but got {got} instead."
        return InvalidField(message, param=param, reason="invalid_type")
    return InvalidField(f"Invalid value for '{param}': {_explained(detail)}", param=param)


def disagreement(field: str, message: str) -> PydanticCustomError:
    """What a validator raises for a `field` that is valid alone and not beside another."""
    return PydanticCustomError(_DISAGREEMENT, "{message}", {"message": message, "field": field})


def _explained(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if detail["type"] == "union_tag_invalid":
        return f"'{context['tag']}' is not one of {context['expected_tags']}."
    if detail["type"] == "union_tag_not_found":
        return f"{context['discriminator']} is missing or not a string."
    if detail["type"] == "value_error":
        return str(context["error"])
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, got {_shown(detail['input'])}."


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{_TYPE_NAMES[type(value)]} of {len(value)}"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def written(path: Path) -> str:
    """`("messages", 0, "content")` -> `messages[0].content`, which is how OpenAI writes it."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _path_in_document(detail: ErrorDetails, document: Any) -> Path:
    """pydantic's location without the names of union members, which are not in what the caller wrote."""
    path: list[str | int] = []
    value: Any = document
    last = len(detail["loc"]) - 1
    for index, step in enumerate(detail["loc"]):
        if _leads_into(value, step):
            value = value[step]
            path.append(step)
        elif index == last and detail["type"] == "missing":
            path.append(step)
    return tuple(path)


def _leads_into(value: Any, step: str | int) -> bool:
    return step in value if isinstance(value, dict) else isinstance(value, list) and isinstance(step, int)
