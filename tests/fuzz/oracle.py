"""What must hold for any bytes: a body that is cut means what it meant, and is prepared as if it had been read whole."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from gateway import body as sizes
from gateway.body import Cut, cut, parse_document, splice
from gateway.catalog.read import parse_catalog
from gateway.errors import GatewayError
from gateway.images.sized import Image, ImageLimits
from gateway.images.source import RemoteImage
from gateway.pipeline.prepare import Understood, _understood, rendered, understood
from tests.fuzz.documents import STEERED, steered

_MODEL = """
    source: nowhere
    tier: edge
    parameters_b: 0.1
    kv_cache: {layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}
    context_tokens: 4096
    concurrency: 1
    queue_depth: 2
    longest_answer_s: 60"""

CATALOG = parse_catalog(f"""
hardware: {{kind: cpu}}
limits: {{body_mib: 1}}
models:
  tiny:{_MODEL}
    family: qwen2_vl
    images_per_request: 2
    videos_per_request: 2
    tool_parser: hermes
  mute:{_MODEL}
    family: llava_next
    images_per_request: 16
""")

LIMITS = ImageLimits(
    image_mib=1, images_mib=1, image_megapixels=1, image_side_pixels=1000, image_min_side_pixels=4, image_aspect=100
)


def check(data: bytes) -> None:
    """Raises AssertionError, or whatever the gateway should not have raised."""
    body = bytearray(body_of(data))
    with short_urls_are_cut():
        check_cut(body)
        check_prepare(body)


def body_of(data: bytes) -> bytes:
    """An input is a body, or it steers how one is written."""
    return steered(data.removeprefix(STEERED)) if data.startswith(STEERED) else data


@contextmanager
def short_urls_are_cut() -> Iterator[None]:
    """A fuzzer's inputs are short: what happens to long URLs and between blocks must happen to theirs."""
    usual = sizes._WORTH_CUTTING_BYTES, sizes._BLOCK_BYTES
    sizes._WORTH_CUTTING_BYTES, sizes._BLOCK_BYTES = 8, 16
    try:
        yield
    finally:
        sizes._WORTH_CUTTING_BYTES, sizes._BLOCK_BYTES = usual


def check_cut(body: bytearray) -> None:
    """The rest is JSON where the body is, means the same with the URLs put back, and gives the same bytes."""
    found = cut(body)
    if not found.urls:
        assert found.rest is body
        return
    assert b"".join(splice(bytes(found.rest), {name: [url.text] for name, url in found.urls.items()})) == body
    before, after = _parsed(body), _parsed(found.rest)
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert list(_tokens(before[0], {})) == list(_tokens(after[0], _texts(found)))


def _parsed(text: bytes | bytearray) -> tuple[Any] | None:
    """What the full parser reads, in a tuple, for null is a document too."""
    try:
        return (orjson.loads(text),)
    except orjson.JSONDecodeError:
        return None


def _texts(found: Cut) -> dict[str, str]:
    return {stand_in: bytes(url.text).decode() for stand_in, url in found.urls.items()}


def _tokens(document: Any, texts: Mapping[str, str]) -> Iterator[tuple[type, Any]]:
    """What `document` is made of, with the keys' order and each value's type, and every stand-in replaced by its text.

    Without recursion: orjson reads documents deeper than Python compares them.
    """
    left = [document]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield dict, tuple(value)
            left += value.values()
        elif isinstance(value, list):
            yield list, len(value)
            left += value
        else:
            yield type(value), texts.get(value, value) if isinstance(value, str) else value


def check_prepare(body: bytearray) -> None:
    """With its images cut out or read whole, a request has one outcome, and that is a Ready or a GatewayError."""
    assert outcome(lambda: understood(body, LIMITS)) == outcome(lambda: _understood(parse_document(body), {}, LIMITS))


def outcome(ask: Callable[[], Understood]) -> tuple[Any, ...]:
    """What comes of a request: the model, the document for it and what else is said, or an error's class and words."""
    try:
        request = ask()
        name = request.request.model
        model = CATALOG.models.get(name, CATALOG.models["tiny"])
        request.check(name, model)
        asked = request.of(name, model)
        unnamed: list[None] = [None] * len(asked.images)
        body = rendered(asked, unnamed, unnamed, None, video_uuids=[None] * len(asked.videos))
        sent = orjson.loads(b"".join(body))
    except GatewayError as error:
        return type(error), error.message, error.param, error.error_code
    images = [(image.param, image.detail, _facts(image.image)) for image in asked.images]
    return asked.request.model, list(_tokens(sent, {})), images, asked.stream, asked.headers


def _facts(image: Image | RemoteImage) -> object:
    return image if isinstance(image, RemoteImage) else (image.header, image.encoded.size)
