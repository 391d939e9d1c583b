"""Memory in front of a shared store: an answer that many ask for now is fetched once every few seconds."""

from gateway.cache.memory import MemoryResults
from gateway.cache.results import Address, Claim, ResultStore, Stored

LONGEST_S = 5.0
"""How long an answer stays in memory. A flush at one gateway is seen at the others after this time: nobody tells them."""


class TieredResults:
    """Looks into `memory` first; the rest is as `shared` says."""

    def __init__(self, memory: MemoryResults, shared: ResultStore) -> None:
        self._memory = memory
        self._shared = shared

    def at_hand(self, address: Address) -> Stored | None:
        """The answer, if it is in memory."""
        return self._memory.at_hand(address)

    async def get(self, address: Address) -> Stored | None:
        """The answer, if it is there."""
        near = self._memory.at_hand(address)
        if near is not None:
            return near
        found = await self._shared.get(address)
        if found is not None:
            await self._memory.put(address, found, LONGEST_S)
        return found

    async def claim(self, address: Address, token: str, lease_s: float) -> Stored | Claim:
        """The answer, or else who computes it."""
        near = self._memory.at_hand(address)
        if near is not None:
            return near
        found = await self._shared.claim(address, token, lease_s)
        if isinstance(found, Stored):
            await self._memory.put(address, found, LONGEST_S)
        return found

    async def renew(self, address: Address, token: str, lease_s: float) -> None:
        """Goes on leading for `lease_s` from now, where `token` still leads."""
        await self._shared.renew(address, token, lease_s)

    async def put(self, address: Address, stored: Stored, ttl_s: float) -> None:
        """Keeps the answer in both."""
        await self._memory.put(address, stored, min(ttl_s, LONGEST_S))
        await self._shared.put(address, stored, ttl_s)

    async def settle(self, address: Address, token: str, stored: Stored | None, ttl_s: float) -> None:
        """Keeps the answer in both, and lets go of the claim."""
        if stored is not None:
            await self._memory.put(address, stored, min(ttl_s, LONGEST_S))
        await self._shared.settle(address, token, stored, ttl_s)

    async def release(self, address: Address, token: str) -> None:
        """Lets go of the claim."""
        await self._shared.release(address, token)

    async def flush(self, tenant: str | None, model: str | None) -> int:
        """Forgets the answers of this tenant and model, None being any, and says how many of the shared ones.

        Raises StoreUnavailable: not all of the shared ones are forgotten.
        """
        await self._memory.flush(tenant, model)
        deleted = await self._shared.flush(tenant, model)
        # Whoever asked while the shared ones were going may have brought one back.
        await self._memory.flush(tenant, model)
        return deleted
