"""The pods of the chart's demo for CPUs, run as processes here: with their commands, their environment and their files.

Ports and addresses are replaced, because the pods share a machine, and nothing else: pods.py, kuberay.py and release.py say
how, and what is not as in a cluster. Of the demo's two models the small one is served. The last two tests end pods for good.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import openai
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
    """What has come of a stream; one that was cut off raises."""

    finish_reason: str | None
    tokens: int


@dataclass(frozen=True)
class Streams:
    """Answers that are being read, each by a thread."""

    being_read: list[Future[Answer]]
    begun: list[threading.Event]

    def have_begun(self, count: int) -> bool:
        """Whether so many of them have brought something."""
        return sum(event.is_set() for event in self.begun) >= count

    def answers(self) -> list[Answer]:
        """All, once they have ended."""
        return [answer.result(PATIENCE_S + 200) for answer in self.being_read]


def read_streams(pool: ThreadPoolExecutor, url: str, key: str, tokens: int) -> Streams:
    begun = [threading.Event() for _ in range(STREAMS)]
    return Streams([pool.submit(read_stream, url, key, number, tokens, event) for number, event in enumerate(begun)], begun)


def read_stream(url: str, key: str, number: int, tokens: int, begun: threading.Event) -> Answer:
    """Reads a stream to its end, and counts the tokens that arrive."""
    reason, arrived = None, 0
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=300) as client:
        chunks = client.chat.completions.create(
            model="small",
            messages=[{"role": "user", "content": f"Tell me story {number}."}],
            max_tokens=tokens,
            stream=True,
            extra_body={"ignore_eos": True, "return_token_ids": True},
        )
        for chunk in chunks:
            begun.set()
            (choice,) = chunk.choices
            reason = choice.finish_reason or reason
            arrived += len((choice.model_extra or {}).get("token_ids") or ())
    return Answer(reason, arrived)


def tokens_that_last(seconds: float, pool: ThreadPoolExecutor, url: str, key: str) -> int:
    """How many tokens each stream must have for all of them to take so long, on this machine at its best."""
    took_s = min(seconds_for_tried_tokens(pool, url, key) for _ in range(TRIES))
    return min(int(TRIED_TOKENS * seconds / took_s), MOST_TOKENS)


def seconds_for_tried_tokens(pool: ThreadPoolExecutor, url: str, key: str) -> float:
    started_s = time.monotonic()
    read_streams(pool, url, key, TRIED_TOKENS).answers()
    return time.monotonic() - started_s


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
    asked = client.chat.completions.create(model="small:noise", messages=[{"role": "user", "content": "hi"}], max_tokens=4)
    assert asked.model == "small:noise"


def test_ray_and_the_engines_refuse_whoever_has_no_key(release: Release) -> None:
    dashboard = httpx.get(f"{release.dashboard.url}/api/serve/applications/", timeout=PATIENCE_S)
    models = httpx.get(f"{release.engine_url}/small/v1/models", timeout=PATIENCE_S)
    assert (dashboard.status_code, models.status_code) == (401, 401)


def test_a_gateway_that_is_told_to_end_loses_none_of_its_streams(release: Release) -> None:
    gateway = release.running["gateway"]
    delay_s = float(gateway.pod.environment(gateway.container)["FOVEA_DRAIN_DELAY_S"])
    with ThreadPoolExecutor(STREAMS + 1) as pool:
        tokens = tokens_that_last(3 * delay_s, pool, release.url, "unused")
        streams = read_streams(pool, release.url, "unused", tokens)
        assert eventually(lambda: streams.have_begun(AT_ONCE) and at_the_gateway(release) == STREAMS)
        started_s = time.monotonic()
        status = pool.submit(gateway.end)
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
    with ThreadPoolExecutor(STREAMS + 1) as pool:
        tokens = tokens_that_last(2 * RAY_DRAINS_S, pool, f"{release.engine_url}/small", key)
        streams = read_streams(pool, f"{release.engine_url}/small", key, tokens)
        assert eventually(lambda: streams.have_begun(AT_ONCE) and at_the_engine(release) == STREAMS)
        started_s = time.monotonic()
        status = pool.submit(worker.end)
        assert streams.answers() == [Answer("length", tokens)] * STREAMS
        assert time.monotonic() - started_s > RAY_DRAINS_S, "they have outlasted what Ray would have given them by itself"
        assert status.result() == RAY_WAS_TOLD
