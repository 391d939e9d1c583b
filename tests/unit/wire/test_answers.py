import contextlib
import json
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from gateway.wire.answers import is_storable, renewed, replay, stored_form
from gateway.wire.streamed import event_data, whole_answer
from tests.answers import TEXT, answer, answers, call, choice, message, said, token
from tests.fake_engine import FakeEngine, running_fake_engine

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def chunks_of(replayed: bytes) -> list[dict[str, Any]]:
    *chunks, done = event_data(replayed)
    assert done == b"[DONE]"
    return [json.loads(one) for one in chunks]


def again(document: dict[str, Any], *, include_usage: bool = True) -> list[dict[str, Any]]:
    return chunks_of(replay(stored_form(document), "chatcmpl-2", 18, include_usage=include_usage))


@given(answers())
def test_an_answer_is_the_same_with_a_new_id_and_time(document: dict[str, Any]) -> None:
    assert is_storable(document)
    assert json.loads(renewed(stored_form(document), "chatcmpl-2", 18)) == document | {"id": "chatcmpl-2", "created": 18}


@given(answers())
def test_a_replay_says_what_the_answer_says(document: dict[str, Any]) -> None:
    events = replay(stored_form(document), "chatcmpl-2", 18, include_usage=True)
    assert whole_answer([events]) == document | {"id": "chatcmpl-2", "created": 18}


@given(answers())
def test_a_replay_tells_its_usage_if_asked_to(document: dict[str, Any]) -> None:
    for include_usage in (False, True):
        chunks = again(document, include_usage=include_usage)
        assert [one["choices"] for one in chunks].count([]) == include_usage
        assert ("usage" in chunks[-1]) is include_usage
        for one in chunks:
            ChatCompletionChunk.model_validate(one)


def test_a_replay_has_the_order_of_a_stream() -> None:
    one, other = (choice(message(text), index, stop_reason="\n") for index, text in enumerate("ab"))
    chunks = again(answer(one, other, system_fingerprint="f", prompt_token_ids=[1, 2]))
    assert [(one["index"], one["delta"]) for chunk in chunks for one in chunk["choices"]] == [
        (0, {"role": "assistant", "content": ""}),
        (1, {"role": "assistant", "content": ""}),
        (0, {"content": "a"}),
        (0, {}),
        (1, {"content": "b"}),
        (1, {}),
    ]
    assert [chunk.get("prompt_token_ids") for chunk in chunks] == [[1, 2], [1, 2], None, None, None, None, None]
    assert [chunk.get("system_fingerprint") for chunk in chunks] == [None] * 6 + ["f"]
    assert chunks[3]["choices"][0]["stop_reason"] == "\n"
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks} == {("chatcmpl-2", 18, "tiny")}


def test_without_usage_the_fingerprint_is_told_with_the_end_as_vllm_does() -> None:
    chunks = again(answer(choice(message("a")), system_fingerprint="f"), include_usage=False)
    assert [chunk.get("system_fingerprint") for chunk in chunks] == [None, None, "f"]


def test_an_empty_answer_may_be_stored_and_replayed() -> None:
    assert is_storable(said(""))
    assert [chunk["choices"][0]["delta"] for chunk in again(said(""), include_usage=False)] == [
        {"role": "assistant", "content": ""},
        {},
    ]


@pytest.mark.parametrize("finish_reason", ["length", "abort", "error", "repetition", "content_filter", "", None])
def test_an_answer_that_did_not_end_by_itself_is_not_stored(finish_reason: str | None) -> None:
    cut = choice(message("a"), 1) | {"finish_reason": finish_reason}
    assert not is_storable(answer(choice(message("a")), cut))


@pytest.mark.parametrize("finish_reason", ["stop", "tool_calls"])
def test_calls_are_stored_where_their_arguments_are_json(finish_reason: str) -> None:
    whole, cut = (message(None, calls=[call("f", arguments)]) for arguments in ('{"a": 1}', '{"a": 1'))
    assert is_storable(answer(choice(whole, 0, finish_reason)))
    assert not is_storable(answer(choice(cut, 0, finish_reason)))


def test_an_answer_that_ends_with_calls_and_has_none_is_not_stored() -> None:
    assert not is_storable(answer(choice(message("a"), 0, "tool_calls")))


