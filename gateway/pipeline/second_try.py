"""An answer that is not as promised: whether it makes sense to ask once more, and what the caller learns if not."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.errors import IncompleteJson, InvalidField
from gateway.pipeline.call import Call
from gateway.structured.kept import CUT, Broken
from gateway.wire.chat import ChatCompletionRequest

ROOM_HEADER = "x-fovea-retry-max-tokens"
"""What an answer may have that was cut off at the caller's `max_tokens`: beyond that nobody spends tokens unasked."""

_MOST_TOKENS = 2**31 - 1
_SHOWN_CHARACTERS = 64 * 1024


@dataclass(frozen=True, slots=True)
class Room:
    """How many tokens a second answer may have, None for as many as the first."""

    tokens: int | None = None

    def given(self, request: ChatCompletionRequest) -> ChatCompletionRequest:
        """The request with this room."""
        if self.tokens is None:
            return request
        return request.model_copy(update={"max_completion_tokens": self.tokens, "max_tokens": None})


def requested_room(headers: Mapping[str, str]) -> int | None:
    """How many tokens the caller gives a second answer.

    Raises InvalidField: the header does not say a number of tokens.
    """
    value = headers.get(ROOM_HEADER)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and 0 < int(value[:20]) <= _MOST_TOKENS):
        raise InvalidField(f"The header {ROOM_HEADER} must be a number of tokens above 0.", param=ROOM_HEADER)
    return int(value)


def second_try(call: Call, broken: Broken, began_s: float) -> Room | None:
    """The room of a second try; None where it would end as the first did, or not in time.

    `began_s` is when the first began, by the event loop's clock.
    """
    room = _room(call, broken)
    if room is None:
        return None
    now_s = asyncio.get_running_loop().time()
    longer = 1.0 if room.tokens is None else room.tokens / (call.asked.request.most_tokens or room.tokens)
    return room if now_s + (now_s - began_s) * longer < call.until_s else None


def _room(call: Call, broken: Broken) -> Room | None:
    if broken.reason != CUT:
        return Room()
    request = call.asked.request
    if call.room is not None and request.most_tokens is not None and call.room > request.most_tokens:
        return Room(min(call.room, call.asked.model.context_tokens))
    # Another sample may be shorter; the same one is not.
    return None if request.temperature == 0 or request.seed is not None else Room()


def incomplete(broken: Broken, tries: int) -> IncompleteJson:
    """What the caller learns of an answer that stays broken, with the beginning of what was produced."""
    details = {
        "reason": broken.reason,
        "choice": broken.choice,
        "pointer": broken.pointer,
        "text": broken.text[:_SHOWN_CHARACTERS],
        "tries": tries,
    }
    return IncompleteJson(broken.message, details=details)
