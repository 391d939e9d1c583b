"""Which answers are kept, for whom, how long, and how they look when they are given again."""

import json
import pathlib
import random
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deploy.cli import main
from gateway.tenants.keys import digest, new_key
from tests.cache_clients import PATH, Caller, Said, catalog, question, words
from tests.conftest import PATIENCE_S, RunningGateway, picture, running_gateway
from tests.fake_engine import FakeEngine, Gate, Speech, always, event
from tests.redis_server import RedisServer, running_redis
from tests.watching import SOON_S, eventually

ANSWER_KIB = 16


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module", params=["memory", "redis"])
def gateway(
    request: pytest.FixtureRequest, fake_engine: FakeEngine, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """One that keeps answers in its memory, and one that has Redis behind that."""
    in_redis = {"FOVEA_REDIS_URL": redis.url, "FOVEA_REDIS_BUDGET_S": "5"}
    settings = {"FOVEA_CACHE_ANSWER_KIB": str(ANSWER_KIB)} | (in_redis if request.param == "redis" else {})
    with running_gateway(tmp_path_factory.mktemp("gateway"), fake_engine.url, catalog(), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def http_client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def caller(gateway: RunningGateway, http_client: httpx.Client) -> Caller:
    return Caller(http_client, gateway)


@pytest.fixture
def engine(fake_engine: FakeEngine) -> FakeEngine:
    """One that never says the same again."""
    fake_engine.reset()
    fake_engine.answer = Speech(fake_engine, lambda _: ["answer ", str(len(fake_engine.documents))])
    return fake_engine


def asked(caller: Caller, engine: FakeEngine, document: dict[str, Any], *controls: str | None) -> tuple[list[str], int]:
    """What the cache did for each request, one after another, and how often the engine was asked."""
    said = [caller.ask(document, control) for control in controls]
    return [answer.cache if answer.status == 200 else str(answer.status) for answer in said], engine.calls(words(document))


# ---------------------------------------------------------------------------------------------------------------------
# What is kept


KEPT = {
    "temperature 0": {},
    "a seed": {"temperature": None, "seed": 0},
    "a seed and a temperature": {"temperature": 0.7, "seed": 5},
    "any temperature, where the catalog says always": {"model": "always", "temperature": 1.0},
    "no temperature, where the catalog says always": {"model": "always", "temperature": None},
    "several choices": {"n": 3},
    "a stream": {"stream": True},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
}


@pytest.mark.parametrize("fields", KEPT.values(), ids=KEPT)
def test_an_answer_is_kept_with(caller: Caller, engine: FakeEngine, fields: dict[str, Any]) -> None:
    document = question(**fields)
    first, second, third = (caller.ask(document) for _ in range(3))
    assert [answer.cache for answer in (first, second, third)] == ["miss", "hit", "hit"]
    assert first.substance == second.substance == third.substance
    assert engine.calls(words(document)) == 1


@pytest.mark.parametrize("fields", [{"temperature": None}, {"temperature": 1.0}, {"temperature": 0.01}, {"model": "asked"}])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_might_be_another_is_not_kept(
    caller: Caller, engine: FakeEngine, fields: dict[str, Any], *, stream: bool
) -> None:
    document = question(**fields, stream=stream)
    assert asked(caller, engine, document, None, None) == (["bypass", "bypass"], 2)


def test_where_one_must_ask_for_a_kept_answer_who_does_gets_it(caller: Caller, engine: FakeEngine) -> None:
    document = question("asked", temperature=1.0)
    controls = (
        "only-if-cached",
        "max-age=0",
        "no-store",
        None,
        "max-age=60",
        "max-age=60",
        "only-if-cached",
        None,
        "max-age=60",
    )
    expected = ["504", "bypass", "bypass", "bypass", "miss", "hit", "hit", "bypass", "hit"]
    assert asked(caller, engine, document, *controls) == (expected, 5)


# ---------------------------------------------------------------------------------------------------------------------
# What a caller says


AFTER_AN_ANSWER = {
    # What is said, what becomes of it, how often an engine was asked in all, and whether another answer is kept then.
    None: ("hit", 1, False),
    "no-cache": ("bypass", 2, True),
    "NO-CACHE": ("bypass", 2, True),
    "no-store": ("hit", 1, False),
    "no-cache, no-store": ("bypass", 2, False),
    "No-Store ,no-cache,": ("bypass", 2, False),
    "only-if-cached": ("hit", 1, False),
    "only-if-cached, no-store": ("hit", 1, False),
    "only-if-cached, max-age=60": ("hit", 1, False),
    "only-if-cached, max-age=0": ("504", 1, False),
    "only-if-cached, no-cache": ("504", 1, False),
    "max-age=60": ("hit", 1, False),
    "Max-Age=60": ("hit", 1, False),
    "max-age=99999999999999999999": ("hit", 1, False),
    "max-age=60, no-store": ("hit", 1, False),
    "max-stale, min-fresh=5, no-transform, stale-if-error=4, what=ever": ("hit", 1, False),
}
CONTROLS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@CONTROLS
@pytest.mark.parametrize("control", AFTER_AN_ANSWER)
def test_what_a_caller_says_of_a_kept_answer_is_heeded(
    caller: Caller, engine: FakeEngine, control: str | None, *, stream: bool
) -> None:
    document = question(stream=stream)
    result, calls, is_new = AFTER_AN_ANSWER[control]
    kept = caller.ask(document)
    said = caller.ask(document, control)
    assert (said.cache if said.status == 200 else str(said.status), engine.calls(words(document))) == (result, calls)
    if said.status == 200:
        assert (said.text == kept.text) == (calls == 1)
    now = caller.ask(document)
    assert now.cache == "hit"
    assert now.text == (said.text if is_new else kept.text)


BEFORE_ANY_ANSWER = {
    # What is said, what becomes of it, how often an engine was asked, and what becomes of the same question without a word.
    "no-cache": ("bypass", 1, "hit"),
    "no-store": ("bypass", 1, "miss"),
    "no-cache, no-store": ("bypass", 1, "miss"),
    "only-if-cached": ("504", 0, "miss"),
    "ONLY-IF-CACHED, max-age=60": ("504", 0, "miss"),
    "max-age=60": ("miss", 1, "hit"),
}


@CONTROLS
@pytest.mark.parametrize("control", BEFORE_ANY_ANSWER)
def test_what_a_caller_says_before_there_is_an_answer_is_heeded(
    caller: Caller, engine: FakeEngine, control: str, *, stream: bool
) -> None:
    document = question(stream=stream)
    result, calls, then = BEFORE_ANY_ANSWER[control]
    assert asked(caller, engine, document, control) == ([result], calls)
    assert asked(caller, engine, document, None)[0] == [then]


@pytest.mark.parametrize("temperature", [0, 1])
def test_who_wants_a_kept_answer_only_is_told_that_there_is_none(
    caller: Caller, engine: FakeEngine, temperature: float
) -> None:
    document = question(temperature=temperature)
    said = caller.ask(document, "only-if-cached")
    assert said.error is not None
    assert (said.status, said.error["code"]) == (504, "not_cached")
    assert said.headers["x-should-retry"] == "false"
    assert engine.calls(words(document)) == 0


def test_the_sdk_does_not_try_again_for_a_kept_answer(caller: Caller, gateway: RunningGateway, engine: FakeEngine) -> None:
    def refusals() -> float:
        return gateway.counted(model="tiny", status="504")

    before = refusals()
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=3) as client:
        with pytest.raises(openai.InternalServerError) as error:
            client.chat.completions.create(**question(), extra_headers={"cache-control": "only-if-cached"})
        assert error.value.code == "not_cached"
    assert refusals() == before + 1


@pytest.mark.parametrize("control", ["max-age=0", "max-age=1"])
def test_an_answer_older_than_its_caller_wants_is_made_anew_and_kept(caller: Caller, engine: FakeEngine, control: str) -> None:
    document = question()
    first = caller.ask(document)
    if control == "max-age=1":
        time.sleep(1.1)
        assert caller.ask(document, "max-age=30").cache == "hit"
    second = caller.ask(document, control)
    assert second.text != first.text
    assert second.cache in {"miss", "bypass"}
    third = caller.ask(document, "max-age=30")
    assert (third.cache, third.text) == ("hit", second.text)
    assert engine.calls(words(document)) == 2


@pytest.mark.parametrize("value", ["abc", "", "-1", "1.5", "1 2", "\u0664"])
def test_an_age_that_is_no_number_is_refused(caller: Caller, engine: FakeEngine, value: str) -> None:
    document = question()
    header = {b"cache-control": f"max-age={value}".encode()}
    answer = httpx.post(f"{caller.gateway.url}{PATH}", json=document, headers=header, timeout=PATIENCE_S)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "cache-control")
    assert engine.calls(words(document)) == 0


