"""Ten thousand requests over 256 connections that stay open: none fails, and nothing of them stays."""

import asyncio
import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import orjson
import psutil
import pytest

from tests.conftest import RunningGateway, noise, running_gateway
from tests.fake_engine import FakeEngine, running_fake_engine
from tests.watching import HEALTH_CHECKS, connections, eventually, in_flight

REQUESTS = 10_000
CONNECTIONS = 256
GROWTH_BYTES = 24 * 1024**2
"""What an allocator may keep besides; one request in ten has an image of 100 KB, which would be 100 MB, should they stay."""
IMAGE = noise((190, 170))


def question(number: int) -> bytes:
    text = {"type": "text", "text": f"What is part {number}?"}
    content: list[dict[str, Any]] = [text, {"type": "image_url", "image_url": {"url": IMAGE}}] if number % 10 == 0 else [text]
    request = {"model": "tiny", "messages": [{"role": "user", "content": content}], "stream": number % 4 == 0}
    return orjson.dumps(request)


async def ask_all(url: str, count: int) -> Counter[str]:
    """What became of `count` questions."""

    async def ask(session: aiohttp.ClientSession, number: int) -> str:
        async with session.post(f"{url}/v1/chat/completions", data=question(number)) as response:
            answer = await response.read()
        is_whole = answer.endswith(b"data: [DONE]\n\n") if number % 4 == 0 else b'"hello"' in answer
        return "answered" if response.status == 200 and is_whole else f"{response.status} {answer[:200]!r}"

    pool = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=pool, headers={"content-type": "application/json"}) as session:
        return Counter(await asyncio.gather(*(ask(session, number) for number in range(count))))


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with running_fake_engine() as engine:
        yield engine


@pytest.fixture
def gateway(engine: FakeEngine, tmp_path: pathlib.Path) -> Iterator[RunningGateway]:
    with running_gateway(tmp_path, engine.url) as gateway:
        yield gateway


def test_none_fails_and_nothing_stays(gateway: RunningGateway, engine: FakeEngine) -> None:
    process = psutil.Process(gateway.process.pid)
    asyncio.run(ask_all(gateway.url, 1000))  # after this the allocator and the pools have what they want
    assert eventually(lambda: in_flight(gateway) == 0 and not connections(process))
    descriptors, rss = process.num_fds(), process.memory_info().rss

    assert asyncio.run(ask_all(gateway.url, REQUESTS)) == {"answered": REQUESTS}

    assert gateway.counted(model="tiny", status="200") == REQUESTS + 1000
    assert eventually(lambda: in_flight(gateway) == 0), "no request is left"
    assert eventually(lambda: engine.running == 0), "nor is one at the engine"
    assert eventually(lambda: not connections(process)), "nor a connection, once the pool has let go of the idle ones"
    assert eventually(lambda: process.num_fds() <= descriptors + HEALTH_CHECKS)
    assert process.memory_info().rss - rss < GROWTH_BYTES
