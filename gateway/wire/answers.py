"""An answer that is kept: whether it may be, the bytes that it is kept as, and the two forms in which it is given again.

What is kept is the `chat.completion` document without its `id` and `created`, beginning with its `object`. A caller who did
not ask for a stream gets those bytes with a new `id` and `created` in front, and nothing is parsed for it.
"""

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

_BEGINNING = b'{"object":"chat.completion",'

_DATA = b"data: "
_END = b"\n\n"
_DONE = b"data: [DONE]\n\n"

_WHOLE = ("stop", "tool_calls")
"""How a choice ends that is not cut off."""

_WITH_ROLE = ("prompt_token_ids", "prompt_text")
"""Fields of an answer that vLLM tells with the first delta (0.32, chat_completion_stream_generator)."""


class Known(BaseModel):
    """A part of an answer of which every field that says something is known, so that none can be lost on the way."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    # A newer engine's field may be there as long as it is null: that loses nothing.
    __pydantic_extra__: dict[str, None]


class _Open(BaseModel):
    """A part of an answer that is carried as it is, whatever else is in it."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class _PromptDetails(_Open):
    cached_tokens: int | None = None
    created_cache_tokens: int | None = None
    multimodal_tokens: dict[str, int] | None = None


class Usage(_Open):
    """What was counted, with the nulls that vLLM writes where nothing is streamed; numbers are of tokens."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: dict[str, Any] | None = None


class Logprobs(Known):
    """The probabilities of an answer's tokens, in the order of the tokens."""

    content: list[dict[str, Any]] | None = None
    refusal: list[dict[str, Any]] | None = None


class _Function(Known):
    name: str
    arguments: str


class _Call(Known):
    id: str
    type: Literal["function"] = "function"
    function: _Function


class _Message(Known):
    role: str
    content: str | None = None
    refusal: str | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None  # OpenAI writes an empty list where there are none
    tool_calls: list[_Call] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(Known):
    index: int
    message: _Message
    logprobs: Logprobs | None = None
    finish_reason: str
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None

    def is_whole(self) -> bool:
        calls = self.message.tool_calls or ()
        if self.finish_reason not in _WHOLE:
            return False
        if not calls and self.finish_reason == "tool_calls":
            return False
        # vLLM says tool_calls of an unstreamed call that was cut off, too.
        return all(_is_json(call.function.arguments) for call in calls)


class _Kept(_Open):
    object: Literal["chat.completion"]
    model: str
    choices: list[_Choice] = Field(min_length=1)
    usage: Usage
    error: None = None


class _Answer(_Kept):
    id: str
    created: int


def is_known(document: Any) -> bool:
    """Whether `document` is an answer of which every part is known, so that it can be given in either form. Never raises."""
    return _known(document) is not None


def is_storable(document: Any) -> bool:
    """Whether `document` is an answer that may be given again: known, whole, and no error. Never raises."""
    answer = _known(document)
    return answer is not None and all(choice.is_whole() for choice in answer.choices)


def _known(document: Any) -> _Answer | None:
    try:
        answer = _Answer.model_validate(document)
        orjson.dumps(document)  # what nests too deeply can be read but not be written
    except (ValueError, TypeError):
        return None
    in_order = all(choice.index == place for place, choice in enumerate(answer.choices))
    return answer if in_order else None


def stored_form(document: dict[str, Any]) -> bytes:
    """What is kept of a known `document`: JSON, without what is new each time that it is given."""
    rest = {name: value for name, value in document.items() if name not in {"id", "created", "object"}}
    return orjson.dumps({"object": document["object"]} | rest)


def renewed(stored: bytes, answer_id: str, created: int) -> bytes:
    """The `chat.completion` document of what is stored, as new; `created` is in seconds since 1970.

    Only the two ends of `stored` are looked at. Raises ValueError: it is nothing that `stored_form` made.
    """
    if not (stored.startswith(_BEGINNING) and stored.endswith(b"}")):
        raise ValueError("This is no stored answer.")
    return b"".join([b'{"id":', orjson.dumps(answer_id), b',"created":%d,' % created, memoryview(stored)[1:]])


def replay(stored: bytes, answer_id: str, created: int, *, include_usage: bool) -> bytes:
    """The events that a stream of what is stored would be, its end among them; `created` is in seconds since 1970.

    Each choice is a delta with its role, one with all that it says, and one with its end. Raises ValueError: `stored` is
    nothing that `stored_form` made.
    """
    document = orjson.loads(stored)
    answer = _Kept.model_validate(document)
    said = {name: value for name, value in (answer.model_extra or {}).items() if value is not None}
    first = {name: said.pop(name, None) for name in _WITH_ROLE}

    chunks: list[dict[str, Any]] = [{"choices": [_beginning(choice)]} | first for choice in answer.choices]
    for choice in answer.choices:
        chunks += [{"choices": [streamed]} for streamed in _words(choice)]
        chunks.append({"choices": [_end(choice)]} | ({} if include_usage else said))
    if include_usage:
        chunks.append({"choices": [], "usage": _without_nulls(document["usage"])} | said)

    head = {"id": answer_id, "object": "chat.completion.chunk", "created": created, "model": answer.model}
    return b"".join([_DATA + orjson.dumps(head | chunk) + _END for chunk in chunks]) + _DONE


def _beginning(choice: _Choice) -> dict[str, Any]:
    delta = {"role": choice.message.role, "content": None if choice.message.content is None else ""}
    return {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}


def _words(choice: _Choice) -> list[dict[str, Any]]:
    """The delta with all that the choice says, so that its log-probabilities stand beside all of their tokens."""
    message = choice.message
    texts = {"reasoning": message.reasoning, "reasoning_content": message.reasoning_content}
    texts |= {"content": message.content, "refusal": message.refusal}
    delta: dict[str, Any] = {name: text for name, text in texts.items() if text}
    if message.tool_calls:
        delta["tool_calls"] = [_call_delta(index, call) for index, call in enumerate(message.tool_calls)]
    if not delta and choice.logprobs is None and choice.token_ids is None:
        return []
    streamed = {"index": choice.index, "delta": delta, "logprobs": _logprobs(choice.logprobs), "finish_reason": None}
    return [streamed | {"token_ids": choice.token_ids}]


def _call_delta(index: int, call: _Call) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"index": index, "id": call.id, "type": call.type, "function": function}


def _logprobs(logprobs: Logprobs | None) -> dict[str, Any] | None:
    if logprobs is None:
        return None
    return {"content": logprobs.content} | ({} if logprobs.refusal is None else {"refusal": logprobs.refusal})


def _end(choice: _Choice) -> dict[str, Any]:
    end = {"index": choice.index, "delta": {}, "logprobs": None, "finish_reason": choice.finish_reason}
    return end | {"stop_reason": choice.stop_reason, "token_ids": None}


def _without_nulls(value: Any) -> Any:
    """As vLLM writes the usage of a stream (0.32: exclude_none)."""
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return value


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True