def test_an_age_without_a_number_is_refused(caller: Caller, engine: FakeEngine) -> None:
    said = caller.ask(question(), "no-store, max-age")
    assert said.error is not None
    assert (said.status, said.error["param"]) == (400, "cache-control")


def test_what_is_said_in_two_lines_is_heeded(caller: Caller, engine: FakeEngine) -> None:
    """RFC 9110, 5.3: they are one list."""
    document = question()
    lines = [("cache-control", "max-age=60"), ("cache-control", "no-store")]
    assert caller.http.post(f"{caller.gateway.url}{PATH}", json=document, headers=lines).status_code == 200
    assert asked(caller, engine, document, None) == (["miss"], 2)


# ---------------------------------------------------------------------------------------------------------------------
# How a kept answer looks


FORMS = [False, True]


@pytest.mark.parametrize("first", FORMS, ids=["whole", "streamed"])
@pytest.mark.parametrize("then", FORMS, ids=["then whole", "then streamed"])
@pytest.mark.parametrize("fields", [{}, {"logprobs": True, "top_logprobs": 2}, {"n": 2, "logprobs": True}], ids=str)
def test_a_kept_answer_is_the_same_in_either_form(
    caller: Caller, engine: FakeEngine, fields: dict[str, Any], *, first: bool, then: bool
) -> None:
    engine.answer = Speech(engine, always("In ", "the ", "\u00e9t", "\u00e9 ", "\U0001f41f", "."))
    document = question(**fields)
    usage = {"stream_options": {"include_usage": True}}
    made = caller.ask(document | {"stream": first} | (usage if first else {}))
    kept = caller.ask(document | {"stream": then} | (usage if then else {}))
    assert (made.cache, kept.cache) == ("miss", "hit")
    assert kept.substance == made.substance
    assert kept.usage == made.usage
    assert kept.text == "In the \u00e9t\u00e9 \U0001f41f."
    assert kept.is_done
    for choice in kept.choices if "logprobs" in fields else ():
        assert "".join(entry["token"] for entry in choice["logprobs"]) == choice["content"]


