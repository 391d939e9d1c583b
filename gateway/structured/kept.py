"""Whether an answer is what was promised: judged whole, or as it streams in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.structured.fault import Fault
from gateway.structured.flow import JsonFlow
from gateway.structured.promise import Promise
from gateway.wire.streamed import event_data

CUT = "length"
"""The reason of an answer that a limit of tokens has cut off, as `finish_reason` says it."""

_NONSENSE = "not_an_answer"
_DONE = b"[DONE]"
_CLOSES = ("}", "]")


@dataclass(frozen=True, slots=True)
class Broken:
    """What is wrong with the answer's `choice`, of which `text` was produced, and where."""

    choice: int
    reason: str
    pointer: str
    message: str
    text: str


class BrokenPromise(Exception):
    """An answer is not what was promised."""

    def __init__(self, broken: Broken) -> None:
        super().__init__(broken.message)
        self.broken = broken


def check_whole(promise: Promise, body: bytes) -> None:
    """Passes a `chat.completion` document that is as promised. Raises BrokenPromise."""
    try:
        choices = [_Said.of_choice(choice) for choice in orjson.loads(body)["choices"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _nonsense("The engine's answer is no chat completion.", body) from None
    if not choices:
        raise _nonsense("The engine's answer has no choices.", body)
    for number, said in enumerate(choices):
        said.check(promise, number)


class KeptStream:
    """A stream of which nothing is passed on that breaks the promise: its texts are looked at as they grow.

    What a schema wants of the whole is checked before the event that says that a choice has ended.
    """

    def __init__(self, promise: Promise) -> None:
        self._promise = promise
        self._said: dict[int, _Said] = {}
        self._ended: set[int] = set()

    def check(self, event: bytes) -> bool:
        """Passes one whole event, and says whether anything of the answer's is in it.

        Raises BrokenPromise: with this event the answer could not become what was promised any more.
        """
        try:
            # A list: each of them is taken in, whatever the first one says.
            return any([self._take(data) for data in event_data(event)])  # noqa: C419
        except (ValueError, TypeError, KeyError, AttributeError):
            raise _nonsense("An event of the engine's stream is none of a chat completion.", event) from None

    def _take(self, data: bytes) -> bool:
        if data == _DONE:
            if not self._said or self._said.keys() - self._ended:
                raise _nonsense("The engine's stream ended before its answer did.", data)
            return True
        return any([self._take_choice(choice) for choice in orjson.loads(data)["choices"]])  # noqa: C419  # as above

    def _take_choice(self, choice: Mapping[str, Any]) -> bool:
        number = choice["index"]
        said = self._said.setdefault(number, _Said())
        says_something = said.grow(self._promise, number, choice.get("delta") or {})
        said.finish_reason = choice.get("finish_reason") or ""
        if said.finish_reason:
            self._ended.add(number)
            said.check(self._promise, number)
        return says_something or bool(said.finish_reason)


@dataclass(slots=True)
class _Call:
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    flow: JsonFlow = field(default_factory=JsonFlow)


@dataclass(slots=True)
class _Said:
    """What one choice says, so far or in all."""

    content: list[str] = field(default_factory=list)
    flow: JsonFlow = field(default_factory=JsonFlow)
    calls: dict[int, _Call] = field(default_factory=dict)
    refuses: bool = False
    finish_reason: str = ""

    @classmethod
    def of_choice(cls, choice: Mapping[str, Any]) -> "_Said":
        message = choice["message"]
        said = cls([message.get("content") or ""], refuses=bool(message.get("refusal")))
        said.finish_reason = choice.get("finish_reason") or ""
        for number, call in enumerate(message.get("tool_calls") or ()):
            said.calls[number] = _Call(call["function"]["name"], [call["function"]["arguments"]])
        return said

    def grow(self, promise: Promise, number: int, delta: Mapping[str, Any]) -> bool:
        """Takes in what a delta says, and tells whether it says anything."""
        self.refuses = self.refuses or bool(delta.get("refusal"))
        text = delta.get("content") or ""
        self.content.append(text)
        if text and promise.is_json:
            self._raise(self.flow.add(text), number, "".join(self.content))
        for call_delta in delta.get("tool_calls") or ():
            self._grow_call(call_delta, number)
        return any(value for name, value in delta.items() if name != "role")

    def _grow_call(self, delta: Mapping[str, Any], number: int) -> None:
        call = self.calls.setdefault(delta["index"], _Call())
        function = delta.get("function") or {}
        call.name = call.name or function.get("name") or ""
        arguments = function.get("arguments") or ""
        call.arguments.append(arguments)
        if arguments:
            self._raise(call.flow.add(arguments), number, "".join(call.arguments), call.name)

    def check(self, promise: Promise, number: int) -> None:
        """Passes what is as promised, now that it has ended. Raises BrokenPromise."""
        for call in self.calls.values():
            arguments = "".join(call.arguments)
            self._raise(promise.fault_of_call(call.name, arguments), number, arguments, call.name)
        if not self.calls and not self.refuses and promise.content is not None:
            text = "".join(self.content)
            self._raise(promise.content.fault(text), number, text)
            # Half a number is a number, and half a choice may be another one: only brackets say that all of it is there.
            if self.finish_reason == CUT and not (promise.is_json and text.rstrip().endswith(_CLOSES)):
                raise BrokenPromise(Broken(number, CUT, "", _said_of_cut(text), text))

    def _raise(self, fault: Fault | None, number: int, text: str, call: str = "") -> None:
        if fault is None:
            return
        if self.finish_reason == CUT:
            raise BrokenPromise(Broken(number, CUT, fault.pointer, _said_of_cut(text), text))
        where = f"In the arguments for '{call}': " if call else ""
        raise BrokenPromise(Broken(number, fault.reason, fault.pointer, f"{where}{fault.message}", text))


def _said_of_cut(text: str) -> str:
    return f"The answer was cut off at the limit of tokens, after {len(text)} characters, before it was whole."


def _nonsense(message: str, said: bytes) -> BrokenPromise:
    return BrokenPromise(Broken(0, _NONSENSE, "", message, said.decode(errors="replace")))


def split_events(events: bytes) -> Iterator[bytes]:
    """Each of the whole `events`, byte for byte."""
    start = 0
    while start < len(events):
        ends = [place + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (place := events.find(mark, start)) >= 0]
        end = min(ends, default=len(events))
        yield events[start:end]
        start = end
