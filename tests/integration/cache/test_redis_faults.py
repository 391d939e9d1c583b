"""RedisResults while Redis is not well: no call fails or lasts, and once Redis is back, so are its answers."""

import asyncio
import contextlib
import pathlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from gateway.cache.breaker import Budget
from gateway.cache.record import pack
from gateway.cache.redis import RedisResults
from gateway.cache.results import Claim, Stored, StoreUnavailable
from tests.conftest import free_port
from tests.redis_server import RedisServer, running_redis
from tests.stores import ADDRESS, ANSWER, LEASE_S, TTL_S, Failures, address, answer, redis_results

BUDGET_S = 0.1
SOON_S = 30.0
QUICKLY_S = 3.0
"""Far above any budget, and far below what redis-py waits by itself: this machine may be busy."""


def redis_at(port: int, failures: Failures | None = None) -> AbstractAsyncContextManager[RedisResults]:
    return redis_results(f"redis://127.0.0.1:{port}", failures, BUDGET_S)


async def quickly(call: Awaitable[object]) -> object:
    """What it gives, within the time in which this machine ran."""
    async with Budget(QUICKLY_S):
        return await call


async def every_call_is_harmless(store: RedisResults) -> None:
    """A store that is away has nothing, keeps nothing, and is of no hindrance."""
    for _ in range(2):
        assert await quickly(store.get(ADDRESS)) is None
        assert await quickly(store.claim(ADDRESS, "token", LEASE_S)) is Claim.ALONE
        await quickly(store.renew(ADDRESS, "token", LEASE_S))
        await quickly(store.put(ADDRESS, ANSWER, TTL_S))
        await quickly(store.settle(ADDRESS, "token", ANSWER, TTL_S))
        await quickly(store.settle(ADDRESS, "token", None, TTL_S))
        with pytest.raises(StoreUnavailable):
            await store.flush(None, None)


async def takes_no_time(store: RedisResults) -> None:
    """The breaker is open."""
    assert store.is_open
    async with Budget(BUDGET_S * 10):
        for _ in range(200):
            assert await store.get(ADDRESS) is None


async def works_again(store: RedisResults) -> None:
    """By itself."""
    async with asyncio.timeout(SOON_S):
        while store.is_open:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)
        # On a machine that is busy, the first call after it may be late once more.
        while await store.get(ADDRESS) != ANSWER:
            await store.put(ADDRESS, ANSWER, TTL_S)


async def in_use(store: RedisResults) -> None:
    """With some connections that are open, and twenty answers."""
    answers = {address(number): answer(number) for number in range(20)}
    async with asyncio.timeout(SOON_S):
        while await asyncio.gather(*map(store.get, answers)) != list(answers.values()):
            await asyncio.gather(*(store.put(at, stored, TTL_S) for at, stored in answers.items()))


def test_redis_that_is_killed_and_comes_back(tmp_path: pathlib.Path) -> None:
    async def promise() -> None:
        port = free_port()
        async with redis_at(port, failures := Failures()) as store:
            with running_redis(tmp_path, port=port) as redis:
                await works_again(store)
                await in_use(store)
                del failures.told[:]
                redis.process.kill()
                redis.process.wait()
                await every_call_is_harmless(store)
                await takes_no_time(store)
                assert {reason for _, reason in failures.told} == {"connection"}
            with running_redis(tmp_path, port=port):
                await works_again(store)

    asyncio.run(promise())


