import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.answers import is_storable, replay, stored_form
from gateway.wire.streamed import StreamedAnswer, whole_answer, without_usage
from tests.answers import COUNTED, TEXT, answer, answers, call, choice, chunk, delta, events_of, message, said, token

ROLE = chunk(delta(role="assistant", content=""), prompt_token_ids=None, prompt_text=None)
END = chunk(delta(content="", finish_reason="stop") | {"stop_reason": None, "token_ids": None})
USAGE = chunk(usage=COUNTED)


def whole(*documents: dict[str, Any]) -> dict[str, Any] | None:
    return whole_answer([events_of(*documents)])


def test_words_are_put_together() -> None:
    assert whole(ROLE, chunk(delta(content="a")), chunk(delta(content="b")), END, USAGE) == said("ab")


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
@given(pieces=st.lists(TEXT), cuts=st.sets(st.integers(0, 20)))
def test_words_are_put_together_however_their_events_came(end: str, pieces: list[str], cuts: set[int]) -> None:
    documents = [ROLE, *(chunk(delta(content=piece)) for piece in pieces), END, USAGE]
    events = [one + end.encode() for one in events_of(*documents, end=end).split(end.encode()) if one]
    edges = [0, *sorted(cut for cut in cuts if cut < len(events)), len(events)]
    items = [b"".join(events[start:stop]) for start, stop in itertools.pairwise(edges)]
    assert whole_answer(items) == said("".join(pieces))
    answer_so_far = StreamedAnswer()
    for one in events:
        assert answer_so_far.whole() is None
        answer_so_far.add(one)
    assert answer_so_far.whole() == said("".join(pieces))


def test_comments_and_a_missing_blank_are_of_no_account() -> None:
    events = events_of(ROLE, chunk(delta(content="a")), END, USAGE).replace(b"data: ", b"data:")
    events = b": keep-alive\n\n" + events.replace(b"\n\n", b"\n\n: keep-alive\n\nid: 1\nretry: 5\n\n")
    assert whole_answer([events]) == said("a")


def test_one_document_may_come_in_several_lines() -> None:
    lines = "".join(f"data: {line}\n" for line in json.dumps(END, indent=1).splitlines())
    assert whole_answer([events_of(ROLE, USAGE).replace(b"data: [DONE]", lines.encode() + b"\ndata: [DONE]")]) == said("")


def test_choices_are_kept_apart_and_in_order() -> None:
    said_in_turn = [chunk(delta(index, content=text)) for index, text in [(1, "a"), (0, "b"), (2, "c"), (1, "d")]]
    ends = [chunk(delta(index, finish_reason="stop")) for index in (2, 0, 1)]
    told = whole(*said_in_turn, *ends, USAGE)
    assert told == answer(*(choice(message(text), index) for index, text in enumerate(("b", "ad", "c"))))


def test_calls_are_put_together() -> None:
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a":'}}
    rest = [{"index": 0, "function": {"arguments": " 1}"}}, {"index": 1, "id": "call_2", "function": {"name": "g"}}]
    last = {"index": 1, "function": {"name": None, "arguments": "{}"}}
    deltas = [chunk(delta(tool_calls=calls)) for calls in ([first], [more], rest, [last])]
    end = chunk(delta(finish_reason="tool_calls"))
    calls = [call("f", '{"a": 1}'), call("g", "{}", "call_2")]
    assert whole(ROLE, *deltas, end, USAGE) == answer(choice(message(None, calls=calls), 0, "tool_calls"))
    # The one tool that was named: vLLM ends with `stop`, and says "" where nothing is streamed.
    assert whole(ROLE, *deltas, END, USAGE) == answer(choice(message("", calls=calls), 0, "stop"))


def test_probabilities_and_token_ids_are_put_together() -> None:
    one, other = (
        chunk(delta(content=text) | {"logprobs": {"content": [token(text, top=2)]}, "token_ids": [number]})
        for number, text in enumerate("ab")
    )
    logprobs = {"content": [token("a", top=2), token("b", top=2)]}
    told = whole(ROLE | {"prompt_token_ids": [5, 6]}, one, other, END, USAGE)
    assert told == answer(choice(message("ab"), logprobs=logprobs, token_ids=[0, 1]), prompt_token_ids=[5, 6])