UNKNOWN: list[dict[str, Any]] = [
    answer(choice(message("a", citations=[1]))),
    answer(choice(message("a", annotations=[{"type": "url_citation"}]))),
    answer(choice(message("a"), routed_experts="AAA")),
    answer(choice(message(None, calls=[call("f", "{}") | {"mood": "blue"}]))),
    answer(choice(message("a"), logprobs={"content": [], "thoughts": []})),
]


@pytest.mark.parametrize("document", UNKNOWN)
def test_what_a_replay_could_not_carry_is_not_stored(document: dict[str, Any]) -> None:
    assert not is_storable(document)


def test_an_empty_list_of_links_as_openai_writes_it_says_nothing() -> None:
    assert is_storable(answer(choice(message("a", annotations=[]))))


def test_a_newer_engine_s_field_may_be_null_and_one_beside_the_choices_may_be_anything() -> None:
    document = answer(choice(message("a", mood=None), mood=None), mood="blue")
    assert is_storable(document)
    assert again(document)[-1]["mood"] == "blue"


NO_ANSWERS: list[Any] = [
    {"error": {"message": "no"}},
    said("a") | {"error": {"message": "no"}},
    said("a") | {"usage": None},
    said("a") | {"usage": {"prompt_tokens": 1}},
    said("a") | {"object": "chat.completion.chunk"},
    said("a") | {"id": None},
    answer(),
    answer(choice(message("a"), 1)),
    answer(choice(message("a")), choice(message("a"))),
    answer(choice(message("a")) | {"index": False}),
    [],
    None,
    "a",
]


@pytest.mark.parametrize("document", NO_ANSWERS)
def test_what_is_no_answer_is_not_stored(document: Any) -> None:
    assert not is_storable(document)


def test_what_nests_too_deeply_to_be_written_is_not_stored() -> None:
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    assert not is_storable(said("a") | {"deep": deep})


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """An answer with some part of it replaced by anything."""
    document: dict[str, Any] = json.loads(json.dumps(draw(answers())))
    place: Any = document
    while True:
        key = draw(st.sampled_from([*place] if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], (dict, list)) and place[key]) or draw(st.integers(0, 3)) == 0:
            place[key] = draw(JSON)
            return document
        place = place[key]


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


@given(spoilt() | JSON)
def test_whatever_an_engine_answers_is_stored_and_given_again_or_is_not(document: Any) -> None:
    is_storable(document)
    if not is_storable(document):
        return
    stored = stored_form(document)
    assert is_storable(json.loads(renewed(stored, "chatcmpl-2", 18)))
    read = json.loads(stored)
    streamed = whole_answer([replay(stored, "chatcmpl-2", 18, include_usage=True)])
    if streamed is not None:
        texts = [one["message"].get("content") or "" for one in streamed["choices"]]
        assert texts == [one["message"].get("content") or "" for one in read["choices"]]
        assert without_nulls(streamed["usage"]) == without_nulls(read["usage"])


@given(st.binary() | JSON.map(json.dumps).map(str.encode) | spoilt().map(json.dumps).map(str.encode))
def test_what_a_store_made_up_is_a_value_error(stored: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert renewed(stored, "a", 1)
    with contextlib.suppress(ValueError):
        assert replay(stored, "a", 1, include_usage=True)


def test_what_is_no_stored_answer_is_not_made_one() -> None:
    for stored in (b"", b"{}", b'{"object":"chat.completion"', b'{"error":{}}'):
        with pytest.raises(ValueError, match=r"no stored answer"):
            renewed(stored, "a", 1)
        with pytest.raises(ValueError):  # noqa: PT011 - orjson's words or pydantic's
            replay(stored, "a", 1, include_usage=True)


class Found(BaseModel):
    kind: str


WORDS = answer(
    choice(message("ab", reasoning="hm"), logprobs={"content": [token("a", top=2), token("b", top=2)]}, token_ids=[1, 2]),
    choice(message("c"), 1, logprobs={"content": [token("c")]}, token_ids=[3]),
    prompt_token_ids=[9],
)
CALLS = answer(choice(message(None, calls=[call("f", '{"kind": "a"}'), call("f", '{"kind": "b"}', "call_2")]), 0, "tool_calls"))
TOOLS: Any = [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {}}}]


