"""What large bodies cost in memory: a bounded multiple of what is in flight, given back, and refused beyond a limit."""

import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator, Callable
from functools import partial

import httpx
import psutil
import pytest

from tests.conftest import CATALOG, RunningGateway, noise, running_gateway

AT_ONCE = 64
MIB = 1024**2
IMAGE = noise((1700, 1240))
BODY = json.dumps(
    {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]}]}
).encode()
IN_FLIGHT = AT_ONCE * len(BODY)
HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
ANSWER = b'{"choices":[]}'


class SlowEngine:
    """Takes bodies without keeping them, and answers nobody before `go`; `taken` is how many bodies it has whole."""

    def __init__(self) -> None:
        self.taken = 0
        self.go = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()  # also where the test ends before it

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"GET"):
            tail = b""
            while not tail.endswith(b"\r\n0\r\n\r\n"):
                piece = await reader.read(MIB)
                if not piece:
                    raise asyncio.IncompleteReadError(tail, None)
                tail = (tail + piece)[-16:]
            self.taken += 1
            await self.go.wait()
        body = b"" if head.startswith(b"GET") else ANSWER
        kind = b"content-type: application/json\r\nconnection: close\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n" + kind + b"content-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()


@contextlib.asynccontextmanager
async def gateway_before_a_slow_engine(
    folder: pathlib.Path, **settings: str
) -> AsyncIterator[tuple[RunningGateway, SlowEngine]]:
    engine = SlowEngine()
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, limit=4 * MIB)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        with running_gateway(folder, url, CATALOG.replace("body_mib: 1", "body_mib: 16"), **settings) as gateway:
            yield gateway, engine


async def post(port: int) -> int:
    """One large request; the status of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.encode())
    for at in range(0, len(BODY), MIB):
        writer.write(BODY[at : at + MIB])
        await writer.drain()
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


def rss(gateway: RunningGateway) -> int:
    size: int = psutil.Process(gateway.process.pid).memory_info().rss
    return size


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - of another process, which tells nobody
            await asyncio.sleep(0.02)


async def rss_under_a_burst(folder: pathlib.Path) -> tuple[int, int, int]:
    """Before, at most meanwhile, and some time after; in bytes."""
    async with gateway_before_a_slow_engine(folder, FOVEA_BODY_MIB_IN_FLIGHT="1024") as (gateway, engine):
        before = rss(gateway)
        peak = before

        def all_are_held() -> bool:
            nonlocal peak
            peak = max(peak, rss(gateway))
            return engine.taken == AT_ONCE

        port = int(gateway.url.rsplit(":", 1)[1])
        asking = [asyncio.ensure_future(post(port)) for _ in range(AT_ONCE)]
        await until(all_are_held)
        engine.go.set()
        assert await asyncio.gather(*asking) == [200] * AT_ONCE
        with contextlib.suppress(TimeoutError):
            await until(lambda: rss(gateway) - before < IN_FLIGHT / 8)
        return before, peak, rss(gateway)


def test_sixty_four_large_bodies_take_at_most_three_times_their_size_and_give_it_back(tmp_path: pathlib.Path) -> None:
    before, peak, after = asyncio.run(rss_under_a_burst(tmp_path))
    print(f"in flight {IN_FLIGHT / MIB:.0f} MiB, RSS +{(peak - before) / MIB:.0f} MiB, then +{(after - before) / MIB:.0f} MiB")
    assert peak - before <= 3 * IN_FLIGHT
    assert after - before < IN_FLIGHT / 8


async def growth_by_those_that_give_up(folder: pathlib.Path, header: str) -> int:
    """Bytes by which the process is larger after 24 large requests, one after the other, that get no answer in time."""
    async with gateway_before_a_slow_engine(folder) as (gateway, engine):
        port = int(gateway.url.rsplit(":", 1)[1])
        before = rss(gateway)
        for _ in range(24):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            # Its time may be over, on a machine that stood still, before all of it has been sent.
            with contextlib.suppress(TimeoutError, ConnectionError):
                writer.write(HEAD.replace("\r\n\r\n", f"\r\n{header}\r\n").encode() + BODY)
                await writer.drain()
                async with asyncio.timeout(1.5 if header else 0.3):
                    await reader.readline()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await until(lambda: gateway.metric("fovea_body_bytes_in_flight") == 0)
        growth = rss(gateway) - before
        engine.go.set()
        await asyncio.sleep(0.5)  # until those that it kept waiting have closed
        return growth


@pytest.mark.parametrize("header", ["", "x-request-timeout-seconds: 0.3\r\n"], ids=["hung up", "deadline"])
def test_requests_that_end_early_leave_nothing_behind(tmp_path: pathlib.Path, header: str) -> None:
    assert asyncio.run(growth_by_those_that_give_up(tmp_path, header)) < 6 * len(BODY)


async def refused_and_then_taken(folder: pathlib.Path) -> tuple[httpx.Response, httpx.Response]:
    async with (
        gateway_before_a_slow_engine(folder, FOVEA_BODY_MIB_IN_FLIGHT="16") as (gateway, engine),
        httpx.AsyncClient(base_url=gateway.url, headers={"content-type": "application/json"}, timeout=60) as client,
    ):
        ask = partial(client.post, "/v1/chat/completions", content=BODY)
        first = asyncio.ensure_future(ask())
        await until(lambda: engine.taken == 1)
        assert gateway.metric("fovea_body_bytes_in_flight") == len(BODY)
        refused = await ask()
        engine.go.set()
        assert (await first).status_code == 200
        taken = await ask()
        assert gateway.metric("fovea_body_bytes_in_flight") == 0
        return refused, taken


def test_beyond_the_limit_a_body_is_told_to_come_back_and_then_taken(tmp_path: pathlib.Path) -> None:
    refused, taken = asyncio.run(refused_and_then_taken(tmp_path))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"]["code"] == "overloaded"
    assert f"body_mib_in_flight allows {16 * MIB}" in refused.json()["error"]["message"]
    assert taken.status_code == 200
