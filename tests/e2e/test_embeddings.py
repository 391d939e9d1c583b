"""Pictures that can be searched by words: a CLIP in Ray Serve, beside models that chat, asked by the unmodified SDK."""

import math
from typing import Any

import httpx
import openai
import pytest
from openai.types import CreateEmbeddingResponse

from tests.conftest import noise, picture
from tests.e2e.conftest import Stack, counted


@pytest.fixture(autouse=True)
def clip_is_there(stack: Stack) -> None:
    if httpx.get(f"{stack.url}/v1/models/clip", timeout=60).status_code == 404:
        pytest.skip("--stack names a stack without the model clip, which is in tests/e2e/conftest.py")


def of_image(url: str) -> dict[str, Any]:
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    return {"model": "clip", "messages": [message]}


def served(engines: tuple[str, str]) -> float:
    return counted(engines, "clip", "vllm:request_success_total")


def test_pictures_are_found_by_words(client: openai.OpenAI) -> None:
    words = client.embeddings.create(model="clip", input=["red dress with floral pattern", "steel flange"])
    pictures = [picture(), noise((900, 600))]
    found = [client.post("/embeddings", body=of_image(url), cast_to=CreateEmbeddingResponse).data[0] for url in pictures]
    vectors = [each.embedding for each in (*words.data, *found)]
    assert [len(vector) for vector in vectors] == [64] * 4
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1.0] * 4, abs=1e-3)
    # A dot product of vectors of length 1 is how near they are: which is nearest is chance, with random weights.
    nearness = [sum(a * b for a, b in zip(vectors[0], vector, strict=True)) for vector in vectors]
    assert nearness[0] == max(nearness)
    assert len(set(nearness)) == 4


def test_a_picture_that_comes_again_is_no_work_for_the_engine(stack: Stack, engines: tuple[str, str]) -> None:
    url = noise((300, 500), seed=1)
    told = [httpx.post(f"{stack.url}/v1/embeddings", json=of_image(url), timeout=120) for _ in range(3)]
    assert [answer.headers["x-fovea-cache"] for answer in told] == ["miss", "hit", "hit"]
    assert told[0].json() == told[1].json()
    before = served(engines)
    assert before > 0
    httpx.post(f"{stack.url}/v1/embeddings", json=of_image(url), timeout=120)
    assert served(engines) == before


def test_a_chat_that_names_it_finds_nobody_to_answer(client: openai.OpenAI, engines: tuple[str, str]) -> None:
    before = served(engines)
    with pytest.raises(openai.BadRequestError, match="makes embeddings, and answers no chats"):
        client.chat.completions.create(model="clip", messages=[{"role": "user", "content": "hello"}])
    # Its tier has another model, which is asked however many come.
    for model in ("auto", "edge"):
        chat = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}], max_tokens=1)
        assert chat.model == "small"
    assert served(engines) == before


def test_the_list_says_who_makes_embeddings(client: openai.OpenAI) -> None:
    kinds = {model.id: (model.model_extra or {})["kind"] for model in client.models.list()}
    assert kinds == {"small": "generate", "small:noise": "generate", "large": "generate", "clip": "embedding"}
