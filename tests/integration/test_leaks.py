"""Two thousand requests, a third of whose clients hang up at random points: nothing of them stays."""

import asyncio
import random
import time

import httpx
import psutil
from starlette.requests import Request
from starlette.responses import Response

from tests.conftest import RunningGateway
from tests.fake_engine import FakeEngine, completion, stream

REQUESTS = 2000
AT_ONCE = 50


def connections(gateway: RunningGateway) -> int:
    return len([c for c in psutil.Process(gateway.process.pid).net_connections("tcp") if c.status == psutil.CONN_ESTABLISHED])


def in_flight(gateway: RunningGateway) -> float:
    rows = httpx.get(f"{gateway.url}/metrics").text.splitlines()
    return next(float(row.split()[1]) for row in rows if row.startswith("fovea_requests_in_flight ")) - 1


async def ask(client: httpx.AsyncClient, number: int, dice: random.Random) -> str:
    """One request; what became of it."""
    streamed = number % 2 == 0
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x" * dice.randrange(100_000)}], "stream": streamed}
    hang_up_after_s = dice.uniform(0, 0.15) if number % 3 == 0 else None
    try:
        async with asyncio.timeout(hang_up_after_s):
            response = await client.post("/v1/chat/completions", json=body)
    except TimeoutError:
        return "left"
    assert response.status_code == 200
    assert not streamed or response.text.endswith("data: [DONE]\n\n")
    return "answered"


async def ask_all(url: str) -> list[str]:
    dice = random.Random(0)
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        async with places:
            return await ask(client, number, dice)

    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        return await asyncio.gather(*(one(number) for number in range(REQUESTS)))


def test_two_thousand_requests_leave_nothing_behind(gateway: RunningGateway, engine: FakeEngine) -> None:
    async def answer(request: Request) -> Response:
        document = await request.json()
        await asyncio.sleep(0.02)
        return stream(["a"] * 5, gap_s=0.01) if document["stream"] else completion("hello")

    engine.answer = answer
    process = psutil.Process(gateway.process.pid)
    asyncio.run(ask_all(gateway.url))  # the allocator and the pools have what they want after this
    rss = process.memory_info().rss
    before = {status: gateway.counted(model="tiny", status=status) for status in ("200", "499")}

    outcomes = asyncio.run(ask_all(gateway.url))

    answered, left = outcomes.count("answered"), outcomes.count("left")
    assert (answered + left, left > REQUESTS / 10) == (REQUESTS, True)
    assert in_flight(gateway) == 0
    assert gateway.counted(model="tiny", status="200") - before["200"] >= answered
    deadline = time.monotonic() + 10
    while connections(gateway) > 4 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert connections(gateway) <= 4, "the pool's idle connections are closed after 4 s"
    assert process.memory_info().rss - rss < 16 * 1024**2
