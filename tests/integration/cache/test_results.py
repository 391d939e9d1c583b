"""What every store of answers promises, and what those promise that gateways share."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from gateway.cache.memory import MemoryResults
from gateway.cache.results import Address, Claim, ResultStore, Stored
from gateway.cache.tiered import TieredResults
from tests.redis_server import RedisServer
from tests.stores import ADDRESS, ANSWER, LEASE_S, MIB, TTL_S, address, answer, redis_results

Opened = Callable[[], AbstractAsyncContextManager[ResultStore]]


@contextlib.asynccontextmanager
async def memory() -> AsyncIterator[ResultStore]:
    yield MemoryResults(8 * MIB, time.time, MIB)


def opened(kind: str, redis: RedisServer) -> Opened:
    """Opens a store of this kind; shared ones are the same answers each time."""

    @contextlib.asynccontextmanager
    async def tiered() -> AsyncIterator[ResultStore]:
        async with redis_results(redis.url) as shared:
            yield TieredResults(MemoryResults(8 * MIB, time.time, MIB), shared)

    @contextlib.asynccontextmanager
    async def plain() -> AsyncIterator[ResultStore]:
        async with redis_results(redis.url) as store:
            yield store

    return {"memory": memory, "redis": plain, "tiered": tiered}[kind]


@pytest.fixture(params=["memory", "redis", "tiered"])
def any_store(request: pytest.FixtureRequest, redis: RedisServer) -> Opened:
    return opened(request.param, redis)


@pytest.fixture(params=["redis", "tiered"])
def shared_store(request: pytest.FixtureRequest, redis: RedisServer) -> Opened:
    return opened(request.param, redis)


def holds(store: Opened, promise: Callable[[ResultStore], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with store() as one:
            await promise(one)

    asyncio.run(run())


def holds_for_two(store: Opened, promise: Callable[[ResultStore, ResultStore], Coroutine[Any, Any, None]]) -> None:
    """Of two gateways."""

    async def run() -> None:
        async with store() as one, store() as other:
            await promise(one, other)

    asyncio.run(run())


# ---------------------------------------------------------------------------------------------------------------------
# Every store


def test_what_was_put_is_found_at_its_address_only(any_store: Opened) -> None:
    others = [Address("acme", "tiny", bytes(32)), Address("acme", "mute", ADDRESS.key), Address("", "tiny", ADDRESS.key)]

    async def promise(store: ResultStore) -> None:
        assert await store.get(ADDRESS) is None
        await store.put(ADDRESS, ANSWER, TTL_S)
        assert await store.get(ADDRESS) == await store.claim(ADDRESS, "token", LEASE_S) == ANSWER
        assert [await store.get(other) for other in others] == [None, None, None]

    holds(any_store, promise)


@pytest.mark.parametrize("payload", [b"", b"{}", b"a" * 100_000, random.Random(1).randbytes(MIB), "é\0\r\n".encode() * 999])
def test_every_answer_comes_back_as_it_was(any_store: Opened, payload: bytes) -> None:
    async def promise(store: ResultStore) -> None:
        stored = Stored(payload, 1_700_000_000.123)
        await store.put(ADDRESS, stored, TTL_S)
        assert await store.get(ADDRESS) == stored

    holds(any_store, promise)


def test_the_later_answer_is_kept(any_store: Opened) -> None:
    async def promise(store: ResultStore) -> None:
        await store.put(ADDRESS, answer(1), TTL_S)
        await store.put(ADDRESS, answer(2), TTL_S)
        assert await store.get(ADDRESS) == answer(2)

    holds(any_store, promise)


def test_an_answer_is_forgotten_after_its_time(any_store: Opened) -> None:
    async def promise(store: ResultStore) -> None:
        await store.put(address(1), ANSWER, 0.2)
        await store.settle(address(2), "token", ANSWER, 0.2)
        await store.put(address(3), ANSWER, TTL_S)
        await asyncio.sleep(0.25)
        assert [await store.get(address(number)) for number in (1, 2, 3)] == [None, None, ANSWER]

    holds(any_store, promise)


def test_a_leader_settles_and_the_answer_is_there(any_store: Opened) -> None:
    async def promise(store: ResultStore) -> None:
        assert await store.claim(ADDRESS, "token", LEASE_S) is Claim.LEADING
        await store.renew(ADDRESS, "token", LEASE_S)
        await store.settle(ADDRESS, "token", ANSWER, TTL_S)
        assert await store.claim(ADDRESS, "other", LEASE_S) == ANSWER

    holds(any_store, promise)


def test_an_answer_that_is_too_large_is_not_kept(any_store: Opened) -> None:
    async def promise(store: ResultStore) -> None:
        large = Stored(bytes(MIB + 1), 0)
        await store.put(ADDRESS, large, TTL_S)
        await store.claim(ADDRESS, "token", LEASE_S)
        await store.settle(ADDRESS, "token", large, TTL_S)
        assert await store.get(ADDRESS) is None

    holds(any_store, promise)


@pytest.mark.parametrize(
    ("tenant", "model", "left"),
    [
        (None, None, []),
        ("acme", None, [("other", "tiny"), ("other", "mute")]),
        (None, "tiny", [("acme", "mute"), ("other", "mute")]),
        ("acme", "tiny", [("acme", "mute"), ("other", "tiny"), ("other", "mute")]),
        ("nobody", None, [("acme", "tiny"), ("acme", "mute"), ("other", "tiny"), ("other", "mute")]),
    ],
)
def test_a_flush_forgets_what_is_named_and_nothing_else(
    any_store: Opened, tenant: str | None, model: str | None, left: list[tuple[str, str]]
) -> None:
    async def promise(store: ResultStore) -> None:
        names = [("acme", "tiny"), ("acme", "mute"), ("other", "tiny"), ("other", "mute")]
        for at in names:
            for number in range(3):
                await store.put(address(number, *at), ANSWER, TTL_S)
        assert await store.flush(tenant, model) == 3 * (4 - len(left))
        assert [at for at in names if await store.get(address(0, *at))] == left

    holds(any_store, promise)


@pytest.mark.parametrize("name", ["*", "a?me", "[a]cme", "acm\\e", "a-z", "^acme", "", "é", "a b"])
def test_a_name_stands_for_itself_only(any_store: Opened, name: str) -> None:
    async def promise(store: ResultStore) -> None:
        for tenant in (name, "acme"):
            await store.put(address(1, tenant), ANSWER, TTL_S)
        assert await store.flush(name, None) == 1
        assert await store.get(address(1, name)) is None
        assert await store.get(address(1)) == ANSWER

    holds(any_store, promise)


# ---------------------------------------------------------------------------------------------------------------------
# Those that gateways share


def test_one_leads_and_the_others_follow_until_it_has_settled(shared_store: Opened) -> None:
    async def promise(one: ResultStore, other: ResultStore) -> None:
        assert await one.claim(ADDRESS, "one", LEASE_S) is Claim.LEADING
        assert await other.claim(ADDRESS, "other", LEASE_S) is Claim.FOLLOWING
        assert await other.claim(address(1), "other", LEASE_S) is Claim.LEADING
        await one.settle(ADDRESS, "one", ANSWER, TTL_S)
        assert await other.claim(ADDRESS, "other", LEASE_S) == ANSWER

    holds_for_two(shared_store, promise)


def test_of_many_who_ask_at_once_one_leads(shared_store: Opened) -> None:
    async def promise(one: ResultStore, other: ResultStore) -> None:
        asked = [store.claim(ADDRESS, f"{number}", LEASE_S) for number in range(50) for store in (one, other)]
        claims = await asyncio.gather(*asked)
        assert sorted(str(claim) for claim in claims) == ["Claim.FOLLOWING"] * 99 + ["Claim.LEADING"]

    holds_for_two(shared_store, promise)


def test_a_lease_that_is_not_renewed_is_another_s(shared_store: Opened) -> None:
    async def promise(one: ResultStore, other: ResultStore) -> None:
        await one.claim(ADDRESS, "one", 0.2)
        await asyncio.sleep(0.25)
        assert await other.claim(ADDRESS, "other", LEASE_S) is Claim.LEADING
        assert await one.claim(ADDRESS, "third", LEASE_S) is Claim.FOLLOWING

    holds_for_two(shared_store, promise)


def test_a_lease_that_is_renewed_goes_on(shared_store: Opened) -> None:
    async def promise(one: ResultStore, other: ResultStore) -> None:
        await one.claim(ADDRESS, "one", 0.4)
        await one.renew(ADDRESS, "one", TTL_S)
        await asyncio.sleep(0.45)
        assert await other.claim(ADDRESS, "other", LEASE_S) is Claim.FOLLOWING

    holds_for_two(shared_store, promise)


def test_who_lost_the_lease_cannot_prolong_or_end_another_s(shared_store: Opened) -> None:
    async def promise(one: ResultStore, other: ResultStore) -> None:
        await one.claim(ADDRESS, "one", 0.1)
        await asyncio.sleep(0.15)
        assert await other.claim(ADDRESS, "other", 0.5) is Claim.LEADING
        await one.renew(ADDRESS, "one", 100)
        await one.settle(ADDRESS, "one", None, TTL_S)
        assert await one.claim(ADDRESS, "third", LEASE_S) is Claim.FOLLOWING
        await asyncio.sleep(0.55)
        assert await one.claim(ADDRESS, "third", LEASE_S) is Claim.LEADING

    holds_for_two(shared_store, promise)


def test_what_a_leader_that_lost_its_lease_has_computed_is_kept_all_the_same(shared_store: Opened) -> None:
    async def promise(one: ResultStore, other: ResultStore) -> None:
        await one.claim(ADDRESS, "one", 0.1)
        await asyncio.sleep(0.15)
        await other.claim(ADDRESS, "other", LEASE_S)
        await one.settle(ADDRESS, "one", ANSWER, TTL_S)
        assert await one.claim(ADDRESS, "third", LEASE_S) == ANSWER
        await one.flush(None, None)
        # The other's claim was not touched.
        assert await one.claim(ADDRESS, "third", LEASE_S) is Claim.FOLLOWING

    holds_for_two(shared_store, promise)


@pytest.mark.parametrize("stored", [None, Stored(bytes(MIB + 1), 0)])
def test_those_who_follow_are_alone_for_a_moment_when_the_answer_is_not_to_be_kept(
    shared_store: Opened, stored: Stored | None
) -> None:
    async def promise(one: ResultStore, other: ResultStore) -> None:
        await one.claim(ADDRESS, "one", LEASE_S)
        await one.settle(ADDRESS, "one", stored, TTL_S)
        for store in (one, other):
            assert await store.claim(ADDRESS, "other", LEASE_S) is Claim.ALONE
        await asyncio.sleep(2.1)
        assert await other.claim(ADDRESS, "other", LEASE_S) is Claim.LEADING

    holds_for_two(shared_store, promise)
