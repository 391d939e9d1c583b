import asyncio
import os
import tracemalloc

import pytest

from gateway.cache.memory import MemoryResults
from gateway.cache.results import Address, Claim, Stored
from tests.stores import ADDRESS, ANSWER, LEASE_S, MIB, address, answer


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_answer_is_there_until_its_time_is_over(clock: Clock) -> None:
    async def promise() -> None:
        memory = MemoryResults(MIB, clock)
        await memory.put(ADDRESS, ANSWER, 10)
        clock.now_s += 9.9
        assert await memory.get(ADDRESS) == ANSWER
        clock.now_s += 0.1
        assert await memory.claim(ADDRESS, "token", LEASE_S) is Claim.LEADING
        assert memory.held_bytes == 0

    asyncio.run(promise())


def test_an_answer_stays_no_longer_than_it_says_itself(clock: Clock) -> None:
    async def promise() -> None:
        memory = MemoryResults(MIB, clock)
        await memory.put(ADDRESS, Stored(b"{}", 900.0, expires_at_s=1002.0), 10)
        clock.now_s = 1001.9
        assert await memory.get(ADDRESS) == Stored(b"{}", 900.0)
        clock.now_s = 1002.0
        assert await memory.get(ADDRESS) is None

    asyncio.run(promise())


def test_the_ones_not_asked_for_the_longest_make_room(clock: Clock) -> None:
    async def promise() -> None:
        memory = MemoryResults(3 * 1600, clock)
        for number in range(3):
            await memory.put(address(number), Stored(bytes(1000), 0), 100)
        await memory.get(address(0))
        await memory.put(address(3), Stored(bytes(1000), 0), 100)
        kept = [number for number in range(4) if await memory.get(address(number))]
        assert kept == [0, 2, 3]

    asyncio.run(promise())


def test_many_small_answers_take_no_more_memory_than_they_may(clock: Clock) -> None:
    async def promise() -> None:
        memory = MemoryResults(4 * MIB, clock)
        tracemalloc.start()
        try:
            for number in range(20_000):
                # Of whom nothing is shared.
                await memory.put(Address("acme", "tiny", os.urandom(32)), Stored(b"%d" % number, float(number)), 100)
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert memory.held_bytes <= 4 * MIB
        assert held_bytes < 4.5 * MIB

    asyncio.run(promise())


def test_an_answer_that_is_too_large_is_not_kept(clock: Clock) -> None:
    async def promise() -> None:
        memory = MemoryResults(MIB, clock, answer_limit_bytes=1000)
        await memory.put(address(0), Stored(bytes(1001), 0), 100)
        await memory.settle(address(1), "token", Stored(bytes(1000), 0), 100)
        assert await memory.get(address(0)) is None
        assert await memory.get(address(1)) is not None
        small = MemoryResults(1000, clock)
        await small.put(address(0), Stored(bytes(999), 0), 100)
        assert await small.get(address(0)) is None

    asyncio.run(promise())


def test_the_same_twice_counts_once_and_the_later_is_kept(clock: Clock) -> None:
    async def promise() -> None:
        memory = MemoryResults(MIB, clock)
        await memory.put(ADDRESS, answer(1), 100)
        once_bytes = memory.held_bytes
        await memory.put(ADDRESS, answer(2), 100)
        assert memory.held_bytes == once_bytes
        assert await memory.get(ADDRESS) == answer(2)
        assert await memory.flush(None, None) == 1
        assert memory.held_bytes == 0

    asyncio.run(promise())
