"""Vectors from an engine: the image made ready, the engine asked, and its answer looked at before anybody gets it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.body import splice
from gateway.cache.key import ImageIdentity
from gateway.catalog.models import Model
from gateway.errors import EngineErred, EngineFailed, EngineRefused
from gateway.images.sized import SizedImage
from gateway.memory import Share
from gateway.pipeline.images import Images, told
from gateway.pipeline.prepare import (
    LEFT_OUT_HEADER,
    MODEL_HEADER,
    AskedImage,
    Urls,
    check_body_size,
    image_urls,
    written,
)
from gateway.pipeline.relay import whole_body
from gateway.telemetry.request import REQUEST_ID_HEADER, RequestRecord
from gateway.telemetry.tracing import Tracing
from gateway.upstream.engine import EmbeddingEngine
from gateway.wire.embeddings import EmbeddingRequest, NoVectors, Vectors, of_image, of_words


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request whose every field was checked, and whose image was as far as it is here."""

    request: EmbeddingRequest
    images: tuple[AskedImage, ...]
    urls: Urls
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingCall:
    """A request on its way to the model named `name`; its image, if it has one, is here, with the size that the model gets."""

    wanted: Wanted
    name: str
    model: Model
    images: list[SizedImage]
    headers: Mapping[str, str]
    record: RequestRecord
    share: Share

    @property
    def identities(self) -> list[ImageIdentity]:
        """What the image is known by, from the bytes it came in."""
        return [(image.image.encoded.digest, image.recipe_text) for image in self.images]

    @property
    def answer_headers(self) -> dict[str, str]:
        """What the response says about how the request was taken."""
        left_out = {LEFT_OUT_HEADER: ", ".join(self.wanted.left_out)} if self.wanted.left_out else {}
        return {MODEL_HEADER: self.name} | left_out | told(self.images)


@dataclass(frozen=True, slots=True, eq=False)
class VectorMaking:
    """What it takes to have an engine make vectors; bodies for engines have up to `limit_bytes`."""

    images: Images
    engine: EmbeddingEngine
    tracing: Tracing
    limit_bytes: int

    async def make(self, call: EmbeddingCall, share: Share) -> Vectors:
        """The vectors that the call asks for; what is made for them is counted in `share`.

        Raises InvalidImage, ImageOverLimit, Overloaded, EngineFailed: there are others, or no numbers in them; and what
        `EmbeddingEngine.embed` and the relay raise.
        """
        try:
            made = [await self._asked(call, body, number) for body, number in await self._bodies(call, share)]
            return Vectors.together(made)
        except NoVectors as error:
            raise EngineFailed(f"The engine of model '{call.name}' gave no usable embeddings.") from error
        except EngineErred:
            await self.images.check(call.wanted.images, call.images)
            raise

    async def _bodies(self, call: EmbeddingCall, share: Share) -> list[tuple[Sequence[bytes | memoryview], int]]:
        """What the engine is to be asked, one after the other, each with the number of vectors that it asks for."""
        request = call.wanted.request
        if call.images:
            return [(await self._about_image(call, share), 1)]
        # vLLM 0.32 counts each text as a request, and would for ever call its queue full for more than it has places.
        at_once, padded = call.model.concurrency, call.model.family_facts.pads_words
        parts = [request.texts[first : first + at_once] for first in range(0, request.vectors, at_once)]
        return [((written(request.for_engine(call.name, of_words(part, padded=padded))),), len(part)) for part in parts]

    async def _about_image(self, call: EmbeddingCall, share: Share) -> Sequence[bytes | memoryview]:
        with self.tracing.step("shrink images"):
            replaced = await self.images.replaced(call.wanted.images, call.images, share)
        urls, pieces = image_urls(call.wanted.images, call.wanted.urls, replaced)
        body = splice(written(call.wanted.request.for_engine(call.name, of_image(urls[0]))), pieces)
        check_body_size(body, self.limit_bytes)
        return body

    async def _asked(self, call: EmbeddingCall, body: Sequence[bytes | memoryview], number: int) -> Vectors:
        with self.tracing.engine_call(call.name, call.headers, "embeddings") as trace_headers:
            headers = {REQUEST_ID_HEADER: call.record.request_id, **trace_headers}
            try:
                async with self.engine.embed(call.name, body, headers) as answer:
                    return Vectors.of_engine(await whole_body(answer), number)
            except EngineRefused as error:
                # vLLM names its own objects; there is little else that it can have found fault with.
                about = "messages" if call.images else "input"
                param = error.param if error.param == "truncate_prompt_tokens" else about
                raise EngineRefused(error.message, param=param, reason=error.error_code) from error
