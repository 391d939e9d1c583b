"""The images of a request as its model gets them: fetched where they are elsewhere, shrunk where they are over their budget."""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import pybase64

from gateway.catalog.entry import Answerer
from gateway.errors import InvalidField, InvalidImage, Overloaded
from gateway.images.encoded import Base64Image
from gateway.images.fetch import CannotFetch, ImageFetcher, NoTurn
from gateway.images.header import ImageFormat
from gateway.images.made import MadeImages
from gateway.images.normalise import Damaged, Recipe, Undecodable, decoding
from gateway.images.sized import Image, ImageLimits, SizedImage, check_together, measured, sized
from gateway.images.source import RemoteImage
from gateway.images.workers import CannotStart, PixelWorkers
from gateway.memory import Share
from gateway.pipeline.prepare import AskedImage, Pieces

IMAGE_SIZES_HEADER = "x-fovea-image-sizes"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """What takes time about images."""

    limits: ImageLimits
    fetcher: ImageFetcher
    workers: PixelWorkers
    made: MadeImages

    async def here(self, asked: Sequence[AskedImage], share: Share) -> list[Image]:
        """The images, all of them here; the bytes of those that are fetched are counted in `share` as they come.

        Raises InvalidImage, ImageOverLimit, Overloaded.
        """
        images = await _all(
            self._fetched(one.image, one.param, share) if isinstance(one.image, RemoteImage) else one.image for one in asked
        )
        check_together(images, self.limits)
        return images

    async def _fetched(self, image: RemoteImage, param: str, share: Share) -> Image:
        try:
            fetched = await self.fetcher.fetch(image.url, share.grow)
        except CannotFetch as error:
            raise InvalidImage(str(error), param=param) from error
        except NoTurn as error:
            raise Overloaded("The gateway fetches as many images as image_fetches allows.", retry_after_s=1) from error
        payload = pybase64.b64encode(fetched)
        share.grow(len(payload) - len(fetched))
        return measured(Base64Image(payload), self.limits, param)

    async def pixel_identities(self, asked: Sequence[AskedImage], images: list[SizedImage], share: Share) -> list[bytes]:
        """For each image 32 bytes that are another's only where the model sees the same of both.

        What is shrunk for that is counted in `share`, and is there for `replaced`. Raises as that does.
        """
        return await _all(self._identity(image, one.param, share) for one, image in zip(asked, images, strict=True))

    async def _identity(self, image: SizedImage, param: str, share: Share) -> bytes:
        with _told_of(param):
            return await self.made.pixel_identity(image, share)

    async def replaced(self, asked: Sequence[AskedImage], images: list[SizedImage], share: Share) -> list[Pieces | None]:
        """For each image the data: URL that takes the place of its own; None for one that is passed on as it came.

        What is made is counted in `share`. Raises InvalidImage: its bytes cannot be decoded; Overloaded.
        """
        return await _all(self._replacement(one, image, share) for one, image in zip(asked, images, strict=True))

    def _replacement(
        self, asked: AskedImage, sized: SizedImage, share: Share
    ) -> Coroutine[None, None, Pieces | None] | Pieces | None:
        if sized.recipe is not None:
            return self._shrunk(sized.image, sized.recipe, asked.param, share)
        if isinstance(asked.image, RemoteImage):
            return _data_url(sized.image.header.format, sized.image.encoded.payload)
        return None

    async def check(self, asked: Sequence[AskedImage], images: list[SizedImage]) -> None:
        """Decodes the images that were passed on as they came, to tell whether one of them is why an engine failed.

        vLLM 0.32 answers 500 where Pillow raises anything else than an OSError. Raises InvalidImage: that one is damaged.
        """
        for one, image in zip(asked, images, strict=True):
            if image.recipe is None:
                with suppress(Undecodable, CannotStart):  # for want of time or memory, which says nothing about the image
                    await self._check(image.image, one.param)

    async def _check(self, image: Image, param: str) -> None:
        try:
            await self.workers.apply(image.encoded.payload, decoding(image.header))
        except Damaged as error:
            raise InvalidImage(str(error), param=param) from error

    async def _shrunk(self, image: Image, recipe: Recipe, param: str, share: Share) -> Pieces:
        with _told_of(param):
            return _data_url(recipe.format, await self.made.shrunk(image, recipe, share))


@contextmanager
def _told_of(param: str) -> Iterator[None]:
    """What goes wrong with the image at `param`, as the errors that callers know."""
    try:
        yield
    except Undecodable as error:
        raise InvalidImage(str(error), param=param) from error
    except CannotStart as error:
        raise Overloaded("No process could be started to decode an image.", retry_after_s=1) from error


def fitted(asked: Sequence[AskedImage], images: list[Image], name: str, model: Answerer) -> list[SizedImage]:
    """The images as the model named `name` gets them.

    Raises InvalidImage; InvalidField: together they are longer than its context.
    """
    fitted = all_sized(asked, images, model)
    check_context(sum(image.tokens for image in fitted), name, model)
    return fitted


def all_sized(asked: Sequence[AskedImage], images: list[Image], model: Answerer) -> list[SizedImage]:
    """The images as `model` gets them, however long they are. Raises InvalidImage."""
    return [sized(image, one.detail, model, one.param) for one, image in zip(asked, images, strict=True)]


def check_context(tokens: int, name: str, model: Answerer) -> None:
    """Passes images of so many `tokens` together that the context of the model named `name` has room. Raises InvalidField."""
    if tokens > model.context_tokens:
        message = (
            f"The images become {tokens} tokens; context_tokens of '{name}' is {model.context_tokens}. "
            "Send fewer, smaller ones, or ask for detail: low."
        )
        raise InvalidField(message, param="messages", reason="context_length_exceeded")


def told(images: list[SizedImage]) -> dict[str, str]:
    """What the response says about images of which one or more were shrunk: the sizes that were sent, in their order."""
    if all(image.recipe is None for image in images):
        return {}
    return {IMAGE_SIZES_HEADER: ", ".join(f"{image.width}x{image.height}" for image in images)}


def _data_url(form: ImageFormat, payload: bytes | memoryview) -> Pieces:
    return (f"data:image/{form};base64,".encode(), payload)


async def _all(works: Iterable[Coroutine[None, None, _T] | _T]) -> list[_T]:
    """What all of them give, of which most are there already; the first that fails ends the others."""
    begun = [asyncio.ensure_future(work) if isinstance(work, Coroutine) else work for work in works]
    tasks = [work for work in begun if isinstance(work, asyncio.Task)]
    try:
        await asyncio.gather(*tasks)
        return [work.result() if isinstance(work, asyncio.Task) else work for work in begun]
    finally:
        await _ended(tasks)
        # What failed has passed this frame. Did the frame hold it in turn, as a TaskGroup's does, both would stay, and the body
        # in other frames with them, until the garbage collector runs.
        begun.clear()
        tasks.clear()


async def _ended(tasks: Iterable[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