def test_redis_that_is_killed_under_load(tmp_path: pathlib.Path) -> None:
    async def promise() -> None:
        port, answered = free_port(), [0]

        async def go_on_asking(store: RedisResults) -> None:
            while True:
                found = await quickly(store.get(ADDRESS))
                assert found in {None, ANSWER}
                answered[0] += found is not None
                await asyncio.sleep(0)

        async with redis_at(port) as store:
            asking = [asyncio.ensure_future(go_on_asking(store)) for _ in range(50)]
            for _ in range(2):
                with running_redis(tmp_path, port=port):
                    await works_again(store)
                    before = answered[0]
                    async with asyncio.timeout(SOON_S):
                        while answered[0] == before:  # noqa: ASYNC110 - they tell nobody
                            await asyncio.sleep(0.05)
                async with asyncio.timeout(SOON_S):
                    while not store.is_open:  # noqa: ASYNC110 - it tells nobody
                        await asyncio.sleep(0.05)
            assert not [task for task in asking if task.done()]
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    asyncio.run(promise())


def test_redis_that_is_paused(tmp_path: pathlib.Path) -> None:
    async def promise(redis: RedisServer) -> None:
        async with redis_results(redis.url, failures := Failures(), BUDGET_S) as store:
            await works_again(store)
            await in_use(store)
            del failures.told[:]
            redis.pause()
            await every_call_is_harmless(store)
            await takes_no_time(store)
            # Two probes find it as it is.
            await asyncio.sleep(2.5)
            await takes_no_time(store)
            redis.resume()
            await works_again(store)
            async with asyncio.timeout(SOON_S):
                while await store.get(address(1)) != answer(1):  # noqa: ASYNC110 - it may be late once more
                    await asyncio.sleep(0.05)
            assert {reason for _, reason in failures.told} == {"timeout"}

    with running_redis(tmp_path) as redis:
        asyncio.run(promise(redis))


def test_redis_whose_writes_wait_stays_alone_until_they_go_on(tmp_path: pathlib.Path) -> None:
    async def promise(redis: RedisServer) -> None:
        async with redis_results(redis.url, Failures(), BUDGET_S) as store:
            await works_again(store)
            with Redis.from_url(redis.url) as client:
                # As in a failover: PING is answered all the time.
                client.execute_command("CLIENT PAUSE", 600_000, "WRITE")
                for _ in range(3):
                    assert await quickly(store.claim(address(1), "token", LEASE_S)) is Claim.ALONE
                await takes_no_time(store)
                await asyncio.sleep(2)
                assert client.ping()
                await takes_no_time(store)
                client.execute_command("CLIENT UNPAUSE")
            await works_again(store)

    with running_redis(tmp_path) as redis:
        asyncio.run(promise(redis))


def test_redis_that_is_full_says_what_it_has_and_keeps_no_more(tmp_path: pathlib.Path) -> None:
    async def promise(redis: RedisServer) -> None:
        async with redis_results(redis.url, failures := Failures()) as store:
            await store.put(ADDRESS, ANSWER, TTL_S)
            assert await store.claim(address(1), "one", LEASE_S) is Claim.LEADING
            assert await store.claim(address(2), "two", LEASE_S) is Claim.LEADING
            with Redis.from_url(redis.url) as client:
                client.config_set("maxmemory", 1)
                with pytest.raises(OutOfMemoryError):
                    client.set("other", "")
                for _ in range(4):
                    assert await store.get(ADDRESS) == ANSWER
                    assert await store.claim(ADDRESS, "token", LEASE_S) == ANSWER
                    assert await store.claim(address(3), "token", LEASE_S) is Claim.ALONE
                    assert await store.claim(address(1), "token", LEASE_S) is Claim.ALONE
                assert set(failures.told) == {("claim", "refused")}
                await store.put(address(4), answer(4, 1000), TTL_S)
                await store.renew(address(1), "one", 100)
                assert client.pttl(f"fovea:flight:acme:tiny:{address(1).key.hex()}") > 50_000
                # Whoever follows does not wait for an answer that will not be there.
                await store.settle(address(1), "one", answer(1), TTL_S)
                await store.settle(address(2), "two", None, TTL_S)
                assert client.keys("fovea:flight:*") == []
                assert set(failures.told) == {("claim", "refused"), ("put", "refused"), ("settle", "refused")}
                assert not store.is_open
                assert await store.flush(None, None) == 1
                client.config_set("maxmemory", 0)
            await works_again(store)

    with running_redis(tmp_path, "--maxmemory-policy", "noeviction") as redis:
        asyncio.run(promise(redis))


