"""`auto`, by the engines' own counters, while both live and while one does not; and an adapter beside its model."""

import threading
import time
from collections import Counter
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import picture
from tests.e2e.conftest import Stack, counted
from tests.e2e.test_sigkill import engine_core

PATH = "/v1/chat/completions"
SMALL_WORK = "What is a flange?"
BIG_WORK = [
    {"type": "text", "text": "Do these differ?"},
    *({"type": "image_url", "image_url": {"url": picture(colour=colour)}} for colour in ("#ff0000", "#00ff00")),
]
BACK_WITHIN_S = 180


def asked(content: Any, model: str = "auto", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 2, "temperature": 1} | fields


def answered(engines: tuple[str, str]) -> Counter[str]:
    """Answers that each engine has brought to their end."""
    return Counter({model: int(counted(engines, model, "vllm:request_success_total")) for model in ("small", "large")})


def test_small_work_meets_the_small_model_and_big_work_the_large(stack: Stack, engines: tuple[str, str]) -> None:
    before = answered(engines)
    with httpx.Client(base_url=stack.url, timeout=120) as client:
        told = [client.post(PATH, json=asked(content)) for content in [SMALL_WORK] * 6 + [BIG_WORK] * 4]
    assert [answer.headers["x-fovea-model"] for answer in told] == ["small"] * 6 + ["large"] * 4
    assert {answer.headers["x-fovea-route"] for answer in told[6:]} == {
        "auto; leaning=balanced; tier=server; rules=several-images"
    }
    assert answered(engines) - before == Counter(small=6, large=4)


def test_a_choice_is_explained(stack: Stack) -> None:
    said = httpx.post(f"{stack.url}/v1/route", json=asked(BIG_WORK), timeout=60).json()
    assert (said["model"], [model["model"] for model in said["models"]]) == ("large", ["large", "small"])
    assert said["signals"]["visual_tokens"] == 12


def test_an_adapter_answers_beside_its_model(client: openai.OpenAI) -> None:
    """It was made with large random weights: with it the same question, at temperature 0, has another answer."""

    def says(model: str) -> str:
        question: Any = asked(SMALL_WORK, model, max_tokens=12, temperature=0)
        return client.chat.completions.create(**question).choices[0].message.content or ""

    assert says("small:noise") != says("small")
    assert says("small:noise") == says("small:noise")
    assert client.models.retrieve("small:noise").model_extra["parent"] == "small"  # type: ignore[index]
    with pytest.raises(openai.NotFoundError):
        says("small:nothing")


def test_nothing_is_lost_when_the_small_model_dies_and_traffic_returns(stack: Stack, engines: tuple[str, str]) -> None:
    """In flight: eight questions at a time to `auto`, whole and sampled. All are answered, by the large model meanwhile."""
    outcomes: list[tuple[float, int, str]] = []
    over = threading.Event()

    def go_on() -> None:
        with httpx.Client(base_url=stack.url, timeout=120) as client:
            while not over.is_set():
                answer = client.post(PATH, json=asked(SMALL_WORK, max_tokens=16))
                outcomes.append((time.monotonic(), answer.status_code, answer.headers.get("x-fovea-model", answer.text)))

    threads = [threading.Thread(target=go_on) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: any(model == "small" for _, _, model in outcomes))
        engine_core(stack, "small").kill()
        killed_s = time.monotonic()
        wait_for(lambda: any(at > killed_s and model == "large" for at, _, model in list(outcomes)))
        wait_for(lambda: any(at > killed_s + 10 and model == "small" for at, _, model in list(outcomes)))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert Counter(status for _, status, _ in outcomes) == {200: len(outcomes)}
    assert counted(engines, "small", "vllm:request_success_total") > 0


def wait_for(is_so: Any) -> None:
    deadline = time.monotonic() + BACK_WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.2)
