"""Several workers on one port: what they count together, and what the death of one costs."""

import asyncio
import pathlib
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
import psutil
import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.conftest import PATIENCE_S, RunningGateway, running_gateway
from tests.fake_engine import Answer, FakeEngine, completion, stream
from tests.watching import SOON_S, eventually

WORKERS = 4
AT_ONCE = 32
PATH = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
KINDS = {
    "answered": {"model": "tiny", "messages": HI},
    "streamed": {"model": "tiny", "messages": HI, "stream": True},
    "refused": {"model": "tiny", "messages": HI, "temperature": 9},
    "not found": {"model": "nobody", "messages": HI},
}
STATUS = {"answered": 200, "streamed": 200, "refused": 400, "not found": 404}


@pytest.fixture
def gateway(engine: FakeEngine, tmp_path: pathlib.Path) -> Iterator[RunningGateway]:
    with running_gateway(tmp_path, engine.url, FOVEA_WORKERS=str(WORKERS)) as running:
        assert eventually(lambda: len(workers(running)) == WORKERS)
        yield running


def workers(gateway: RunningGateway) -> list[psutil.Process]:
    """Those that listen; there is also multiprocessing's own helper."""
    children = psutil.Process(gateway.process.pid).children()
    return [child for child in children if any(found.status == psutil.CONN_LISTEN for found in sockets(child))]


def sockets(process: psutil.Process) -> list[Any]:
    try:
        return process.net_connections()
    except psutil.NoSuchProcess:
        return []


def streaming(deltas: int) -> Answer:
    """An engine's answer: a stream of 20 deltas a second."""

    async def answer(_: Request) -> Response:
        return stream([str(number) for number in range(deltas)], gap_s=0.05)

    return answer


async def ask_all(url: str, count: int) -> Counter[int]:
    """The statuses of `count` questions of every kind, each on a connection of its own; 0 is one that broke off."""
    statuses: Counter[int] = Counter()
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(session: aiohttp.ClientSession, kind: str) -> None:
        async with places:
            try:
                async with session.post(f"{url}{PATH}", json=KINDS[kind]) as response:
                    await response.read()
                    assert response.status == STATUS[kind]
                    statuses[response.status] += 1
            except aiohttp.ClientError:
                statuses[0] += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        await asyncio.gather(*(ask(session, kind) for _ in range(count) for kind in KINDS))
    return statuses


def counted(gateway: RunningGateway) -> Counter[int]:
    """The requests that the gateway says it has ended, by status."""
    return Counter(
        {
            200: int(gateway.counted(model="tiny", status="200")),
            400: int(gateway.counted(model="", status="400")),
            404: int(gateway.counted(model="", status="404")),
        }
    )


def kill_one(gateway: RunningGateway) -> None:
    """Kills a worker, and waits until another has its place."""
    before = workers(gateway)
    before[0].kill()
    assert eventually(lambda: len(workers(gateway)) == WORKERS and before[0] not in workers(gateway))


def test_counts_are_exact_over_all_workers_and_after_one_was_killed(gateway: RunningGateway) -> None:
    asked = asyncio.run(ask_all(gateway.url, 100))
    assert eventually(lambda: counted(gateway) == asked), (counted(gateway), asked)
    kill_one(gateway)
    assert counted(gateway) == asked, "what the dead one had counted is not lost"
    asked += asyncio.run(ask_all(gateway.url, 100))
    assert eventually(lambda: counted(gateway) == asked), (counted(gateway), asked)
    assert asked == Counter({200: 400, 400: 200, 404: 200})
    assert gateway.metric("fovea_request_seconds_count" + f'{{model="tiny",path="{PATH}",stream="true"}}') == 200
    assert gateway.metric("fovea_requests_in_flight") == 1, "whoever asks"
    assert gateway.metric("fovea_body_bytes_in_flight") == 0


