"""The last step: an answer to the client, whole or as a stream whose end is never silent."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from starlette.types import Send

from gateway.errors import EngineFailed, GatewayError
from gateway.structured.kept import BrokenPromise, KeptStream
from gateway.structured.promise import Promise
from gateway.upstream.engine import EngineAnswer
from gateway.wire.sse import error_event, is_error, says_done, says_something, split_events, until_error, whole_events

_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


async def whole_body(answer: EngineAnswer) -> bytes:
    """The answer once all of it is here, so that one which breaks off can still become an error.

    Raises GatewayError: it broke off, is an error after all, or is not said to be a JSON object or does not begin as one.
    """
    # Blanks before it keep connections to some providers alive.
    body = b"".join([chunk async for chunk in answer.chunks]).lstrip()
    if not answer.content_type.startswith("application/json") or body[:1] != b"{":
        raise EngineFailed("The engine's answer is not a JSON object.")
    if is_error(body):
        raise answer.failure(body)
    return body


async def checked_events(answer: EngineAnswer) -> AsyncGenerator[bytes, None]:
    """The answer's events, one or more at a time; comments alone are no beginning, as all may still go wrong after them.

    Raises GatewayError: it is no stream, an event is the engine's error, or the answer ended without its end.
    """
    if not answer.content_type.startswith("text/event-stream"):
        raise EngineFailed("The engine's answer is not a stream.")
    rest = held = b""
    has_begun = done = False
    async for chunk in answer.chunks:
        complete, rest = whole_events(rest, chunk)
        events, error = until_error(complete)
        has_begun = has_begun or says_something(events)
        if not has_begun:
            held += events
        elif events:
            done = done or says_done(events)
            yield held + events
            held = b""
        if error is not None:
            raise answer.failure(error)
    if not done:
        raise EngineFailed("The stream ended before the answer did.")


async def kept_events(promise: Promise, events: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The events up to one that breaks the promise; nothing comes before there is something of the answer in them.

    Raises BrokenPromise, and what `events` raises.
    """
    keeper = KeptStream(promise)
    held: list[bytes] = []
    is_worth_it = has_begun = False
    async for some in events:
        for event in split_events(some):
            try:
                is_worth_it = keeper.check(event) or is_worth_it
            except BrokenPromise:
                if has_begun and held:
                    yield b"".join(held)
                raise
            held.append(event)
        if is_worth_it:
            has_begun = True
            yield b"".join(held)
            held.clear()


async def send_whole(body: bytes, headers: Mapping[str, str], send: Send) -> None:
    """Sends an answer that is all here."""
    await _start({"content-type": "application/json", "content-length": str(len(body)), **headers}, send)
    await send({"type": "http.response.body", "body": body})


async def send_stream(events: AsyncIterator[bytes], headers: Mapping[str, str], send: Send) -> None:
    """Sends events as they come, once the first is here: until then a failure can be told by a status.

    Raises GatewayError: what `events` raises. Where that is after the first, `end_stream` tells the client.
    """
    first = await anext(events)
    await _start({**_STREAM, **headers}, send)
    await send({"type": "http.response.body", "body": first, "more_body": True})
    async for more in events:
        await send({"type": "http.response.body", "body": more, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def send_replay(events: bytes, headers: Mapping[str, str], send: Send) -> None:
    """Sends all events of a stream at once."""
    await _start({**_STREAM, **headers}, send)
    await send({"type": "http.response.body", "body": events})


async def end_stream(error: GatewayError, send: Send) -> None:
    """Ends a stream that cannot go on with an event that says why."""
    await send({"type": "http.response.body", "body": error_event(error)})


async def _start(fields: Mapping[str, str], send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