@pytest.fixture(scope="module")
def engine() -> Any:
    with running_fake_engine() as engine:
        yield engine


@pytest.fixture
def client(engine: FakeEngine) -> Any:
    with openai.OpenAI(base_url=f"{engine.url}/tiny/v1", api_key="unused", max_retries=0) as client:
        yield client


def give(engine: FakeEngine, document: dict[str, Any]) -> None:
    """Has the engine answer as a hit would be."""
    stored = stored_form(document)

    async def answered(request: Request) -> Response:
        asked = await request.json()
        if not asked.get("stream"):
            return Response(renewed(stored, "chatcmpl-2", 18), media_type="application/json")
        include_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        return Response(replay(stored, "chatcmpl-2", 18, include_usage=include_usage), media_type="text/event-stream")

    engine.answer = answered


def stream_of(client: openai.OpenAI, **options: Any) -> list[ChatCompletionChunk]:
    return list(client.chat.completions.create(model="tiny", messages=[], stream=True, **options))


def completion_of(client: openai.OpenAI, **options: Any) -> ChatCompletion:
    with client.chat.completions.stream(model="tiny", messages=[], stream_options={"include_usage": True}, **options) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion()


def test_the_sdk_reads_a_replay(engine: FakeEngine, client: openai.OpenAI) -> None:
    give(engine, WORDS)
    chunks = stream_of(client, stream_options={"include_usage": True})
    said_by = {0: "", 1: ""}
    for one in (one for chunk in chunks for one in chunk.choices):
        said_by[one.index] += one.delta.content or ""
    assert said_by == {0: "ab", 1: "c"}
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 12
    assert all(chunk.usage is None for chunk in stream_of(client))


def test_the_sdk_s_stream_makes_the_same_answer_of_a_replay(engine: FakeEngine, client: openai.OpenAI) -> None:
    give(engine, WORDS)
    streamed = completion_of(client).to_dict()
    whole = client.chat.completions.create(model="tiny", messages=[]).to_dict()
    assert streamed["usage"] == without_nulls(whole["usage"])
    for one, other in zip(streamed["choices"], whole["choices"], strict=True):  # type: ignore[call-overload]
        assert one["message"]["content"] == other["message"]["content"]
        assert one["message"].get("reasoning") == other["message"]["reasoning"]
        assert one["finish_reason"] == other["finish_reason"]
        assert one["logprobs"]["content"] == other["logprobs"]["content"]


def test_the_sdk_s_stream_reads_the_calls_of_a_replay(engine: FakeEngine, client: openai.OpenAI) -> None:
    give(engine, CALLS)
    streamed = completion_of(client, tools=TOOLS).choices[0]
    assert streamed.finish_reason == "tool_calls"
    calls = [one for one in streamed.message.tool_calls or () if one.type == "function"]
    assert [(one.id, one.function.name, one.function.arguments) for one in calls] == [
        ("call_1", "f", '{"kind": "a"}'),
        ("call_2", "f", '{"kind": "b"}'),
    ]


def test_the_sdk_parses_what_was_stored(engine: FakeEngine, client: openai.OpenAI) -> None:
    give(engine, said('{"kind": "dent"}'))
    parsed = client.chat.completions.parse(model="tiny", messages=[], response_format=Found)
    assert parsed.choices[0].message.parsed == Found(kind="dent")
    with client.chat.completions.stream(model="tiny", messages=[], response_format=Found) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.parsed == Found(kind="dent")


@given(document=answers())
def test_the_sdk_s_state_takes_every_replay(document: dict[str, Any]) -> None:
    state: openai.lib.streaming.chat.ChatCompletionStreamState[None]
    state = openai.lib.streaming.chat.ChatCompletionStreamState()
    for one in again(document):
        state.handle_chunk(ChatCompletionChunk.model_validate(one))
    for snapshot, stored in zip(state.current_completion_snapshot.choices, document["choices"], strict=True):
        assert (snapshot.message.content or "") == (stored["message"]["content"] or "")
        assert len(snapshot.message.tool_calls or ()) == len(stored["message"].get("tool_calls") or ())
