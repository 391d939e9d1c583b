"""Answers in this process."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.cache.results import Address, Claim, Stored

_ENTRY_BYTES = 500
"""What an entry takes beside its answer: its place in the table, the objects around it and its address. Measured."""


@dataclass(frozen=True, slots=True)
class _Entry:
    stored: Stored
    size_bytes: int


class MemoryResults:
    """Keeps answers up to `limit_bytes` in all, and `answer_limit_bytes` each; the ones not asked for the longest make room.

    `clock` gives seconds since 1970; `tell` is called with the bytes that are held whenever they change. Nobody ever follows
    here: requests of one process meet before they come to a store.
    """

    def __init__(
        self,
        limit_bytes: int,
        clock: Callable[[], float],
        answer_limit_bytes: int | None = None,
        tell: Callable[[int], object] = int,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._answer_limit_bytes = limit_bytes if answer_limit_bytes is None else answer_limit_bytes
        self._clock = clock
        self._tell = tell
        self._entries: OrderedDict[Address, _Entry] = OrderedDict()
        self.held_bytes = 0

    def at_hand(self, address: Address) -> Stored | None:
        """The answer, if it is still kept."""
        entry = self._entries.get(address)
        if entry is None:
            return None
        if entry.stored.expires_at_s <= self._clock():
            self._forget(address)
            return None
        self._entries.move_to_end(address)
        return entry.stored

    async def get(self, address: Address) -> Stored | None:
        """The answer, if it is still kept."""
        return self.at_hand(address)

    async def claim(self, address: Address, token: str, lease_s: float) -> Stored | Claim:  # noqa: ARG002  # nobody to tell
        """The answer, or LEADING."""
        return self.at_hand(address) or Claim.LEADING

    async def renew(self, address: Address, token: str, lease_s: float) -> None:
        """Nothing: a claim here has no end."""

    async def put(self, address: Address, stored: Stored, ttl_s: float) -> None:
        """Keeps the answer for `ttl_s`, and no longer than it says itself."""
        size_bytes = len(stored.answer) + _ENTRY_BYTES
        if len(stored.answer) > self._answer_limit_bytes or size_bytes > self._limit_bytes:
            return
        if address in self._entries:
            self._forget(address)
        expires_at_s = min(self._clock() + ttl_s, stored.expires_at_s)
        self._entries[address] = _Entry(replace(stored, expires_at_s=expires_at_s), size_bytes)
        self.held_bytes += size_bytes
        while self.held_bytes > self._limit_bytes:
            self._forget(next(iter(self._entries)))
        self._tell(self.held_bytes)

    async def settle(self, address: Address, token: str, stored: Stored | None, ttl_s: float) -> None:  # noqa: ARG002  # as in claim
        """Keeps the answer, if there is one."""
        if stored is not None:
            await self.put(address, stored, ttl_s)

    async def release(self, address: Address, token: str) -> None:
        """Nothing: nobody follows here."""

    async def flush(self, tenant: str | None, model: str | None) -> int:
        """Forgets the answers of this tenant and model, None being any, and says how many."""
        found = [at for at in self._entries if tenant in {None, at.tenant} and model in {None, at.model}]
        for address in found:
            self._forget(address)
        return len(found)

    def _forget(self, address: Address) -> None:
        self.held_bytes -= self._entries.pop(address).size_bytes
        self._tell(self.held_bytes)
