"""A look-up alone, in a process that does nothing else: `python -m loadtest.overhead.lookups REDIS_URL`.

It writes a line of JSON: microseconds of its CPU for a call, by what is called, one at a time and 32 at once. Nothing is there.
"""

import asyncio
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import uvloop
from redis.asyncio import Redis

from gateway.cache.memory import MemoryResults
from gateway.cache.redis import RedisResults
from gateway.cache.results import Address, ResultStore, Stored
from gateway.cache.tiered import TieredResults
from loadtest.overhead.processes import PEER_CORES, BenchError
from loadtest.overhead.redis_server import redis_server
from loadtest.overhead.report import row, spread

AT_ONCE = (1, 32)

_CALLS = 4096
_WARM_UP_CALLS = 256
_BUDGET_S = 1.0
_LEASE_S = 10.0
_TTL_S = 60.0
_MEMORY_BYTES = 64 * 1024 * 1024
_ANSWER_BYTES = 1024 * 1024
_ANSWER = b'{"choices": [%b]}' % (b"." * 600)

Lookups = Mapping[str, Sequence[float]]
"""Microseconds of CPU for a call, by what is called: one for each of AT_ONCE."""

_Call = Callable[[], Awaitable[object]]


def lookup_rounds(folder: pathlib.Path, rounds: int) -> Iterator[Lookups]:
    """So many rounds, each in a process of its own on the peers' core.

    Raises BenchError: Redis does not start, or a call failed.
    """
    with redis_server(folder) as redis:
        for _ in range(rounds):
            command = ("taskset", "-c", PEER_CORES, sys.executable, "-m", "loadtest.overhead.lookups", redis.url)
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode != 0:
                raise BenchError(f"looking up alone ended with {run.returncode}: {run.stderr[-2000:]}")
            told: dict[str, list[float]] = json.loads(run.stdout)
            yield told


def lookups_table(rounds: Sequence[Lookups]) -> str:
    """A Markdown table: a line for what is called, a column for how many at once."""
    head = ["not there", "CPU per call, µs: one at a time", *(f"{number} at once" for number in AT_ONCE[1:])]
    lines = [row(head), row(["---", *["--:"] * len(AT_ONCE)])]
    return "\n".join((*lines, *(row([name, *_spreads(rounds, name)]) for name in rounds[0]))) + "\n"


def _spreads(rounds: Sequence[Lookups], name: str) -> Iterator[str]:
    for figures in zip(*(one[name] for one in rounds), strict=True):
        yield str(spread(figures))


async def cpu_us(call: _Call, at_once: int, calls: int) -> float:
    """Microseconds of this process's CPU for each of `calls`, of which `at_once` are under way."""

    async def again_and_again() -> None:
        for _ in range(calls // at_once):
            await call()

    begun_s = time.process_time()
    await asyncio.gather(*(again_and_again() for _ in range(at_once)))
    return (time.process_time() - begun_s) / calls * 1e6


async def _measured(url: str) -> Lookups:
    client = Redis.from_url(url, protocol=3)
    memory = MemoryResults(_MEMORY_BYTES, time.time)
    async with client, RedisResults(url, _BUDGET_S, _ANSWER_BYTES, _fail) as redis:
        tiered = TieredResults(memory, redis)
        calls: dict[str, _Call] = {
            "memory: get": lambda: memory.get(_nowhere()),
            "redis-py alone: GET": lambda: client.get(_nowhere().key),
            "Redis: get": lambda: redis.get(_nowhere()),
            "memory before Redis: get": lambda: tiered.get(_nowhere()),
            "memory before Redis: claim": lambda: tiered.claim(_nowhere(), "bench", _LEASE_S),
            "memory before Redis: claim, settle": lambda: _led(tiered),
        }
        told: dict[str, list[float]] = {}
        for name, call in calls.items():
            await cpu_us(call, AT_ONCE[-1], _WARM_UP_CALLS)
            told[name] = [await cpu_us(call, at_once, _CALLS) for at_once in AT_ONCE]
        return told


async def _led(store: ResultStore) -> None:
    """All that a miss asks of the store."""
    address = _nowhere()
    await store.claim(address, "bench", _LEASE_S)
    await store.settle(address, "bench", Stored(_ANSWER, time.time()), _TTL_S)


def _nowhere() -> Address:
    return Address("bench", "bench", os.urandom(32))


def _fail(operation: str, reason: str) -> None:
    raise BenchError(f"Redis failed to {operation}: {reason}")


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_measured(sys.argv[1]))))
