"""What is made of images is made once, by real workers, whoever asks for it and in whatever order."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable

import pytest

from gateway.catalog.models import Catalog
from gateway.catalog.read import parse_catalog
from gateway.errors import InvalidImage, Overloaded
from gateway.images.digest import PixelDigests, source_digest
from gateway.images.fetch import ImageFetcher
from gateway.images.header import ImageHeader
from gateway.images.made import MadeImages
from gateway.images.normalise import Recipe
from gateway.images.shrunk import ShrunkImages
from gateway.images.sized import Image, ImageLimits, SizedImage
from gateway.images.workers import PixelWorkers
from gateway.memory import BodyMemory, Share
from gateway.pipeline.images import Images, fitted
from gateway.pipeline.prepare import AskedImage, Pieces
from tests.conftest import CATALOG, asked_of
from tests.processes import pixel_processes
from tests.scenes import encoded, scene

SMALL, LARGE = (84, 56), (1200, 900)
BUDGET = "    image_processor: {max_pixels: 200704}\n    context_tokens: 4096\n    images_per_request: 4"
LIMITS = ImageLimits(
    image_mib=20, images_mib=50, image_megapixels=16, image_side_pixels=8000, image_min_side_pixels=4, image_aspect=100
)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    plain = "    context_tokens: 4096\n    images_per_request: 2"
    assert plain in CATALOG
    return parse_catalog(CATALOG.replace("body_mib: 1}", "body_mib: 64}").replace(plain, BUDGET, 1))


class Counted(PixelWorkers):
    """Workers that say how much they had to do."""

    def __init__(self, timeout_s: float = 20) -> None:
        super().__init__(processes=2, memory_mib=512, timeout_s=timeout_s, max_pixels=50_000_000)
        self.applied = self.identified = 0

    async def apply(self, payload: bytes | bytearray | memoryview, recipe: Recipe) -> bytes:
        self.applied += 1
        return await super().apply(payload, recipe)

    async def identify(self, payload: bytes | bytearray | memoryview, header: ImageHeader) -> bytes:
        self.identified += 1
        return await super().identify(payload, header)


class Setting:
    """What the pipeline has of images, for requests of one model."""

    def __init__(self, catalog: Catalog, workers: Counted, shrunk_bytes: int, digests: int) -> None:
        self.workers = workers
        self.memory = BodyMemory(2**26, lambda _: None)
        self._catalog = catalog
        fetcher = ImageFetcher(schemes=frozenset(), allowed_hosts=frozenset(), max_bytes=1, at_once=1, total_s=1)
        made = MadeImages(workers, ShrunkImages(shrunk_bytes), PixelDigests(digests))
        self._images = Images(LIMITS, fetcher, workers, made)

    def asked(self, *files: bytes) -> tuple[tuple[AskedImage, ...], list[SizedImage]]:
        urls = [f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in files]
        content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        request = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
        asked = asked_of(json.dumps(request).encode(), self._catalog, LIMITS)
        here = [one.image for one in asked.images if isinstance(one.image, Image)]
        return asked.images, fitted(asked.images, here, "tiny", asked.model)

    async def identities(self, share: Share, *files: bytes) -> list[bytes]:
        return await self._images.pixel_identities(*self.asked(*files), share)

    async def replaced(self, share: Share, *files: bytes) -> list[Pieces | None]:
        return await self._images.replaced(*self.asked(*files), share)


Run = Callable[..., None]


@pytest.fixture
def run(catalog: Catalog) -> Run:
    def run_test(
        test: Callable[[Setting], Awaitable[None]], *, shrunk_bytes: int = 2**24, digests: int = 100, timeout_s: float = 20
    ) -> None:
        async def main() -> None:
            async with Counted(timeout_s) as workers:
                await test(Setting(catalog, workers, shrunk_bytes, digests))
                assert len(asyncio.all_tasks()) == 1

        asyncio.run(main())

    return run_test


def png(seed: int, size: tuple[int, int], level: int = 6) -> bytes:
    return encoded(scene(seed, size), "PNG", compress_level=level)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_same_pixels_have_one_identity_and_others_another(run: Run, size: tuple[int, int]) -> None:
    async def test(setting: Setting) -> None:
        with setting.memory.share() as share:
            one, twin, other = await setting.identities(share, png(2, size), png(2, size, 1), png(5, size))
        assert one == twin != other
        assert len(one) == 32

    run(test)


def test_of_what_is_shrunk_the_identity_is_the_digest_of_what_is_sent(run: Run) -> None:
    async def test(setting: Setting) -> None:
        with setting.memory.share() as share:
            (identity,) = await setting.identities(share, png(2, LARGE))
            (replaced,) = await setting.replaced(share, png(2, LARGE))
        assert replaced is not None
        assert identity == source_digest(replaced[1])

    run(test)


@pytest.mark.parametrize("shrunk_bytes", [0, 2**24])
def test_what_was_shrunk_for_its_identity_is_what_is_sent_and_counts_once(run: Run, shrunk_bytes: int) -> None:
    async def test(setting: Setting) -> None:
        files = (png(2, LARGE), png(2, SMALL), png(2, LARGE))
        with setting.memory.share() as share:
            await setting.identities(share, *files)
            sizes = {share.held_bytes}
            for _ in range(2):
                first, small, second = await setting.replaced(share, *files)
                sizes.add(share.held_bytes)
        assert (setting.workers.applied, setting.workers.identified) == (1, 1)
        assert small is None
        assert first is not None
        assert first == second
        assert sizes == {len(first[1])}

    run(test, shrunk_bytes=shrunk_bytes)


def test_with_no_room_for_what_was_shrunk_it_is_gone_with_its_request(run: Run) -> None:
    async def test(setting: Setting) -> None:
        for _ in range(2):
            with setting.memory.share() as share:
                await setting.replaced(share, png(2, LARGE))
        assert setting.workers.applied == 2

    run(test, shrunk_bytes=0)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_bytes_that_come_again_are_not_decoded_again(run: Run, size: tuple[int, int]) -> None:
    async def test(setting: Setting) -> None:
        seen = []
        for _ in range(3):
            with setting.memory.share() as share:
                seen += await setting.identities(share, png(2, size))
        assert len(set(seen)) == 1
        assert setting.workers.applied + setting.workers.identified == 1

    run(test, shrunk_bytes=0)


def test_an_image_that_several_ask_about_at_once_is_worked_on_once(run: Run) -> None:
    async def ask(setting: Setting) -> None:
        with setting.memory.share() as share:
            await setting.identities(share, png(2, LARGE), png(2, SMALL))
            await setting.replaced(share, png(2, LARGE), png(2, SMALL))

    async def test(setting: Setting) -> None:
        await asyncio.gather(*(ask(setting) for _ in range(8)))
        assert (setting.workers.applied, setting.workers.identified) == (1, 1)

    run(test)


def test_who_leaves_takes_nothing_from_others_who_wait_for_the_same_image(run: Run) -> None:
    async def test(setting: Setting) -> None:
        with setting.memory.share() as first_share, setting.memory.share() as second_share:
            first = asyncio.ensure_future(setting.replaced(first_share, png(2, LARGE)))
            second = asyncio.ensure_future(setting.replaced(second_share, png(2, LARGE)))
            await asyncio.sleep(0.01)
            assert setting.workers.applied == 1
            first.cancel()
            (replaced,) = await second
        assert replaced is not None
        assert (setting.workers.applied, first_share.held_bytes) == (1, 0)

    run(test)


def test_when_the_last_has_left_its_worker_is_free(run: Run) -> None:
    async def test(setting: Setting) -> None:
        workers = pixel_processes()
        for worker in workers:
            worker.suspend()
        with setting.memory.share() as share:
            leaving = [asyncio.ensure_future(setting.replaced(share, png(seed, LARGE))) for seed in (2, 2, 5, 5)]
            await asyncio.sleep(0.1)
            for caller in leaving:
                caller.cancel()
            await asyncio.wait(leaving)
            assert not any(worker.is_running() for worker in workers)
            assert await setting.replaced(share, png(8, LARGE)) != [None]

    run(test)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_image_that_cannot_be_decoded_is_named(run: Run, size: tuple[int, int]) -> None:
    whole = png(2, size)

    async def test(setting: Setting) -> None:
        with setting.memory.share() as share:
            for _ in range(2):
                with pytest.raises(InvalidImage, match="cannot be decoded") as refusal:
                    await setting.identities(share, png(5, SMALL), whole[: len(whole) // 2])
                assert refusal.value.param == "messages[0].content[1].image_url.url"

    run(test)


def test_without_processes_for_images_there_is_no_identity(run: Run) -> None:
    async def test(setting: Setting) -> None:
        await setting.workers.aclose()
        with setting.memory.share() as share:
            for size in (SMALL, LARGE):
                with pytest.raises(Overloaded, match="No process could be started"):
                    await setting.identities(share, png(2, size))

    run(test)


def test_what_has_no_room_in_memory_is_refused(run: Run) -> None:
    async def test(setting: Setting) -> None:
        with setting.memory.share() as others, setting.memory.share() as share:
            others.grow(2**26)
            for _ in range(2):
                with pytest.raises(Overloaded):
                    await setting.replaced(share, png(2, LARGE))
        with setting.memory.share() as share:
            await setting.replaced(share, png(2, LARGE))
        assert setting.workers.applied == 1

    run(test)


def test_an_image_whose_pixels_take_too_long_is_known_by_its_bytes(run: Run) -> None:
    async def test(setting: Setting) -> None:
        for worker in pixel_processes():
            worker.suspend()
        with setting.memory.share() as share:
            assert await setting.identities(share, png(2, SMALL)) == [source_digest(base64.b64encode(png(2, SMALL)))]

    run(test, timeout_s=0.5)
