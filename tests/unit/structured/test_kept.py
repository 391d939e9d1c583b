"""What of a stream may be passed on, event by event."""

import json
from typing import Any

import pytest

from gateway.structured.kept import BrokenPromise, KeptStream
from gateway.structured.promise import Promise
from gateway.structured.validate import JsonObject
from gateway.wire.chat import ChatCompletionRequest

REQUEST = ChatCompletionRequest.model_construct(model="m", messages=[])
AN_OBJECT = Promise(REQUEST, JsonObject(), is_json=True)


def event(content: Any = None, finish_reason: str | None = None, index: int = 0, **delta: Any) -> bytes:
    said = delta if content is None else {"content": content} | delta
    choice = {"index": index, "delta": said, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def checked(*events: bytes) -> list[bool]:
    stream = KeptStream(AN_OBJECT)
    return [stream.check(one) for one in events]


def test_a_role_and_a_comment_say_nothing_yet() -> None:
    assert checked(b": ping\n\n", event("", role="assistant"), event("{")) == [False, False, True]


@pytest.mark.parametrize(
    "events",
    [
        [event("{}"), event("", "stop"), event("x")],
        [event("{}", "stop"), b"data: [DONE]\n\n", event("{}", index=1)],
        [event("{}"), b"data: [DONE]\n\n"],
        [b"data: [DONE]\n\n"],
        [b"data: {}\n\n"],
        [b"data: nonsense\n\n"],
        [event(5)],
        [event(None, tool_calls=[{"index": 0, "function": {"arguments": {"a": 1}}}])],
    ],
    ids=["more of it", "more after the end", "no reason to end", "nothing", "no choices", "no JSON", "no text", "no calls"],
)
def test_a_stream_that_is_none_is_found_out(events: list[bytes]) -> None:
    with pytest.raises(BrokenPromise) as told:
        checked(*events)
    assert told.value.broken.reason == "not_an_answer"