@pytest.mark.parametrize("first", FORMS, ids=["whole", "streamed"])
@pytest.mark.parametrize("then", FORMS, ids=["then whole", "then streamed"])
@pytest.mark.parametrize("tokens", [(), ("Let ", "me ", "see.")], ids=["silent", "with words"])
def test_kept_calls_of_tools_are_the_same_in_either_form(
    caller: Caller, engine: FakeEngine, tokens: tuple[str, ...], *, first: bool, then: bool
) -> None:
    engine.answer = Speech(engine, always(*tokens), ["tool_calls"], [("look", '{"at": "the sea"}'), ("leap", "{}")])
    tools = [{"type": "function", "function": {"name": name}} for name in ("look", "leap")]
    document = question(tools=tools)
    made, kept = caller.ask(document | {"stream": first}), caller.ask(document | {"stream": then})
    assert (made.cache, kept.cache) == ("miss", "hit")
    assert kept.substance == made.substance
    assert [choice["finish_reason"] for choice in kept.choices] == ["tool_calls"]
    assert [named["name"] for named in kept.choices[0]["calls"]] == ["look", "leap"]


@pytest.mark.parametrize("stream", FORMS, ids=["whole", "streamed"])
def test_a_kept_answer_has_an_id_and_a_time_of_its_own_and_the_usage_of_the_first(
    caller: Caller, engine: FakeEngine, *, stream: bool
) -> None:
    document = question(stream=stream, stream_options={"include_usage": True} if stream else None)
    answers = [caller.ask(document) for _ in range(3)]
    assert all(len(answer.ids) == 1 for answer in answers)
    assert len(frozenset[str]().union(*(answer.ids for answer in answers))) == 3
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    assert all(abs(answer.created - time.time()) < 30 for answer in answers[1:]), "the engine's clock stands still"
    assert answers[0].usage == answers[1].usage == answers[2].usage
    assert answers[0].usage is not None


