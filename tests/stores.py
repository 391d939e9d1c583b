"""What tests of the result cache's stores share."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from gateway.cache.redis import RedisResults
from gateway.cache.results import Address, Stored

MIB = 1024**2
LEASE_S = 5.0
TTL_S = 100.0
ADDRESS = Address("acme", "tiny", bytes(range(32)))
ANSWER = Stored(b'{"object": "chat.completion"}', 1_700_000_000.25)


@dataclass(frozen=True)
class Failures:
    """What a store told of its failures."""

    told: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, operation: str, reason: str) -> None:
        self.told.append((operation, reason))


@contextlib.asynccontextmanager
async def redis_results(url: str, failures: Failures | None = None, budget_s: float = 3.0) -> AsyncIterator[RedisResults]:
    """With a budget that a busy machine keeps."""
    async with RedisResults(url, budget_s, MIB, failures or Failures()) as store:
        yield store


def address(number: int, tenant: str = "acme", model: str = "tiny") -> Address:
    return Address(tenant, model, number.to_bytes(32, "big"))


def answer(number: int, size_bytes: int = 10) -> Stored:
    """One that is nobody else's, and repeats itself."""
    return Stored(b"%d " % number * size_bytes, 1_700_000_000.0 + number)
