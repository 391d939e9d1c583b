"""An engine that cannot be connected to for a moment costs nobody a request."""

import asyncio
import socket

from gateway.errors import EngineUnavailable
from gateway.telemetry.metrics import Metrics
from gateway.upstream.health import HealthProbe, State
from gateway.upstream.openai_http import OpenAIHttpEngine
from tests.conftest import free_port

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
AWAY_S = 0.1


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)
    await writer.drain()
    writer.close()


async def ask(port: int) -> tuple[bytes, State]:
    """The answer for the model behind `port`, and the model's state after that."""
    probe = HealthProbe({"tiny": [f"http://127.0.0.1:{port}"]}, api_key=None)
    async with OpenAIHttpEngine(probe, Metrics().engine_requests, connect_timeout_s=20.0, api_key=None) as engine:
        try:
            async with engine.complete("tiny", [b"{}"], {}) as found:
                return b"".join([chunk async for chunk in found.chunks]), probe.models["tiny"].state
        except EngineUnavailable:
            return b"", probe.models["tiny"].state


async def ask_while_it_comes_back() -> tuple[bytes, State]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        asking = asyncio.ensure_future(ask(listener.getsockname()[1]))
        await asyncio.sleep(AWAY_S)
        # In one step: however late this loop goes on, it is there before the second attempt, which was to come later.
        listener.listen()
        async with await asyncio.start_server(answer, sock=listener):
            return await asking


def test_an_engine_that_is_away_for_a_moment_is_connected_to_again() -> None:
    assert asyncio.run(ask_while_it_comes_back()) == (b"{}", State.UNKNOWN)


def test_an_engine_that_stays_away_is_unavailable() -> None:
    assert asyncio.run(ask(free_port())) == (b"", State.UNAVAILABLE)
