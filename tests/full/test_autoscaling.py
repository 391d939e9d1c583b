"""Replicas that come and go with what a model has to do, on a real Serve: one takes a minute or two to come, and one to go."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest

from loadtest.affinity import Counted, replicas
from tests.conftest import free_port
from tests.e2e.conftest import OwnStack, end_stack, start_stack
from tests.e2e.test_sigkill import command_line

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

CATALOG = """
hardware: {kind: cpu}
models:
  small:
    source: demo:random-small
    family: qwen2_vl
    tier: edge
    parameters_b: 0.0006
    kv_cache: {layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 0.5}
    autoscaling: {min_replicas: 1, max_replicas: 2, target_in_flight: 8, upscale_delay_s: 0, downscale_delay_s: 10}
    context_tokens: 32768
    concurrency: 8
    queue_depth: 8
    longest_answer_s: 180
"""
PATH = "/v1/chat/completions"
BUSY = 14
"""Callers at once: more than one replica is to have, and fewer than it takes."""
BUSY_TOKENS = 150
"""Of answers that take so long that their callers are at the engine for nearly all of the time: Serve counts those who are, and
stops a replica that is not up yet once they are too few for it."""
CALM = 6
"""Streams at once, each of some 40 s: a replica that leaves waits for longer than DRAIN_S for those that it has."""
CALM_TOKENS = 8000
COMES_WITHIN_S = 300
GOES_WITHIN_S = 300
ANSWERS_EACH = 20


@dataclass
class Course:
    """What came of all requests, and what was seen of the replicas meanwhile; times are of the monotonic clock."""

    lost: list[str] = field(default_factory=list)
    whole: int = 0
    streamed: int = 0
    came_after_s: float = 0.0
    answered: list[float] = field(default_factory=list)
    """By each replica, while there were two."""
    left_after_s: float = 0.0
    gone_after_s: float = 0.0
    streaming: list[float] = field(default_factory=list)
    """On each replica, before one of them left."""


Ask = Callable[[httpx.Client], str | None]
"""Asks one thing, and tells what was wrong with its answer."""


@contextmanager
def callers(count: int, ask: Ask, url: str, lost: list[str]) -> Iterator[None]:
    """So many who ask one thing after another, until the end of the block; `lost` gets what was wrong."""
    over = threading.Event()

    def go_on() -> None:
        with httpx.Client(base_url=url, timeout=240) as client:
            while not over.is_set():
                try:
                    wrong = ask(client)
                except httpx.TransportError as error:
                    wrong = repr(error)
                if wrong is not None:
                    lost.append(wrong)

    threads = [threading.Thread(target=go_on) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def asked(tokens: int, **fields: Any) -> dict[str, Any]:
    question = [{"role": "user", "content": "What is a flange?"}]
    return {"model": "small", "messages": question, "max_tokens": tokens, "ignore_eos": True, "temperature": 1} | fields


def ask(course: Course, client: httpx.Client) -> str | None:
    answer = client.post(PATH, json=asked(BUSY_TOKENS))
    if answer.status_code != 200:
        return answer.text
    course.whole += 1
    return None


def read_stream(course: Course, client: httpx.Client) -> str | None:
    answer = client.post(PATH, json=asked(CALM_TOKENS, stream=True))
    if not answer.text.endswith("data: [DONE]\n\n"):
        return answer.text[-500:]
    course.streamed += 1
    return None


def waited(is_so: Callable[[], bool], at_most_s: float) -> float:
    """How long it took until it was so."""
    began_s = time.monotonic()
    while not is_so():
        assert time.monotonic() - began_s < at_most_s, "it does not come about"
        time.sleep(0.5)
    return time.monotonic() - began_s


def running(address: str) -> float:
    """Requests that the engine of a replica works on."""
    rows = httpx.get(f"{address}/metrics", timeout=60).text.splitlines()
    return sum(float(row.split()[-1]) for row in rows if row.startswith("vllm:num_requests_running"))


def processes(stack: OwnStack) -> int:
    """Of replicas, those included that start or drain."""
    return sum(command_line(process).startswith("ray::ServeReplica:small:LLMServer") for process in stack.processes())


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    """From one replica to two and back."""
    folder = tmp_path_factory.mktemp("autoscaling")
    (folder / "catalog.yaml").write_text(CATALOG)
    stack = start_stack(folder, free_port(), folder / "catalog.yaml")
    try:
        yield lived(stack)
    finally:
        ended = end_stack(stack, signal.SIGTERM)
    assert (ended.status, ended.left) == (0, []), ended.output


def lived(stack: OwnStack) -> Course:
    course = Course()
    assert (processes(stack), len(replicas(stack.url, "small"))) == (1, 1)
    with callers(BUSY, partial(ask, course), stack.url, course.lost):
        course.came_after_s = waited(lambda: len(replicas(stack.url, "small")) == 2, COMES_WITHIN_S)
        addresses = replicas(stack.url, "small")
        before = [Counted.at(address) for address in addresses]

        def both_answer() -> bool:
            course.answered = [(Counted.at(one) - then).answered for one, then in zip(addresses, before, strict=True)]
            return min(course.answered) >= ANSWERS_EACH

        waited(both_answer, GOES_WITHIN_S)
    with (
        callers(CALM, partial(read_stream, course), stack.url, course.lost),
        callers(1, partial(ask, course), stack.url, course.lost),
    ):
        time.sleep(1)
        course.streaming = [running(address) for address in addresses]
        course.left_after_s = waited(lambda: len(replicas(stack.url, "small")) == 1, GOES_WITHIN_S)
        course.gone_after_s = course.left_after_s + waited(lambda: processes(stack) == 1, GOES_WITHIN_S)
    print(course)
    return course


def test_a_second_replica_comes_with_the_load_and_answers(course: Course) -> None:
    assert course.came_after_s > 0
    assert len(course.answered) == 2
    assert min(course.answered) >= ANSWERS_EACH


def test_it_goes_when_the_load_has_gone(course: Course) -> None:
    assert course.gone_after_s >= course.left_after_s > 0


def test_no_request_is_lost_on_the_way(course: Course) -> None:
    assert course.lost == []
    assert course.whole > 2 * ANSWERS_EACH
    assert course.streamed >= CALM
