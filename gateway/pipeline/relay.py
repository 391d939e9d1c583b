"""The last step: the engine's answer to the client, whole or as a stream whose end is never silent."""

from collections.abc import Mapping

from starlette.types import Send

from gateway.errors import EngineFailed
from gateway.upstream.engine import EngineAnswer
from gateway.wire.sse import DONE, error_event, whole_events


async def relay_whole(answer: EngineAnswer, headers: Mapping[str, str], send: Send) -> None:
    """Sends the answer once all of it is here, so that one which breaks off can still become an error.

    Raises EngineFailed: it broke off, or is not JSON.
    """
    body = b"".join([chunk async for chunk in answer.chunks])
    if not answer.content_type.startswith("application/json"):
        raise EngineFailed("The engine's answer is not JSON.")
    await _start({"content-type": "application/json", "content-length": str(len(body)), **headers}, send)
    await send({"type": "http.response.body", "body": body})


async def relay_stream(answer: EngineAnswer, headers: Mapping[str, str], send: Send) -> None:
    """Sends the answer's events as they come; one that breaks off ends with an error event.

    Raises EngineFailed: it is no stream at all.
    """
    if not answer.content_type.startswith("text/event-stream"):
        raise EngineFailed("The engine's answer is not a stream.")
    await _start({"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", **headers}, send)
    rest = last = b""
    try:
        async for chunk in answer.chunks:
            events, rest = whole_events(rest, chunk)
            if events:
                last = events
                await send({"type": "http.response.body", "body": events, "more_body": True})
        if not last.rstrip().endswith(DONE):
            raise EngineFailed("The stream ended before the answer did.")
    except EngineFailed as error:
        await send({"type": "http.response.body", "body": error_event(error), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _start(fields: Mapping[str, str], send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
