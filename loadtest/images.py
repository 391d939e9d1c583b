"""What the gateway's work on images costs, and what it saves an engine: `python -m loadtest.images`, on one core.

Three tables: refusing an image, from the body received to the error; a photo of 12 megapixels for a model with a budget of one,
by the engine alone and with the gateway before it; and the gateway alone, by size and format. All are CPU time.

The engine's part is what vLLM does on the one thread that it has for images: base64, its own loading, the family's processor.
"""

import base64
import dataclasses
import io
import os
import random
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import click
import orjson
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessor
from vllm.multimodal.media.image import ImageMediaIO

from gateway.catalog.image_rules import Budget
from gateway.catalog.read import parse_catalog
from gateway.errors import ImageOverLimit
from gateway.images import pixels
from gateway.images.encoded import Base64Image
from gateway.images.header import read_header
from gateway.images.normalise import Recipe, recipe
from gateway.images.sized import ImageLimits
from gateway.pipeline.prepare import understood
from loadtest.overhead.report import Spread, row, spread
from loadtest.pictures import photo

BUDGET_PIXELS = 1024 * 1024
PHOTO = (4000, 3000)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
SIZES = ((1600, 1200), (2560, 1920), PHOTO)
LIMITS = ImageLimits(
    image_mib=4, images_mib=50, image_megapixels=50, image_side_pixels=65535, image_min_side_pixels=4, image_aspect=100
)
ROOMY = dataclasses.replace(LIMITS, image_mib=64)
CATALOG = parse_catalog(f"""
hardware: {{kind: cpu}}
models:
  photos:
    source: nowhere
    family: qwen2_vl
    image_processor: {{max_pixels: {BUDGET_PIXELS}}}
    tier: edge
    parameters_b: 0.1
    kv_cache: {{layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    context_tokens: 32768
    concurrency: 1
    queue_depth: 1
    longest_answer_s: 60
""")


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 50,000 x 50,000 pixels, as base64."""
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return base64.b64encode(data)


def large_file() -> bytes:
    """5 MB of a sound PNG, as base64."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (1300, 1300), random.Random(0).randbytes(1300 * 1300 * 3)).save(buffer, "PNG", compress_level=0)
    return base64.b64encode(buffer.getvalue())


def body_with(payload: bytes) -> bytes:
    """A request with one image."""
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{payload.decode()}"}}
    return orjson.dumps({"model": "photos", "messages": [{"role": "user", "content": [part]}]})


def refuse(body: bytes) -> None:
    """Takes the body as far as its error."""
    with suppress(ImageOverLimit):
        understood(bytearray(body), LIMITS)
        raise AssertionError("it was not refused")


def recipe_for(payload: bytes) -> Recipe:
    """What the gateway would do to an image for the model of `CATALOG`."""
    header = read_header(Base64Image(payload))
    made = recipe(header, CATALOG.models["photos"].image_rule.sent_size(*header.upright_size, Budget(None, None)))
    assert made is not None, "it is over the budget"
    return made


class Engine:
    """vLLM's own work on an image, before its encoder."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._load = ImageMediaIO(image_mode="RGB")
        self._processor = Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": BUDGET_PIXELS})

    def prepare(self, payload: bytes) -> tuple[int, ...]:
        """The size of the tensor that becomes of an image."""
        loaded: Any = self._load.load_base64("image/jpeg", payload.decode())
        tensor = self._processor(images=getattr(loaded, "media", loaded), return_tensors="pt")["pixel_values"]
        return tuple(tensor.shape)


def cpu_ms(work: Callable[[], object], times: int) -> float:
    """CPU time of one call, in milliseconds."""
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) * 1000 / times


def rounds_of(works: Mapping[str, Callable[[], object]], rounds: int, times: int) -> dict[str, list[float]]:
    """CPU time of each, in milliseconds: all of them in turn, round by round."""
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(cpu_ms(work, times))
    return taken


def table(head: Sequence[str], rows: Mapping[str, Sequence[Spread | str]]) -> str:
    """Rows by name, in Markdown."""
    lines = [row(head), row(["---", *["--:"] * (len(head) - 1)])]
    return "\n".join((*lines, *(row([name, *map(str, cells)]) for name, cells in rows.items())))


def refusals(rounds: int) -> str:
    """The first table."""
    bodies = {"5 MB, image_mib 4": body_with(large_file()), "2,500 megapixels in 100 bytes": body_with(bomb())}
    taken = rounds_of({name: partial(refuse, body) for name, body in bodies.items()}, rounds, 20)
    return table(("refused", "CPU, ms"), {name: [spread(values)] for name, values in taken.items()})


def photos(rounds: int) -> str:
    """The second table."""
    engine = Engine()
    rows: dict[str, Sequence[Spread | str]] = {}
    for form in FORMATS:
        raw = photo(PHOTO, form)
        made = recipe_for(raw)
        shrunk = pixels.apply(raw, made)
        assert engine.prepare(raw) == engine.prepare(shrunk), "the model gets tensors of the same size"
        works: dict[str, Callable[[], object]] = {
            "raw": partial(engine.prepare, raw),
            "shrunk": partial(engine.prepare, shrunk),
            "gateway": partial(pixels.apply, raw, made),
        }
        taken = rounds_of(works, rounds, 1)
        ratios = [raw_ms / shrunk_ms for raw_ms, shrunk_ms in zip(taken["raw"], taken["shrunk"], strict=True)]
        rows[f"{form}, {len(raw) * 3 / 4e6:.1f} MB"] = [*(spread(values) for values in taken.values()), spread(ratios)]
    head = ("12 megapixels to 1", "engine, as it came: ms", "engine, shrunk: ms", "gateway shrinks: ms", "engine, times less")
    return table(head, rows)


def by_size(rounds: int) -> str:
    """The third table."""
    rows: dict[str, Sequence[Spread | str]] = {}
    for form in FORMATS:
        for size in SIZES:
            payload = photo(size, form)
            made = recipe_for(payload)
            body = body_with(payload)
            works: dict[str, Callable[[], object]] = {
                "shrink": partial(pixels.apply, payload, made),
                "look": partial(understood, body, ROOMY),
            }
            taken = rounds_of(works, rounds, 2)
            per_second = [1000 / value for value in taken["shrink"]]
            name = f"{form}, {size[0]}x{size[1]}, {len(payload) * 3 / 4e6:.1f} MB"
            rows[name] = [spread(taken["look"]), spread(taken["shrink"]), spread(per_second)]
    return table(("image", "looked at only: ms", "shrunk: ms", "images/s and core"), rows)


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often everything is measured, in turn.")
def main(rounds: int) -> None:
    """Prints the tables."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for make in (refusals, photos, by_size):
        print(f"{make(rounds)}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
