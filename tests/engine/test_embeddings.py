"""Words and images in one space, on the real engine: through the gateway, and beside what transformers makes of the same."""

import base64
import io
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
import torch
import transformers as hf
from openai.types import CreateEmbeddingResponse
from PIL import Image

from deploy.engine import engine_args
from deploy.warmup import warm_up
from gateway.catalog.read import parse_catalog
from tests.conftest import PATIENCE_S, RunningGateway, as_data_url, noise, picture, running_gateway
from tests.engine.vllm_server import VllmServer

pytestmark = pytest.mark.timeout(900)

_CATALOG = """
hardware: {{kind: cpu}}
models:
  tiny:
    source: demo:clip
    family: {family}
    kind: embedding
    tier: edge
    parameters_b: 0.0005
    kv_cache: {{layers: 2, attention_heads: 2, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    context_tokens: {context}
    concurrency: 4
    queue_depth: 8
    longest_answer_s: 60
    engine_url: {url}
"""

CONTEXT = {"clip": 77, "siglip": 64}
DIMENSIONS = 64
WORDS = ["red dress with floral pattern", "a steel flange", "Red  dress"]


@dataclass(frozen=True)
class Stack:
    """A gateway before one engine of a family."""

    family: str
    engine: VllmServer
    gateway: RunningGateway

    def ask(self, **fields: Any) -> httpx.Response:
        return httpx.post(f"{self.gateway.url}/v1/embeddings", json={"model": "tiny", **fields}, timeout=PATIENCE_S)

    def vectors(self, **fields: Any) -> list[list[float]]:
        answer = self.ask(**fields)
        assert answer.status_code == 200, answer.text
        return [each["embedding"] for each in answer.json()["data"]]


@pytest.fixture(scope="module", params=CONTEXT)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    written = _CATALOG.format(family=family, context=CONTEXT[family], url="http://127.0.0.1:1")
    catalog = parse_catalog(written)
    arguments = engine_args("tiny", catalog.models["tiny"], catalog.hardware) | {"load_format": "auto"}
    engine = VllmServer(family, folder / "engine", **arguments)
    try:
        engine.wait()
        warm_up(str(engine.client.base_url), "tiny", catalog.models["tiny"], "unused")
        entry = written.replace("http://127.0.0.1:1", str(engine.client.base_url).rstrip("/"))
        with running_gateway(folder, "http://127.0.0.1:1", entry) as gateway:
            yield Stack(family, engine, gateway)
    finally:
        engine.end()


def of_image(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def opened(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


def cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


class Reference:
    """What transformers makes of the same, with the same weights."""

    def __init__(self, stack: Stack) -> None:
        self._processor = hf.AutoProcessor.from_pretrained(stack.engine.model)
        self._model = hf.AutoModel.from_pretrained(stack.engine.model).float().eval()
        # As it was trained: SigLIP with all places filled.
        self._words = {"padding": "max_length", "max_length": CONTEXT["siglip"]} if stack.family == "siglip" else {}

    def of_words(self, text: str) -> list[float]:
        with torch.inference_mode():
            inputs = self._processor.tokenizer([text], return_tensors="pt", **self._words)
            return _only(self._model.get_text_features(input_ids=inputs["input_ids"]))

    def of_image(self, image: Image.Image) -> list[float]:
        with torch.inference_mode():
            inputs = self._processor.image_processor([image], return_tensors="pt")
            return _only(self._model.get_image_features(**inputs))


def _only(features: Any) -> list[float]:
    tensor = features if isinstance(features, torch.Tensor) else features.pooler_output
    vector: list[float] = tensor[0].tolist()
    return vector


@pytest.fixture(scope="module")
def reference(stack: Stack) -> Reference:
    return Reference(stack)


def test_the_sdk_gets_words_and_an_image_in_one_space(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.gateway.url}/v1", api_key="unused", max_retries=0) as client:
        words = client.embeddings.create(model="tiny", input=WORDS)
        image = client.post("/embeddings", body={"model": "tiny"} | of_image(picture()), cast_to=CreateEmbeddingResponse)
    vectors = [each.embedding for each in (*words.data, *image.data)]
    assert [len(vector) for vector in vectors] == [DIMENSIONS] * 4
    # vLLM's pooler normalises unless `use_activation` is false.
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1.0] * 4, abs=1e-3)
    assert image.usage.prompt_tokens == 1


def test_words_are_embedded_as_transformers_does(stack: Stack, reference: Reference) -> None:
    for text, vector in zip(WORDS, stack.vectors(input=WORDS), strict=True):
        assert cosine(vector, reference.of_words(text)) == pytest.approx(1, abs=1e-4), text
    # Which is no wonder where all words are near to each other: these are not.
    assert max(cosine(reference.of_words(WORDS[0]), reference.of_words(text)) for text in WORDS[1:]) < 0.996


def test_an_image_is_embedded_as_transformers_does(stack: Stack, reference: Reference) -> None:
    urls = [noise(size, seed=1) for size in ((224, 224), (60, 60), (120, 200))]
    references = [reference.of_image(opened(url)) for url in urls]
    for url, expected in zip(urls, references, strict=True):
        [vector] = stack.vectors(**of_image(url))
        assert cosine(vector, expected) == pytest.approx(1, abs=1e-3)
    assert max(cosine(references[0], other) for other in references[1:]) < 0.99


