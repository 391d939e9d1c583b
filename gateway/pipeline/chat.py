"""A chat completion, from the request's bytes to the answer's: read it from top to bottom.

docs/life-of-a-request.md tells the same in words.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import orjson
from starlette.types import Receive, Scope, Send

from gateway.body import ClientDisconnected, DataUrl, cut, parse_document, read_body, splice
from gateway.catalog.models import Catalog, Model
from gateway.deadline import Patience, requested_timeout_s
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
from gateway.wire.errors import error_response

PATH = "/v1/chat/completions"
MODEL_HEADER = "x-fovea-model"
LEFT_OUT_HEADER = "x-fovea-left-out"

_LAST_EVENT_S = 5.0


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
        # Of a header that comes twice the first counts.
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
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
                ready = prepare(body, self.catalog)
            record.routed(ready.model, stream=ready.stream)
            timeout_s = min(timeout_s, self.catalog.models[ready.model].longest_answer_s)
            patience.until(started_s + timeout_s, DeadlineExceeded(f"The answer did not come within {timeout_s:g} s."))
            watching = asyncio.ensure_future(_watch(receive, patience))
            try:
                with self.tracing.engine_call(ready.model, headers) as trace_headers:
                    await self._relay(ready, {REQUEST_ID_HEADER: record.request_id, **trace_headers}, send)
            finally:
                watching.cancel()

    async def _relay(self, ready: Ready, headers: Mapping[str, str], send: Send) -> None:
        async with self.engine.complete(ready.model, ready.body, headers) as answer:
            if ready.stream:
                await relay_stream(ready.model, answer, ready.headers, send)
            else:
                await relay_whole(ready.model, answer, ready.headers, send)


async def _watch(receive: Receive, patience: Patience) -> None:
    """Ends the block once the client goes away: nobody is left to answer."""
    while (await receive())["type"] != "http.disconnect":
        pass
    patience.end(ClientDisconnected())


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