def test_what_vllm_leaves_out_of_an_unlikely_token_is_put_in() -> None:
    bare = chunk(delta(content="a") | {"logprobs": {"content": [{"token": "a", "bytes": [97]}]}})
    told = whole(ROLE, bare, END, USAGE)
    assert told is not None
    assert told["choices"][0]["logprobs"]["content"] == [token("a", -9999.0)]


def test_reasoning_alone_leaves_the_content_null() -> None:
    told = whole(ROLE, chunk(delta(reasoning="h")), chunk(delta(reasoning="m")), END, USAGE)
    assert told == answer(choice(message(None, reasoning="hm")))


def test_reasoning_content_and_a_refusal_are_kept() -> None:
    deltas = [chunk(delta(reasoning_content="h", refusal="n")), chunk(delta(reasoning_content="m", refusal="o", content="a"))]
    assert whole(ROLE, *deltas, END, USAGE) == answer(choice(message("a", reasoning_content="hm", refusal="no")))


def test_fields_beside_the_choices_are_kept() -> None:
    told = whole(ROLE | {"a_newer_field": [1]}, END, USAGE | {"system_fingerprint": "f", "metrics": {"a": 1}})
    assert told == said("") | {"system_fingerprint": "f", "metrics": {"a": 1}, "a_newer_field": [1]}


def test_usage_on_the_way_is_of_no_account() -> None:
    counted = {"usage": {"prompt_tokens": 7, "total_tokens": 8, "completion_tokens": 1}}
    assert whole(ROLE | counted, END | counted, USAGE) == said("")


def test_a_length_that_was_reached_is_told_and_not_stored() -> None:
    told = whole(ROLE, chunk(delta(content="a", finish_reason="length")), USAGE)
    assert told is not None
    assert not is_storable(told)


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
NOT_WHOLE: dict[str, list[dict[str, Any]]] = {
    "no usage": [ROLE, END],
    "no finish reason": [ROLE, USAGE],
    "no choices": [USAGE],
    "one choice of two has no end": [ROLE, chunk(delta(1, content="a")), END, USAGE],
    "a choice is left out": [chunk(delta(1, finish_reason="stop")), USAGE],
    "a choice below zero": [chunk(delta(-1, finish_reason="stop")), USAGE],
    "a choice goes on after its end": [END, chunk(delta(content="a")), USAGE],
    "the usage comes twice": [END, USAGE, USAGE],
    "an error": [ROLE, {"error": {"message": "no"}}, END, USAGE],
    "a field of a delta is unknown": [chunk(delta(citations=[])), END, USAGE],
    "a field of a choice is unknown": [chunk(delta() | {"mood": 0}), END, USAGE],
    "a field of a call is unknown": [chunk(delta(tool_calls=[CALL | {"mood": "blue"}])), END, USAGE],
    "a field of a function is unknown": [chunk(delta(tool_calls=[CALL | {"function": {"mood": ""}}])), END, USAGE],
    "a field of the logprobs is unknown": [chunk(delta() | {"logprobs": {"reasoning": []}}), END, USAGE],
    "two ids": [ROLE | {"id": "chatcmpl-2"}, END, USAGE],
    "two models": [ROLE | {"model": "other"}, END, USAGE],
    "two values of a new field": [ROLE | {"new": 1}, END | {"new": 2}, USAGE],
    "two roles": [chunk(delta(role="user")), chunk(delta(role="assistant")), END, USAGE],
    "content that is no text": [chunk(delta(content=[{"type": "text"}])), END, USAGE],
    "a number that is true": [chunk(delta() | {"token_ids": [True]}), END, USAGE],
    "a call without a name": [chunk(delta(tool_calls=[CALL | {"function": {"arguments": "{}"}}])), END, USAGE],
    "a call without an id": [chunk(delta(tool_calls=[CALL | {"id": None}])), END, USAGE],
    "a call with two names": [chunk(delta(tool_calls=[CALL, CALL | {"function": {"name": "g"}}])), END, USAGE],
    "a call is left out": [chunk(delta(tool_calls=[CALL | {"index": 1}])), END, USAGE],
    "a tool of another type": [chunk(delta(tool_calls=[CALL | {"type": "custom"}])), END, USAGE],
    "a token without its text": [chunk(delta() | {"logprobs": {"content": [{"logprob": 0}]}}), END, USAGE],
    "a document of another kind": [ROLE | {"object": "text_completion"}, END, USAGE],
}


