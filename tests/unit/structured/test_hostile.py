import asyncio
import contextlib
import time
from typing import Any

import pytest

from gateway.errors import SchemaOverLimit, SchemaRefused
from gateway.structured.enforceable import Unenforceable, enforceable
from gateway.structured.limits import SchemaLimits
from gateway.structured.promise import Promises
from gateway.wire.chat import ChatCompletionRequest, JsonSchema, JsonSchemaFormat, StructuredOutputs
from tests.structured_corpus.hostile import CHECKS, Hostile, hostile

ALL = list(hostile())
MOST_S = 0.020


def refused_by(schema: Hostile, made: Any) -> SchemaOverLimit | Unenforceable | None:
    try:
        CHECKS[schema.kind](made, SchemaLimits(), "response_format")
        if schema.kind == "json":
            enforceable(made, strict=True)
    except (SchemaOverLimit, Unenforceable) as error:
        return error
    return None


@pytest.mark.parametrize("schema", [schema for schema in ALL if schema.limit is not None], ids=str)
def test_what_is_beyond_a_limit_ends_there(schema: Hostile) -> None:
    refusal = refused_by(schema, schema.make())
    assert isinstance(refusal, SchemaOverLimit)
    assert refusal.details is not None
    assert refusal.details["limit"] == f"FOVEA_SCHEMA_{schema.limit}"


@pytest.mark.parametrize("schema", [schema for schema in ALL if schema.pointer is not None], ids=str)
def test_what_is_small_and_cannot_be_enforced_is_refused_at_its_place(schema: Hostile) -> None:
    refusal = refused_by(schema, schema.make())
    assert isinstance(refusal, Unenforceable)
    assert schema.pointer in {finding.pointer for finding in refusal.findings}


@pytest.mark.parametrize("schema", [schema for schema in ALL if schema.reason is not None], ids=str)
def test_what_is_left_to_the_compiler_is_let_through(schema: Hostile) -> None:
    assert refused_by(schema, schema.make()) is None


@pytest.mark.parametrize("schema", ALL, ids=str)
def test_none_takes_the_event_loop_for_long(schema: Hostile) -> None:
    """By the time of the loop's own thread: what another thread takes meanwhile, it takes in turns of 5 ms."""
    request = asking_for(schema)
    took = [asyncio.run(loop_s(Promises(SchemaLimits()), request)) for _ in range(3)]
    assert min(took) < MOST_S


async def loop_s(promises: Promises, request: ChatCompletionRequest) -> float:
    start = time.thread_time()
    with contextlib.suppress(SchemaRefused):
        await promises.of(request)
    return time.thread_time() - start


def asking_for(schema: Hostile) -> ChatCompletionRequest:
    made = schema.make()
    if schema.kind != "json":
        outputs = StructuredOutputs.model_construct(**{schema.kind: made})
        return ChatCompletionRequest.model_construct(model="m", messages=[], structured_outputs=outputs)
    wanted = JsonSchema.model_construct(name="x", json_schema=made)
    response_format = JsonSchemaFormat.model_construct(type="json_schema", json_schema=wanted)
    return ChatCompletionRequest.model_construct(model="m", messages=[], response_format=response_format)


def test_there_are_thirty_and_each_is_named_and_judged() -> None:
    assert len(ALL) >= 30
    assert len({schema.name for schema in ALL}) == len(ALL)
    for schema in ALL:
        assert [schema.limit, schema.pointer, schema.reason].count(None) == 2
