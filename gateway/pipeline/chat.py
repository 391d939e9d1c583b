"""A chat completion, from the request's bytes to the answer's: read it from top to bottom.

docs/life-of-a-request.md tells the same in words.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import orjson
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from gateway.body import ClientDisconnected, DataUrl, cut, parse_document, read_body, splice
from gateway.catalog.models import Catalog, Model
from gateway.deadline import requested_timeout_s
from gateway.errors import (
    BodyTooSlow,
    DeadlineExceeded,
    GatewayError,
    InvalidField,
    ModelNotFound,
    UnsupportedField,
    shortened,
)
from gateway.images.source import check_data_url, check_image_url
from gateway.memory import BodyMemory, Share
from gateway.pipeline.relay import end_stream, relay_stream, relay_whole
from gateway.telemetry.request import REQUEST_ID_HEADER, RequestRecord
from gateway.telemetry.tracing import Tracing, tell_end
from gateway.upstream.engine import Engine
from gateway.wire.chat import ChatCompletionRequest, parse_chat

PATH = "/v1/chat/completions"
MODEL_HEADER = "x-fovea-model"
LEFT_OUT_HEADER = "x-fovea-left-out"


@dataclass(frozen=True, slots=True)
class Ready:
    """A request that is fit for the engine: everything that can be refused without asking one has been."""

    model: str
    body: tuple[bytes | memoryview, ...]
    """Its parts in order: words of ours, and images as they came."""
    stream: bool
    headers: Mapping[str, str]
    """What the response says about how the request was taken."""


@dataclass(frozen=True, slots=True, eq=False)
class ChatCompletions:
    """POST /v1/chat/completions, as an ASGI application."""

    catalog: Catalog
    engine: Engine
    tracing: Tracing
    request_timeout_s: float
    memory: BodyMemory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = RequestRecord.of(scope)
        headers = Headers(scope=scope)
        with self.tracing.request(PATH, headers, record.request_id) as span:
            try:
                with self.memory.share() as share:
                    await self._take(headers, record, share, receive, send)
            except GatewayError as error:
                record.status = error.status
                raise
            finally:
                tell_end(span, record.model, record.final_status)

    async def _take(self, headers: Headers, record: RequestRecord, share: Share, receive: Receive, send: Send) -> None:
        started_s = asyncio.get_running_loop().time()
        timeout_s = requested_timeout_s(headers, self.request_timeout_s)
        too_slow = BodyTooSlow(f"The body did not come within {timeout_s:g} s.")
        try:
            with self.tracing.step("read body"):
                async with _deadline(started_s + timeout_s, too_slow):
                    body = await read_body(headers, receive, self.catalog.limits.body_bytes, share)
        except ClientDisconnected:
            record.disconnected()
            return
        with self.tracing.step("prepare"):
            ready = prepare(body, self.catalog)
        record.routed(ready.model, stream=ready.stream)
        timeout_s = min(timeout_s, self.catalog.models[ready.model].longest_answer_s)
        answering = self._answer(ready, record, started_s + timeout_s, timeout_s, send)
        if not await _unless_disconnected(answering, receive):
            record.disconnected()

    async def _answer(self, ready: Ready, record: RequestRecord, deadline: float, timeout_s: float, send: Send) -> None:
        too_late = DeadlineExceeded(f"The answer did not come within {timeout_s:g} s.")
        try:
            async with _deadline(deadline, too_late):
                with self.tracing.engine_call(ready.model) as trace_headers:
                    await self._relay(ready, {REQUEST_ID_HEADER: record.request_id, **trace_headers}, send)
        except GatewayError as error:
            if not record.is_answering:
                raise
            record.failed(error)
            await end_stream(error, send)

    async def _relay(self, ready: Ready, headers: Mapping[str, str], send: Send) -> None:
        async with self.engine.complete(ready.model, ready.body, headers) as answer:
            if ready.stream:
                await relay_stream(ready.model, answer, ready.headers, send)
            else:
                await relay_whole(ready.model, answer, ready.headers, send)


@asynccontextmanager
async def _deadline(at: float, error: GatewayError) -> AsyncIterator[None]:
    """Raises `error` where the block is not done at the time `at` of the event loop's clock."""
    try:
        async with asyncio.timeout_at(at):
            yield
    except TimeoutError as cause:
        raise error from cause


def prepare(body: bytes | bytearray, catalog: Catalog) -> Ready:
    """The request in `body`, checked and rendered for the engine.

    Raises RequestError, naming the field.
    """
    cut_body = cut(body)
    if cut_body.urls:
        with suppress(GatewayError, _NotAllImages):
            return _prepared(cut_body.rest, cut_body.urls, catalog)
        # Rare, and told on the whole document: in the caller's own words, where a stand-in would say nothing.
    return _prepared(body, {}, catalog)


class _NotAllImages(Exception):
    """A URL that was cut out of the body is not where an image is: within a tool's schema, say, or under a repeated key."""


def _prepared(document: bytes | bytearray, urls: Mapping[str, DataUrl], catalog: Catalog) -> Ready:
    request, left_out = parse_chat(parse_document(document))
    model = catalog.models.get(request.model)
    if model is None:
        raise unknown_model(request.model, catalog)
    _check_n(request, model)
    _check_images(request, model, urls)
    _check_tools(request, model)
    headers = {MODEL_HEADER: request.model}
    if left_out:
        headers[LEFT_OUT_HEADER] = ", ".join(left_out)
    return Ready(request.model, splice(_rendered(request), urls), bool(request.stream), headers)


def _rendered(request: ChatCompletionRequest) -> bytes:
    try:
        return orjson.dumps(request.for_engine())
    except orjson.JSONEncodeError as error:
        # orjson reads JSON four times as deep as it writes it; no schema that an engine takes comes near either.
        raise InvalidField("The request is nested too deeply: at most 254 levels.", param=None) from error


def unknown_model(name: str, catalog: Catalog) -> ModelNotFound:
    """The error for a model that the catalog does not have."""
    return ModelNotFound(f"The model '{shortened(name)}' does not exist. Models: {', '.join(catalog.models)}.", param="model")


def _check_n(request: ChatCompletionRequest, model: Model) -> None:
    """vLLM counts `n` answers as `n` requests, and would for ever call its queue full."""
    places = model.concurrency + model.queue_depth
    if request.n is not None and request.n > places:
        message = f"n is {request.n}; concurrency and queue_depth of '{request.model}' have room for {places}."
        raise InvalidField(message, param="n")


def _check_images(request: ChatCompletionRequest, model: Model, urls: Mapping[str, DataUrl]) -> None:
    images = request.images()
    if len(images) > model.images_per_request:
        message = (
            f"The request has {len(images)} images; images_per_request of '{request.model}' is {model.images_per_request}."
        )
        raise InvalidField(message, param="messages", reason="too_many_images")
    if [url for _, url in images if url in urls] != list(urls):
        raise _NotAllImages
    for param, url in images:
        if url in urls:
            check_data_url(urls[url], param)
        else:
            check_image_url(url, param)


def _check_tools(request: ChatCompletionRequest, model: Model) -> None:
    if request.may_call_tools and model.effective_tool_parser is None:
        raise UnsupportedField(f"The model '{request.model}' cannot call tools.", param="tools")


async def _unless_disconnected(work: Coroutine[None, None, None], receive: Receive) -> bool:
    """Runs `work` to its end, or ends it when the client goes away; whether it came to its end."""
    answering = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((answering, watching), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            answering.result()
            return True
        return False
    finally:
        for task in (answering, watching):
            task.cancel()
        await asyncio.gather(answering, watching, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
