"""A chat completion, from the request's bytes to the answer's: read it from top to bottom.

docs/life-of-a-request.md tells the same in words.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from gateway.body import ClientDisconnected, read_body
from gateway.deadline import Patience, requested_timeout_s
from gateway.errors import BodyTooSlow, GatewayError
from gateway.images.sized import Image
from gateway.memory import BodyMemory, Share
from gateway.pipeline.call import ROUTE_HEADER, Caller, headers_of
from gateway.pipeline.hang_up import ending_with_client
from gateway.pipeline.images import Images
from gateway.pipeline.prepare import MODEL_HEADER, Understood, understood
from gateway.pipeline.relay import end_stream
from gateway.pipeline.route import Routes, only_model, spoken
from gateway.pipeline.second_try import requested_room
from gateway.pipeline.way_on import Time, WayOn
from gateway.structured.promise import Promises
from gateway.telemetry.request import RequestRecord
from gateway.telemetry.tracing import Tracing, tell_end
from gateway.wire.errors import error_response

PATH = "/v1/chat/completions"

_LAST_EVENT_S = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class ChatCompletions:
    """POST /v1/chat/completions, as an ASGI application. A body has at most `body_bytes`."""

    routes: Routes
    images: Images
    promises: Promises
    way_on: WayOn
    tracing: Tracing
    request_timeout_s: float
    body_bytes: int
    memory: BodyMemory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = RequestRecord.of(scope)
        headers = headers_of(scope)
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
                body = await read_body(headers, receive, self.body_bytes, share)
            with self.tracing.step("prepare"):
                asked = understood(body, self.images.limits)
                targets = self.routes.targets(asked.request)
                self.routes.check(asked, targets)
                promise = await self.promises.of(asked.request)
                room = requested_room(headers)
            record.routed(only_model(targets) or "", stream=bool(asked.request.stream))
            time = Time(patience, started_s, started_s + min(timeout_s, self.routes.longest_answer_s(targets)))
            with ending_with_client(receive, patience):
                images = await self._images(asked, share) if asked.images else []
                ways = self.routes.ways(asked, targets, images, spoken(headers))
                await self.way_on.answer(ways, promise, Caller(headers, record, share, room), time, send)

    async def _images(self, asked: Understood, share: Share) -> list[Image]:
        with self.tracing.step("images"):
            return await self.images.here(asked.images, share)


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
    routed = {MODEL_HEADER: record.served, ROUTE_HEADER: record.route} if record.route else {}
    await error_response(error, routed)(scope, receive, send)
