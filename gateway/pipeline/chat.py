"""A chat completion, from the request's bytes to the answer's: read it from top to bottom.

docs/life-of-a-request.md tells the same in words.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from gateway.body import ClientDisconnected, read_body
from gateway.cache.policy import HEADER as CACHE_CONTROL
from gateway.catalog.models import Catalog
from gateway.deadline import Patience, requested_timeout_s
from gateway.errors import BodyTooSlow, DeadlineExceeded, GatewayError, SchemaRefused
from gateway.images.sized import SizedImage
from gateway.memory import BodyMemory, Share
from gateway.pipeline.answers import Answers
from gateway.pipeline.call import Call
from gateway.pipeline.hang_up import ending_with_client
from gateway.pipeline.images import Images, fitted
from gateway.pipeline.prepare import Asked, understood
from gateway.pipeline.relay import end_stream
from gateway.pipeline.second_try import requested_room
from gateway.structured.grammar_client import GrammarClient
from gateway.structured.promise import Promise, Promises
from gateway.telemetry.request import RequestRecord
from gateway.telemetry.tracing import Tracing, tell_end
from gateway.wire.errors import error_response

PATH = "/v1/chat/completions"

_LAST_EVENT_S = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class ChatCompletions:
    """POST /v1/chat/completions, as an ASGI application."""

    catalog: Catalog
    images: Images
    promises: Promises
    grammars: GrammarClient
    answers: Answers
    tracing: Tracing
    request_timeout_s: float
    memory: BodyMemory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = RequestRecord.of(scope)
        headers = _headers(scope)
        with self.tracing.request(PATH, headers, record.request_id) as span, self.memory.share() as share:
            try:
                await self._take(headers, record, share, receive, send)
            except ClientDisconnected:
                record.disconnected()
            except GatewayError as error:
                await _tell(error, record, scope, receive, send)
            finally:
                tell_end(span, record.model, record.final_status)

    async def _take(
        self, headers: Mapping[str, str], record: RequestRecord, share: Share, receive: Receive, send: Send
    ) -> None:
        started_s = asyncio.get_running_loop().time()
        timeout_s = requested_timeout_s(headers, self.request_timeout_s)
        async with Patience(started_s + timeout_s, BodyTooSlow(f"The body did not come within {timeout_s:g} s.")) as patience:
            with self.tracing.step("read body"):
                body = await read_body(headers, receive, self.catalog.limits.body_bytes, share)
            with self.tracing.step("prepare"):
                asked = understood(body, self.catalog, self.images.limits)
                promise = await self.promises.of(asked.request)
                room = requested_room(headers)
            record.routed(asked.request.model, stream=asked.stream)
            timeout_s = min(timeout_s, asked.model.longest_answer_s)
            until_s = started_s + timeout_s
            patience.until(until_s, DeadlineExceeded(f"The answer did not come within {timeout_s:g} s."))
            with ending_with_client(receive, patience):
                await self._compiles(asked.request.model, promise)
                images = await self._images(asked, share) if asked.images else []
                await self.answers.answer(Call(asked, promise, images, headers, record, share, until_s, room), send)

    async def _compiles(self, model: str, promise: Promise) -> None:
        """Passes what engines can compile in time, as far as it can be found out. Raises SchemaRefused."""
        for param, constraint in promise.constraints.items():
            reason = await self.grammars.verdict(model, constraint)
            if reason is not None:
                raise SchemaRefused(f"'{param}' cannot be compiled for the engine: {reason}", param=param)

    async def _images(self, asked: Asked, share: Share) -> list[SizedImage]:
        with self.tracing.step("images"):
            return fitted(asked, await self.images.here(asked, share), asked.request.model, asked.model)


def _headers(scope: Scope) -> dict[str, str]:
    """Of a header that comes twice the first counts, but for the one that is a list."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
    if CACHE_CONTROL in headers:
        lines = [value.decode("latin-1") for name, value in scope["headers"] if name == CACHE_CONTROL.encode()]
        headers[CACHE_CONTROL] = ", ".join(lines)
    return headers


async def _tell(error: GatewayError, record: RequestRecord, scope: Scope, receive: Receive, send: Send) -> None:
    """Tells the client: by a status, or, where an answer has begun, by an event that ends it."""
    if record.is_answering:
        record.failed(error)
        # A client that does not read gets its connection closed instead: uvicorn does, where an answer is left without an end.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_EVENT_S):
                await end_stream(error, send)
        return
    if error.status >= 500:
        record.failed(error)
    await error_response(error)(scope, receive, send)