def test_the_breaker_closes_for_redis_that_is_full(tmp_path: pathlib.Path) -> None:
    async def promise() -> None:
        port = free_port()
        async with redis_at(port) as store:
            await every_call_is_harmless(store)
            await takes_no_time(store)
            with running_redis(tmp_path, "--maxmemory", "1", "--maxmemory-policy", "noeviction", port=port):
                async with asyncio.timeout(SOON_S):
                    while store.is_open:  # noqa: ASYNC110 - it tells nobody
                        await asyncio.sleep(0.05)

    asyncio.run(promise())


def test_redis_that_was_started_again_learns_the_scripts_anew(tmp_path: pathlib.Path) -> None:
    async def promise() -> None:
        port = free_port()
        async with redis_results(f"redis://127.0.0.1:{port}", failures := Failures()) as store:
            for _ in range(3):
                with running_redis(tmp_path, port=port):
                    # One connection at a time, which tells that it has been closed.
                    await asyncio.sleep(0.1)
                    assert await store.claim(ADDRESS, "token", LEASE_S) is Claim.LEADING
                    await store.renew(ADDRESS, "token", LEASE_S)
                    await store.settle(ADDRESS, "token", ANSWER, TTL_S)
                    assert await store.claim(ADDRESS, "token", LEASE_S) == ANSWER
        assert failures.told == []

    asyncio.run(promise())


def test_nobody_listens(tmp_path: pathlib.Path) -> None:
    async def promise() -> None:
        async with redis_at(free_port(), failures := Failures()) as store:
            await every_call_is_harmless(store)
            await takes_no_time(store)
        # Three, and then it is left alone.
        assert failures.told == [("get", "connection"), ("claim", "connection"), ("renew", "connection")]

    asyncio.run(promise())


def test_a_replica_is_read_from_and_the_breaker_stays_closed(tmp_path: pathlib.Path) -> None:
    async def promise(redis: RedisServer) -> None:
        async with redis_results(redis.url, failures := Failures()) as store:
            await store.put(ADDRESS, ANSWER, TTL_S)
            with Redis.from_url(redis.url) as client:
                client.replicaof("127.0.0.1", str(free_port()))
            for _ in range(4):
                assert await store.claim(ADDRESS, "token", LEASE_S) == ANSWER
                assert await store.claim(address(1), "token", LEASE_S) is Claim.ALONE
            assert not store.is_open
            assert set(failures.told) == {("claim", "refused")}

    with running_redis(tmp_path, "--replica-serve-stale-data", "yes") as redis:
        asyncio.run(promise(redis))


# ---------------------------------------------------------------------------------------------------------------------
# What answers is no Redis

HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"
OTHER = pack(address(7), Stored(b'{"of": "somebody else"}', 5.0))


def noise(seed: int) -> Iterator[bytes]:
    dice = random.Random(seed)
    while True:
        yield dice.randbytes(200)


def always(reply: bytes) -> Iterator[bytes]:
    while True:
        yield reply


