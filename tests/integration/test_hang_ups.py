"""Two thousand requests, a third of whose clients hang up at random points: nothing of them stays."""

import asyncio
import json
import pathlib
import random
import socket
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from gateway.app import create_app
from gateway.catalog.read import load_catalog
from gateway.drain import Drain
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics
from tests.conftest import CATALOG, RunningGateway, free_port, running_gateway
from tests.fake_engine import FakeEngine, completion, running_fake_engine, stream
from tests.watching import HEALTH_CHECKS, SOON_S, connections, eventually, in_flight

REQUESTS = 2000
AT_ONCE = 40
HANGS_UP_ONE_IN = 3
GROWTH_BYTES = 24 * 1024**2
"""What an allocator may keep besides: far less than 2,000 requests of 50 KB on average, should they stay."""


async def slow_answer(request: Request) -> Response:
    document = await request.json()
    await asyncio.sleep(0.01)
    return stream(["a"] * 5, gap_s=0.01) if document["stream"] else completion("hello")


async def ask(port: int, number: int, dice: random.Random) -> str:
    """One request over a connection of its own; what became of it."""
    question = {"model": "tiny", "messages": [{"role": "user", "content": "x" * dice.randrange(100_000)}]}
    body = json.dumps(question | {"stream": number % 2 == 0}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    sent = head.encode() + b"content-type: application/json\r\n\r\n" + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if number % HANGS_UP_ONE_IN:
            return await answered(reader, writer, sent)
        await hang_up(reader, writer, sent, dice)
        return "left"
    finally:
        # Half of those that leave do so with a reset, half in good order.
        writer.transport.abort() if dice.random() < 0.5 else writer.close()


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> str:
    writer.write(sent)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200"), answer[:300]
    assert b'"hello"' in answer or b"data: [DONE]\n\n" in answer
    return "answered"


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes, dice: random.Random) -> None:
    """Sends a part of the request, or all of it and waits a moment, or until the answer has begun."""
    if dice.random() < 0.4:
        writer.write(sent[: dice.randrange(len(sent))])
        await writer.drain()
        return
    writer.write(sent)
    await writer.drain()
    if dice.random() < 0.5:
        await asyncio.sleep(dice.uniform(0, 0.05))
    else:
        await reader.read(dice.randrange(1, 600))


async def ask_all(port: int, requests: int) -> Counter[str]:
    dice = random.Random(0)
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        async with places:
            return await ask(port, number, dice)

    return Counter(await asyncio.gather(*(one(number) for number in range(requests))))


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """One of our own, that no other test has given work."""
    with running_fake_engine() as engine:
        engine.answer = slow_answer
        yield engine


@pytest.fixture
def gateway(engine: FakeEngine, tmp_path: pathlib.Path) -> Iterator[RunningGateway]:
    with running_gateway(tmp_path, engine.url) as gateway:
        yield gateway


def test_two_thousand_requests_leave_nothing_behind(gateway: RunningGateway, engine: FakeEngine) -> None:
    port = int(gateway.url.rsplit(":", 1)[1])
    process = psutil.Process(gateway.process.pid)
    asyncio.run(ask_all(port, REQUESTS))  # after this the allocator and the pools have what they want
    assert eventually(lambda: in_flight(gateway) == 0 and not connections(process))
    answered_before = gateway.counted(model="tiny", status="200")
    descriptors, rss = process.num_fds(), process.memory_info().rss

    outcomes = asyncio.run(ask_all(port, REQUESTS))

    assert eventually(lambda: in_flight(gateway) == 0), "no request is left"
    assert eventually(lambda: engine.running == 0), "nor is one at the engine"
    assert eventually(lambda: not connections(process)), "nor a connection, once the pool has let go of the idle ones"
    assert eventually(lambda: process.num_fds() <= descriptors + HEALTH_CHECKS)
    assert process.memory_info().rss - rss < GROWTH_BYTES
    assert gateway.counted(model="tiny", status="200") - answered_before >= outcomes["answered"]


def test_no_task_is_left(engine: FakeEngine, tmp_path: pathlib.Path) -> None:
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(CATALOG)
    settings = Settings(catalog=catalog, engines_url=engine.url, port=free_port())

    async def tasks_before_and_after() -> tuple[int, int]:
        app = create_app(settings, load_catalog(catalog), 0, Drain(), Metrics())
        server = uvicorn.Server(uvicorn.Config(app, port=settings.port, ws="none", log_config=None))
        serving = asyncio.ensure_future(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        before = len(asyncio.all_tasks())
        await ask_all(settings.port, 300)
        after = len(asyncio.all_tasks())
        deadline = asyncio.get_running_loop().time() + SOON_S
        while after > before and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.1)
            after = len(asyncio.all_tasks())
        server.should_exit = True
        await serving
        return before, after

    before, after = asyncio.run(tasks_before_and_after())
    assert after <= before


def test_a_client_that_does_not_read_is_not_waited_for(gateway: RunningGateway, engine: FakeEngine) -> None:
    """Its deadline comes while the stream stands still, and so does the event that would say so."""

    async def endless(_: Request) -> Response:
        return stream(["x" * 100_000] * 10_000)

    engine.answer = endless
    question = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    body = json.dumps(question).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-timeout-seconds: 1\r\ncontent-length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))) as connection:
        connection.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body)
        connection.recv(100)
        assert eventually(lambda: in_flight(gateway) == 0)
        assert eventually(lambda: engine.running == 0)