def test_a_kept_answer_tells_its_age(caller: Caller, engine: FakeEngine) -> None:
    document = question()
    assert caller.ask(document).age_s is None
    at_once = caller.ask(document).age_s
    assert at_once is not None
    time.sleep(1.1)
    later = caller.ask(document | {"stream": True}).age_s
    assert later is not None
    assert at_once + 1 <= later < at_once + 30


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}], ids=str)
@pytest.mark.parametrize("model", ["tiny", "asked"])
def test_usage_is_told_in_a_stream_only_to_who_asks(
    caller: Caller, engine: FakeEngine, options: dict[str, Any] | None, model: str
) -> None:
    """Also in one that comes from the engine, which is asked for it whether or not the caller wants it."""
    document = question(model, stream=True, stream_options=options)
    for _ in range(2):
        said = caller.ask(document)
        assert said.text.startswith("answer ")
        assert said.is_done
        assert all(chunk["choices"] for chunk in said.events), "an event without a choice would be the one that tells of usage"
        assert not any(chunk.get("usage") for chunk in said.events)


def test_usage_that_nobody_had_asked_for_is_known_later(caller: Caller, engine: FakeEngine) -> None:
    document = question(stream=True)
    caller.ask(document)
    for wants in (document | {"stream_options": {"include_usage": True}}, document | {"stream": False}):
        said = caller.ask(wants)
        assert said.cache == "hit"
        assert said.usage is not None
        assert said.usage["completion_tokens"] == 2


def test_usage_comes_last_and_alone(caller: Caller, engine: FakeEngine) -> None:
    document = question(stream=True, stream_options={"include_usage": True})
    for _ in range(2):
        *others, last = caller.ask(document).events
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] == 9
        assert all(chunk["choices"] for chunk in others)


def test_every_event_of_a_kept_stream_is_one_that_an_engine_could_have_sent(caller: Caller, engine: FakeEngine) -> None:
    document = question(stream=True, logprobs=True)
    made, kept = caller.ask(document), caller.ask(document)
    assert kept.events[0]["choices"][0]["delta"]["role"] == "assistant"
    ends = [choice["finish_reason"] for chunk in kept.events for choice in chunk["choices"] if choice.get("finish_reason")]
    assert ends == ["stop"]
    assert all(chunk["model"] == "tiny" for chunk in kept.events)
    keys = {key for chunk in made.events for choice in chunk["choices"] for key in choice}
    assert {key for chunk in kept.events for choice in chunk["choices"] for key in choice} <= keys


def test_the_sdk_reads_a_kept_stream(gateway: RunningGateway, engine: FakeEngine) -> None:
    engine.answer = Speech(engine, always("It ", "is ", "a ", "fish."), ["tool_calls"], [("look", '{"at": "it"}')])
    tools = [{"type": "function", "function": {"name": "look"}}]
    asking: dict[str, Any] = question(logprobs=True, tools=tools) | {"stream_options": {"include_usage": True}}
    finals = []
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0) as client:
        for _ in range(2):
            with client.chat.completions.stream(**asking) as stream:
                finals.append(stream.get_final_completion())
        plain = client.chat.completions.create(**{name: asking[name] for name in asking if name != "stream_options"})
    assert engine.calls(words(asking)) == 1
    made, kept = finals
    assert kept.choices[0].to_dict(exclude_none=True) == made.choices[0].to_dict(exclude_none=True)
    assert kept.usage == made.usage == plain.usage
    assert kept.id != made.id
    message = kept.choices[0].message
    assert (message.content, kept.choices[0].finish_reason) == ("It is a fish.", "tool_calls")
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == '{"at": "it"}'
    assert plain.choices[0].message.content == message.content


@pytest.mark.parametrize("stream", FORMS, ids=["whole", "streamed"])
@pytest.mark.parametrize("control", [None, "no-cache", "no-store", "max-age=5"])
@pytest.mark.parametrize("model", ["tiny", "always", "asked", "pixels"])
def test_every_answer_says_what_the_cache_did(
    caller: Caller, engine: FakeEngine, model: str, control: str | None, *, stream: bool
) -> None:
    document = question(model, stream=stream)
    for _ in range(2):
        said = caller.ask(document, control)
        assert said.cache in {"hit", "miss", "bypass"}
        assert (said.age_s is not None) == (said.cache == "hit")
        assert said.headers["x-fovea-model"] == model


def test_what_the_cache_did_is_counted(gateway: RunningGateway, caller: Caller, engine: FakeEngine) -> None:
    def counts() -> list[float]:
        results = ("miss", "hit", "bypass")
        return [gateway.metric(f'fovea_cache_requests_total{{model="tiny",result="{result}"}}') for result in results]

    before, document = counts(), question()
    for control in (None, None, None, "no-cache"):
        caller.ask(document, control)
    assert [after - count for after, count in zip(counts(), before, strict=True)] == [1, 2, 1]
    assert gateway.metric("fovea_cache_memory_bytes") > 0


