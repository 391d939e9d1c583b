"""Verdicts about constraints, kept where answers are: in Redis, or in this process's memory."""

import time
from collections.abc import Callable
from typing import Final

from blake3 import blake3

from gateway.cache.key import model_identity
from gateway.cache.results import Address, ResultStore, Stored
from gateway.catalog.models import Catalog

TENANT: Final = "(constraints)"
"""No API key has this name: theirs are letters, digits and `_.@-`."""
_VERSION = b"1"
"""Raised with whatever changes what a verdict says."""
_KEPT_S = 86_400.0


class StoredVerdicts:
    """Keeps verdicts in `results` for a day; a model that is another by its entry in the catalog has others.

    `clock` gives seconds since 1970.
    """

    def __init__(self, results: ResultStore, catalog: Catalog, clock: Callable[[], float] = time.time) -> None:
        self._results = results
        self._identities = {name: model_identity(name, model) for name, model in catalog.generating.items()}
        self._clock = clock

    async def get(self, model: str, digest: bytes) -> bytes | None:
        """What was put there, if it is still kept."""
        stored = await self._results.get(self._address(model, digest))
        return None if stored is None else stored.answer

    async def put(self, model: str, digest: bytes, verdict: bytes) -> None:
        """Keeps it, if that is possible."""
        await self._results.put(self._address(model, digest), Stored(verdict, self._clock()), _KEPT_S)

    def _address(self, model: str, digest: bytes) -> Address:
        return Address(TENANT, model, blake3(_VERSION + digest + self._identities[model]).digest())
