"""An answer that was to be JSON is JSON that fits, or an error: before an engine that says what it is told to."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.cache_clients import Caller, asked_together, catalog, question, streaming
from tests.conftest import PATIENCE_S, RunningGateway, running_gateway
from tests.fake_engine import FakeEngine, Gate, Speech, always

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "price": {"type": "number", "minimum": 0}},
    "required": ["name", "price"],
    "additionalProperties": False,
}
GOOD = ['{"name":', ' "caf\\u00e9 \\/ ☕ 𝄞"', ', "price":', " 1.10e+2", "}"]
SECONDS = "x_request_timeout_seconds"


def asked_for(schema: dict[str, Any] = SCHEMA, *, strict: bool | None = None, **fields: Any) -> dict[str, Any]:
    wanted = {"name": "part", "schema": schema} | ({} if strict is None else {"strict": strict})
    return question(response_format={"type": "json_schema", "json_schema": wanted}, **fields)


@pytest.fixture(scope="module")
def gateway(fake_engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), fake_engine.url, catalog()) as running:
        yield running


@pytest.fixture
def engine(fake_engine: FakeEngine) -> FakeEngine:
    fake_engine.reset()
    return fake_engine


@pytest.fixture
def caller(gateway: RunningGateway, engine: FakeEngine) -> Iterator[Caller]:
    with httpx.Client(timeout=PATIENCE_S) as client:
        yield Caller(client, gateway)


def says(engine: FakeEngine, *answers: list[str], ends: str = "stop", **fields: Any) -> None:
    """One answer after another, and the last of them for ever."""
    left = itertools.chain(answers[:-1], itertools.repeat(answers[-1]))
    speeches = (Speech(engine, always(*tokens), [ends], **fields) for tokens in left)

    async def answer(request: Request) -> Response:
        return await next(speeches)(request)

    engine.answer = answer


def broken(caller: Caller, reason: str, became: str) -> float:
    labels = f'{{became="{became}",model="tiny",reason="{reason}"}}'
    return caller.gateway.metric(f"fovea_broken_answers_total{labels}")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_fits_comes_as_the_engine_wrote_it(caller: Caller, engine: FakeEngine, *, stream: bool) -> None:
    says(engine, GOOD)
    said = caller.ask(asked_for(stream=stream))
    assert (said.status, said.error, said.text) == (200, None, "".join(GOOD))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_nonsense_is_asked_again_once(caller: Caller, engine: FakeEngine, *, stream: bool) -> None:
    says(engine, ["I", " think"], GOOD)
    said = caller.ask(asked_for(stream=stream))
    assert (said.status, said.error, said.text) == (200, None, "".join(GOOD))
    assert len(engine.documents) == 2


@pytest.mark.parametrize("nonsense", ["[1]", '{"name": "a"}', '{"name": "a", "price": -1}', "", "{}{}", '{"name": "a"'])
def test_a_whole_answer_that_does_not_fit_is_asked_again_once(caller: Caller, engine: FakeEngine, nonsense: str) -> None:
    says(engine, [nonsense], GOOD)
    said = caller.ask(asked_for())
    assert (said.status, said.error, said.text) == (200, None, "".join(GOOD))
    assert len(engine.documents) == 2


def test_nonsense_twice_is_an_error_that_says_so(caller: Caller, engine: FakeEngine) -> None:
    says(engine, ['{"name": "a"}'])
    before = [broken(caller, "schema", became) for became in ("asked_again", "error")]
    said = caller.ask(asked_for())
    assert said.status == 502
    assert said.error is not None
    assert said.error["code"] == "incomplete_json"
    assert said.error["details"] == {"reason": "schema", "choice": 0, "pointer": "", "text": '{"name": "a"}', "tries": 2}
    assert said.headers["x-should-retry"] == "false"
    assert len(engine.documents) == 2
    assert [broken(caller, "schema", became) for became in ("asked_again", "error")] == [before[0] + 1, before[1] + 1]


@pytest.mark.parametrize("body", [{"choices": []}, {"choices": None}, {"object": "list"}, {"choices": [{"index": 0}]}])
def test_what_is_no_answer_at_all_is_an_error(caller: Caller, engine: FakeEngine, body: dict[str, Any]) -> None:
    async def answer(_: Request) -> Response:
        return JSONResponse(body)

    engine.answer = answer
    said = caller.ask(asked_for())
    assert said.error is not None
    assert (said.status, said.error["code"], said.error["details"]["reason"]) == (502, "incomplete_json", "not_an_answer")
    assert len(engine.documents) == 2


def test_a_cut_answer_is_an_error_with_what_was_produced(caller: Caller, engine: FakeEngine) -> None:
    says(engine, GOOD[:3], ends="length")
    said = caller.ask(asked_for(max_tokens=3))
    assert said.error is not None
    assert (said.status, said.error["code"]) == (502, "incomplete_json")
    assert (said.error["details"]["reason"], said.error["details"]["text"]) == ("length", "".join(GOOD[:3]))
    assert len(engine.documents) == 1, "at temperature 0 it would be cut at the same place again"


def test_a_cut_answer_is_sampled_again_where_it_may_come_out_shorter(caller: Caller, engine: FakeEngine) -> None:
    says(engine, GOOD[:3], ends="length")
    said = caller.ask(asked_for(max_tokens=3, temperature=1))
    assert said.status == 502
    assert [document["max_tokens"] for document in engine.documents] == [3, 3]


def test_a_cut_answer_gets_the_room_that_its_caller_gives(caller: Caller, engine: FakeEngine) -> None:
    cut, whole = Speech(engine, always(*GOOD[:3]), ["length"]), Speech(engine, always(*GOOD))

    async def answer(request: Request) -> Response:
        return await (whole if (await request.json()).get("max_completion_tokens") == 9 else cut)(request)

    engine.answer = answer
    document = asked_for(max_tokens=3)
    said = caller.ask(document, x_fovea_retry_max_tokens="9")
    assert (said.status, said.text) == (200, "".join(GOOD))
    assert [(one.get("max_tokens"), one.get("max_completion_tokens")) for one in engine.documents] == [(3, None), (None, 9)]
    assert caller.ask(document, x_fovea_retry_max_tokens="9").cache == "hit"
    assert caller.ask(document).status == 502, "who gives no room is given no answer that took it"


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "9" * 30, ""])
def test_room_that_is_no_number_of_tokens_is_refused(caller: Caller, engine: FakeEngine, value: str) -> None:
    said = caller.ask(asked_for(max_tokens=3), x_fovea_retry_max_tokens=value)
    assert said.error is not None
    assert (said.status, said.error["param"]) == (400, "x-fovea-retry-max-tokens")
    assert engine.documents == []


def test_no_second_answer_is_begun_that_would_come_too_late(caller: Caller, engine: FakeEngine) -> None:
    async def answer(request: Request) -> Response:
        await asyncio.sleep(2)
        return await Speech(engine, always("nonsense"))(request)

    engine.answer = answer
    said = caller.ask(asked_for(), **{SECONDS: "3.5"})
    assert said.error is not None
    assert (said.status, said.error["code"], said.error["details"]["tries"]) == (502, "incomplete_json", 1)
    assert len(engine.documents) == 1


@pytest.mark.parametrize("ending", [["}", "x"], [" 1}"], ['"b"', ", oops"]])
def test_a_stream_ends_where_it_breaks_the_promise(caller: Caller, engine: FakeEngine, ending: list[str]) -> None:
    gate = Gate(2)
    says(engine, ['{"name":', ' "a"', *ending], gate=gate)
    with streaming(caller, asked_for()) as stream:
        stream.until(' "a"')
        gate.open()
        said = stream.rest()
    assert said.status == 200
    assert said.error is not None
    assert said.error["code"] == "incomplete_json"
    assert "".join(['{"name":', ' "a"', *ending]).startswith(said.text)
    assert said.choices[0]["finish_reason"] is None
    assert not said.is_done
    assert len(engine.documents) == 1, "what was delivered cannot be taken back"


def test_a_cut_stream_ends_with_an_error_and_not_with_length(caller: Caller, engine: FakeEngine) -> None:
    gate = Gate(2)
    says(engine, GOOD[:3], ends="length", gate=gate)
    with streaming(caller, asked_for(max_tokens=3)) as stream:
        stream.until(GOOD[1])
        gate.open()
        said = stream.rest()
    assert said.error is not None
    assert (said.error["code"], said.error["details"]["reason"]) == ("incomplete_json", "length")
    assert said.text == "".join(GOOD[:2]), "the event that ends it has its last token as well"
    assert said.choices[0]["finish_reason"] is None


def test_a_loop_of_whitespace_is_cut_off(caller: Caller, engine: FakeEngine) -> None:
    gate = Gate(200)
    says(engine, ["{", *[" "] * 100_000], gate=gate)
    said = caller.ask(asked_for(stream=True))
    assert said.error is not None
    assert said.error["details"]["reason"] == "whitespace"
    assert len(said.text) <= 66
    assert engine.cancelled.wait(5), "the engine's work ends too"


def test_what_cannot_be_enforced_is_checked_afterwards_where_the_caller_says_so(caller: Caller, engine: FakeEngine) -> None:
    schema = SCHEMA | {"properties": {"name": {"type": "string"}, "price": {"type": "number", "multipleOf": 5}}}
    refused = caller.ask(asked_for(schema))
    assert refused.error is not None
    assert (refused.status, refused.error["code"]) == (400, "schema_refused")
    assert refused.error["param"] == "response_format.json_schema.schema"
    [finding] = refused.error["details"]["findings"]
    assert (finding["pointer"], finding["keyword"]) == ("/properties/price/multipleOf", "multipleOf")
    assert refused.error["message"].endswith(f"{finding['reason']} Instead: {finding['rewrite']}.")
    assert engine.documents == []
    says(engine, ['{"name": "a", "price": 7}'], ['{"name": "a", "price": 10}'])
    relaxed = caller.ask(asked_for(schema, strict=False))
    assert (relaxed.status, relaxed.text) == (200, '{"name": "a", "price": 10}')
    assert relaxed.headers["x-fovea-schema-relaxed"] == "#/properties/price/multipleOf"
    assert "multipleOf" not in json.dumps(engine.documents[-1]["response_format"])


@pytest.mark.parametrize(
    ("structured_outputs", "good", "bad"),
    [
        ({"json": SCHEMA}, "".join(GOOD), "{}"),
        ({"json_object": True}, '{"a": 1}', "[1]"),
        ({"choice": ["ok", "defect"]}, "defect", "defective"),
        ({"regex": "[A-Z]{2}-[0-9]+"}, "AB-12", "AB-12 "),
    ],
)
def test_vllm_s_own_forms_are_kept_as_well(
    caller: Caller, engine: FakeEngine, structured_outputs: dict[str, Any], good: str, bad: str
) -> None:
    says(engine, [bad], [good])
    assert caller.ask(question(structured_outputs=structured_outputs)).text == good
    says(engine, [bad])
    said = caller.ask(question(structured_outputs=structured_outputs))
    assert said.error is not None
    assert said.error["code"] == "incomplete_json"


def test_half_a_choice_that_is_another_one_is_not_whole(caller: Caller, engine: FakeEngine) -> None:
    says(engine, ["ok"], ends="length")
    said = caller.ask(question(structured_outputs={"choice": ["ok", "okay"]}, max_tokens=1))
    assert said.error is not None
    assert said.error["details"]["reason"] == "length"


def tool(*, strict: bool | None = None) -> dict[str, Any]:
    said = {} if strict is None else {"strict": strict}
    return {"type": "function", "function": {"name": "book", "parameters": SCHEMA, **said}}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_arguments_of_a_call_are_json(caller: Caller, engine: FakeEngine, *, stream: bool) -> None:
    engine.answer = Speech(engine, always(), ["tool_calls"], calls=[("book", '{"name": "a", "pr')])
    said = caller.ask(question(tools=[tool()], stream=stream))
    assert said.error is not None
    assert (said.error["code"], said.error["details"]["reason"]) == ("incomplete_json", "cut_short")
    engine.answer = Speech(engine, always(), ["tool_calls"], calls=[("book", '{"other": 1}')])
    assert caller.ask(question(tools=[tool()], stream=stream)).error is None
    strict = caller.ask(question(tools=[tool(strict=True)], stream=stream)).error
    assert strict is not None
    assert strict["details"]["reason"] == "schema"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("tool_choice", ["required", {"type": "function", "function": {"name": "book"}}])
def test_a_call_that_had_to_be_made_and_was_cut_off_is_no_answer(
    caller: Caller, engine: FakeEngine, tool_choice: Any, *, stream: bool
) -> None:
    # As vLLM's parser for Hermes leaves it, where it is not streamed.
    says(engine, ['<tool_call>{"name": "book", "argu'], ends="length")
    said = caller.ask(question(tools=[tool()], tool_choice=tool_choice, stream=stream, max_tokens=5))
    assert said.error is not None
    assert (said.error["code"], said.error["details"]["reason"]) == ("incomplete_json", "length")
    assert "cut off at the limit of tokens" in said.error["message"]


def test_a_call_that_had_to_be_made_and_was_not_is_no_answer(caller: Caller, engine: FakeEngine) -> None:
    says(engine, ["I would rather not."])
    error = caller.ask(question(tools=[tool()], tool_choice="required")).error
    assert error is not None
    assert (error["code"], error["details"]["reason"]) == ("incomplete_json", "no_call")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_tool_without_parameters_is_called_with_an_object(caller: Caller, engine: FakeEngine, *, stream: bool) -> None:
    engine.answer = Speech(engine, always(), ["tool_calls"], calls=[("now", "{}")])
    said = caller.ask(question(tools=[{"type": "function", "function": {"name": "now"}}], stream=stream))
    assert said.error is None
    assert engine.documents[-1]["tools"][0]["function"]["parameters"] == {"type": "object", "properties": {}}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "yes"),
        ({"structured_outputs": {"json": {"enum": ["yes", "no"]}}}, '"yes"'),
        ({"structured_outputs": {"json": {"type": "boolean"}}}, "true"),
        ({"structured_outputs": {"json": SCHEMA}}, "".join(GOOD)),
    ],
)
def test_what_is_whole_at_the_limit_is_delivered(
    caller: Caller, engine: FakeEngine, constraint: dict[str, Any], text: str, *, stream: bool
) -> None:
    says(engine, [text], ends="length")
    said = caller.ask(question(stream=stream, max_tokens=1, **constraint))
    assert (said.status, said.error, said.text) == (200, None, text)


def test_half_a_number_is_not_whole(caller: Caller, engine: FakeEngine) -> None:
    says(engine, ["12"], ends="length")
    said = caller.ask(question(structured_outputs={"json": {"type": "integer"}}, max_tokens=1))
    assert said.error is not None
    assert said.error["details"]["reason"] == "length"


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "text", "text": "{}"}]},
        {"content": 5},
        {"content": '{"name": "a", "price": 0e99999999999999999999}'},
        {"content": None, "tool_calls": [{"id": "1", "function": {"name": "book", "arguments": {"a": 1}}}]},
        {"content": '{"a', "refusal": "no"},
        {"content": '{"a', "tool_calls": [{"id": "1", "function": {"name": "book", "arguments": "{}"}}]},
    ],
)
def test_odd_messages_are_errors_and_not_defects(caller: Caller, engine: FakeEngine, message: dict[str, Any]) -> None:
    async def answer(_: Request) -> Response:
        return JSONResponse({"choices": [{"index": 0, "message": {"role": "assistant"} | message, "finish_reason": "stop"}]})

    engine.answer = answer
    said = caller.ask(asked_for())
    assert said.error is not None
    assert (said.status, said.error["code"]) == (502, "incomplete_json")


def test_the_log_has_the_reason_and_no_word_of_the_answer(caller: Caller, engine: FakeEngine) -> None:
    says(engine, ["confidential diagnosis"])
    caller.ask(question(structured_outputs={"choice": ["a", "b"]}))
    log = caller.gateway.log.read_text()
    assert "incomplete_json: choice" in log
    assert "diagnosis" not in log


def test_a_header_that_says_what_was_relaxed_is_short(caller: Caller, engine: FakeEngine) -> None:
    prices = {f"preis € {'lang' * 20} {number}": {"type": "number", "multipleOf": 0.01} for number in range(60)}
    says(engine, ["{}"])
    said = caller.ask(asked_for({"type": "object", "properties": prices}, strict=False))
    assert said.status == 200
    assert said.headers["x-fovea-schema-relaxed"].endswith("more")
    assert len(said.headers["x-fovea-schema-relaxed"]) < 2100


def test_one_broken_choice_of_several_is_an_error_that_names_it(caller: Caller, engine: FakeEngine) -> None:
    says(engine, GOOD)  # of which the second choice puts an apostrophe after each token
    said = caller.ask(asked_for(n=2))
    assert said.error is not None
    assert said.error["details"]["choice"] == 1


def test_a_broken_answer_is_not_stored_and_one_that_was_mended_is(caller: Caller, engine: FakeEngine) -> None:
    says(engine, ["nonsense"], ["nonsense"], ["nonsense"], GOOD)
    document = asked_for()
    assert caller.ask(document).status == 502
    assert caller.ask(document).text == "".join(GOOD)
    assert caller.ask(document | {"stream": True}).cache == "hit"
    assert len(engine.documents) == 4


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_who_waits_for_one_answer_shares_its_second_try(gateway: RunningGateway, engine: FakeEngine, *, stream: bool) -> None:
    says(engine, ["nonsense"], GOOD)
    answers = asyncio.run(asked_together([gateway], [asked_for(stream=stream)] * 20))
    assert {answer.text for answer in answers} == {"".join(GOOD)}
    assert len(engine.documents) == 2


def test_the_sdk_s_caller_reads_what_was_produced(caller: Caller, engine: FakeEngine) -> None:
    says(engine, GOOD[:3], ends="length")
    document = asked_for(max_tokens=3)
    with openai.OpenAI(base_url=f"{caller.gateway.url}/v1", api_key="none") as client:
        with pytest.raises(openai.InternalServerError) as told:
            client.chat.completions.create(**document)
        body: Any = told.value.body
        assert body["details"]["text"] == "".join(GOOD[:3])
        assert len(engine.documents) == 1, "the SDK does not try again"
        with pytest.raises(openai.APIError, match="cut off"):
            list(client.chat.completions.create(**document | {"stream": True}))


@pytest.mark.parametrize(
    ("document", "limit"),
    [
        (asked_for({"enum": [f"value {number}" for number in range(5000)]}), "FOVEA_SCHEMA_ENUM_VALUES"),
        (asked_for({"type": "string", "maxLength": 2_000_000}), "FOVEA_SCHEMA_REPETITIONS"),
        (asked_for({"type": "object", "description": "d" * 200_000}), "FOVEA_SCHEMA_KIB"),
        (question(structured_outputs={"regex": "a{100000}"}), "FOVEA_SCHEMA_PATTERN_REPETITIONS"),
    ],
)
def test_over_a_limit_nothing_reaches_an_engine(
    caller: Caller, engine: FakeEngine, document: dict[str, Any], limit: str
) -> None:
    said = caller.ask(document)
    assert said.error is not None
    assert (said.status, said.error["code"]) == (400, "schema_over_limit")
    assert limit in said.error["message"]
    assert engine.documents == []
