import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from gateway.cache.breaker import Breaker, Budget


def on_each_loop(promise: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(promise())
    uvloop.run(promise())


def test_it_opens_after_three_failures_in_a_row() -> None:
    breaker = Breaker(bool)
    for _ in range(5):
        breaker.failed("timeout")
        breaker.failed("timeout")
        breaker.worked()
    assert not breaker.is_open
    for _ in range(3):
        breaker.failed("timeout")
    assert breaker.is_open


def test_it_closes_once_all_is_well_and_then_takes_three_failures_again() -> None:
    async def promise() -> None:
        breaker, answers = Breaker(bool), [False, True]

        async def is_well() -> bool:
            return answers.pop(0)

        watch = asyncio.ensure_future(breaker.watch(is_well))
        for _ in range(3):
            breaker.failed("timeout")
        async with asyncio.timeout(20):
            while breaker.is_open:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        assert answers == []
        breaker.failed("timeout")
        breaker.failed("timeout")
        assert not breaker.is_open
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch

    asyncio.run(promise())


def test_a_budget_ends_what_takes_longer() -> None:
    async def promise() -> None:
        began_s = time.monotonic()
        with pytest.raises(TimeoutError):
            async with Budget(0.05):
                await asyncio.sleep(30)
        # uvloop counts in whole milliseconds.
        assert 0.04 < time.monotonic() - began_s < 20

    on_each_loop(promise)


def test_a_budget_says_nothing_of_what_ends_in_time() -> None:
    async def promise() -> None:
        async with Budget(0.02):
            pass
        await asyncio.sleep(0.05)
        with pytest.raises(KeyError):
            async with Budget(0.02):
                raise KeyError

    on_each_loop(promise)


def test_who_is_cancelled_within_a_budget_is_cancelled() -> None:
    async def promise() -> None:
        async def work() -> None:
            async with Budget(10):
                await asyncio.sleep(30)

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    on_each_loop(promise)


@pytest.mark.parametrize("busy_s", [0.029, 0.031, 0.034, 0.06, 0.2])
def test_a_reply_that_came_while_the_loop_was_busy_is_in_time(busy_s: float) -> None:
    async def promise() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)

        def reply_and_keep_the_loop_busy() -> None:
            theirs.send(b"pong\n")
            time.sleep(busy_s)

        with theirs:
            async with Budget(0.03):
                asyncio.get_running_loop().call_soon(reply_and_keep_the_loop_busy)
                await reader.readline()
            writer.close()
            await writer.wait_closed()

    on_each_loop(promise)


def test_a_loop_that_is_always_busy_does_not_wait_for_ever() -> None:
    async def promise() -> None:
        async def be_busy() -> None:
            while True:
                time.sleep(0.03)  # noqa: ASYNC251 - that is the point
                await asyncio.sleep(0)

        busy = asyncio.ensure_future(be_busy())
        began_s = time.monotonic()
        with pytest.raises(TimeoutError):
            async with Budget(0.02):
                await asyncio.sleep(30)
        assert time.monotonic() - began_s < 20
        busy.cancel()

    on_each_loop(promise)