def test_a_worker_killed_under_load_takes_along_what_it_answered_and_nothing_else(
    gateway: RunningGateway, engine: FakeEngine
) -> None:
    """In flight: 32 questions at a time. What the dead worker was answering breaks off; what was answered is counted."""

    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.05)
        return stream(["a"]) if (await request.json()).get("stream") else completion("hello")

    async def ask_while_one_dies() -> Counter[int]:
        asking = asyncio.ensure_future(ask_all(gateway.url, 150))
        assert await asyncio.to_thread(eventually, lambda: len(engine.documents) > 2 * AT_ONCE)
        workers(gateway)[0].kill()
        return await asking

    engine.answer = slow
    statuses = asyncio.run(ask_while_one_dies())
    broke_off = statuses.pop(0)
    assert 0 < broke_off <= AT_ONCE
    # Between the last byte and the count there is a moment in which the worker may die.
    assert eventually(lambda: abs((counted(gateway) - statuses).total()) <= broke_off)
    assert (statuses - counted(gateway)).total() <= 1
    assert eventually(lambda: gateway.metric("fovea_requests_in_flight") == 1), "nor is one in flight that has died"
    assert eventually(lambda: gateway.metric("fovea_engine_requests_in_flight" + '{model="tiny"}') == 0)
    assert eventually(lambda: len(workers(gateway)) == WORKERS)


def test_streams_on_other_workers_outlive_one(gateway: RunningGateway, engine: FakeEngine) -> None:
    """In flight: 16 streams over four workers. Those on the dead one break off, the others come to their end."""

    async def read_one(session: aiohttp.ClientSession) -> bool:
        try:
            async with session.post(f"{gateway.url}{PATH}", json=KINDS["streamed"]) as response:
                return (await response.read()).endswith(b"data: [DONE]\n\n")
        except aiohttp.ClientError:
            return False

    async def read_while_one_dies() -> Counter[bool]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            reading = [asyncio.ensure_future(read_one(session)) for _ in range(16)]
            assert await asyncio.to_thread(eventually, lambda: len(engine.documents) == 16)
            busiest = max(workers(gateway), key=lambda worker: len(sockets(worker)))
            busiest.kill()
            return Counter(await asyncio.gather(*reading))

    engine.answer = streaming(40)
    ended_well = asyncio.run(read_while_one_dies())
    assert ended_well[True] > 0
    assert ended_well[False] > 0


def test_on_sigterm_all_workers_let_their_answers_end(gateway: RunningGateway, engine: FakeEngine) -> None:
    engine.answer = streaming(20)
    with httpx.stream("POST", f"{gateway.url}{PATH}", json=KINDS["streamed"], timeout=PATIENCE_S) as response:
        lines = response.iter_lines()
        next(lines)
        gateway.process.send_signal(signal.SIGTERM)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert gateway.process.wait(PATIENCE_S) == 0


def test_a_second_ctrl_c_ends_all_at_once(gateway: RunningGateway, engine: FakeEngine) -> None:
    engine.answer = streaming(2000)
    with httpx.stream("POST", f"{gateway.url}{PATH}", json=KINDS["streamed"], timeout=PATIENCE_S) as response:
        lines = response.iter_lines()
        next(lines)
        gateway.process.send_signal(signal.SIGINT)
        assert eventually(lambda: not workers(gateway)), "nobody is let in any more"
        assert gateway.process.poll() is None, "an answer runs"
        gateway.process.send_signal(signal.SIGINT)
        gateway.process.wait(PATIENCE_S)


def test_workers_do_not_outlive_what_started_them(gateway: RunningGateway) -> None:
    running = workers(gateway)
    gateway.process.kill()
    gone, alive = psutil.wait_procs(running, timeout=SOON_S)
    assert (len(gone), alive) == (WORKERS, [])


def test_a_port_that_is_taken_is_said(gateway: RunningGateway, tmp_path: pathlib.Path, engine: FakeEngine) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    port = gateway.url.rpartition(":")[2]
    with (
        pytest.raises(pytest.fail.Exception, match="Address already in use"),
        running_gateway(folder, engine.url, FOVEA_WORKERS="2", FOVEA_PORT=port),
    ):
        pass
