"""Whether an answer is what was promised: judged whole, or as it streams in."""

from collections.abc import Mapping
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
_NO_CALL = "no_call"
_BY_ITSELF = ("stop", "tool_calls")
"""How an answer ends that nobody cut off."""
_DONE = b"[DONE]"

_NOT_UNDERSTOOD = (ValueError, TypeError, KeyError, AttributeError)


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
    except _NOT_UNDERSTOOD:
        raise _nonsense("The engine's answer is no chat completion.") from None
    if not choices:
        raise _nonsense("The engine's answer has no choices.")
    for number, said in enumerate(choices):
        said.check(promise, number)


class KeptStream:
    """A stream of which nothing is passed on that breaks the promise: its texts are looked at as they grow.

    What a schema wants of the whole is checked before the event that says that a choice has ended.
    """

    def __init__(self, promise: Promise) -> None:
        self._promise = promise
        self._said: dict[int, _Said] = {}
        self._is_done = False

    def check(self, event: bytes) -> bool:
        """Passes one whole event, and says whether anything of the answer's is in it.

        Raises BrokenPromise: with this event the answer could not become what was promised any more.
        """
        try:
            # A list: each of them is taken in, whatever the first one says.
            return any([self._take(data) for data in event_data(event)])  # noqa: C419
        except _NOT_UNDERSTOOD:
            raise _nonsense("An event of the engine's stream is none of a chat completion.") from None

    def _take(self, data: bytes) -> bool:
        if self._is_done:
            raise _nonsense("The engine's stream went on after its end.")
        if data == _DONE:
            if not self._said or not all(said.finish_reason for said in self._said.values()):
                raise _nonsense("The engine's stream ended before its answer did.")
            self._is_done = True
            return True
        return any([self._take_choice(choice) for choice in orjson.loads(data)["choices"]])  # noqa: C419  # as above

    def _take_choice(self, choice: Mapping[str, Any]) -> bool:
        number = choice["index"]
        said = self._said.setdefault(number, _Said())
        delta = choice.get("delta") or {}
        had_ended = bool(said.finish_reason)
        if had_ended and any(delta.values()):
            raise _nonsense("The engine's stream says more of a choice that had ended.")
        says_something = said.grow(self._promise, number, delta)
        said.finish_reason = said.finish_reason or choice.get("finish_reason") or ""
        if said.finish_reason and not had_ended:
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
        said = cls([_text(message.get("content") or "")], refuses=bool(message.get("refusal")))
        said.finish_reason = choice.get("finish_reason") or ""
        for number, call in enumerate(message.get("tool_calls") or ()):
            said.calls[number] = _Call(_text(call["function"]["name"]), [_text(call["function"]["arguments"])])
        return said

    def grow(self, promise: Promise, number: int, delta: Mapping[str, Any]) -> bool:
        """Takes in what a delta says, and tells whether it says anything."""
        self.refuses = self.refuses or bool(delta.get("refusal"))
        text = _text(delta.get("content") or "")
        self.content.append(text)
        fault = self.flow.add(text) if text and promise.is_json else None
        if fault is not None:
            raise self._broken(fault, number, "".join(self.content))
        for call_delta in delta.get("tool_calls") or ():
            self._grow_call(call_delta, number)
        return any(value for name, value in delta.items() if name != "role")

    def _grow_call(self, delta: Mapping[str, Any], number: int) -> None:
        call = self.calls.setdefault(delta["index"], _Call())
        function = delta.get("function") or {}
        call.name = call.name or _text(function.get("name") or "")
        arguments = _text(function.get("arguments") or "")
        call.arguments.append(arguments)
        fault = call.flow.add(arguments) if arguments else None
        if fault is not None:
            raise self._broken(fault, number, "".join(call.arguments), call.name)

    def check(self, promise: Promise, number: int) -> None:
        """Passes what is as promised, now that it has ended. Raises BrokenPromise."""
        for call in self.calls.values():
            arguments = "".join(call.arguments)
            fault = promise.fault_of_call(call.name, arguments)
            if fault is not None:
                raise self._broken(fault, number, arguments, call.name)
        text = "".join(self.content)
        says_otherwise = (self.calls and promise.arguments is not None) or self.refuses
        if text.strip() or not says_otherwise:
            self._check_text(promise, number, text)

    def _check_text(self, promise: Promise, number: int, text: str) -> None:
        if promise.must_call and not self.calls:
            is_cut = self.finish_reason == CUT
            message = _said_of_cut(text) if is_cut else "The answer was to call a tool, and does not."
            raise BrokenPromise(Broken(number, CUT if is_cut else _NO_CALL, "", message, text))
        if promise.content is None:
            return
        fault = promise.content.fault(text)
        if fault is not None:
            raise self._broken(fault, number, text)
        if self.finish_reason not in _BY_ITSELF and promise.content.may_go_on(text):
            raise BrokenPromise(Broken(number, CUT, "", _said_of_cut(text), text))

    def _broken(self, fault: Fault, number: int, text: str, call: str = "") -> BrokenPromise:
        if self.finish_reason == CUT:
            return BrokenPromise(Broken(number, CUT, fault.pointer, _said_of_cut(text), text))
        where = f"In the arguments for '{call}': " if call else ""
        return BrokenPromise(Broken(number, fault.reason, fault.pointer, f"{where}{fault.message}", text))


def _said_of_cut(text: str) -> str:
    return f"The answer was cut off at the limit of tokens, after {len(text)} characters, before it was whole."


def _nonsense(message: str) -> BrokenPromise:
    return BrokenPromise(Broken(0, _NONSENSE, "", message, ""))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is no text")
    return value