@contextlib.asynccontextmanager
async def impostor(replies: Iterator[bytes], *, is_polite: bool, port: int = 0, hangs_up: bool = False) -> AsyncIterator[int]:
    """A server that replies with these, whatever it is told; a polite one says hello first. Yields its port."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(OSError):
            if is_polite and await reader.read(10_000):
                writer.write(HELLO)
            while await reader.read(10_000):
                writer.write(next(replies))
                await writer.drain()
                if hangs_up:
                    break
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        yield server.sockets[0].getsockname()[1]
    # Whoever was connected has gone.
    await asyncio.gather(*serving)


GARBAGE: dict[str, Callable[[], Iterator[bytes]]] = {
    "noise": lambda: noise(1),
    "other noise": lambda: noise(2),
    "a web page": lambda: always(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "a double": lambda: always(b",1.5\r\n"),
    "a truth": lambda: always(b"#t\r\n"),
    "a number": lambda: always(b":77\r\n"),
    "a number that is none": lambda: always(b":what\r\n"),
    "a word": lambda: always(b"+QUEUED\r\n"),
    "a map": lambda: always(b"%1\r\n$1\r\na\r\n$1\r\nb\r\n"),
    "a map of maps": lambda: always(b"%1\r\n%0\r\n:1\r\n"),
    "a list": lambda: always(b"*2\r\n$1\r\n0\r\n:1\r\n"),
    "a page of numbers": lambda: always(b"*2\r\n$1\r\n0\r\n*1\r\n:1\r\n"),
    "lists in lists": lambda: always(b"*1\r\n" * 20_000),
    "a huge list": lambda: always(b"*2147483647\r\n:1\r\n"),
    "a huge answer": lambda: always(b"$2147483647\r\nabc"),
    "a negative length": lambda: always(b"$-7\r\n*-7\r\n"),
    "half an answer": lambda: always(b"$100\r\nabc"),
    "no end of line": lambda: always(b"$" + b"1" * 100_000),
    "no UTF-8": lambda: always(b"-\xff\xfe\r\n=15\r\n\xff\xff\xff:abc\r\n"),
    "another's answer": lambda: always(b"$%d\r\n%s\r\n" % (len(OTHER), OTHER)),
    "two replies at once": lambda: always(b"$%d\r\n%s\r\n" % (len(OTHER), OTHER) * 2),
    "a push": lambda: always(b">3\r\n+message\r\n+a\r\n+b\r\n"),
    "an unknown push": lambda: always(b">1\r\n:1\r\n"),
    "nothing": lambda: always(b""),
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("is_polite", [True, False])
def test_garbage_is_nothing_and_once_redis_is_there_all_is_well(tmp_path: pathlib.Path, kind: str, *, is_polite: bool) -> None:
    async def promise() -> None:
        failures = Failures()
        async with impostor(GARBAGE[kind](), is_polite=is_polite) as port, redis_at(port, failures) as store:
            for _ in range(2):
                assert await quickly(store.get(ADDRESS)) is None
                assert not isinstance(await quickly(store.claim(ADDRESS, "token", LEASE_S)), Stored)
                await quickly(store.put(ADDRESS, ANSWER, TTL_S))
                await quickly(store.settle(ADDRESS, "token", ANSWER, TTL_S))
        assert failures.told

    asyncio.run(promise())


@pytest.mark.parametrize("hangs_up", [True, False])
@pytest.mark.parametrize("kind", ["noise", "half an answer", "a double"])
def test_after_garbage_the_breaker_closes_for_a_real_redis(tmp_path: pathlib.Path, kind: str, *, hangs_up: bool) -> None:
    async def promise() -> None:
        port = free_port()
        async with redis_at(port) as store:
            async with impostor(GARBAGE[kind](), is_polite=True, port=port, hangs_up=hangs_up):
                await every_call_is_harmless(store)
                await takes_no_time(store)
                await asyncio.sleep(1.2)
                assert store.is_open
            with running_redis(tmp_path, port=port):
                await works_again(store)

    asyncio.run(promise())


def test_of_what_another_replies_too_much_nothing_reaches_the_next(tmp_path: pathlib.Path) -> None:
    mine = pack(ADDRESS, ANSWER)

    async def promise() -> None:
        # A right answer with something behind it, which the next would read as its own.
        replies = always(b"$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(mine), mine, len(OTHER), OTHER))
        failures = Failures()
        async with impostor(replies, is_polite=True) as port, redis_at(port, failures) as store:
            for _ in range(20):
                assert await store.get(ADDRESS) == ANSWER
        assert failures.told == []

    asyncio.run(promise())
