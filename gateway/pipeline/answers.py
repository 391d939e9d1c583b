"""From a call to its answer by the shortest way there is: the store, a flight that is under way, an engine."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import orjson
from starlette.types import Send

from gateway.cache.key import ImageIdentity, answer_key, model_identity, sampling_defaults
from gateway.cache.policy import CacheControl, is_shared
from gateway.cache.results import Address, Claim, ResultStore, Stored
from gateway.cache.single_flight import SHARED_BYTES, Flight, Flights
from gateway.catalog.entry import Answerer
from gateway.catalog.models import Catalog
from gateway.deadline import Patience
from gateway.errors import DeadlineExceeded, EngineErred, NotCached
from gateway.memory import Share
from gateway.pipeline.call import Call
from gateway.pipeline.generate import Generation
from gateway.pipeline.prepare import Asked
from gateway.pipeline.relay import send_replay, send_stream, send_whole
from gateway.wire.answers import is_known, is_storable, renewed, replay, stored_form
from gateway.wire.streamed import StreamedAnswer, without_usage

CACHE_HEADER = "x-fovea-cache"
Result = Literal["hit", "miss", "joined", "bypass"]

_LEASE_S = 10.0
"""For so long after its last word another gateway's work is waited for. Virtual machines have stood still for as long."""

_CLAIM_S = 2.0
"""For so long a claim counts before its leader's first word: Redis may hear it when who sent it has long gone on alone."""

_RENEW_EVERY_S = 2.5
_LOOK_AGAIN_S = 0.02
_LOOK_AGAIN_AT_MOST_S = 0.25
_LOOK_AGAIN_SLOWER = 1.5