# ---------------------------------------------------------------------------------------------------------------------
# What is not kept


def twice(caller: Caller, document: dict[str, Any]) -> tuple[Said, Said]:
    return caller.ask(document), caller.ask(document)


@CONTROLS
@pytest.mark.parametrize("reason", ["length", "content_filter", "repetition", None])
def test_an_answer_that_was_cut_off_is_not_kept(
    caller: Caller, engine: FakeEngine, reason: str | None, *, stream: bool
) -> None:
    engine.answer = Speech(engine, always("So far"), [reason])
    document = question(stream=stream)
    first, second = twice(caller, document)
    assert (first.cache, second.cache) == ("miss", "miss")
    assert first.substance == second.substance
    assert first.choices[0]["finish_reason"] == reason
    assert engine.calls(words(document)) == 2


@CONTROLS
def test_an_answer_of_which_one_choice_was_cut_off_is_not_kept(caller: Caller, engine: FakeEngine, *, stream: bool) -> None:
    engine.answer = Speech(engine, always("So far"), ["stop", "length"])
    document = question(stream=stream, n=2)
    first, second = twice(caller, document)
    assert [choice["finish_reason"] for choice in first.choices] == ["stop", "length"]
    assert (second.cache, engine.calls(words(document))) == ("miss", 2)


@CONTROLS
def test_an_engine_s_error_is_not_kept(caller: Caller, engine: FakeEngine, *, stream: bool) -> None:
    async def fails(_: Request) -> Response:
        return JSONResponse({"error": {"message": "no", "type": "Oops", "param": None, "code": 500}}, 500)

    well, engine.answer = engine.answer, fails
    document = question(stream=stream)
    assert [caller.ask(document).status for _ in range(2)] == [502, 502]
    engine.answer = well
    assert asked(caller, engine, document, None, None) == (["miss", "hit"], 3)


@CONTROLS
def test_an_engine_s_refusal_is_not_kept(caller: Caller, engine: FakeEngine, *, stream: bool) -> None:
    async def refuses(_: Request) -> Response:
        return JSONResponse({"error": {"message": "no", "type": "BadRequestError", "param": None, "code": 400}}, 400)

    well, engine.answer = engine.answer, refuses
    document = question(stream=stream)
    assert [caller.ask(document).status for _ in range(2)] == [400, 400]
    engine.answer = well
    assert asked(caller, engine, document, None, None) == (["miss", "hit"], 3)


def test_an_error_within_a_stream_is_not_kept(caller: Caller, engine: FakeEngine) -> None:
    async def fails(_: Request) -> Response:
        error = {"error": {"message": "no", "type": "Oops", "param": None, "code": 500}}
        body = event("a") + b"data: " + json.dumps(error).encode() + b"\n\ndata: [DONE]\n\n"
        return Response(body, media_type="text/event-stream")

    well, engine.answer = engine.answer, fails
    document = question(stream=True)
    first = caller.ask(document)
    assert (first.text, first.error is not None, first.is_done) == ("a", True, False)
    engine.answer = well
    assert asked(caller, engine, document, None, None) == (["miss", "hit"], 2)


@CONTROLS
@pytest.mark.parametrize("form", ["json_object", "json_schema", "structured_outputs"])
@pytest.mark.parametrize("text", ['{"a": ', "", "Sure: {}", '{"a": 1} {"a": 1}', '{"a": NaN}'])
def test_an_answer_that_is_not_the_json_it_should_be_is_not_kept(
    caller: Caller, engine: FakeEngine, form: str, text: str, *, stream: bool
) -> None:
    engine.answer = Speech(engine, always(*text))
    document = question(stream=stream, **json_wanted(form))
    errors = [caller.ask(document).error for _ in range(2)]
    assert [error["code"] for error in errors if error is not None] == ["incomplete_json"] * 2
    engine.answer = Speech(engine, always('{"a": ', "1", "}"))
    assert [caller.ask(document).cache for _ in range(2)] == ["miss", "hit"]


