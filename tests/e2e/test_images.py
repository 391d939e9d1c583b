"""Images on their way to real engines: as many tokens as were estimated, and whatever the file, an engine that lives on."""

import base64
from typing import Any

import httpx
import openai
import pytest

from tests import hostile_images
from tests.conftest import noise, picture
from tests.e2e.conftest import Stack
from tests.hostile_images import Hostile


def question(*urls: str, detail: str) -> list[Any]:
    images: list[Any] = [{"type": "image_url", "image_url": {"url": url, "detail": detail}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "What do you see?"}, *images]}]


def prompt_tokens(client: openai.OpenAI, model: str, messages: list[Any]) -> int:
    completion = client.chat.completions.create(model=model, messages=messages, max_tokens=1)
    assert completion.usage is not None
    return completion.usage.prompt_tokens


@pytest.mark.parametrize("detail", ["low", "high", "auto"])
@pytest.mark.parametrize("size", [(8, 8), (100, 30), (513, 511), (1600, 1200), (300, 2900), (4000, 3000)])
def test_an_image_takes_as_many_tokens_as_were_estimated(
    stack: Stack, client: openai.OpenAI, size: tuple[int, int], detail: str
) -> None:
    asked = question(picture("JPEG", size), detail=detail)
    estimate = httpx.post(f"{stack.url}/v1/images/estimate", json={"model": "small", "messages": asked}).json()
    for told in estimate["models"]:
        without = prompt_tokens(client, told["model"], question(detail=detail))
        assert prompt_tokens(client, told["model"], asked) - without == told["image_tokens"], told["model"]


def test_a_large_photo_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="large", messages=question(noise((1800, 1200)), picture(), detail="high"), max_tokens=4
    )
    assert answer.headers["x-fovea-image-sizes"].endswith(", 64x48")
    assert answer.parse().choices[0].finish_reason in {"stop", "length"}


def hostile() -> list[Hostile]:
    """Every set in full, but of the truncated and the flipped files one in so many: the integration tests have them all."""
    one_in = {"truncated": 16, "flipped": 300}
    return [file for name, make in hostile_images.SETS.items() for file in list(make(0))[:: one_in.get(name, 1)]]


def test_no_hostile_image_ends_an_engine(stack: Stack, client: openai.OpenAI) -> None:
    before = {process.pid for process in stack.processes() if "VLLM" in process.name()}
    statuses: dict[int, int] = {}
    with httpx.Client(base_url=stack.url, timeout=120) as http:
        for file in hostile():
            url = f"data:{file.media_type};base64,{base64.b64encode(file.data).decode()}"
            asked = {"model": "small", "messages": question(url, detail="auto"), "max_tokens": 1}
            answer = http.post("/v1/chat/completions", json=asked)
            assert answer.status_code in {200, 400}, (file.name, answer.text[:300])
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
    assert min(statuses[200], statuses[400]) > 100, statuses
    assert before
    assert {process.pid for process in stack.processes() if "VLLM" in process.name()} == before
    assert prompt_tokens(client, "small", question(picture(), detail="auto")) > 0
