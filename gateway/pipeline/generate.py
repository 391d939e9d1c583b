"""An answer from an engine: images made ready, the request rendered, and the engine asked."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, replace
from functools import partial

from gateway.errors import EngineErred
from gateway.images.engine_ids import EngineIds
from gateway.memory import Share
from gateway.pipeline.call import Call
from gateway.pipeline.images import Images
from gateway.pipeline.prepare import Pieces, check_body_size, rendered
from gateway.pipeline.relay import checked_events, kept_events, whole_body
from gateway.pipeline.second_try import Room, incomplete, second_try
from gateway.structured.kept import BrokenPromise, check_whole
from gateway.telemetry.request import REQUEST_ID_HEADER
from gateway.telemetry.tracing import Tracing
from gateway.upstream.affinity import HotImages
from gateway.upstream.engine import Engine, EngineAnswer

_CHECKED_AT_ONCE_BYTES = 64 * 1024
"""What is longer takes more than 5 ms, and takes turns with the event loop in a thread."""

_VIDEO = "video"
"""What is done to each, as images have recipes: nothing here, and in one model's engines the same to all."""

_OF_VIDEOS = "A video may be why: one of a single frame, or without a frame rate, cannot be sampled."
"""vLLM 0.32 divides by zero on either (multimodal/video.py, Qwen2VLVideoBackend), and on nothing else that was found."""

CountBroken = Callable[[str, str, bool], None]
"""Is told of each answer that was not as promised: its model, the reason, and whether the engine is asked once more."""

Ask = Callable[[], AbstractAsyncContextManager[EngineAnswer]]


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """What it takes to have an engine answer a call; bodies for engines have up to `limit_bytes`."""

    images: Images
    engine: Engine
    ids: EngineIds
    hot: HotImages
    tracing: Tracing
    limit_bytes: int
    count: CountBroken

    async def whole(self, call: Call, share: Share) -> bytes:
        """The engine's answer to a call that wants no stream: a JSON object, and as promised.

        What is made for it is counted in `share`. Raises IncompleteJson, InvalidImage, ImageOverLimit, Overloaded, and what
        `Engine.complete` and the relay raise.
        """
        began_s = asyncio.get_running_loop().time()
        try:
            return await self._whole(call, share, None)
        except BrokenPromise as error:
            first = error.broken
        room = second_try(call, first, began_s)
        self.count(call.model, first.reason, room is not None)
        if room is None:
            raise incomplete(first, tries=1)
        try:
            return await self._whole(call, share, room)
        except BrokenPromise as error:
            second = error.broken
        self.count(call.model, second.reason, False)
        raise incomplete(second, tries=2)

    async def events(self, call: Call, share: Share, *, with_usage: bool = False) -> AsyncGenerator[bytes, None]:
        """The events of the engine's answer as they come, one or more at a time, of a stream that keeps its promise to its end.

        `with_usage` asks for the count of tokens at the end, whether or not the caller has. Raises as `whole` does.
        """
        began_s = asyncio.get_running_loop().time()
        said = False
        tries, room = 1, None
        while True:
            try:
                async with aclosing(self._events(call, share, room, with_usage=with_usage)) as events:
                    async for some in events:
                        said = True
                        yield some
                return
            except BrokenPromise as error:
                broken = error.broken
            room = None if said or tries > 1 else second_try(call, broken, began_s)
            self.count(call.model, broken.reason, room is not None)
            if room is None:
                raise incomplete(broken, tries)
            tries += 1

    async def _whole(self, call: Call, share: Share, room: Room | None) -> bytes:
        async with self._answer(call, share, room) as answer:
            body = await whole_body(answer)
        if not call.promise.is_any:
            if len(body) <= _CHECKED_AT_ONCE_BYTES:
                check_whole(call.promise, body)
            else:
                await asyncio.to_thread(check_whole, call.promise, body)
        return body

    async def _events(self, call: Call, share: Share, room: Room | None, *, with_usage: bool) -> AsyncGenerator[bytes, None]:
        async with self._answer(call, share, room, with_usage=with_usage) as answer:
            events = checked_events(answer)
            async for some in events if call.promise.is_any else kept_events(call.promise, events):
                yield some

    @asynccontextmanager
    async def _answer(
        self, call: Call, share: Share, room: Room | None, *, with_usage: bool = False
    ) -> AsyncIterator[EngineAnswer]:
        """The engine's answer as it comes; leaving the block ends the request there."""
        uuids, replaced = await self._images(call, share) if call.images else ([], [])
        video_uuids = [self.ids.uuid(call.tenant, video.encoded.digest, _VIDEO) for video in call.asked.videos]
        asked = replace(call.asked, request=call.constrained if room is None else room.given(call.constrained))
        salt = self.ids.salt(call.tenant)
        body = rendered(asked, replaced, uuids, salt, video_uuids=video_uuids, with_usage=with_usage)
        check_body_size(body, self.limit_bytes)
        names = [*uuids, *video_uuids]
        with self._session(call, names) as session, self.tracing.engine_call(call.model, call.headers) as trace_headers:
            headers = {REQUEST_ID_HEADER: call.record.request_id, **trace_headers}
            ask = partial(self.engine.complete, call.model, body, headers, session)
            async with AsyncExitStack() as stack:
                yield await self._asked(call, ask, stack)

    async def _asked(self, call: Call, ask: Ask, stack: AsyncExitStack) -> EngineAnswer:
        """Asks; once more where an engine that lives failed on images in which nothing is wrong, or on videos.

        vLLM 0.32 does, once, on one that it last saw in a request that turned out too long: its two caches then differ in
        whether they know it.
        """
        try:
            return await stack.enter_async_context(ask())
        except EngineErred:
            if not call.images and not call.asked.videos:
                raise
        await self.check_images(call)
        try:
            return await stack.enter_async_context(ask())
        except EngineErred as error:
            if not call.asked.videos:
                raise
            raise EngineErred(f"{error.message} {_OF_VIDEOS}", param=call.asked.videos[0].param) from error

    async def check_images(self, call: Call) -> None:
        """Looks whether one of the call's images is why an engine failed. Raises InvalidImage: it is damaged."""
        await self.images.check(call.asked.images, call.images)

    async def identities(self, call: Call, share: Share) -> list[tuple[bytes, str]]:
        """What the images are known by, as the catalog has it: from the bytes they came in, or from their pixels."""
        if call.asked.model.cache.identity == "bytes":
            return call.identities
        digests = await self.images.pixel_identities(call.asked.images, call.images, share)
        return [(digest, image.recipe_text) for digest, image in zip(digests, call.images, strict=True)]

    async def _images(self, call: Call, share: Share) -> tuple[list[str], list[Pieces | None]]:
        """For each image its name in the engine's caches, and what takes its place, if it is not passed on as it came."""
        with self.tracing.step("shrink images"):
            uuids = [self.ids.uuid(call.tenant, digest, recipe) for digest, recipe in await self.identities(call, share)]
            return uuids, await self.images.replaced(call.asked.images, call.images, share)

    def _session(self, call: Call, uuids: list[str]) -> AbstractContextManager[str | None]:
        """What one of several engines is chosen by: the first image, or else video, which stays so as a conversation grows."""
        if not uuids or call.asked.model.copies == 1:
            return nullcontext()
        return self.hot.session_id(call.model, uuids[0])