@CONTROLS
@pytest.mark.parametrize("form", ["json_object", "json_schema", "structured_outputs"])
def test_an_answer_that_is_the_json_it_should_be_is_kept(
    caller: Caller, engine: FakeEngine, form: str, *, stream: bool
) -> None:
    engine.answer = Speech(engine, always('{"a": ', "1", "}"))
    document = question(stream=stream, **json_wanted(form))
    assert asked(caller, engine, document, None, None) == (["miss", "hit"], 1)


def test_an_answer_that_calls_a_tool_instead_is_kept(caller: Caller, engine: FakeEngine) -> None:
    engine.answer = Speech(engine, always(), ["tool_calls"], [("look", "{}")])
    tools = [{"type": "function", "function": {"name": "look"}}]
    assert asked(caller, engine, question(tools=tools, **json_wanted("json_schema")), None, None) == (["miss", "hit"], 1)


NO_COMPLETIONS = [
    b"{}",
    b'{"choices": []}',
    b'{"choices": null}',
    b'{"choices": [{}]}',
    b'{"choices": [{"finish_reason": "stop"}]}',
    b'{"choices": [{"index": 0, "finish_reason": "stop", "message": null}]}',
    b'{"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "\\ud800"}}]}',
    b'{"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a"}}]',
]


@pytest.mark.parametrize("body", NO_COMPLETIONS, ids=repr)
def test_what_is_no_completion_is_passed_on_as_it_is_and_not_kept(caller: Caller, engine: FakeEngine, body: bytes) -> None:
    async def odd(_: Request) -> Response:
        return Response(body, media_type="application/json")

    engine.answer = odd
    document = question()
    for _ in range(2):
        answer = caller.http.post(f"{caller.gateway.url}{PATH}", json=document)
        assert (answer.status_code, answer.content, answer.headers["x-fovea-cache"]) == (200, body, "miss")
    assert engine.calls(words(document)) == 2


NO_CHUNKS = [
    b"data: 17",
    b"data: {}",
    b'data: {"choices": [{}]}',
    b"event: odd",
    b": a remark",
    b"data: not JSON",
    b"data: [1]",
]


@pytest.mark.parametrize("odd", NO_CHUNKS, ids=repr)
def test_what_is_no_event_of_a_completion_is_passed_on_as_it_is(caller: Caller, engine: FakeEngine, odd: bytes) -> None:
    body = event("a") + odd + b"\n\ndata: [DONE]\n\n"

    async def answer(_: Request) -> Response:
        return Response(body, media_type="text/event-stream")

    engine.answer = answer
    document = question(stream=True)
    for _ in range(2):
        said = caller.http.post(f"{caller.gateway.url}{PATH}", json=document)
        assert (said.status_code, said.headers["x-fovea-cache"]) == (200, "miss")
        assert said.content == body
    assert engine.calls(words(document)) == 2


def test_an_image_over_which_an_engine_fails_is_named(caller: Caller, engine: FakeEngine) -> None:
    async def fails(_: Request) -> Response:
        return JSONResponse({"error": {"message": "oops", "type": "InternalServerError", "param": None, "code": 500}}, 500)

    engine.answer = fails
    whole = picture("PNG")
    damaged = f"{whole[:-60]}{'A' * 40}{whole[-20:]}"
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in (whole, damaged)]
    said = caller.ask(question(messages=[{"role": "user", "content": parts}]))
    assert said.error is not None
    assert (said.status, said.error["code"]) == (400, "invalid_image")
    assert said.error["param"] == "messages[0].content[1].image_url.url"