class Answers:
    """Answers calls. `count` is told, for each, the name of the model and what the cache did for it."""

    def __init__(
        self,
        catalog: Catalog,
        generation: Generation,
        store: ResultStore,
        flights: Flights,
        count: Callable[[str, Result], None],
    ) -> None:
        asked_for = [(name, None) for name in catalog.answerers] + list(catalog.adapters.values())
        self._models = {
            (name, adapter): (model_identity(name, model, adapter), sampling_defaults(model))
            for name, adapter in asked_for
            for model in (catalog.answerers[name],)
        }
        self._generation = generation
        self._store = store
        self._flights = flights
        self._count = count

    async def answer(self, call: Call, send: Send) -> None:
        """Sends the answer.

        Raises InvalidField: the header cache-control is wrong; NotCached; what `Generation.answer` and the relay raise.
        """
        control = CacheControl.of(call.headers)
        address = self._shared_address(call, control)
        stored = None if address is None else await stored_for(self._store, address, control)
        if stored is not None:
            await self._send_stored(call, stored, "hit", send)
        elif control.only_if_cached:
            raise NotCached("The request takes stored answers only (only-if-cached), and there is none.")
        elif address is None or control.no_store:
            await self._straight(call, send)
        elif control.takes_stored:
            await self._shared(call, address, control, send)
        else:
            await self._fresh(call, address, send)

    async def answer_stored(self, call: Call, send: Send) -> bool:
        """Sends the stored answer, if there is one that the caller takes.

        Raises InvalidField: the header cache-control is wrong.
        """
        control = CacheControl.of(call.headers)
        address = self._shared_address(call, control)
        stored = None if address is None else await stored_for(self._store, address, control, from_afar=True)
        if stored is not None:
            await self._send_stored(call, stored, "hit", send)
        return stored is not None

    def _shared_address(self, call: Call, control: CacheControl) -> Address | None:
        """Where the answer is stored, or will be; None where it is nobody else's."""
        _, defaults = self._models[call.asked.name, call.asked.adapter]
        shared = is_shared(call.asked.request, defaults, call.asked.model, control)
        return self._address(call, call.identities) if shared else None

    def _address(self, call: Call, images: list[ImageIdentity]) -> Address:
        identity, defaults = self._models[call.asked.name, call.asked.adapter]
        return Address(
            call.tenant, call.model, answer_key(identity, defaults, call.tenant, images, call.asked.request, room=call.room)
        )

    async def _straight(self, call: Call, send: Send) -> None:
        """From an engine, as fast as the client reads, and for nobody else."""
        headers = self._headers(call, "bypass")
        try:
            if call.asked.stream:
                async with aclosing(self._generation.events(call, call.share)) as events:
                    await send_stream(events, headers, send)
            else:
                await send_whole(await self._generation.whole(call, call.share), headers, send)
        except EngineErred:
            if not call.record.is_answering:
                await self._generation.check_images(call)
            raise

    async def _shared(self, call: Call, address: Address, control: CacheControl, send: Send) -> None:
        """With all who ask the same."""
        came_s = time.time()
        async with self._flights.aboard(address, partial(self._fly, call, address)) as (flight, joined):
            await flight.begun()
            if flight.found is None:
                await self._send_flight(call, flight, "joined" if joined else "miss", send)
                return
            if control.takes_age(age_s(flight.found)):
                # What had been made by then may still have been on its way to the store.
                await self._send_stored(call, flight.found, "hit" if flight.found.stored_at_s < came_s else "joined", send)
                return
        # Too old for this one: made anew, once for all at this gateway who say so.
        async with self._flights.aboard((address, "anew"), partial(self._fly_alone, call, address)) as (flight, joined):
            await flight.begun()
            await self._send_flight(call, flight, "joined" if joined else "miss", send)

    async def _fresh(self, call: Call, address: Address, send: Send) -> None:
        """From an engine, for this call; others may have it afterwards."""
        async with self._flights.aboard(object(), partial(self._fly_alone, call, address)) as (flight, _):
            await flight.begun()
            await self._send_flight(call, flight, "bypass", send)

    async def _send_flight(self, call: Call, flight: Flight, result: Result, send: Send) -> None:
        if flight.is_streamed and call.asked.stream:
            events = flight.read() if call.include_usage else _without_usage(flight.read())
            await send_stream(events, self._headers(call, result), send)
            return
        await flight.landed()
        if not flight.is_streamed and not call.asked.stream:
            await send_whole(flight.whole, self._headers(call, result), send)
        elif flight.answer is not None:
            await _send_answer(call, flight.answer, self._headers(call, result), send)
        else:
            await self._straight(call, send)  # what came cannot be put into the other form

    async def _send_stored(self, call: Call, stored: Stored, result: Result, send: Send) -> None:
        headers = self._headers(call, result)
        if result == "hit":
            headers["age"] = str(int(age_s(stored)))
        await _send_answer(call, stored.answer, headers, send)

    def _headers(self, call: Call, result: Result) -> dict[str, str]:
        self._count(call.model, result)
        return call.answer_headers | {CACHE_HEADER: result}

    async def _fly(self, call: Call, address: Address, flight: Flight) -> None:
        """Has the answer found or made, once for all gateways."""
        async with flying(call.share, call.asked.model) as share:
            if not call.images or call.asked.model.cache.identity == "bytes":
                await self._find_or_make(call, share, address, flight)
                return
            stored = await self._store.get(address)
            if stored is not None:
                flight.find(stored)
                return
            by_pixels = self._address(call, await self._generation.identities(call, share))
            stored = await self._find_or_make(call, share, by_pixels, flight)
            if stored is not None:
                await self._store.put(address, stored, call.asked.model.cache.ttl_s)

    async def _find_or_make(self, call: Call, share: Share, address: Address, flight: Flight) -> Stored | None:
        token = secrets.token_hex(16)
        async with self._claiming(address, token):
            claimed = await self._claimed(address, token)
            if isinstance(claimed, Stored):
                flight.find(claimed)
                return claimed
            # Who is alone may have been heard by Redis all the same, too late: so it settles as a leader does.
            leading = self._leading(address, token) if claimed is Claim.LEADING else nullcontext()
            async with leading:
                stored = await self._make(call, share, flight)
            await self._store.settle(address, token, stored, call.asked.model.cache.ttl_s)
        return stored

    async def _claimed(self, address: Address, token: str) -> Stored | Claim:
        """What is stored, or how it is to be made; waits as long as another gateway makes it."""
        again_s = _LOOK_AGAIN_S
        while (claimed := await self._store.claim(address, token, _CLAIM_S)) is Claim.FOLLOWING:
            await asyncio.sleep(again_s)
            again_s = min(again_s * _LOOK_AGAIN_SLOWER, _LOOK_AGAIN_AT_MOST_S)
        return claimed

    @asynccontextmanager
    async def _claiming(self, address: Address, token: str) -> AsyncIterator[None]:
        """A block that lets go of what was claimed in it, where it ends early."""
        try:
            yield
        except asyncio.CancelledError:
            await self._store.release(address, token)
            raise
        except Exception:
            # Those who wait for it ask engines at the same time, and not one after the other.
            await self._store.settle(address, token, None, 0)
            raise

    @asynccontextmanager
    async def _leading(self, address: Address, token: str) -> AsyncIterator[None]:
        """Keeps the lease for as long as the block runs."""
        renewing = asyncio.ensure_future(self._renew(address, token))
        try:
            yield
        finally:
            renewing.cancel()

    async def _renew(self, address: Address, token: str) -> None:
        while True:
            await self._store.renew(address, token, _LEASE_S)
            await asyncio.sleep(_RENEW_EVERY_S)

    async def _fly_alone(self, call: Call, address: Address, flight: Flight) -> None:
        async with flying(call.share, call.asked.model) as share:
            stored = await self._make(call, share, flight)
            if stored is not None:
                await self._store.put(address, stored, call.asked.model.cache.ttl_s)

    async def _make(self, call: Call, share: Share, flight: Flight) -> Stored | None:
        """Has an engine make the answer, and gives it back if it may be stored."""
        try:
            document = await (self._streamed(call, share, flight) if call.asked.stream else self._whole(call, share, flight))
        except EngineErred:
            if not flight.has_begun:
                await self._generation.check_images(call)
            raise
        kept = stored_form(document) if document is not None and is_known(document) else None
        flight.land(kept)
        if kept is None or document is None or _may_be_cut(call.asked, document["usage"]):
            return None
        return Stored(kept, time.time()) if is_storable(document) else None

    async def _streamed(self, call: Call, share: Share, flight: Flight) -> dict[str, Any] | None:
        """Passes on the events, and gives back the answer they are together, if it is known what they say and not too long."""
        flight.is_streamed = True
        together = StreamedAnswer()
        async with aclosing(self._generation.events(call, share, with_usage=True)) as events:
            async for some in events:
                await flight.add(some)
                if flight.is_long:
                    together = StreamedAnswer()  # of which nothing comes: its beginning is gone
                else:
                    together.add(some)
        return together.whole()

    async def _whole(self, call: Call, share: Share, flight: Flight) -> dict[str, Any] | None:
        body = await self._generation.whole(call, share)
        flight.begin_whole(body)
        return _parsed(body) if len(body) <= SHARED_BYTES else None


