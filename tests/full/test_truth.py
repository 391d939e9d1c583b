"""What the gateway and the engines do to requests leaves answers as right as they were, of 300 scenes each."""

import signal
from collections.abc import Callable, Iterator

import pytest

from deploy.demo.dataset import write_scenes
from loadtest.affinity import Counted, replicas
from tests.conftest import free_port
from tests.e2e.conftest import end_stack, start_stack
from tests.truth import Asked, Asker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

SCENES = 300
TIMES = 4
"""As many pixels a side as the scenes of the model card: 896, of which a model sees 168."""
METRICS = ("defect_detected", "defect_type", "severity", "bbox IoU ≥ 0.5")
CONCURRENCY = 16

MODEL = """
  {name}:
    source: demo:large
    family: qwen2_vl
    tier: of-{name}
    parameters_b: 0.0025
    kv_cache: {{layers: 3, attention_heads: 6, kv_heads: 2, head_dim: 32, memory_gib: 0.5}}
    context_tokens: 4096
    concurrency: {concurrency}
    queue_depth: 48
    longest_answer_s: 180
    {more}
"""
UNCACHED = "cache: {answers: asked}"
MODELS = {
    "one": UNCACHED,
    "halves": f"tensor_parallel: 2\n    {UNCACHED}",
    "two": f"replicas: 2\n    engine_args: {{block_size: 32}}\n    {UNCACHED}",
    "remembered": "cache: {identity: pixels}\n    image_processor: {size: {shortest_edge: 27095, longest_edge: 29917}}",
}
"""One and the same, served in four ways. `remembered` gets pictures as small as it sees them, the others as they came.

Whole blocks of a prompt are what an engine knows again, and vLLM's on a CPU are longer than these prompts: hence `two`'s.
"""

Ask = Callable[..., Asked]
"""See `Asker.ask`; the folder is chosen."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("stack")
    catalog = folder / "catalog.yaml"
    models = "".join(MODEL.format(name=name, more=more, concurrency=CONCURRENCY) for name, more in MODELS.items())
    catalog.write_text(f"hardware: {{kind: cpu}}\nmodels:{models}")
    running = start_stack(folder, free_port(), catalog)
    yield running.url
    end_stack(running, signal.SIGTERM)


@pytest.fixture(scope="module")
def ask(url: str, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    scenes = write_scenes(tmp_path_factory.mktemp("scenes"), SCENES, TIMES, "as-trained")
    asker = Asker(url, scenes)
    return lambda model, **told: asker.ask(model, tmp_path_factory.mktemp(model), **told)


@pytest.fixture(scope="module")
def plainly(ask: Ask) -> Asked:
    """One at a time, of one process, in the size in which they were drawn."""
    asked = ask("one", concurrency=1, detail="high")
    assert not any("sent_size" in answer for answer in asked.answers.values()), "none was shrunk"
    return asked


@pytest.fixture(scope="module")
def shrunk_to_what_is_seen(ask: Ask) -> Asked:
    return ask("remembered", concurrency=1, detail="high")


def assert_as_right(asked: Asked, before: Asked) -> None:
    differing = [metric for metric in METRICS if asked.surely_differs_from(before, metric)]
    assert differing == [], {metric: (before.share(metric), asked.share(metric)) for metric in METRICS}


def test_detail_low_leaves_them_as_right(ask: Ask, plainly: Asked) -> None:
    low = ask("one", concurrency=1, detail="low")
    assert {tuple(answer["sent_size"]) for answer in low.answers.values()} == {(504, 504)}
    assert_as_right(low, plainly)


def test_shrinking_to_what_a_model_sees_leaves_them_as_right(shrunk_to_what_is_seen: Asked, plainly: Asked) -> None:
    assert {tuple(answer["sent_size"]) for answer in shrunk_to_what_is_seen.answers.values()} == {(168, 168)}
    assert_as_right(shrunk_to_what_is_seen, plainly)


def test_stored_answers_are_those_that_were_made(ask: Ask, shrunk_to_what_is_seen: Asked) -> None:
    stored = ask("remembered", concurrency=1, detail="high")
    assert {answer["cache"] for answer in stored.answers.values()} == {"hit"}
    assert stored.texts == shrunk_to_what_is_seen.texts


def test_batching_leaves_them_as_right(ask: Ask, plainly: Asked) -> None:
    assert_as_right(ask("one", concurrency=CONCURRENCY, detail="high"), plainly)


def test_tensor_parallelism_leaves_them_as_right(ask: Ask, plainly: Asked) -> None:
    assert_as_right(ask("halves", concurrency=1, detail="high"), plainly)


def test_affinity_leaves_them_as_right(ask: Ask, plainly: Asked, url: str) -> None:
    ask("two", concurrency=CONCURRENCY, detail="high")
    addresses = replicas(url, "two")
    before = [Counted.at(address) for address in addresses]
    again = ask("two", concurrency=CONCURRENCY, detail="high")
    counted = [Counted.at(address) - then for address, then in zip(addresses, before, strict=True)]
    assert len(counted) == 2
    assert all(one.answered and one.known_tokens for one in counted), "either was asked about images that it knew"
    assert_as_right(again, plainly)
