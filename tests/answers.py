"""Answers as vLLM 0.32 writes them where nothing is streamed: every field is there, null where it says nothing."""

import json
from typing import Any

from hypothesis import strategies as st

COUNTED = {"prompt_tokens": 7, "total_tokens": 12, "completion_tokens": 5}
NO_DETAILS = {"prompt_tokens_details": None, "completion_tokens_details": None}
NULLS: dict[str, Any] = {
    "service_tier": None,
    "system_fingerprint": None,
    "prompt_logprobs": None,
    "prompt_token_ids": None,
    "prompt_text": None,
    "kv_transfer_params": None,
    "ec_transfer_params": None,
    "metrics": None,
}


def message(content: str | None, *, calls: list[dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    nulls = {"refusal": None, "annotations": None, "audio": None, "function_call": None, "reasoning": None}
    return {"role": "assistant", "content": content} | nulls | ({"tool_calls": calls} if calls else {}) | fields


def choice(said: dict[str, Any], index: int = 0, finish_reason: str = "stop", **fields: Any) -> dict[str, Any]:
    nulls = dict.fromkeys(("logprobs", "stop_reason", "token_ids", "routed_experts"))
    return {"index": index, "message": said, "finish_reason": finish_reason} | nulls | fields


def answer(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 17, "model": "tiny", "choices": list(choices)}
    return head | {"usage": COUNTED | NO_DETAILS} | NULLS | fields


def call(name: str, arguments: str, call_id: str = "call_1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def token(text: str, logprob: float = -0.5, top: int = 0) -> dict[str, Any]:
    alone: dict[str, Any] = {"token": text, "logprob": logprob, "bytes": list(text.encode())}
    return alone | {"top_logprobs": [alone] * top}


def said(text: str) -> dict[str, Any]:
    """An answer of one choice and nothing but words."""
    return answer(choice(message(text)))


def events_of(*documents: Any, end: str = "\n\n") -> bytes:
    """The documents as events of a stream, and its end."""
    return "".join(f"data: {data}{end}" for data in (*map(json.dumps, documents), "[DONE]")).encode()


def chunk(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "tiny", "choices": list(choices)}
    return head | fields


def delta(index: int = 0, finish_reason: str | None = None, **said_now: Any) -> dict[str, Any]:
    return {"index": index, "delta": said_now, "logprobs": None, "finish_reason": finish_reason}


TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["data: [DONE]\n\n", '"choices":[]', '{"choices": [], "usage": {}}', ": ", "\r\n\r\n", "\u2028", '{"error": 1}']
)
JSON_TEXT = st.dictionaries(TEXT, TEXT | st.integers() | st.none(), max_size=3).map(json.dumps)
_SOME_TEXT = TEXT.filter(bool)
_TOKEN = st.builds(token, TEXT, st.floats(-9999, 0), st.integers(0, 3))
_COUNT = st.integers(0, 10**6)


def _calls(names: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [call(name, arguments, f"call_{place}") for place, (name, arguments) in enumerate(names)]


@st.composite
def _choices(draw: st.DrawFn, index: int) -> dict[str, Any]:
    calls = draw(st.lists(st.tuples(_SOME_TEXT, JSON_TEXT), max_size=3).map(_calls))
    reasoning, refusal = draw(st.none() | _SOME_TEXT), draw(st.none() | _SOME_TEXT)
    finish_reason = "stop" if not calls or draw(st.booleans()) else "tool_calls"
    # Whether an empty content is null: as vLLM has it, see StreamedAnswer.
    is_null = finish_reason != "stop" or (not calls and bool(reasoning or refusal))
    content = draw(TEXT) or (None if is_null else "")
    fields: dict[str, Any] = {
        "logprobs": draw(st.none() | st.fixed_dictionaries({"content": st.lists(_TOKEN, max_size=3)})),
        "stop_reason": draw(st.none() | st.integers(0, 9) | TEXT),
        "token_ids": draw(st.none() | st.lists(st.integers(0, 10**6), max_size=4)),
    }
    words = message(content, calls=calls, reasoning=reasoning, refusal=refusal)
    if draw(st.booleans()) and reasoning:
        words["reasoning_content"] = reasoning
    return choice(words, index, finish_reason, **fields)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """Answers that may be stored, in all that they can say."""
    choices = [draw(_choices(index)) for index in range(draw(st.integers(1, 3)))]
    details = st.none() | st.fixed_dictionaries(
        {"cached_tokens": _COUNT, "created_cache_tokens": st.none(), "multimodal_tokens": st.none() | st.just({"image": 4})}
    )
    usage: dict[str, Any] = {"prompt_tokens": draw(_COUNT), "total_tokens": draw(_COUNT), "completion_tokens": draw(_COUNT)}
    usage |= {"prompt_tokens_details": draw(details)}
    usage |= {"completion_tokens_details": draw(st.none() | st.fixed_dictionaries({"reasoning_tokens": _COUNT}))}
    fields: dict[str, Any] = {
        "model": draw(TEXT),
        "service_tier": draw(st.none() | st.just("default")),
        "system_fingerprint": draw(st.none() | TEXT),
        "prompt_token_ids": draw(st.none() | st.lists(st.integers(0, 10**6), max_size=4)),
        "metrics": draw(st.none() | st.just({"queue_time_ms": 1.5})),
    }
    fields |= draw(st.dictionaries(st.just("a_newer_field"), st.just({"deep": [1]})))
    return answer(*choices, usage=usage, **fields)
