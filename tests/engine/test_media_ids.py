"""The names that the gateway gives images, as vLLM takes them: told by vLLM's own counters of what its caches had.

The document is the gateway's own, from what a client sent to what goes to the engine.
"""

import asyncio
import base64
import dataclasses
import io
import json
import pathlib
import random
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest
from PIL import Image, PngImagePlugin
from vllm.multimodal.media import ImageMediaIO

from gateway.catalog.read import parse_catalog
from gateway.errors import EngineErred
from gateway.images.digest import PixelDigests
from gateway.images.encoded import RawImage
from gateway.images.engine_ids import EngineIds
from gateway.images.header import UnreadableHeader, read_header
from gateway.images.made import MadeImages
from gateway.images.normalise import Undecodable, decoding
from gateway.images.pixels import identify
from gateway.images.shrunk import ShrunkImages
from gateway.images.sized import Image as MeasuredImage
from gateway.images.sized import ImageLimits
from gateway.images.workers import PixelWorkers
from gateway.memory import BodyMemory
from gateway.pipeline.images import fitted
from gateway.pipeline.prepare import rendered
from gateway.upstream.failures import failure
from tests.conftest import CATALOG, asked_of
from tests.engine.vllm_server import VllmServer
from tests.hostile_images import SETS

pytestmark = pytest.mark.timeout(600)  # an engine has to start first

CONTEXT_TOKENS = 2048
LIMITS = ImageLimits(
    image_mib=20, images_mib=50, image_megapixels=50, image_side_pixels=16384, image_min_side_pixels=4, image_aspect=100
)
IDS = EngineIds(b"a secret")
QUESTION = "what is in this image"

BUDGET = "    image_processor: {max_pixels: 200704}\n    context_tokens: 4096"
"""That of the model as tiny_models makes it."""


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    text: str
    prompt_tokens: int
    hits: dict[str, int]
    """By cache, `mm` or `prefix`: images, and tokens."""


class Engine(VllmServer):
    """A server that keeps little: four of the images here."""

    def __init__(self, folder: pathlib.Path) -> None:
        few = {"mm_processor_cache_gb": 0.004, "block_size": 32, "max_model_len": CONTEXT_TOKENS, "load_format": "auto"}
        super().__init__("qwen2_vl", folder, **few)

    def ask(self, document: bytes) -> Answer:
        before = self._hits()
        response = self.client.post("/v1/chat/completions", content=document, headers={"content-type": "application/json"})
        after = self._hits()
        hits = {cache: after[cache] - before[cache] for cache in after}
        if response.status_code != 200:
            return Answer(response.status_code, response.text, 0, hits)
        answer = response.json()
        text = answer["choices"][0]["message"]["content"]
        return Answer(200, text, answer["usage"]["prompt_tokens"], hits)

    def _hits(self) -> dict[str, int]:
        counters = re.findall(
            r"^vllm:(mm|prefix)_cache_hits_total\{.*\} (\S+)$", self.client.get("/metrics").text, re.MULTILINE
        )
        return {cache: int(float(count)) for cache, count in counters}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("engine"))
    engine.wait()
    yield engine
    engine.end()


def drawn(seed: int, size: tuple[int, int] = (448, 336), **options: Any) -> bytes:
    buffer = io.BytesIO()
    grains = Image.frombytes("RGB", (28, 21), random.Random(seed).randbytes(28 * 21 * 3))
    grains.resize(size).save(buffer, "PNG", **options)
    return buffer.getvalue()


