"""A choice among fifty models, in a process that does nothing else: `python -m loadtest.overhead.choices`.

It writes a line of JSON: microseconds of its CPU from a request that is understood, its images measured, to the model to ask.
"""

import base64
import io
import json
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice, repeat

import orjson
from PIL import Image as PillowImage
from prometheus_client import CollectorRegistry, Gauge

from gateway.catalog.models import Catalog
from gateway.catalog.read import parse_catalog
from gateway.images.sized import Image, ImageLimits
from gateway.memory import collect_garbage_less_often
from gateway.pipeline.prepare import AskedImage, Understood, understood
from gateway.pipeline.route import Routes, only_model
from gateway.routing.choose import Present
from gateway.upstream.health import HealthProbe, State
from gateway.upstream.openai_http import OpenAIHttpEngine
from loadtest.overhead.processes import PEER_CORES, BenchError
from loadtest.overhead.report import row, spread

MODELS = 50

_CALLS = 5000
_WARM_UP_CALLS = 500
_TIERS = ("edge", "server", "precision")
_LIMITS = ImageLimits(
    image_mib=20, images_mib=50, image_megapixels=50, image_side_pixels=16384, image_min_side_pixels=4, image_aspect=100
)
_ENTRY = """
  model-{number}:
    source: nowhere
    family: qwen2_vl
    tier: {tier}
    parameters_b: {size}
    kv_cache: {{layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    context_tokens: 16384
    concurrency: 32
    queue_depth: 64
    longest_answer_s: 60
    tool_parser: hermes
    images_per_request: {images}
"""
_RULES = """
routing:
  rules:
    several-images: {tier: server, images_over: 2}
    fine-print: {tier: server, visual_tokens_over: 1500}
    long-prompt: {tier: server, prompt_tokens_over: 4000}
    big-form: {tier: server, schema_bytes_over: 4000}
    close-look: {tier: server, detail: high}
    dossier: {tier: precision, images_over: 4, visual_tokens_over: 6000}
"""

Choices = Mapping[str, float]
"""Microseconds of CPU for a choice, by what is asked."""


def choice_rounds(rounds: int) -> Iterator[Choices]:
    """So many rounds, each in a process of its own on the peers' core.

    Raises BenchError: a choice failed.
    """
    for _ in range(rounds):
        command = ("taskset", "-c", PEER_CORES, sys.executable, "-m", "loadtest.overhead.choices")
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise BenchError(f"choosing alone ended with {run.returncode}: {run.stderr[-2000:]}")
        told: dict[str, float] = json.loads(run.stdout)
        yield told


def choices_table(rounds: Sequence[Choices]) -> str:
    """A Markdown table: a line for what is asked."""
    lines = [row([f"a choice among {MODELS} models", "CPU, µs"]), row(["---", "--:"])]
    return "\n".join((*lines, *(row([name, str(spread([one[name] for one in rounds]))]) for name in rounds[0]))) + "\n"


def _catalog(images_of_first_tier: int = 8) -> Catalog:
    tiers = [_TIERS[number * len(_TIERS) // MODELS] for number in range(MODELS)]
    entries = (
        _ENTRY.format(number=number, tier=tier, size=1 + number / 4, images=images_of_first_tier if tier == _TIERS[0] else 8)
        for number, tier in enumerate(tiers)
    )
    return parse_catalog(f"hardware: {{kind: cpu}}\nmodels:{''.join(entries)}{_RULES}")


def _routes(catalog: Catalog, busy: Collection[str] = ()) -> Routes:
    """The ways among models that are there, of which those that are `busy` have no room."""
    probe = HealthProbe({name: [f"http://127.0.0.1:1/{name}"] for name in catalog.models}, None)
    gauge = Gauge("bench", "In flight.", ("model",), registry=CollectorRegistry())
    engine = OpenAIHttpEngine(probe, gauge, 1.0, None)
    taken = {name: catalog.models[name].places if name in busy else 0 for name in catalog.models}

    def present(name: str) -> Present:
        is_there = probe.models[name].state != State.UNAVAILABLE
        return Present(is_there, engine.in_flight(name) + taken[name], engine.has_refused(name))

    return Routes(catalog, present)


def _photo() -> str:
    file = io.BytesIO()
    PillowImage.new("RGB", (1000, 700), "#7788aa").save(file, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _asked(model: str, images: int, **fields: object) -> Understood:
    parts: list[dict[str, object]] = [{"type": "text", "text": "What is wrong with this part?"}]
    parts += repeat({"type": "image_url", "image_url": {"url": _photo()}}, images)
    return understood(orjson.dumps({"model": model, "messages": [{"role": "user", "content": parts}]} | fields), _LIMITS)


def _of_other_sizes(asked: Understood) -> Iterator[Understood]:
    """The request again and again, with images of sizes that none has had before: that is all that changes of it."""
    for first in count(step=len(asked.images)):
        yield replace(asked, images=tuple(_of_size(one, first + place) for place, one in enumerate(asked.images)))


def _of_size(asked: AskedImage, number: int) -> AskedImage:
    assert isinstance(asked.image, Image), "it came in the body"
    width, height = 650 + number // 300, 650 + number % 300
    return replace(asked, image=replace(asked.image, header=replace(asked.image.header, width=width, height=height)))


def _measured() -> Choices:
    catalog = _catalog()
    routes = _routes(catalog)
    no_room_below = _routes(catalog, [name for name, model in catalog.models.items() if model.tier == _TIERS[0]])
    blind_below = _routes(_catalog(images_of_first_tier=0))
    form = {"type": "object", "properties": {f"field-{number}": {"type": "string"} for number in range(40)}}
    schema = {"type": "json_schema", "json_schema": {"name": "part", "schema": form}}
    six = _asked("auto", 6)
    collect_garbage_less_often()
    return {
        "a model, one image": _cpu_us(routes, repeat(_asked("model-7", 1))),
        "a tier, one image": _cpu_us(routes, repeat(_asked("server", 1))),
        "auto, words": _cpu_us(routes, repeat(_asked("auto", 0))),
        "auto, words, no room in the first tier": _cpu_us(no_room_below, repeat(_asked("auto", 0))),
        "auto, one image": _cpu_us(routes, repeat(_asked("auto", 1))),
        "auto, one image, which the first tier does not take": _cpu_us(blind_below, repeat(_asked("auto", 1))),
        "auto, one image and a schema of 1.3 KB": _cpu_us(routes, repeat(_asked("auto", 1, response_format=schema))),
        "auto, six images of one size": _cpu_us(routes, repeat(six)),
        "auto, six images of six sizes": _cpu_us(routes, repeat(next(_of_other_sizes(six)))),
        "auto, six images of sizes never seen": _cpu_us(routes, _of_other_sizes(six)),
    }


def _chosen(routes: Routes, asked: Understood) -> object:
    images = [one.image for one in asked.images if isinstance(one.image, Image)]
    targets = routes.targets(asked.request)
    routes.check(asked, targets)
    only_model(targets)
    routes.longest_answer_s(targets)
    return next(routes.ways(asked, targets, images, None))


def _cpu_us(routes: Routes, asked: Iterator[Understood]) -> float:
    for one in islice(asked, _WARM_UP_CALLS):
        _chosen(routes, one)
    measured = list(islice(asked, _CALLS))
    begun_s = time.process_time()
    for one in measured:
        _chosen(routes, one)
    return (time.process_time() - begun_s) / _CALLS * 1e6


if __name__ == "__main__":
    print(json.dumps(_measured()))
