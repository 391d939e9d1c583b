"""An answer from an engine: images made ready, the request rendered, and the engine asked."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from gateway.errors import EngineErred, ImageOverLimit
from gateway.images.engine_ids import EngineIds
from gateway.memory import Share
from gateway.pipeline.call import Call
from gateway.pipeline.images import Images
from gateway.pipeline.prepare import Pieces, rendered
from gateway.telemetry.request import REQUEST_ID_HEADER
from gateway.telemetry.tracing import Tracing
from gateway.upstream.affinity import HotImages
from gateway.upstream.engine import Engine, EngineAnswer

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

    @asynccontextmanager
    async def answer(self, call: Call, share: Share, *, with_usage: bool = False) -> AsyncIterator[EngineAnswer]:
        """The engine's answer as it comes; leaving the block ends the request there.

        What is made for it is counted in `share`. `with_usage` asks for the count of tokens at the end of a stream, whether or
        not the caller has. Raises InvalidImage, ImageOverLimit, Overloaded, and what `Engine.complete` raises.
        """
        uuids, replaced = await self._images(call, share) if call.images else ([], [])
        body = rendered(call.asked, replaced, uuids, self.ids.salt(call.tenant), with_usage=with_usage)
        self._check_size(body)
        with self._session(call, uuids) as session, self.tracing.engine_call(call.model, call.headers) as trace_headers:
            headers = {REQUEST_ID_HEADER: call.record.request_id, **trace_headers}
            ask = partial(self.engine.complete, call.model, body, headers, session)
            async with AsyncExitStack() as stack:
                yield await self._asked(call, ask, stack)

    async def _asked(self, call: Call, ask: Ask, stack: AsyncExitStack) -> EngineAnswer:
        """Asks; once more where an engine that lives failed on images in which nothing is wrong.

        vLLM 0.32 does, once, on an image that it last saw in a request that turned out too long: its two caches then differ in
        whether they know it.
        """
        try:
            return await stack.enter_async_context(ask())
        except EngineErred:
            if not call.images:
                raise
        await self.check_images(call)
        return await stack.enter_async_context(ask())

    async def check_images(self, call: Call) -> None:
        """Looks whether one of the call's images is why an engine failed. Raises InvalidImage: it is damaged."""
        await self.images.check(call.asked, call.images)

    async def identities(self, call: Call, share: Share) -> list[tuple[bytes, str]]:
        """What the images are known by, as the catalog has it: from the bytes they came in, or from their pixels."""
        if call.asked.model.cache.identity == "bytes":
            return call.identities
        digests = await self.images.pixel_identities(call.asked, call.images, share)
        return [(digest, image.recipe_text) for digest, image in zip(digests, call.images, strict=True)]

    async def _images(self, call: Call, share: Share) -> tuple[list[str], list[Pieces | None]]:
        """For each image its name in the engine's caches, and what takes its place, if it is not passed on as it came."""
        with self.tracing.step("shrink images"):
            uuids = [self.ids.uuid(call.tenant, digest, recipe) for digest, recipe in await self.identities(call, share)]
            return uuids, await self.images.replaced(call.asked, call.images, share)

    def _session(self, call: Call, uuids: list[str]) -> AbstractContextManager[str | None]:
        """What one of several engines is chosen by: the first image, which stays the first as a conversation grows."""
        if not uuids or call.asked.model.copies == 1:
            return nullcontext()
        return self.hot.session_id(call.model, uuids[0])

    def _check_size(self, body: Sequence[bytes | memoryview]) -> None:
        """What was fetched or shrunk may be larger than what came; engines have the limit that bodies have here."""
        size = sum(map(len, body))
        if size > self.limit_bytes:
            message = f"With its images made ready the request has {size} bytes; limits.body_mib allows {self.limit_bytes}."
            raise ImageOverLimit(message, param="messages")