def test_a_photo_that_the_gateway_shrinks_keeps_its_place(stack: Stack, reference: Reference) -> None:
    photo = gradient((1600, 1200))
    answer = stack.ask(**of_image(as_data_url(photo, "PNG")))
    assert answer.headers["x-fovea-image-sizes"] == {"clip": "298x224", "siglip": "224x224"}[stack.family]
    vector = answer.json()["data"][0]["embedding"]
    assert cosine(vector, reference.of_image(photo)) > 0.999
    assert cosine(vector, reference.of_image(gradient((1600, 1200)).rotate(90))) < 0.999


def gradient(size: tuple[int, int]) -> Image.Image:
    across = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", (across, across.transpose(Image.Transpose.ROTATE_180), Image.radial_gradient("L").resize(size)))


def test_the_same_image_is_computed_once(stack: Stack) -> None:
    url = noise((64, 64), seed=2)
    first, second = stack.ask(**of_image(url)), stack.ask(**of_image(url))
    assert [first.headers["x-fovea-cache"], second.headers["x-fovea-cache"]] == ["miss", "hit"]
    assert first.json() == second.json()


def test_an_engine_that_is_asked_twice_says_the_same(stack: Stack) -> None:
    fields = of_image(noise((64, 64), seed=3))
    url = f"{stack.gateway.url}/v1/embeddings"
    told = [
        httpx.post(url, json={"model": "tiny"} | fields, headers={"cache-control": "no-cache"}, timeout=PATIENCE_S)
        for _ in range(2)
    ]
    assert [answer.headers["x-fovea-cache"] for answer in told] == ["bypass", "bypass"]
    assert told[0].json()["data"] == told[1].json()["data"]


def test_more_texts_than_places_are_all_embedded(stack: Stack) -> None:
    texts = [f"{WORDS[0]} {number}" for number in range(30)]
    together = stack.vectors(input=texts)
    assert len(together) == 30
    assert cosine(together[17], stack.vectors(input=texts[17])[0]) == pytest.approx(1, abs=1e-4)


def test_words_and_images_at_once_do_not_mix(stack: Stack, reference: Reference) -> None:
    """vLLM puts both into one batch."""
    with httpx.Client(timeout=PATIENCE_S) as client:

        def ask(fields: dict[str, Any]) -> list[float]:
            answer = client.post(f"{stack.gateway.url}/v1/embeddings", json={"model": "tiny"} | fields)
            assert answer.status_code == 200, answer.text
            vector: list[float] = answer.json()["data"][0]["embedding"]
            return vector

        urls = [noise((64, 64), seed=seed) for seed in range(10, 16)]
        texts = [f"a flange of {number} mm" for number in range(6)]
        asked = [fields for text, url in zip(texts, urls, strict=True) for fields in ({"input": text}, of_image(url))]
        with ThreadPoolExecutor(12) as pool:
            got = list(pool.map(ask, asked))
    expected = [
        vector
        for text, url in zip(texts, urls, strict=True)
        for vector in (reference.of_words(text), reference.of_image(opened(url)))
    ]
    assert [cosine(one, other) for one, other in zip(got, expected, strict=True)] == pytest.approx([1] * 12, abs=1e-3)


def test_words_that_are_too_long_are_the_caller_s_to_shorten(stack: Stack) -> None:
    answer = stack.ask(input="flange " * 200)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "input", "context_length_exceeded"), error
    shortened = stack.ask(input="flange " * 200, truncate_prompt_tokens=-1)
    assert shortened.status_code == 200, shortened.text
    assert shortened.json()["usage"]["prompt_tokens"] == CONTEXT[stack.family]


def test_vectors_come_as_they_are_where_the_caller_says_so(stack: Stack, reference: Reference) -> None:
    [vector] = stack.vectors(input=WORDS[0], use_activation=False)
    assert vector == pytest.approx(reference.of_words(WORDS[0]), rel=0.02, abs=0.02)
    assert math.hypot(*vector) != pytest.approx(1, abs=0.01)


def test_the_engine_says_the_same_in_decimals_and_something_else_to_words_that_lack_their_padding(stack: Stack) -> None:
    def told(**fields: Any) -> list[float]:
        answer = stack.engine.client.post("/v1/embeddings", json={"model": "tiny", "input": WORDS[0], **fields})
        vector: list[float] = answer.json()["data"][0]["embedding"]
        return vector

    [vector] = stack.vectors(input=WORDS[0])
    assert vector == pytest.approx(told(padding="max_length" if stack.family == "siglip" else None), abs=1e-6)
    assert (cosine(vector, told()) < 0.9) == (stack.family == "siglip")


def test_the_engine_serves_no_chats(stack: Stack) -> None:
    document = {"model": "tiny", "messages": [{"role": "user", "content": "a"}]}
    assert stack.engine.client.post("/v1/chat/completions", json=document).status_code in (400, 404, 501)
    assert json.loads(httpx.get(f"{stack.gateway.url}/v1/models/tiny").text)["status"] == "available"
