"""pydantic's findings in OpenAI's words: which field, what was expected, what came."""

from typing import Any

from pydantic import BaseModel, Discriminator, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from gateway.errors import GatewayError, InvalidField, UnknownField, shortened

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

_DISAGREEMENT = "fields_disagree"


def tagged_by(field: str) -> Discriminator:
    """Tells the members of a union apart by the string in `field`; its tags are written `<value>`.

    In angle brackets, because pydantic puts tags into the path of a finding, where nobody could tell a bare one from a key.
    """

    def tag(value: Any) -> str | None:
        # A document when it is checked, a model when it is written out.
        name = value.get(field) if isinstance(value, dict) else getattr(value, field, None)
        return f"<{name}>" if isinstance(name, str) else None

    return Discriminator(tag)


def tagged_by_form(expected: str) -> Discriminator:
    """Tells the members of a union apart by their JSON type: `<string>`, `<array>` or `<object>`."""
    forms: dict[type[Any], str] = {str: "<string>", list: "<array>", dict: "<object>"}

    def tag(value: Any) -> str | None:
        return "<object>" if isinstance(value, BaseModel) else forms.get(type(value))

    return Discriminator(tag, custom_error_type="form", custom_error_message=f"Input should be {expected}")


def first_finding(error: ValidationError) -> GatewayError:
    """The first of pydantic's findings, as the error that the caller gets."""
    detail = error.errors(include_url=False)[0]
    path = tuple(step for step in detail["loc"] if not str(step).startswith("<"))
    param = written(path)
    if detail["type"] == _DISAGREEMENT:
        return InvalidField(detail["msg"], param=detail["ctx"]["field"])
    kind = detail["type"]
    if kind == "missing":
        return InvalidField(f"Missing required parameter: '{param}'.", param=param, reason="missing_required_parameter")
    if kind == "extra_forbidden":
        return unknown_field(param)
    if kind == "union_tag_not_found" and not isinstance(detail["input"], dict):
        kind = "dict_type"
    if kind in _EXPECTED:
        got = _TYPE_NAMES.get(type(detail["input"]), "something else")
        message = f"Invalid type for '{param}': expected {_EXPECTED[kind]}, but got {got} instead."
        return InvalidField(message, param=param, reason="invalid_type")
    return InvalidField(f"Invalid value for '{param}': {_explained(detail)}", param=param)


def unknown_field(param: str) -> UnknownField:
    """The error for a field that nobody knows."""
    return UnknownField(f"Unknown parameter: '{shortened(param)}'.", param=param)


def disagreement(field: str, message: str) -> PydanticCustomError:
    """What a validator raises for a `field` that is valid alone and not beside another."""
    return PydanticCustomError(_DISAGREEMENT, "{message}", {"message": message, "field": field})


def _explained(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if detail["type"] == "union_tag_invalid":
        tags = context["expected_tags"].replace("'<", "'").replace(">'", "'")
        return f"'{shortened(context['tag'].strip('<>'))}' is not one of {tags}."
    if detail["type"] == "union_tag_not_found":
        return "it must be an object that says its role (a message) or its type."
    if detail["type"] == "value_error":
        return str(context["error"])
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, got {_shown(detail['input'])}."


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{_TYPE_NAMES[type(value)]} of {len(value)}"
    return shortened(repr(value))


def written(path: Path) -> str:
    """`("messages", 0, "content")` -> `messages[0].content`, which is how OpenAI writes it."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