def json_wanted(form: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    if form == "structured_outputs":
        return {"structured_outputs": {"json": schema}}
    named = {"json_schema": {"name": "s", "schema": schema}} if form == "json_schema" else {}
    return {"response_format": {"type": form} | named}


def test_a_stream_that_breaks_off_is_not_kept(caller: Caller, engine: FakeEngine) -> None:
    well, engine.answer = engine.answer, Speech(engine, always("So ", "far"), is_whole=False)
    document = question(stream=True)
    broken = caller.ask(document)
    assert (broken.text, broken.is_done) == ("So far", False)
    assert broken.error is not None
    engine.answer = well
    assert asked(caller, engine, document, None, None) == (["miss", "hit"], 2)


def test_a_stream_that_its_caller_leaves_is_not_kept(caller: Caller, engine: FakeEngine) -> None:
    gate = Gate(1)
    well, engine.answer = engine.answer, Speech(engine, always("So ", "far"), gate=gate)
    document = question(stream=True)
    with caller.http.stream("POST", f"{caller.gateway.url}{PATH}", json=document) as answer:
        lines = answer.iter_lines()  # kept: httpx closes the connection with it
        while '"So "' not in next(lines):
            pass
    assert engine.cancelled.wait(SOON_S)
    gate.open()
    engine.answer = well
    assert asked(caller, engine, document, None, None) == (["miss", "hit"], 2)


@CONTROLS
def test_an_answer_that_is_too_large_is_given_and_not_kept(caller: Caller, engine: FakeEngine, *, stream: bool) -> None:
    text = random.Random(0).randbytes(2 * ANSWER_KIB * 1024).hex()
    engine.answer = Speech(engine, always(text[:100], text[100:]))
    document = question(stream=stream)
    first, second = twice(caller, document)
    assert first.text == second.text == text
    assert (first.cache, second.cache) == ("miss", "miss")
    engine.answer = Speech(engine, always("small"))
    assert asked(caller, engine, document, None, None) == (["miss", "hit"], 3)


@CONTROLS
def test_an_answer_that_is_large_and_not_too_large_is_kept(caller: Caller, engine: FakeEngine, *, stream: bool) -> None:
    text = random.Random(0).randbytes(ANSWER_KIB * 1024 // 4).hex()
    engine.answer = Speech(engine, always(text[:100], text[100:]))
    first, second = twice(caller, question(stream=stream))
    assert (first.cache, second.cache) == ("miss", "hit")
    assert first.text == second.text == text


def test_a_kept_answer_is_forgotten_in_time(caller: Caller, engine: FakeEngine) -> None:
    document = question("brief")
    # More than twice only where a machine stood still for longer than the answer is kept.
    assert eventually(lambda: caller.ask(document).cache == "hit")
    assert eventually(lambda: caller.ask(document, "only-if-cached").status == 504)
    calls = engine.calls(words(document))
    assert caller.ask(document).cache == "miss"
    assert engine.calls(words(document)) == calls + 1


# ---------------------------------------------------------------------------------------------------------------------
# Forgetting at once


KEYS = {name: new_key() for name in ("ads", "labels", "root")}


@pytest.fixture(scope="module", params=["memory", "redis"])
def tenants(
    request: pytest.FixtureRequest,
    fake_engine: FakeEngine,
    redis: RedisServer,
    http_client: httpx.Client,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Caller]]:
    """The callers of a gateway that asks for keys; only `root` may flush."""
    folder = tmp_path_factory.mktemp("tenants")
    (folder / "keys.txt").write_text("\n".join(f"{name} {digest(key)}" for name, key in KEYS.items()))
    settings = {"FOVEA_API_KEYS_FILE": str(folder / "keys.txt"), "FOVEA_ADMINS": "root"}
    if request.param == "redis":
        settings |= {"FOVEA_REDIS_URL": redis.url.replace("/0", "/1"), "FOVEA_REDIS_BUDGET_S": "5"}
    with running_gateway(folder, fake_engine.url, catalog(), **settings) as gateway:
        yield {name: Caller(http_client, gateway, {"authorization": f"Bearer {key}"}) for name, key in KEYS.items()}


TINY, TWIN = question("tiny"), question("twin")
ALL = {("ads", "tiny"), ("ads", "twin"), ("labels", "tiny"), ("labels", "twin")}
FLUSHES: list[tuple[dict[str, str], set[tuple[str, str]]]] = [
    ({"model": "tiny"}, {("ads", "tiny"), ("labels", "tiny")}),
    ({"tenant": "ads"}, {("ads", "tiny"), ("ads", "twin")}),
    ({"tenant": "ads", "model": "twin"}, {("ads", "twin")}),
    ({"tenant": "ad"}, set()),
    ({"tenant": "*"}, set()),
    ({"model": "t*"}, set()),
    ({"tenant": "[a-z]ds"}, set()),
    ({}, ALL),
]


def answers_kept(tenants: dict[str, Caller]) -> set[tuple[str, str]]:
    asked_for = ((name, document) for name in ("ads", "labels") for document in (TINY, TWIN))
    return {
        (name, document["model"]) for name, document in asked_for if tenants[name].ask(document, "only-if-cached").status == 200
    }


@pytest.mark.parametrize(("which", "gone"), FLUSHES, ids=str)
def test_an_admin_has_answers_forgotten(
    tenants: dict[str, Caller], engine: FakeEngine, which: dict[str, str], gone: set[tuple[str, str]]
) -> None:
    for name in ("ads", "labels"):
        for document in (TINY, TWIN):
            tenants[name].ask(document)
    assert answers_kept(tenants) == ALL
    flushed = tenants["root"].flush(**which)
    assert (flushed.status_code, flushed.json()) == (200, {"object": "cache.flush", "deleted": len(gone)})
    assert answers_kept(tenants) == ALL - gone


def test_nobody_else_may(tenants: dict[str, Caller], engine: FakeEngine) -> None:
    tenants["ads"].ask(TINY)
    for refused in (tenants["ads"].flush(), tenants["ads"].flush(tenant="ads")):
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_an_admin")
    without_a_key = Caller(tenants["ads"].http, tenants["ads"].gateway)
    assert without_a_key.flush().status_code == 401
    assert tenants["ads"].ask(TINY, "only-if-cached").status == 200


def test_the_command_has_answers_forgotten(tenants: dict[str, Caller], engine: FakeEngine) -> None:
    for name in ("ads", "labels"):
        tenants[name].ask(TINY)
    url = tenants["ads"].gateway.url
    command = ["cache", "flush", "--model", "tiny", "--tenant", "ads", "--url", url, "--api-key"]
    refused = CliRunner().invoke(main, [*command, KEYS["ads"]])
    assert refused.exit_code != 0
    assert ("ads", "tiny") in answers_kept(tenants)
    done = CliRunner().invoke(main, [*command, KEYS["root"]])
    assert done.exit_code == 0, done.output
    assert "1" in done.output
    kept = answers_kept(tenants)
    assert ("ads", "tiny") not in kept
    assert ("labels", "tiny") in kept


def test_without_keys_everybody_may_flush(caller: Caller, engine: FakeEngine) -> None:
    document = question("twin")
    caller.ask(document)
    assert caller.flush(model="twin").json()["deleted"] >= 1
    assert asked(caller, engine, document, None)[0] == ["miss"]


def test_what_is_no_part_of_a_flush_is_refused(caller: Caller, engine: FakeEngine) -> None:
    document = question()
    caller.ask(document)
    assert caller.flush(modle="tiny").status_code == 400
    assert asked(caller, engine, document, None)[0] == ["hit"]


def test_a_flush_that_could_not_reach_all_that_is_kept_is_refused(
    fake_engine: FakeEngine, http_client: httpx.Client, tmp_path: pathlib.Path
) -> None:
    """Each of two workers without Redis keeps answers in a memory of its own."""
    with running_gateway(tmp_path, fake_engine.url, catalog(), FOVEA_WORKERS="2") as gateway:
        assert 400 <= Caller(http_client, gateway).flush().status_code < 500


def test_another_gateway_s_flush_is_seen_soon(
    redis: RedisServer, fake_engine: FakeEngine, http_client: httpx.Client, engine: FakeEngine, tmp_path: pathlib.Path
) -> None:
    settings = {"FOVEA_REDIS_URL": redis.url.replace("/0", "/2"), "FOVEA_REDIS_BUDGET_S": "5"}
    homes = [tmp_path / name for name in "ab"]
    for home in homes:
        home.mkdir()
    with (
        running_gateway(homes[0], fake_engine.url, catalog(), **settings) as one,
        running_gateway(homes[1], fake_engine.url, catalog(), **settings) as other,
    ):
        here, there = Caller(http_client, one), Caller(http_client, other)
        document = question()
        assert (here.ask(document).cache, there.ask(document).cache) == ("miss", "hit")
        here.flush()
        assert here.ask(document, "only-if-cached").status == 504
        assert eventually(lambda: there.ask(document, "only-if-cached").status == 504)


# ---------------------------------------------------------------------------------------------------------------------
# What caches cost


def test_an_answer_that_runs_is_not_held_up_by_its_being_kept(caller: Caller, engine: FakeEngine) -> None:
    """Its tokens come as the engine says them."""
    gate = Gate(1)
    engine.answer = Speech(engine, always("one ", "two ", "three"), gate=gate)
    with caller.http.stream("POST", f"{caller.gateway.url}{PATH}", json=question(stream=True)) as answer:
        assert answer.headers["x-fovea-cache"] == "miss"
        lines = answer.iter_lines()
        for number, token in enumerate(("one ", "two ", "three"), start=1):
            gate.tokens = number
            while f'"{token}"' not in next(lines):
                pass
