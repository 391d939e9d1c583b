"""A chat completion, from the request's bytes to the answer's: read it from top to bottom.

docs/life-of-a-request.md tells the same in words.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass

import orjson
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from gateway.body import ClientDisconnected, parse_document, read_body
from gateway.catalog.models import Catalog, Model
from gateway.errors import InvalidField, ModelNotFound, UnsupportedField, shortened
from gateway.images.source import check_image_url
from gateway.pipeline.relay import relay_stream, relay_whole
from gateway.telemetry.request import RequestRecord
from gateway.upstream.engine import Engine
from gateway.wire.chat import ChatCompletionRequest, parse_chat

MODEL_HEADER = "x-fovea-model"
LEFT_OUT_HEADER = "x-fovea-left-out"


@dataclass(frozen=True, slots=True)
class Ready:
    """A request that is fit for the engine: everything that can be refused without asking one has been."""

    model: str
    body: bytes
    stream: bool
    headers: Mapping[str, str]
    """What the response says about how the request was taken."""


@dataclass(frozen=True, slots=True, eq=False)
class ChatCompletions:
    """POST /v1/chat/completions, as an ASGI application."""

    catalog: Catalog
    engine: Engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = RequestRecord.of(scope)
        try:
            body = await read_body(Headers(scope=scope), receive, self.catalog.limits.body_bytes)
        except ClientDisconnected:
            record.disconnected()
            return
        ready = prepare(body, self.catalog)
        record.routed(ready.model, stream=ready.stream)
        if not await _unless_disconnected(self._answer(ready, record, send), receive):
            record.disconnected()

    async def _answer(self, ready: Ready, record: RequestRecord, send: Send) -> None:
        async with self.engine.complete(ready.model, ready.body, record.request_id) as answer:
            if ready.stream:
                error = await relay_stream(ready.model, answer, ready.headers, send)
                if error is not None:
                    record.failed(error, error.status)
            else:
                await relay_whole(answer, ready.headers, send)


def prepare(body: bytes, catalog: Catalog) -> Ready:
    """The request in `body`, checked and rendered for the engine.

    Raises RequestError, naming the field.
    """
    request, left_out = parse_chat(parse_document(body))
    model = catalog.models.get(request.model)
    if model is None:
        raise unknown_model(request.model, catalog)
    _check_n(request, model)
    _check_images(request, model)
    _check_tools(request, model)
    headers = {MODEL_HEADER: request.model}
    if left_out:
        headers[LEFT_OUT_HEADER] = ", ".join(left_out)
    return Ready(request.model, _rendered(request), bool(request.stream), headers)


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


def _check_images(request: ChatCompletionRequest, model: Model) -> None:
    images = request.images()
    if len(images) > model.images_per_request:
        message = (
            f"The request has {len(images)} images; images_per_request of '{request.model}' is {model.images_per_request}."
        )
        raise InvalidField(message, param="messages", reason="too_many_images")
    for param, url in images:
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
