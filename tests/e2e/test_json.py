"""A thousand answers of real engines that were to be JSON: each fits its schema, or is an error that says what it is."""

import concurrent.futures
import itertools
import json
from collections import Counter
from typing import Any

import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.e2e.conftest import Stack, gateway_process

ANSWERS = 1000
AT_ONCE = 24
MOST_TOKENS = 48
"""Tight: about as many characters, for the demo models' tokens are short."""

WORDS = ["scratch", "dent", "stain", "none"]


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


ANY_OF_NULL = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 999}, {"type": "null"}]}
TREE = {
    "$defs": {"node": closed(v={"enum": [1, 2]}, next={"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]})},
    "$ref": "#/$defs/node",
}

SCHEMAS: list[dict[str, Any]] = [
    closed(kind={"enum": WORDS}),
    closed(found={"type": "boolean"}, kind={"enum": WORDS}),
    closed(count={"type": "integer", "minimum": 0, "maximum": 99}),
    closed(score={"type": "number", "minimum": 0, "maximum": 1}),
    closed(where={"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2, "maxItems": 4}),
    closed(box={"type": "array", "prefixItems": [{"type": "boolean"}] * 3, "items": False, "minItems": 3, "maxItems": 3}),
    closed(code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}),
    closed(day={"type": "string", "format": "date"}),
    closed(at={"type": "string", "format": "time"}),
    closed(id={"type": "string", "format": "uuid"}),
    closed(size=ANY_OF_NULL, kind={"const": "part"}),
    closed(part=closed(kind={"enum": WORDS}, ok={"type": "boolean"})),
    closed(note={"type": "string", "maxLength": 12}),
    closed(note={"type": "string", "minLength": 3, "maxLength": 6}, ok={"type": "boolean"}),
    {"type": "array", "items": {"enum": WORDS}, "minItems": 1, "maxItems": 3},
    {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}, "additionalProperties": False},
    {"anyOf": [closed(ok={"const": True}), closed(why={"enum": WORDS})]},
    {"oneOf": [closed(type={"const": "a"}, a={"type": "boolean"}), closed(type={"const": "b"}, b={"enum": [1, 2, 3]})]},
    TREE,
    {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 60, "maxItems": 90},  # is cut off
]


def ask(client: openai.OpenAI, number: int) -> str:
    """What came of one question: how its answer ended, if it is valid, or the error that it is."""
    schema = SCHEMAS[number % len(SCHEMAS)]
    asked: dict[str, Any] = {
        "model": "small",
        "messages": [{"role": "user", "content": f"Look closely. {number}"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        "max_tokens": MOST_TOKENS,
        "temperature": 1.2,
    }
    try:
        if number // len(SCHEMAS) % 2:
            text, finish_reason = together(client.chat.completions.create(**asked, stream=True))
        else:
            choice = client.chat.completions.create(**asked).choices[0]
            text, finish_reason = choice.message.content or "", choice.finish_reason
    except openai.APIError as error:
        body: Any = error.body
        assert isinstance(body["details"]["text"], str)
        return f"{error.code}: {body['details']['reason']}"
    jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    return f"valid: {finish_reason}"


def together(chunks: openai.Stream[ChatCompletionChunk]) -> tuple[str, str | None]:
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
    return "".join(choice.delta.content or "" for choice in choices), reasons[-1] if reasons else None


def test_of_a_thousand_answers_none_is_broken_json(client: openai.OpenAI) -> None:
    """In flight: 24 at any time, half of them streams, over 20 schemas, cut off at 48 tokens."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        came = Counter(threads.map(ask, itertools.repeat(client), range(ANSWERS)))
    print(dict(came))
    valid = sum(count for outcome, count in came.items() if outcome.startswith("valid"))
    incomplete = sum(count for outcome, count in came.items() if outcome.startswith("incomplete_json"))
    assert valid + incomplete == ANSWERS
    assert valid >= 0.6 * ANSWERS
    assert incomplete > 0, "some were cut off, or this shows nothing"


def test_the_grammar_process_is_part_of_the_stack_and_says_what_no_engine_should_compile(
    client: openai.OpenAI, stack: Stack
) -> None:
    assert "FOVEA_GRAMMAR_URL" in gateway_process(stack).environ()
    left_recursive = {"structured_outputs": {"grammar": 'root ::= root "a" | unknown'}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "hi"}], max_tokens=8, extra_body=left_recursive
        )
    assert refused.value.code == "schema_refused"
    assert refused.value.param == "structured_outputs.grammar"
