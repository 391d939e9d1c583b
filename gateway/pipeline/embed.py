"""Embeddings, from the request's bytes to the vectors: read it from top to bottom.

There is no chance in a vector, so that each is computed once: by default all are shared and stored, known by the model, by the
words in their order or the image's digest and recipe, and in one encoding, from which either that callers know is written.
Other gateways are not waited for, as they are with the answer to a chat: what they would save takes milliseconds.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.body import ClientDisconnected, read_body
from gateway.cache.key import ImageIdentity, embedding_key
from gateway.cache.policy import CacheControl, embeddings_are_shared
from gateway.cache.results import Address, ResultStore, Stored
from gateway.cache.single_flight import Flight, Flights
from gateway.catalog.models import Catalog
from gateway.catalog.routes import AUTO, LEANINGS
from gateway.deadline import Patience, requested_timeout_s
from gateway.errors import BodyTooSlow, DeadlineExceeded, GatewayError, InvalidField, NotCached, shortened
from gateway.images.sized import ImageLimits
from gateway.memory import BodyMemory, Share
from gateway.pipeline.answers import CACHE_HEADER, Result, age_s, flying, stored_for
from gateway.pipeline.call import headers_of
from gateway.pipeline.hang_up import ending_with_client
from gateway.pipeline.images import Images, fitted
from gateway.pipeline.prepare import Urls, asked_images, read_cut
from gateway.pipeline.route import unknown_model
from gateway.pipeline.vectors import EmbeddingCall, VectorMaking, Wanted
from gateway.telemetry.request import RequestRecord
from gateway.telemetry.tracing import Tracing, tell_end
from gateway.wire.embeddings import Vectors, parse_embedding
from gateway.wire.errors import error_response

PATH = "/v1/embeddings"

_WRITTEN_AT_ONCE_BYTES = 64 * 1024
"""What is longer takes milliseconds to write as decimals, and takes turns with the event loop in a thread."""

_HELD_PER_BYTE = 10
"""What is held of a vector while it is written, for each byte of it: some 4 as decimals, once in parts and once joined."""


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """POST /v1/embeddings, as an ASGI application.

    `identities` are those of the models that it asks, and `count` is told, for each request, the name of the model and what the
    cache did for it.
    """

    catalog: Catalog
    identities: Mapping[str, bytes]
    images: Images
    making: VectorMaking
    store: ResultStore
    flights: Flights
    count: Callable[[str, Result], None]
    tracing: Tracing
    request_timeout_s: float
    memory: BodyMemory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = RequestRecord.of(scope)
        headers = headers_of(scope)
        with self.tracing.request(PATH, headers, record.request_id) as span, self.memory.share() as share:
            try:
                response = await self._take(headers, record, share, receive)
                await response(scope, receive, send)
            except ClientDisconnected:
                record.disconnected()
            except GatewayError as error:
                if error.status >= 500:
                    record.failed(error)
                await error_response(error)(scope, receive, send)
            finally:
                tell_end(span, record.model, record.final_status)

    async def _take(self, headers: Mapping[str, str], record: RequestRecord, share: Share, receive: Receive) -> Response:
        started_s = asyncio.get_running_loop().time()
        timeout_s = requested_timeout_s(headers, self.request_timeout_s)
        async with Patience(started_s + timeout_s, BodyTooSlow(f"The body did not come within {timeout_s:g} s.")) as patience:
            with self.tracing.step("read body"):
                body = await read_body(headers, receive, self.catalog.limits.body_bytes, share)
            with self.tracing.step("prepare"):
                wanted = _wanted(body, self.images.limits)
                name = self._model(wanted.request.model)
            model = self.catalog.models[name]
            record.routed(name, stream=False)
            in_all_s = min(timeout_s, model.longest_answer_s)
            patience.until(started_s + in_all_s, DeadlineExceeded(f"The answer did not come within {in_all_s:g} s."))
            with ending_with_client(receive, patience):
                with self.tracing.step("images"):
                    images = await self.images.here(wanted.images, share) if wanted.images else []
                sized = fitted(wanted.images, images, name, model)
                return await self._answer(EmbeddingCall(wanted, name, model, sized, headers, record, share))

    def _model(self, name: str) -> str:
        """The one model that a name stands for.

        Raises ModelNotFound; InvalidField: it stands for others, or for several.
        """
        catalog = self.catalog
        if name in catalog.embedding or (name in catalog.embedding_names and name in catalog.routing.aliases):
            return catalog.embedding_names[name][0]
        models = f"Models: {', '.join(catalog.embedding) or 'none'}."
        if name in catalog.tiers or name == AUTO or name in LEANINGS:
            message = f"Embeddings are asked of one model by its name: vectors of two models cannot be compared. {models}"
            raise InvalidField(message, param="model")
        if name in catalog.generating or name in catalog.adapters or name in catalog.routing.aliases:
            raise InvalidField(f"'{shortened(name)}' makes no embeddings. {models}", param="model")
        raise unknown_model(name, catalog.embedding)

    async def _answer(self, call: EmbeddingCall) -> Response:
        control = CacheControl.of(call.headers)
        if not embeddings_are_shared(call.model, control):
            return await self._response(call, await self.making.make(call, call.share), "bypass")
        address = self._address(call, call.identities)
        stored = await stored_for(self.store, address, control)
        if stored is not None:
            return await self._response(call, Vectors.of_stored(stored.answer), "hit", stored)
        if control.only_if_cached:
            raise NotCached("The request takes stored answers only (only-if-cached), and there is none.")
        if control.no_store:
            return await self._response(call, await self.making.make(call, call.share), "bypass")
        return await (self._shared(call, address, control) if control.takes_stored else self._fresh(call, address, "bypass"))

    def _address(self, call: EmbeddingCall, images: list[ImageIdentity]) -> Address:
        tenant = call.record.tenant
        key = embedding_key(self.identities[call.name], tenant, images, call.wanted.request)
        return Address(tenant, call.name, key)

    async def _shared(self, call: EmbeddingCall, address: Address, control: CacheControl) -> Response:
        """With all who ask the same at this gateway."""
        came_s = time.time()
        async with self.flights.aboard(address, partial(self._fly, call, address)) as (flight, joined):
            await flight.landed()
            found, made = flight.found, flight.whole
        if found is None:
            return await self._response(call, Vectors.of_stored(made), "joined" if joined else "miss")
        if control.takes_age(age_s(found)):
            is_hit = found.stored_at_s < came_s
            return await self._response(call, Vectors.of_stored(found.answer), "hit" if is_hit else "joined", found)
        return await self._fresh(call, address, "miss")

    async def _fly(self, call: EmbeddingCall, address: Address, flight: Flight) -> None:
        async with flying(call.share, call.model) as share:
            found = await self.store.get(address)
            if found is not None:
                flight.find(found)
                return
            unknown = [address]
            if call.images and call.model.cache.identity == "pixels":
                by_pixels = self._address(call, await self._pixels(call, share))
                found = await self.store.get(by_pixels)
                unknown += [by_pixels] if found is None else []
            if found is None:
                found = Stored((await self.making.make(call, share)).stored, time.time())
                flight.begin_whole(found.answer)
                flight.land()
            else:
                flight.find(found)
            for each in unknown:
                await self.store.put(each, found, call.model.cache.ttl_s)

    async def _pixels(self, call: EmbeddingCall, share: Share) -> list[ImageIdentity]:
        digests = await self.images.pixel_identities(call.wanted.images, call.images, share)
        return [(digest, image.recipe_text) for digest, image in zip(digests, call.images, strict=True)]

    async def _fresh(self, call: EmbeddingCall, address: Address, result: Result) -> Response:
        """For this call; others may have it afterwards."""
        vectors = await self.making.make(call, call.share)
        await self.store.put(address, Stored(vectors.stored, time.time()), call.model.cache.ttl_s)
        return await self._response(call, vectors, result)

    async def _response(self, call: EmbeddingCall, vectors: Vectors, result: Result, stored: Stored | None = None) -> Response:
        self.count(call.name, result)
        headers = call.answer_headers | {CACHE_HEADER: result}
        if result == "hit" and stored is not None:
            headers["age"] = str(int(age_s(stored)))
        write = partial(vectors.written, call.name, call.wanted.request.encoding_format or "float")
        size_bytes = sum(map(len, vectors.encoded))
        call.share.grow(_HELD_PER_BYTE * size_bytes)
        is_long = size_bytes > _WRITTEN_AT_ONCE_BYTES
        return Response(await asyncio.to_thread(write) if is_long else write(), headers=headers, media_type="application/json")


def _wanted(body: bytes | bytearray, limits: ImageLimits) -> Wanted:
    """The request in `body`, checked.

    Raises RequestError, naming the field.
    """
    return read_cut(body, lambda document, urls: _read(document, urls, limits))


def _read(document: dict[str, Any], urls: Urls, limits: ImageLimits) -> Wanted:
    request, left_out = parse_embedding(document)
    return Wanted(request, asked_images(request.images(), urls, limits), urls, left_out)
