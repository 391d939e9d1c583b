import asyncio

import pytest

from gateway.cache.memory import MemoryResults
from gateway.cache.results import Address, Claim, Stored, StoreUnavailable
from gateway.cache.tiered import LONGEST_S, TieredResults
from tests.stores import ADDRESS, ANSWER, LEASE_S, MIB, TTL_S


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Shared(MemoryResults):
    """A shared store that counts how often it is asked, and may be away."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(MIB, clock)
        self.asked = 0
        self.is_away = False

    async def get(self, address: Address) -> Stored | None:
        self.asked += 1
        return await super().get(address)

    async def claim(self, address: Address, token: str, lease_s: float) -> Stored | Claim:
        self.asked += 1
        return await super().claim(address, token, lease_s)

    async def flush(self, tenant: str | None, model: str | None) -> int:
        if self.is_away:
            raise StoreUnavailable("away")
        return await super().flush(tenant, model)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shared(clock: Clock) -> Shared:
    return Shared(clock)


@pytest.fixture
def tiered(clock: Clock, shared: Shared) -> TieredResults:
    return TieredResults(MemoryResults(MIB, clock), shared)


def test_an_answer_is_fetched_once_in_five_seconds(tiered: TieredResults, shared: Shared, clock: Clock) -> None:
    async def promise() -> None:
        await shared.put(ADDRESS, ANSWER, TTL_S)
        for _ in range(3):
            assert await tiered.get(ADDRESS) == ANSWER
            assert await tiered.claim(ADDRESS, "token", LEASE_S) == ANSWER
        assert shared.asked == 1
        clock.now_s += LONGEST_S
        assert await tiered.claim(ADDRESS, "token", LEASE_S) == ANSWER
        assert await tiered.get(ADDRESS) == ANSWER
        assert shared.asked == 2

    asyncio.run(promise())


def test_what_is_stored_or_settled_here_is_near_at_once(tiered: TieredResults, shared: Shared) -> None:
    async def promise() -> None:
        other = Address("acme", "tiny", bytes(32))
        await tiered.put(ADDRESS, ANSWER, TTL_S)
        await tiered.settle(other, "token", ANSWER, TTL_S)
        assert await tiered.get(ADDRESS) == await tiered.get(other) == ANSWER
        assert shared.asked == 0
        assert await shared.get(ADDRESS) == await shared.get(other) == ANSWER

    asyncio.run(promise())


@pytest.mark.parametrize("ttl_s", [2.0, 1000.0])
def test_an_answer_is_never_near_for_longer_than_it_is_to_live(
    tiered: TieredResults, shared: Shared, clock: Clock, ttl_s: float
) -> None:
    async def promise() -> None:
        await shared.put(ADDRESS, ANSWER, ttl_s)
        clock.now_s += ttl_s - 1
        assert await tiered.get(ADDRESS) == ANSWER
        clock.now_s += 1
        assert await tiered.get(ADDRESS) is None
        await tiered.put(ADDRESS, ANSWER, 2)
        clock.now_s += 2
        assert await tiered.get(ADDRESS) is None

    asyncio.run(promise())


def test_a_flush_empties_what_is_near_even_where_the_shared_store_is_away(tiered: TieredResults, shared: Shared) -> None:
    async def promise() -> None:
        await tiered.put(ADDRESS, ANSWER, TTL_S)
        shared.is_away = True
        with pytest.raises(StoreUnavailable):
            await tiered.flush("acme", None)
        shared.is_away = False
        await tiered.get(ADDRESS)
        assert shared.asked == 1
        assert await tiered.flush("acme", "tiny") == 1
        assert await tiered.claim(ADDRESS, "token", LEASE_S) is Claim.LEADING

    asyncio.run(promise())