@pytest.mark.parametrize("documents", NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_what_is_not_whole_or_not_understood_is_nothing(documents: list[dict[str, Any]]) -> None:
    assert whole(ROLE, END, USAGE) is not None
    assert whole(*documents) is None


GOOD = events_of(ROLE, END, USAGE)


@pytest.mark.parametrize(
    "events",
    [
        b"",
        b"data: [DONE]\n\n",
        GOOD.replace(b"data: [DONE]\n\n", b""),
        GOOD[:-1],
        GOOD + b"data: [DONE]\n\n",
        GOOD + b"data: {}\n\n",
        GOOD.replace(b'"tiny"', b'"tiny'),
        GOOD.replace(b'"tiny"', b"NaN"),
        GOOD.replace(b'"tiny"', b'"\xff"'),
        GOOD.replace(b"data: {", b"event: error\ndata: {", 1),
        GOOD.replace(b"data: {", b"date: {", 1),
    ],
)
def test_what_is_malformed_is_nothing(events: bytes) -> None:
    assert whole_answer([GOOD]) == said("")
    assert whole_answer([events]) is None


def test_what_comes_after_a_fault_is_not_read_any_more() -> None:
    growing = StreamedAnswer()
    for events in (b"data: {}\n\n", GOOD):
        growing.add(events)
    assert growing.whole() is None


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A stream with some of its bytes replaced by others."""
    events = replay(stored_form(draw(answers())), "chatcmpl-2", 18, include_usage=True)
    start = draw(st.integers(0, len(events)))
    some = st.binary(max_size=6) | st.sampled_from([b"null", b"[]", b"{}", b"1", b'""', b"\n", b"-1", b"1e999", b"true"])
    return events[:start] + draw(some) + events[start + draw(st.integers(0, 6)) :]


@given(spoilt() | st.binary())
def test_whatever_an_engine_streams_is_an_answer_or_nothing(events: bytes) -> None:
    told = whole_answer([events])
    assert told is None or isinstance(is_storable(told), bool)
    assert isinstance(without_usage(events), bytes)


@given(answers(), st.sampled_from([b"\n", b"\r\n"]))
def test_the_usage_that_was_not_asked_for_is_taken_out_and_nothing_else(document: dict[str, Any], newline: bytes) -> None:
    end = newline * 2
    events = replay(stored_form(document), "chatcmpl-2", 18, include_usage=True).replace(b"\n", newline)
    *others, usage, done, _ = events.split(end)
    assert b'"choices":[]' in usage
    assert without_usage(events) == b"".join(one + end for one in (*others, done))
    without = replay(stored_form(document), "chatcmpl-2", 18, include_usage=False)
    assert without_usage(without) is without, "not even read event by event"


@pytest.mark.parametrize(
    "event",
    [
        json.dumps(chunk(delta(content='{"choices":[],"usage":{}}'))),
        json.dumps(chunk(delta(content='a\n\ndata: {"choices": [], "usage": {}}\n\n'))),
        json.dumps(ROLE | {"metrics": {"choices": [], "usage": {}}}),
        json.dumps(chunk()),
        json.dumps(chunk(usage=None)),
        '{"choices":[], "usage": {}',
    ],
)
def test_what_looks_like_the_usage_is_passed_on(event: str) -> None:
    events = f"data: {event}\n\n: keep-alive\n\n".encode()
    assert without_usage(events) == events
    assert without_usage(events + GOOD) == events + events_of(ROLE, END)


def test_nothing_is_left_of_the_usage_alone() -> None:
    assert without_usage(b"data: " + json.dumps(USAGE).encode() + b"\n\n") == b""
