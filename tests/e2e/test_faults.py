"""What breaks, on real engines: clients that leave, a gateway that dies, strangers at the engines' door, and load."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import httpx
import openai
import pytest

from tests.e2e.conftest import Stack, counted, gateway_process

ROOT = pathlib.Path(__file__).parents[2]
HELLO = [{"role": "user", "content": "What is a flange?"}]


def running(engines: tuple[str, str], model: str) -> float:
    """Requests that the engine works on."""
    return counted(engines, model, "vllm:num_requests_running")


def finished(engines: tuple[str, str], model: str) -> float:
    """Answers that the engine has brought to their end."""
    return counted(engines, model, "vllm:request_success_total")


def test_nobody_asks_the_engines_without_their_key(engines: tuple[str, str]) -> None:
    url, key = engines
    question = {"model": "small", "messages": HELLO, "max_tokens": 1}
    asked = f"{url}/small/v1/chat/completions"
    assert httpx.post(asked, json=question).status_code == 401
    assert httpx.post(asked, json=question, headers={"authorization": "Bearer wrong"}).status_code == 401
    assert httpx.post(asked, json=question, headers={"authorization": f"Bearer {key}"}, timeout=60).status_code == 200


def assert_nobody_is_worked_for(engines: tuple[str, str], model: str, finished_before: float) -> None:
    """The engine soon works on nothing, and not because it had finished."""
    left_s = time.monotonic()
    while running(engines, model) > 0:
        assert time.monotonic() - left_s < SOON_S, "it goes on"
        time.sleep(0.02)
    assert finished(engines, model) == finished_before


SOON_S = 25
"""The answers that are left would take longer. The work ends well within a second, where nothing else wants the machine."""


@pytest.mark.parametrize("model", ["small", "large"])
def test_a_client_that_leaves_a_stream_ends_its_work(stack: Stack, engines: tuple[str, str], model: str) -> None:
    before = finished(engines, model)
    question = {"model": model, "messages": HELLO, "max_tokens": 8000, "ignore_eos": True, "stream": True}
    with (
        httpx.Client(base_url=stack.url) as client,
        client.stream("POST", "/v1/chat/completions", json=question, timeout=60) as response,
    ):
        chunks = response.iter_bytes()
        next(chunks)
        assert running(engines, model) == 1
    assert_nobody_is_worked_for(engines, model, before)


@pytest.mark.parametrize("size", [10, 20_000], ids=lambda size: f"{size} characters")
@pytest.mark.parametrize("model", ["small", "large"])
def test_a_client_that_does_not_wait_for_a_whole_answer_ends_its_work(
    stack: Stack, engines: tuple[str, str], model: str, size: int
) -> None:
    messages = [{"role": "system", "content": "part " * (size // 5)}, *HELLO]
    question = {"model": model, "messages": messages, "max_tokens": 6000, "ignore_eos": True, "n": 8, "temperature": 1}
    before = finished(engines, model)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{stack.url}/v1/chat/completions", json=question, timeout=httpx.Timeout(30, read=2))
    assert_nobody_is_worked_for(engines, model, before)


def test_a_gateway_that_is_killed_is_started_again(stack: Stack, engines: tuple[str, str], client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        max_tokens=8000,
        extra_body={"ignore_eos": True},
    )
    next(stream)
    gateway_process(stack).kill()
    with pytest.raises((openai.APIError, httpx.HTTPError, Exception)):
        list(stream)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            completion = client.chat.completions.create(
                model="small", messages=[{"role": "user", "content": "hi"}], max_tokens=2
            )
        except openai.APIConnectionError:
            time.sleep(0.2)
        else:
            assert completion.choices
            break
    else:
        pytest.fail("the gateway did not come back")
    assert running(engines, "small") == 0, "and the engine has stopped what nobody waits for"


def test_the_status_of_the_models_is_told(stack: Stack) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "status", "--url", stack.url], capture_output=True, text=True, check=True
    ).stdout
    rows = [("small", "edge", "available", "1"), ("large", "server", "available", "1")]
    assert re.findall(r"^(\w+) +(\w+) +(\w+) +(\d+) ", said, re.MULTILINE)[:2] == rows


def test_locust_runs_for_a_minute_without_a_failure(stack: Stack) -> None:
    locustfile = str(ROOT / "loadtest" / "locustfile.py")
    arguments = ["-f", locustfile, "--host", stack.url, "--headless", "-u", "6", "-r", "6", "-t", "60s", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "locust", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "OPENAI_API_KEY"},
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    statistics = {row["name"]: row for row in json.loads(done.stdout)}
    assert {"words", "schema", "stream", "time to first token"} <= statistics.keys()
    assert sum(row["num_failures"] for row in statistics.values()) == 0
    assert all(row["num_requests"] > 0 for row in statistics.values())
