"""What a store of answers promises: it may forget, it may be away, and it never fails a request."""

import enum
import math
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Address:
    """Where an answer is kept: whose it is, which model gave it, and 32 bytes that name all that the model saw.

    Neither name has a colon: names of API keys and of models never do, and a flush tells them apart by it.
    """

    tenant: str
    model: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer, a JSON document, and when it was given, in seconds since 1970."""

    answer: bytes
    stored_at_s: float
    expires_at_s: float = field(default=math.inf, compare=False)
    """When the store that it was found in lets go of it; infinity where nobody has said so."""


class Claim(enum.Enum):
    """Who is to compute an answer that is not there."""

    LEADING = "leading"
    """Nobody did: now the caller does."""
    FOLLOWING = "following"
    """Another gateway does."""
    ALONE = "alone"
    """The caller, for itself: the store is away, or the last leader's answer could not be stored, a moment ago."""


class StoreUnavailable(Exception):
    """The store is away, or did not do as it was told."""


class ResultStore(Protocol):
    """A store of answers. Only `flush` tells of the store's own faults; to all else they are as if nothing were stored."""

    def at_hand(self, address: Address) -> Stored | None:
        """The answer, if it is there and nobody has to be asked for it."""
        ...

    async def get(self, address: Address) -> Stored | None:
        """The answer, if it is there."""
        ...

    async def claim(self, address: Address, token: str, lease_s: float) -> Stored | Claim:
        """The answer, or else who computes it; a leader does for `lease_s`, unless it renews that under the same token."""
        ...

    async def renew(self, address: Address, token: str, lease_s: float) -> None:
        """Goes on leading for `lease_s` from now, where `token` still leads."""
        ...

    async def put(self, address: Address, stored: Stored, ttl_s: float) -> None:
        """Keeps the answer, for `ttl_s` at most."""
        ...

    async def settle(self, address: Address, token: str, stored: Stored | None, ttl_s: float) -> None:
        """Ends what `claim` began: keeps the answer, and lets go of the claim where `token` still leads.

        With None, an answer that is not to be kept, those who follow learn for a moment that they are alone.
        """
        ...

    async def release(self, address: Address, token: str) -> None:
        """Ends what `claim` began without an answer: the next who asks leads. Nothing, where `token` does not lead any more."""
        ...

    async def flush(self, tenant: str | None, model: str | None) -> int:
        """Forgets the answers of this tenant and model, None being any, and says how many.

        Raises StoreUnavailable: not all of them are forgotten.
        """
        ...