def _may_be_cut(asked: Asked, usage: Mapping[str, int]) -> bool:
    """vLLM 0.32 says `tool_calls` also of calls that a limit of tokens has cut off, which does not show between two calls."""
    limit = asked.request.most_tokens
    is_at_limit = limit is not None and usage["completion_tokens"] >= limit
    return asked.request.may_call_tools and (is_at_limit or usage["total_tokens"] >= asked.model.context_tokens)


@asynccontextmanager
async def flying(asked: Share, model: Answerer) -> AsyncIterator[Share]:
    """What a flight has: the model's time, as each who waits for it has a deadline of his own, and what its call holds.

    That stays held, though its client may leave before the others do.
    """
    longest_s = model.longest_answer_s
    until_s = asyncio.get_running_loop().time() + longest_s
    with asked.held() as share:
        async with Patience(until_s, DeadlineExceeded(f"The answer did not come within {longest_s:g} s.")):
            yield share


async def _without_usage(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for some in events:
        left = without_usage(some)
        if left:
            yield left


async def _send_answer(call: Call, answer: bytes, headers: Mapping[str, str], send: Send) -> None:
    """Sends an answer as this caller wants it, under a name of its own."""
    answer_id, created = f"chatcmpl-{call.record.request_id}", int(time.time())
    if call.asked.stream:
        await send_replay(replay(answer, answer_id, created, include_usage=call.include_usage), headers, send)
    else:
        await send_whole(renewed(answer, answer_id, created), headers, send)


async def stored_for(store: ResultStore, address: Address, control: CacheControl, *, from_afar: bool = False) -> Stored | None:
    """What is stored, if the caller takes it.

    What is not at hand is left to a flight to find, unless there will be none, or it is said to be looked for `from_afar`.
    """
    if not control.takes_stored:
        return None
    stored = store.at_hand(address)
    if stored is None and (from_afar or control.only_if_cached or control.no_store):
        stored = await store.get(address)
    return stored if stored is not None and control.takes_age(age_s(stored)) else None


def age_s(stored: Stored) -> float:
    """How long ago it was given, in seconds."""
    return max(0.0, time.time() - stored.stored_at_s)


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None
