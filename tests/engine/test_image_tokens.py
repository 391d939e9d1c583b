"""What an image costs is asked of the real engine: one vLLM server per family, over a small model of its true architecture.

For each size the server is asked for the image as it is, as it would be sent, and as `detail: low` would send it. `/tokenize`
renders a chat as a completion does, image processor included, and stops before the model runs; that it counts what
`usage.prompt_tokens` counts is checked on some sizes of every family.
"""

import base64
import functools
import io
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from transformers import AutoTokenizer

from gateway.catalog.families import FAMILIES, FamilyName
from gateway.catalog.image_rules import Budget, ImageRule, Size
from tests.engine.tiny_models import MAKERS
from tests.engine.vllm_server import VllmServer

pytestmark = pytest.mark.timeout(900)  # two engines may have to start first

FREE = Budget(max_pixels=None, max_side=None)
LOW = Budget(max_pixels=None, max_side=512)

SIZES: tuple[Size, ...] = (
    *((8, 8), (9, 31), (28, 28), (56, 20), (64, 48), (99, 101), (200, 16), (224, 224), (300, 200), (336, 336)),
    *((337, 335), (384, 384), (400, 32), (448, 448), (449, 447), (500, 999), (512, 512), (513, 511), (640, 480), (672, 336)),
    *((700, 701), (768, 1024), (896, 896), (1000, 100), (1007, 994), (1024, 768), (1080, 1920), (1200, 400), (1275, 1650)),
    *((1344, 1344), (1457, 1455), (1600, 300), (1920, 1080), (2000, 64), (2048, 1536), (2304, 1728), (2500, 1111), (3000, 500)),
    *((3000, 4000), (4000, 3000)),
)
GENERATED: tuple[Size, ...] = ((8, 8), (400, 32), (300, 200), (1000, 100), (500, 999), (2000, 64))
"""The sizes for which the model runs as well."""

# As the models here are made.
PARAMETERS: dict[str, dict[str, Any]] = {"qwen2_vl": {"size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 256}}}
TOLERANCE = {"gemma3": 1}
"""Tokens; Gemma's line ends become one with those around them."""


@functools.cache
def image_url(size: Size) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, "#7788aa").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class Engine(VllmServer):
    """One family's server, which is asked with one image or none."""

    def tokens(self, size: Size | None) -> int:
        return int(self._ask("/tokenize", size, {})["count"])

    def prompt_tokens(self, size: Size | None) -> int:
        return int(self._ask("/v1/chat/completions", size, {"max_tokens": 1})["usage"]["prompt_tokens"])

    def _ask(self, path: str, size: Size | None, more: dict[str, Any]) -> dict[str, Any]:
        image = [] if size is None else [{"type": "image_url", "image_url": {"url": image_url(size)}}]
        content = [*image, {"type": "text", "text": "what is this"}]
        response = self.client.post(path, json={"model": "tiny", "messages": [{"role": "user", "content": content}], **more})
        assert response.status_code == 200, f"{size}: {response.text}"
        answer: dict[str, Any] = response.json()
        return answer


class Engines:
    """One engine after the other, with the next one starting meanwhile: a start is mostly one core importing vLLM."""

    def __init__(self, families: list[str], folder: pathlib.Path) -> None:
        self._left, self._folder = families, folder
        self._started: dict[str, Engine] = {}

    def up(self, family: str) -> Engine:
        """The family's engine, once it answers."""
        self._start(family)
        for following in self._left[:1]:
            self._start(following)
        self._started[family].wait()
        return self._started[family]

    def _start(self, family: str) -> None:
        if family not in self._started:
            self._started[family] = Engine(family, self._folder / family)
        self._left = [other for other in self._left if other != family]

    def end(self, family: str) -> None:
        self._started.pop(family).end()

    def end_all(self) -> None:
        for family in list(self._started):
            self.end(family)


@pytest.fixture(scope="module")
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    callspecs = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    asked = [str(callspec.params["family"]) for callspec in callspecs if callspec is not None]
    engines = Engines(asked, tmp_path_factory.mktemp("engines"))
    yield engines
    engines.end_all()


@pytest.fixture
def engine(family: str, engines: Engines) -> Iterator[Engine]:
    yield engines.up(family)
    engines.end(family)


def rule_of(family: str, model: pathlib.Path) -> ImageRule:
    """The family's rule, with what is the tokenizer's affair read off the tokenizer here."""
    parameters = dict(PARAMETERS.get(family, {}))
    if family == "idefics3":
        tokenizer = AutoTokenizer.from_pretrained(model)
        parameters["tile_marker_tokens"] = len(tokenizer.encode("<row_1_col_1>"))
        parameters["view_marker_tokens"] = len(tokenizer.encode("<global-img>"))
    rule: ImageRule = FAMILIES[FamilyName(family)].image_rule.model_validate(parameters)
    return rule


@pytest.mark.parametrize("family", MAKERS)
def test_an_image_costs_what_its_family_s_rule_says(family: str, engine: Engine) -> None:
    rule = rule_of(family, engine.model)
    without = engine.tokens(None)
    wrong = {}
    for size in SIZES:
        for sent in {size, rule.sent_size(*size, FREE), rule.sent_size(*size, LOW)}:
            counted = engine.tokens(sent) - without
            if abs(counted - rule.tokens(*sent)) > TOLERANCE.get(family, 0):
                wrong[sent] = (counted, rule.tokens(*sent))
    assert wrong == {}
    assert engine.prompt_tokens(None) == without
    for size in GENERATED:
        for sent in {size, rule.sent_size(*size, LOW)}:
            assert engine.prompt_tokens(sent) == engine.tokens(sent), sent
