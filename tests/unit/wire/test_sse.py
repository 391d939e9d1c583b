import itertools
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import EngineFailed
from gateway.wire.sse import error_event, is_error, says_done, says_something, split_events, until_error, whole_events


@given(st.lists(st.text(alphabet="abc \r", min_size=1), min_size=1), st.lists(st.integers(0, 60)))
def test_events_are_passed_on_whole_however_they_were_cut(events: list[str], cuts: list[int]) -> None:
    sent = "".join(f"data: {event}\n\n" for event in events).encode()
    edges = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    passed: list[bytes] = []
    rest = b""
    for start, end in itertools.pairwise(edges):
        complete, rest = whole_events(rest, sent[start:end])
        passed.append(complete)
    assert b"".join(passed) == sent
    assert rest == b""
    assert all(complete.endswith(b"\n\n") for complete in passed if complete)


def test_an_event_without_its_end_is_kept_back() -> None:
    assert whole_events(b"", b"data: a\n\ndata: b") == (b"data: a\n\n", b"data: b")
    assert whole_events(b"data: b", b"c\n") == (b"", b"data: bc\n")
    assert whole_events(b"data: bc\n", b"\n") == (b"data: bc\n\n", b"")


def test_an_error_is_an_event_in_openai_s_form() -> None:
    event = error_event(EngineFailed("It broke."))
    assert event.endswith(b"\n\n")
    assert json.loads(event.removeprefix(b"data: ")) == {
        "error": {"message": "It broke.", "type": "server_error", "param": None, "code": "engine_error"}
    }


ERROR = b'{"error": {"message": "no", "code": 400}}'


def test_an_error_of_the_engine_s_is_found_wherever_it_stands() -> None:
    assert until_error(b"data: a\n\ndata: b\n\n") == (b"data: a\n\ndata: b\n\n", None)
    assert until_error(b"data: " + ERROR + b"\n\ndata: [DONE]\n\n") == (b"", ERROR)
    assert until_error(b"data: a\n\ndata: " + ERROR + b"\n\n") == (b"data: a\n\n", ERROR)
    assert until_error(b"") == (b"", None)


@pytest.mark.parametrize("error", [ERROR, b'{\n  "error" : "no"}', b'{"error":["no"]}'])
def test_an_error_is_one_however_it_is_written(error: bytes) -> None:
    assert is_error(error)
    line = error.replace(b"\n", b"")
    assert until_error(b"data: " + line + b"\n\n") == (b"", line)


@pytest.mark.parametrize("answer", [b'{"error": null, "choices": []}', b'{"id": "x", "error": {}}', b"{}"])
def test_an_answer_that_has_the_word_is_none(answer: bytes) -> None:
    assert not is_error(answer)
    assert until_error(b"data: " + answer + b"\n\n") == (b"data: " + answer + b"\n\n", None)


def test_comments_say_nothing() -> None:
    assert not says_something(b": one moment\n\n: data: soon\n\n")
    assert says_something(b": one moment\n\ndata: {}\n\n")


def test_words_of_an_answer_are_not_taken_for_an_error() -> None:
    said = b'data: {"choices": [{"delta": {"content": "\\n\\ndata: {\\"error\\""}}]}\n\n'
    assert until_error(said) == (said, None)


def test_events_may_end_in_carriage_returns() -> None:
    assert whole_events(b"", b"data: a\r\n\r\ndata: b\r\n") == (b"data: a\r\n\r\n", b"data: b\r\n")
    assert whole_events(b"", b"\n\ndata: b") == (b"\n\n", b"data: b")
    assert until_error(b"data: a\r\n\r\ndata: " + ERROR + b"\r\n\r\n") == (b"data: a\r\n\r\n", ERROR)


def test_the_end_is_known_however_it_is_written_and_words_are_not_taken_for_it() -> None:
    for end in (b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data: a\n\ndata: [DONE]\r\n\r\n", b"data: [DONE]\n\n: bye\n\n"):
        assert says_done(end)
    assert not says_done(b'data: {"content": "data: [DONE]"}\n\n')


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_events_are_taken_apart_byte_for_byte(end: bytes) -> None:
    events = [b"data: 1" + end, b": ping" + end, b"data: 2\ndata: 3" + end]
    assert list(split_events(b"".join(events))) == events


def test_many_events_at_once_are_taken_apart_in_no_time() -> None:
    events = b'data: {"choices": [{"index": 0, "delta": {"content": "a few words"}, "finish_reason": null}]}\n\n' * 10_000
    start_s = time.thread_time()
    assert len(list(split_events(events))) == 10_000
    assert time.thread_time() - start_s < 0.2
