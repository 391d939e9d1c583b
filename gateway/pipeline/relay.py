"""The last step: an answer to the client, whole or as a stream whose end is never silent."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from starlette.types import Send

from gateway.errors import EngineFailed, GatewayError
from gateway.structured.kept import BrokenPromise, KeptStream
from gateway.structured.promise import Promise
from gateway.upstream.engine import EngineAnswer
from gateway.upstream.failures import failure_in_answer
from gateway.wire.sse import error_event, says_done, split_events, until_error, whole_events

_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


async def whole_body(model: str, answer: EngineAnswer) -> bytes:
    """The answer once all of it is here, so that one which breaks off can still become an error.

    Raises GatewayError: it broke off, is an error after all, or is not said to be a JSON object or does not begin as one.
    """
    body = b"".join([chunk async for chunk in answer.chunks])
    if not answer.content_type.startswith("application/json") or body[:1] != b"{":
        raise EngineFailed("The engine's answer is not a JSON object.")
    if body.startswith(b'{"error"'):
        raise failure_in_answer(model, body)
    return body


async def checked_events(model: str, answer: EngineAnswer) -> AsyncGenerator[bytes, None]:
    """The answer's events, one or more at a time.

    Raises GatewayError: it is no stream, an event is the engine's error, or the answer ended without its end.
    """
    if not answer.content_type.startswith("text/event-stream"):
        raise EngineFailed("The engine's answer is not a stream.")
    rest = b""
    done = False
    async for chunk in answer.chunks:
        complete, rest = whole_events(rest, chunk)
        events, error = until_error(complete)
        if events:
            done = done or says_done(events)
            yield events
        if error is not None:
            raise failure_in_answer(model, error)
    if not done:
        raise EngineFailed("The stream ended before the answer did.")


async def kept_events(promise: Promise, events: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The events up to one that breaks the promise; nothing comes before there is something of the answer in them.

    Raises BrokenPromise, and what `events` raises.
    """
    keeper = KeptStream(promise)
    held: list[bytes] = []
    says_something = has_begun = False
    async for some in events:
        for event in split_events(some):
            try:
                says_something = keeper.check(event) or says_something
            except BrokenPromise:
                if has_begun and held:
                    yield b"".join(held)
                raise
            held.append(event)
        if says_something:
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
