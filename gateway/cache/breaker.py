"""How long Redis is left alone, and how long it may take."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType

from gateway.telemetry.logs import log_event

_FAILURES = 3
_PROBE_EVERY_S = 1.0

_SLICES = 6


class Breaker:
    """Open after three failures in a row, until `watch` finds all well again; `tell` is called with whether it is."""

    def __init__(self, tell: Callable[[bool], object]) -> None:
        self._tell = tell
        self._in_a_row = 0
        self._opened = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether Redis is left alone."""
        return self._opened.is_set()

    def worked(self) -> None:
        """Redis answered."""
        self._in_a_row = 0

    def failed(self, reason: str) -> None:
        """Redis did not answer, or nothing that it could mean."""
        self._in_a_row += 1
        if self._in_a_row >= _FAILURES and not self.is_open:
            self._opened.set()
            self._tell(True)
            log_event("cache_breaker", logging.WARNING, state="open", reason=reason)

    async def watch(self, is_well: Callable[[], Awaitable[bool]]) -> None:
        """Asks every second while it is open, and closes it when the answer is yes; until it is cancelled."""
        while True:
            await self._opened.wait()
            await asyncio.sleep(_PROBE_EVERY_S)
            if await is_well():
                self._in_a_row = 0
                self._opened.clear()
                self._tell(False)
                log_event("cache_breaker", state="closed")


class Budget:
    """A block that ends with TimeoutError when `seconds` have gone by, of the time in which the event loop was there to see.

    While the loop is busy with other things, a reply may lie in the socket for long. So the time goes by in slices, and one of
    them counts once however late its end is noticed: after it, the loop looks at its sockets before the next one ends.
    """

    def __init__(self, seconds: float) -> None:
        self._slice_s = seconds / _SLICES
        self._left = _SLICES
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer = asyncio.get_running_loop().call_later(self._slice_s, self._end_slice)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def _end_slice(self) -> None:
        loop = asyncio.get_running_loop()
        self._left -= 1
        if self._left:
            self._timer = loop.call_later(self._slice_s, self._end_slice)
        else:
            self._timeout.reschedule(loop.time())