class Gateway:
    """What the gateway makes of a question about an image, by its own means."""

    def __init__(self, runner: asyncio.Runner, workers: PixelWorkers) -> None:
        plain = "    context_tokens: 4096"
        self._catalog = parse_catalog(CATALOG.replace("body_mib: 1}", "body_mib: 64}").replace(plain, BUDGET, 1))
        self._runner = runner
        self._made = MadeImages(workers, ShrunkImages(0), PixelDigests(0))

    def prepared(
        self, file: bytes, *, tenant: str = "ada", named: bool = True, words: str = QUESTION, identity: str = "pixels"
    ) -> bytes:
        """The document for the engine."""
        url = f"data:image/png;base64,{base64.b64encode(file).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": words}]
        request = {"model": "tiny", "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 8}
        return self._runner.run(self._prepared(json.dumps(request).encode(), tenant if named else None, identity))

    async def _prepared(self, body: bytes, tenant: str | None, identity: str) -> bytes:
        asked = asked_of(body, self._catalog, LIMITS)
        here = [one.image for one in asked.images if isinstance(one.image, MeasuredImage)]
        (image,) = fitted(asked.images, here, "tiny", asked.model)
        with BodyMemory(2**30, lambda _: None).share() as share:
            by_pixels = await self._made.pixel_identity(image, share)
            shrunk = None if image.recipe is None else await self._made.shrunk(image.image, image.recipe, share)
        replaced = None if shrunk is None else (b"data:image/jpeg;base64,", shrunk)
        if tenant is None:
            return b"".join(rendered(asked, [replaced], [None], None))
        known_by = by_pixels if identity == "pixels" else image.image.encoded.digest
        return b"".join(rendered(asked, [replaced], [IDS.uuid(tenant, known_by, image.recipe_text)], IDS.salt(tenant)))


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    workers = PixelWorkers(processes=1, memory_mib=512, timeout_s=60, max_pixels=50_000_000)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        runner.run(_entered(stack, workers))
        yield Gateway(runner, workers)
        runner.run(stack.aclose())


async def _entered(stack: AsyncExitStack, workers: PixelWorkers) -> None:
    await stack.enter_async_context(workers)


def repacked(seed: int, size: tuple[int, int] = (448, 336)) -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Software", "another one")
    return drawn(seed, size, compress_level=1, pnginfo=texts)


def test_an_image_that_comes_again_is_neither_processed_nor_computed_again(engine: Engine, gateway: Gateway) -> None:
    first = engine.ask(gateway.prepared(drawn(1)))
    assert first.hits == {"mm": 0, "prefix": 0}
    again = engine.ask(gateway.prepared(drawn(1)))
    assert again.hits["mm"] == 1
    assert again.hits["prefix"] > 150, "most of the image's 192 tokens"
    assert dataclasses.replace(again, hits={}) == dataclasses.replace(first, hits={})


@pytest.mark.parametrize("size", [(448, 336), (1600, 1200)], ids=["as it came", "shrunk"])
def test_the_same_pixels_in_another_file_are_the_same_image(engine: Engine, gateway: Gateway, size: tuple[int, int]) -> None:
    assert repacked(2, size) != drawn(2, size)
    first = engine.ask(gateway.prepared(drawn(2, size)))
    assert first.hits["mm"] == 0
    twin = engine.ask(gateway.prepared(repacked(2, size)))
    assert twin.hits["mm"] == 1
    assert twin.hits["prefix"] > 150
    assert (twin.text, twin.prompt_tokens) == (first.text, first.prompt_tokens)


def test_known_by_its_bytes_another_file_is_another_image(engine: Engine, gateway: Gateway) -> None:
    engine.ask(gateway.prepared(drawn(3), identity="bytes"))
    assert engine.ask(gateway.prepared(drawn(3), identity="bytes")).hits["mm"] == 1
    assert engine.ask(gateway.prepared(repacked(3), identity="bytes")).hits == {"mm": 0, "prefix": 0}


def test_another_tenant_finds_nothing_of_it(engine: Engine, gateway: Gateway) -> None:
    mine = engine.ask(gateway.prepared(drawn(4), tenant="ada"))
    theirs = engine.ask(gateway.prepared(drawn(4), tenant="bob"))
    assert theirs == dataclasses.replace(mine, hits={"mm": 0, "prefix": 0})


def test_another_image_under_the_same_question_finds_nothing(engine: Engine, gateway: Gateway) -> None:
    engine.ask(gateway.prepared(drawn(5)))
    assert engine.ask(gateway.prepared(drawn(6))).hits == {"mm": 0, "prefix": 0}


def test_a_name_changes_no_answer(engine: Engine, gateway: Gateway) -> None:
    answers = set()
    for seed in range(20, 23):
        named = engine.ask(gateway.prepared(drawn(seed)))
        unnamed = engine.ask(gateway.prepared(drawn(seed), named=False))
        assert unnamed.hits["mm"] == 0, "vLLM's own name for it is another"
        assert (named.status, named.text, named.prompt_tokens) == (200, unnamed.text, unnamed.prompt_tokens)
        answers.add(named.text)
    assert len(answers) > 1, "else this shows nothing"


def test_an_image_that_the_cache_has_no_room_for_any_more_is_taken_again(engine: Engine, gateway: Gateway) -> None:
    first = engine.ask(gateway.prepared(drawn(30)))
    for seed in range(31, 37):
        assert engine.ask(gateway.prepared(drawn(seed))).status == 200
    again = engine.ask(gateway.prepared(drawn(30)))
    assert (again.status, again.text, again.hits["mm"]) == (200, first.text, 0)
    assert engine.ask(gateway.prepared(drawn(30))).hits["mm"] == 1


def test_vllm_does_not_look_at_bytes_under_a_name_that_it_knows(engine: Engine, gateway: Gateway) -> None:
    """Why no caller's word may become a name, and why a name stands for all that decides what is sent."""
    first = orjson.loads(gateway.prepared(drawn(40)))
    other = orjson.loads(gateway.prepared(drawn(41)))
    first_part, other_part = (document["messages"][0]["content"][0] for document in (first, other))
    assert first_part["uuid"] != other_part["uuid"]
    answer = engine.ask(orjson.dumps(first))
    assert engine.ask(orjson.dumps(other)).text != answer.text
    other_part["uuid"] = first_part["uuid"]
    assert engine.ask(orjson.dumps(other)).text == answer.text


def test_an_image_whose_request_was_too_long_with_it_fails_once_more_and_then_no_more(engine: Engine, gateway: Gateway) -> None:
    """vLLM 0.32: its front takes the image for sent, its engine never got it (`multimodal_cache_miss`). So without names, too.

    What the gateway gets is a 500 as for any defect; vLLM has forgotten the image by then, so that the next request brings it.
    """
    for seed, named in ((50, True), (51, False)):
        counted = engine.client.post("/tokenize", json={"model": "tiny", "prompt": "what " * 100}).json()["count"]
        words = "what " * ((CONTEXT_TOKENS - 100) * 100 // counted)
        refused = engine.ask(gateway.prepared(drawn(seed), named=named, words=words))
        assert (refused.status, "exceeds model's maximum context length" in refused.text) == (400, True)
        failed = engine.ask(gateway.prepared(drawn(seed), named=named))
        assert failed.status == 500
        assert isinstance(failure("tiny", 500, "application/json", failed.text.encode(), back_in_s=1), EngineErred)
        assert engine.ask(gateway.prepared(drawn(seed), named=named)).status == 200
        assert engine.ask(gateway.prepared(drawn(seed), named=named)).hits["mm"] == 1


@pytest.mark.parametrize("name", ["colours", "metadata", "animations", "polyglots", "mislabelled", "shapes"])
def test_files_with_the_same_pixels_are_one_image_to_vllm_s_own_loader(name: str) -> None:
    seen: dict[bytes, tuple[str, object]] = {}
    for hostile in SETS[name](0):
        try:
            digest = identify(base64.b64encode(hostile.data), decoding(read_header(RawImage(hostile.data))))
        except (UnreadableHeader, Undecodable):
            continue
        try:
            image = ImageMediaIO().load_bytes(hostile.data).media
            loaded: object = (image.mode, image.size, image.tobytes())
        except Exception:  # noqa: BLE001 - as decoders fail
            loaded = None
        other, as_loaded = seen.setdefault(digest, (hostile.name, loaded))
        assert loaded == as_loaded, f"{hostile.name} and {other}"
    assert seen
