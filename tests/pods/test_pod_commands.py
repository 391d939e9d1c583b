"""The pods of the chart's demo for CPUs, run as processes here: with their commands, their environment and their files.

Ports and addresses are replaced, because the pods share a machine, and nothing else: pods.py, kuberay.py and release.py say
how, and what is not as in a cluster. Of the demo's two models the small one is served. The last two tests end pods for good.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import openai
import orjson
import pytest
from pydantic import BaseModel, Field

from tests.chart.rendering import render, scenario_values
from tests.conftest import PATIENCE_S, picture
from tests.pods.pods import Manifests
from tests.pods.release import Release
from tests.watching import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

STREAMS = 20
AT_ONCE = 16
"""So many does the engine work on at once; the others wait for their turn."""
RAY_WAS_TOLD = 1
"""How `ray start` exits once it has drained its node; one that a kubelet had to kill exits with 137."""
TRIED_TOKENS = 300
"""Of streams by which it is found out how fast this machine is."""
TRIES = 2
"""A machine that stands still for seconds does so once: its streams would be too short otherwise."""
MOST_TOKENS = 32000
RAY_DRAINS_S = 30
"""So long does `ray start` let its node drain if it is not told otherwise, and cuts off what runs after it."""
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


class Verdict(BaseModel):
    defect: bool
    kind: str = Field(max_length=12)


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    values = scenario_values("cpu-demo")
    del values["models"]["large"], values["routing"]
    # The chart's own: a machine that stands still for seconds still sees the gateway drain.
    del values["gateway"]["drainDelaySeconds"]
    rendered = render(values, release="demo")
    with Release(Manifests([document.body for document in rendered.documents], rendered.namespace)) as running:
        yield running


@pytest.fixture
def client(release: Release) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{release.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
        yield client


@dataclass(frozen=True)
class Answer:
    """What has come of a stream."""

    finish_reason: str | None
    tokens: int

    @classmethod
    def of(cls, stream: bytes) -> "Answer":
        """Counts the tokens that have arrived, of a stream that ends as streams do."""
        *events, end = [event.removeprefix(b"data: ") for event in stream.split(b"\n\n") if event]
        assert end == b"[DONE]", end
        choices = [choice for event in events for choice in orjson.loads(event)["choices"]]
        (reason,) = {choice["finish_reason"] for choice in choices} - {None}
        return cls(reason, sum(len(choice.get("token_ids") or ()) for choice in choices))


@dataclass(frozen=True)
class Streams:
    """Answers that are being read, each by a thread."""

    being_read: list[Future[Answer]]
    begun: list[threading.Event]

    def have_begun(self, count: int) -> bool:
        """Whether so many of them have brought something. Raises what has gone wrong with any of them."""
        for answer in self.being_read:
            if answer.done():
                answer.result()
        return sum(event.is_set() for event in self.begun) >= count

    def answers(self) -> list[Answer]:
        """All, once they have ended."""
        return [answer.result(PATIENCE_S + 200) for answer in self.being_read]


@dataclass(frozen=True)
class Readers:
    """Twenty who read at once, with one client: of two cores as little as can be is theirs."""

    client: httpx.Client
    pool: ThreadPoolExecutor

    def read(self, tokens: int) -> Streams:
        begun = [threading.Event() for _ in range(STREAMS)]
        return Streams([self.pool.submit(self._read_one, number, tokens, event) for number, event in enumerate(begun)], begun)

    def _read_one(self, number: int, tokens: int, begun: threading.Event) -> Answer:
        """Reads a stream to its end, and looks into it then."""
        body = {
            "model": "small",
            "messages": [{"role": "user", "content": f"Tell me story {number}."}],
            "max_tokens": tokens,
            "stream": True,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        arrived = []
        with self.client.stream("POST", "v1/chat/completions", json=body) as response:
            response.raise_for_status()
            for part in response.iter_raw():
                begun.set()
                arrived.append(part)
        return Answer.of(b"".join(arrived))

    def tokens_that_last(self, seconds: float) -> int:
        """How many tokens each stream must have for all of them to take longer, on this machine at its best.

        By how much differs: a token costs more, the more there are before it.
        """
        took_s = min(self._seconds_for_tried_tokens() for _ in range(TRIES))
        return min(int(TRIED_TOKENS * seconds / took_s), MOST_TOKENS)

    def _seconds_for_tried_tokens(self) -> float:
        started_s = time.monotonic()
        self.read(TRIED_TOKENS).answers()
        return time.monotonic() - started_s


@contextmanager
def readers(url: str, key: str) -> Iterator[Readers]:
    """A connection for each stream: one that is kept may be closed by its server in the moment in which it is taken again."""
    none_kept = httpx.Limits(max_keepalive_connections=0)
    headers = {"authorization": f"Bearer {key}"}
    with (
        httpx.Client(base_url=url, headers=headers, limits=none_kept, timeout=300) as client,
        ThreadPoolExecutor(STREAMS + 1) as pool,
    ):
        yield Readers(client, pool)


def counted(url: str, *names: str) -> float:
    """The sum of all rows of these metrics."""
    rows = httpx.get(f"{url}/metrics", timeout=PATIENCE_S).text.splitlines()
    return sum(float(row.split()[-1]) for row in rows if row.partition("{")[0].partition(" ")[0] in names)


def at_the_gateway(release: Release) -> float:
    """Requests that it is answering, beside the one that asks."""
    return counted(release.url, "fovea_requests_in_flight") - 1


def at_the_engine(release: Release) -> float:
    """Requests that it works on, and those that wait for their turn."""
    return counted(f"{release.engine_url}/small", "vllm:num_requests_running", "vllm:num_requests_waiting")


def test_every_probe_of_every_pod_succeeds(release: Release) -> None:
    asked = {
        (name, probe): running.probe(probe)
        for name, running in release.running.items()
        for probe in PROBES
        if probe in running.container
    }
    assert {name for name, _ in asked} == {"head", "worker", "redis-answers", "grammar", "gateway"}
    assert [which for which, is_well in asked.items() if not is_well] == []


def test_words_are_answered(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": "What is a flange?"}],
        max_tokens=8,
        extra_body={"ignore_eos": True},
    )
    assert completion.usage is not None
    assert (completion.choices[0].finish_reason, completion.usage.completion_tokens) == ("length", 8)


def test_an_image_is_answered_by_a_schema(client: openai.OpenAI) -> None:
    completion = client.chat.completions.parse(
        model="small",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Is there a defect?"},
                    {"type": "image_url", "image_url": {"url": picture()}},
                ],
            }
        ],
        response_format=Verdict,
        max_tokens=200,
        temperature=0,
    )
    assert isinstance(completion.choices[0].message.parsed, Verdict)


def test_an_adapter_is_asked_for_by_its_name(client: openai.OpenAI) -> None:
    asked = client.chat.completions.create(model="small:catalogue", messages=[{"role": "user", "content": "hi"}], max_tokens=4)
    assert asked.model == "small:catalogue"


def test_ray_and_the_engines_refuse_whoever_has_no_key(release: Release) -> None:
    dashboard = httpx.get(f"{release.dashboard.url}/api/serve/applications/", timeout=PATIENCE_S)
    models = httpx.get(f"{release.engine_url}/small/v1/models", timeout=PATIENCE_S)
    assert (dashboard.status_code, models.status_code) == (401, 401)


def test_a_gateway_that_is_told_to_end_loses_none_of_its_streams(release: Release) -> None:
    gateway = release.running["gateway"]
    delay_s = float(gateway.pod.environment(gateway.container)["FOVEA_DRAIN_DELAY_S"])
    with readers(release.url, "unused") as reading:
        tokens = reading.tokens_that_last(2 * delay_s)
        streams = reading.read(tokens)
        assert eventually(lambda: streams.have_begun(AT_ONCE) and at_the_gateway(release) == STREAMS)
        started_s = time.monotonic()
        status = reading.pool.submit(gateway.end)
        assert eventually(lambda: not gateway.probe("readinessProbe"))
        late = httpx.get(f"{release.url}/v1/models", timeout=PATIENCE_S)
        assert late.status_code == 200, "it still serves those who have not learnt of it"
        assert streams.answers() == [Answer("length", tokens)] * STREAMS
        assert time.monotonic() - started_s > delay_s, "they have outlasted the time in which it takes requests"
        assert status.result() == 0, "and a kubelet had not to kill it"


def test_a_worker_that_is_told_to_end_loses_none_of_its_streams(release: Release) -> None:
    """From when its `preStop` is over, which only sleeps: by then its pod is no part of the Service any more."""
    worker = release.running["worker"]
    key = worker.pod.environment(worker.container)["VLLM_API_KEY"]
    with readers(f"{release.engine_url}/small", key) as reading:
        tokens = reading.tokens_that_last(1.5 * RAY_DRAINS_S)
        streams = reading.read(tokens)
        assert eventually(lambda: streams.have_begun(AT_ONCE) and at_the_engine(release) == STREAMS)
        started_s = time.monotonic()
        status = reading.pool.submit(worker.end)
        assert streams.answers() == [Answer("length", tokens)] * STREAMS
        assert time.monotonic() - started_s > RAY_DRAINS_S, "they have outlasted what Ray would have given them by itself"
        assert status.result() == RAY_WAS_TOLD
