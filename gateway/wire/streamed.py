"""What a stream says, read: the whole answer that its deltas are, and the one event in it that the caller did not ask for."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict

from gateway.wire.answers import Known, Logprobs, Usage

_T = TypeVar("_T")

_DONE = b"[DONE]"
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_END = re.compile(rb"\n\r?\n")

_SAYS_NOTHING = (b":", b"id:", b"retry:")
"""How lines begin that a browser would not show: comments (vLLM keeps connections alive with them) and matters of transport."""

_NULLS: dict[str, None] = dict.fromkeys(
    ("service_tier", "system_fingerprint", "usage", "prompt_logprobs", "prompt_token_ids", "prompt_text", "metrics")
) | dict.fromkeys(("kv_transfer_params", "ec_transfer_params"))
"""What vLLM writes as null in an answer that is not streamed (0.32, ChatCompletionResponse)."""


class _NotUnderstoodError(ValueError):
    """The stream says something that would be lost."""


class _FunctionDelta(Known):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(Known):
    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: _FunctionDelta | None = None


class _Delta(Known):
    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_CallDelta] | None = None


class _ChoiceDelta(Known):
    index: int
    delta: _Delta
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None


class _Chunk(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[_ChoiceDelta]
    usage: Usage | None = None
    obfuscation: str | None = None  # OpenAI's padding, of random length


def whole_answer(events: Iterable[bytes]) -> dict[str, Any] | None:
    """The `chat.completion` document that vLLM would have answered had it not been asked to stream `events`.

    Each item is one or more whole events. None where they are not a whole answer with its usage, or say anything whose
    meaning is not known here. Never raises.
    """
    answer = StreamedAnswer()
    for some in events:
        answer.add(some)
    return answer.whole()


class StreamedAnswer:
    """An answer put together from its events as they come, so that the work is spread over the time that they take."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._choices: dict[int, _GrowingChoice] = {}
        self._usage: Usage | None = None
        self._is_done = False
        self._is_understood = True

    def add(self, events: bytes) -> None:
        """Takes one or more whole events. Never raises."""
        if not self._is_understood:
            return
        try:
            for data in event_data(events):
                self._take(data)
        except ValueError:
            self._is_understood = False
            self._fields.clear()
            self._choices.clear()

    def whole(self) -> dict[str, Any] | None:
        """The answer's document; None where it is not whole yet, or not understood. Never raises."""
        if not (self._is_understood and self._is_done and self._usage is not None and self._choices):
            return None
        try:
            choices = [choice.whole(index) for index, choice in enumerate(_in_order(self._choices))]
        except _NotUnderstoodError:
            return None
        head = {"id": self._fields["id"], "object": "chat.completion", "created": self._fields["created"]}
        head |= {"model": self._fields["model"], "choices": choices}
        return head | _NULLS | self._fields | {"usage": self._usage.model_dump()}

    def _take(self, data: bytes) -> None:
        if self._is_done:
            raise _NotUnderstoodError("An event after the end.")
        if data == _DONE:
            self._is_done = True
            return
        chunk = _Chunk.model_validate(orjson.loads(data))
        self._keep("id", chunk.id)
        self._keep("created", chunk.created)
        self._keep("model", chunk.model)
        for name, value in (chunk.model_extra or {}).items():
            self._keep(name, value)
        for choice in chunk.choices:
            self._choices.setdefault(choice.index, _GrowingChoice()).add(choice)
        if not chunk.choices and chunk.usage is not None:
            if self._usage is not None:
                raise _NotUnderstoodError("The usage is told twice.")
            self._usage = chunk.usage

    def _keep(self, name: str, value: Any) -> None:
        # How two values of a field that is new to us would become one, nobody knows.
        if value is not None and self._fields.setdefault(name, value) != value:
            raise _NotUnderstoodError(f"Two values of {name}.")


def event_data(events: bytes) -> Iterator[bytes]:
    """The data of each of the whole `events` that has any. Raises ValueError: a line is none that an answer's events have."""
    lines: list[bytes] = []
    for line in events.splitlines():
        if line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
        elif not line:
            if lines:
                yield b"\n".join(lines)
            lines = []
        elif not line.startswith(_SAYS_NOTHING):
            raise _NotUnderstoodError("A line that is not of an answer's events.")
    if lines:
        raise _NotUnderstoodError("An event without its end.")


def without_usage(events: bytes) -> bytes:
    """The whole `events`, byte for byte, less the one that tells the usage and nothing else. Never raises."""
    kept: list[bytes] = []
    rest = 0
    # Words of an answer cannot look like this: their quotation marks are escaped.
    for found in _NO_CHOICES.finditer(events):
        start, end = _event_around(events, found)
        if _tells_usage_only(events[start:end]):
            kept.append(events[rest:start])
            rest = end
    return b"".join([*kept, events[rest:]]) if rest else events


