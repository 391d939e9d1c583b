"""How many bytes of request bodies this process holds at once: a burst of large images is refused before memory is gone."""

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.errors import Overloaded

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGE_BLOCK_BYTES = 4 * 1024**2
_KEPT_BYTES = 32 * 1024**2
_BURST_BYTES = 96 * 1024**2
_GC_THRESHOLDS = (10_000, 20, 50)
_RETRY_AFTER_S = 1
"""A body is let go of as soon as its answer ends."""


class BodyMemory:
    """Counts the bytes that `share`s hold, up to `limit_bytes` in all; `tell` is called with them whenever they change.

    When a burst of 96 MiB or more has gone down to 32, it has the free pages that the burst leaves given back to the system.
    """

    def __init__(self, limit_bytes: int, tell: Callable[[int], None]) -> None:
        self._limit_bytes = limit_bytes
        self._tell = tell
        self._held_bytes = 0
        self._most_bytes = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one request holds; all of it is let go of at the end of the block, unless somebody else holds it still."""
        with Share(self).held() as share:
            yield share

    def take(self, size_bytes: int) -> None:
        """Counts further bytes.

        Raises Overloaded: there is no room for them now.
        """
        if self._held_bytes + size_bytes > self._limit_bytes:
            message = (
                f"The gateway holds {self._held_bytes} bytes of other requests; body_mib_in_flight allows {self._limit_bytes}."
            )
            raise Overloaded(message, retry_after_s=_RETRY_AFTER_S)
        self._change(size_bytes)
        self._most_bytes = max(self._most_bytes, self._held_bytes)

    def give_back(self, size_bytes: int) -> None:
        """Counts these no more."""
        self._change(-size_bytes)
        if self._most_bytes >= _BURST_BYTES and self._held_bytes <= _KEPT_BYTES:
            self._most_bytes = self._held_bytes
            give_free_pages_back()

    def _change(self, by_bytes: int) -> None:
        self._held_bytes += by_bytes
        self._tell(self._held_bytes)


class Share:
    """The bytes of one request. They count as they come: what a caller announces and does not send takes nobody's room."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._holders = 0
        self.held_bytes = 0

    def grow(self, size_bytes: int) -> None:
        """See `BodyMemory.take`."""
        self._memory.take(size_bytes)
        self.held_bytes += size_bytes

    @contextmanager
    def held(self) -> Iterator["Share"]:
        """Holds it for as long as the block lasts; with the last who does, all of it is let go of."""
        self._holders += 1
        try:
            yield self
        finally:
            self._holders -= 1
            if not self._holders:
                self._memory.give_back(self.held_bytes)
                self.held_bytes = 0


def give_large_blocks_back() -> None:
    """Has glibc return blocks of 4 MiB and more to the system once they are freed, and keep 32 MiB of smaller ones.

    By itself it would, after the first large one, keep blocks of that size for later, and a burst would stay as its process's
    size. Told so much and no more, it would return a body of 1 MB at the end of each request, and fetch it anew for the next,
    page by page: that takes ten times as long as filling it. Another libc is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_free_pages_back() -> None:
    """Has glibc return the free pages amid its heap, which by itself it keeps for as long as one block at its end is in use.

    That takes 0.2 ms where there is nothing to return, and 18 ms where there are 130 MiB. Another libc is left as it is.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(_KEPT_BYTES)


def collect_garbage_less_often() -> None:
    """Leaves all that lives now out of garbage collections, and makes those rarer.

    What a request leaves behind goes by reference counts; the collector finds next to nothing, and with Python's own thresholds
    took a quarter of the time of a request of words in looking for it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
