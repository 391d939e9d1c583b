"""Stored answers on real engines, by what the engines themselves have counted."""

import concurrent.futures
import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from gateway.tenants.keys import digest, new_key
from tests.conftest import RunningGateway, as_data_url, picture, running_gateway
from tests.e2e.conftest import CATALOG, Stack, counted
from tests.redis_server import RedisServer

WORDS = ["scratch", "dent", "stain"]


def question(colour: str, **fields: Any) -> dict[str, Any]:
    """One whose answer ends by itself, as those of random weights seldom do."""
    content = [{"type": "text", "text": "What is wrong?"}, {"type": "image_url", "image_url": {"url": picture(colour=colour)}}]
    asked = {"model": "small", "messages": [{"role": "user", "content": content}], "temperature": 0}
    return asked | {"structured_outputs": {"choice": WORDS}} | fields


def answers(engines: tuple[str, str]) -> float:
    return counted(engines, "small", "vllm:request_success_total")


@contextlib.contextmanager
def gateway_beside(
    folder: pathlib.Path, engines: tuple[str, str], redis: RedisServer, catalog: str = CATALOG.read_text(), **settings: str
) -> Iterator[RunningGateway]:
    """Another gateway before the same engines, with the same Redis."""
    folder.mkdir()
    url, key = engines
    with running_gateway(
        folder, url, catalog, FOVEA_ENGINES_API_KEY=key, FOVEA_REDIS_URL=redis.url, FOVEA_REDIS_BUDGET_S="5", **settings
    ) as gateway:
        yield gateway


@pytest.fixture
def caller(stack: Stack) -> Iterator[openai.OpenAI]:
    """One who takes stored answers."""
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="unused", max_retries=0, timeout=120) as caller:
        yield caller


def test_the_sdk_reads_a_stored_answer_in_either_form(caller: openai.OpenAI, engines: tuple[str, str]) -> None:
    asked = question("#010203", logprobs=True)
    extra = {"structured_outputs": asked.pop("structured_outputs")}
    made = caller.chat.completions.with_raw_response.create(**asked, extra_body=extra)
    before = answers(engines)
    stored = caller.chat.completions.with_raw_response.create(**asked, extra_body=extra)
    streamed = list(
        caller.chat.completions.create(**asked, extra_body=extra, stream=True, stream_options={"include_usage": True})
    )
    assert (made.headers["x-fovea-cache"], stored.headers["x-fovea-cache"]) == ("miss", "hit")
    assert answers(engines) == before
    first, second = made.parse(), stored.parse()
    assert first.choices == second.choices
    assert first.usage == second.usage
    assert first.id != second.id
    said = [choice for chunk in streamed for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in said) == first.choices[0].message.content
    tokens = [token for choice in said for token in ((choice.logprobs and choice.logprobs.content) or ())]
    assert first.choices[0].logprobs is not None
    assert tokens == first.choices[0].logprobs.content
    assert streamed[-1].usage == first.usage


def test_a_streamed_answer_is_stored_and_given_whole(caller: openai.OpenAI, engines: tuple[str, str]) -> None:
    asked = question("#040506")
    extra = {"structured_outputs": asked.pop("structured_outputs")}
    said = list(caller.chat.completions.create(**asked, extra_body=extra, stream=True))
    before = answers(engines)
    whole = caller.chat.completions.create(**asked, extra_body=extra)
    assert all(chunk.choices for chunk in said), "nobody asked for the usage"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said) == whole.choices[0].message.content
    assert whole.usage is not None
    assert answers(engines) == before


def test_a_hundred_who_ask_three_gateways_are_one_answer_of_the_engine(
    stack: Stack, engines: tuple[str, str], redis: RedisServer, tmp_path: pathlib.Path
) -> None:
    asked = question("#070809")
    with contextlib.ExitStack() as running:
        beside = [running.enter_context(gateway_beside(tmp_path / str(number), engines, redis)) for number in range(2)]
        urls = [stack.url, *(gateway.url for gateway in beside)]
        before = answers(engines)

        def ask(number: int) -> httpx.Response:
            document = asked | {"stream": number % 2 == 0}
            return httpx.post(f"{urls[number % 3]}/v1/chat/completions", json=document, timeout=120)

        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            answered = list(pool.map(ask, range(100)))
        assert {answer.status_code for answer in answered} == {200}
        assert answers(engines) - before == 1
        assert len({answer.json()["choices"][0]["message"]["content"] for answer in answered[1::2]}) == 1


def test_an_engine_knows_an_image_again_by_its_pixels_and_no_tenant_another_s(
    engines: tuple[str, str], redis: RedisServer, tmp_path: pathlib.Path
) -> None:
    keys = {name: new_key() for name in ("acme", "globex")}
    (tmp_path / "keys").write_text("\n".join(f"{name} {digest(key)}" for name, key in keys.items()))
    catalog = CATALOG.read_text().replace("    tier: edge", "    tier: edge\n    cache: {identity: pixels}", 1)
    drawn = Image.effect_noise((112, 112), 50).convert("RGB")
    first, twin = (as_data_url(drawn, "PNG", compress_level=level) for level in (1, 9))
    assert first != twin

    def known(tenant: str, url: str) -> bool:
        """Whether the engine knew the image."""
        before = counted(engines, "small", "vllm:mm_cache_hits_total")
        content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
        document = {"model": "small", "messages": [{"role": "user", "content": content}], "max_tokens": 2}
        headers = {"authorization": f"Bearer {keys[tenant]}"}
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=document, headers=headers, timeout=120)
        assert (answer.status_code, answer.headers["x-fovea-cache"]) == (200, "bypass")
        return counted(engines, "small", "vllm:mm_cache_hits_total") > before

    settings = {"FOVEA_API_KEYS_FILE": str(tmp_path / "keys")}
    with gateway_beside(tmp_path / "gateway", engines, redis, catalog, **settings) as gateway:
        assert [known("acme", first), known("acme", twin)] == [False, True]
        assert [known("globex", first), known("globex", twin)] == [False, True]