def _event_around(events: bytes, found: re.Match[bytes]) -> tuple[int, int]:
    ends = ((events.rfind(mark, 0, found.start()), len(mark)) for mark in (b"\n\n", b"\n\r\n"))
    start = max(place + length if place >= 0 else 0 for place, length in ends)
    end = _END.search(events, found.end())
    return start, len(events) if end is None else end.end()


def _tells_usage_only(event: bytes) -> bool:
    try:
        documents = [orjson.loads(data) for data in event_data(event)]
    except ValueError:
        return False
    match documents:
        case [{"choices": [], "usage": {}}]:
            return True
    return False


_OF_TOKEN = frozenset({"token", "logprob", "bytes", "top_logprobs"})
_TEXTS = ("content", "refusal", "reasoning", "reasoning_content")


@dataclass(slots=True)
class _GrowingCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def add(self, delta: _CallDelta) -> None:
        self.id = _once(self.id, delta.id)
        if delta.function is not None:
            self.name = _once(self.name, delta.function.name)
            self.arguments.append(delta.function.arguments or "")

    def whole(self) -> dict[str, Any]:
        if not (self.id and self.name):
            raise _NotUnderstoodError("A call without id or name.")
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(slots=True)
class _GrowingChoice:
    role: str = ""
    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[int, _GrowingCall] = field(default_factory=dict)
    logprobs: dict[str, list[dict[str, Any]]] | None = None
    token_ids: list[int] | None = None
    finish_reason: str = ""
    stop_reason: int | str | None = None

    def add(self, choice: _ChoiceDelta) -> None:
        if self.finish_reason:
            raise _NotUnderstoodError("More of a choice that had ended.")
        self._add_delta(choice.delta)
        if choice.logprobs is not None:
            self._add_logprobs(choice.logprobs)
        if choice.token_ids is not None:
            self.token_ids = self.token_ids or []
            self.token_ids += choice.token_ids
        if choice.stop_reason is not None and not choice.finish_reason:
            raise _NotUnderstoodError("A reason to stop, and no end.")
        self.finish_reason = choice.finish_reason or ""
        self.stop_reason = choice.stop_reason

    def whole(self, index: int) -> dict[str, Any]:
        if not self.finish_reason:
            raise _NotUnderstoodError("A choice without an end.")
        logprobs = None if self.logprobs is None else {"content": None} | self.logprobs
        said = {"index": index, "message": self._message(), "logprobs": logprobs, "finish_reason": self.finish_reason}
        return said | {"stop_reason": self.stop_reason, "token_ids": self.token_ids, "routed_experts": None}

    def _add_delta(self, delta: _Delta) -> None:
        self.role = _once(self.role, delta.role)
        for name in _TEXTS:
            text = getattr(delta, name)
            if text is not None:
                self.texts.setdefault(name, []).append(text)
        for call in delta.tool_calls or ():
            self.calls.setdefault(call.index, _GrowingCall()).add(call)

    def _add_logprobs(self, logprobs: Logprobs) -> None:
        if self.logprobs is None:
            self.logprobs = {}
        for name, tokens in (("content", logprobs.content), ("refusal", logprobs.refusal)):
            if tokens is not None:
                self.logprobs.setdefault(name, []).extend([_with_defaults(token) for token in tokens])

    def _message(self) -> dict[str, Any]:
        texts = {name: "".join(pieces) for name, pieces in self.texts.items()}
        calls = [call.whole() for call in _in_order(self.calls)]
        content = texts.pop("content", None)
        if content == "" and self._is_nothing_rather_than_empty(texts):
            content = None
        message: dict[str, Any] = {"role": self.role or "assistant", "content": content}
        message |= {"refusal": texts.get("refusal") or None, "annotations": None, "audio": None, "function_call": None}
        if calls:
            message["tool_calls"] = calls
        message["reasoning"] = texts.get("reasoning") or None
        if texts.get("reasoning_content"):
            message["reasoning_content"] = texts["reasoning_content"]
        return message

    def _is_nothing_rather_than_empty(self, texts: dict[str, str]) -> bool:
        """What a stream does not tell, for vLLM begins every one of them with an empty content.

        Unstreamed, its parsers say null where they found reasoning or calls only. A call of the one tool that was named
        has an empty content, and is the only one that ends with `stop`.
        """
        if self.calls:
            return self.finish_reason != "stop"
        return any(texts.values())


def _in_order(grown: dict[int, _T]) -> list[_T]:
    if sorted(grown) != list(range(len(grown))):
        raise _NotUnderstoodError("Numbers are left out.")
    return [grown[index] for index in range(len(grown))]


def _once(had: str, told: str | None) -> str:
    if had and told and had != told:
        raise _NotUnderstoodError("Told twice, and not the same.")
    return had or told or ""


def _with_defaults(token: dict[str, Any]) -> dict[str, Any]:
    """A token's log-probability with what vLLM leaves out of a stream where it knows none (0.32: exclude_unset)."""
    if token.keys() >= _OF_TOKEN:
        return token
    if "token" not in token:
        raise _NotUnderstoodError("The probability of no token.")
    return {"token": "", "logprob": -9999.0, "bytes": None, "top_logprobs": []} | token
