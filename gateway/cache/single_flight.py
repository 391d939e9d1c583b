"""One computation of an answer at a time, whoever asks for it, in this process; `results.py` has the same among processes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager

from gateway.cache.results import Stored


class Flight:
    """An answer in the making, for all who are aboard: pieces as they come, or one that had been stored.

    `waited`: another process made it, for which this one waited.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.found: Stored | None = None
        self.answer: bytes | None = None
        self.is_streamed = False
        self.waited = False
        self.has_landed = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    def add(self, piece: bytes) -> None:
        """The next piece is here."""
        self.pieces.append(piece)
        self._tell()

    def find(self, stored: Stored) -> None:
        """It need not be made: it was stored."""
        self.found = stored
        self.land()

    def land(self, answer: bytes | None = None) -> None:
        """There are no more pieces; `answer` is what they are together, as it may be stored, where that is known."""
        self.answer = answer
        self.has_landed = True
        self._tell()

    def fail(self, error: Exception) -> None:
        """There are no more pieces, and everybody aboard is told why."""
        # Its frames hold the body of a request, and this flight, which holds it.
        self._error = error.with_traceback(None)
        self.land()

    def forget(self) -> None:
        """Nobody is aboard any more."""
        self._error = None
        self.pieces.clear()

    async def begun(self) -> None:
        """Returns once there is a piece or a stored answer, or all of nothing. Raises what it failed with before that."""
        while not (self.pieces or self.has_landed):
            await self._changed.wait()
        if not self.pieces:
            self._raise_error()

    async def landed(self) -> None:
        """Returns once it is all there. Raises what it failed with."""
        while not self.has_landed:
            await self._changed.wait()
        self._raise_error()

    async def read(self) -> AsyncIterator[bytes]:
        """What there is so far as one piece, then each further one as it comes. Raises what it failed with."""
        read = 0
        while True:
            if read < len(self.pieces):
                news, read = b"".join(self.pieces[read:]), len(self.pieces)
                yield news
            elif self.has_landed:
                self._raise_error()
                return
            else:
                await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


Fly = Callable[[Flight], Awaitable[None]]
"""Makes the answer of a flight; it may go on after the flight has landed, to store it. What it raises ends the flight."""


class Flights:
    """The flights of this process, by what they are about."""

    def __init__(self) -> None:
        self._all: dict[Hashable, _Crewed] = {}

    @asynccontextmanager
    async def aboard(self, key: Hashable, fly: Fly) -> AsyncIterator[tuple[Flight, bool]]:
        """The flight about `key`, and whether there was one already; if not, it begins with `fly`.

        The last to leave the block before it has landed ends it.
        """
        crewed = self._all.get(key)
        joined = crewed is not None
        if crewed is None:
            crewed = self._all[key] = _Crewed(self._all, key, fly)
        crewed.aboard += 1
        try:
            yield crewed.flight, joined
        finally:
            crewed.aboard -= 1
            if not crewed.aboard:
                crewed.end()

    async def aclose(self) -> None:
        """Ends them all, and returns when they have ended."""
        tasks = [crewed.task for crewed in self._all.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Crewed:
    """A flight with those aboard and the task that flies it, for as long as it can be joined."""

    def __init__(self, among: dict[Hashable, "_Crewed"], key: Hashable, fly: Fly) -> None:
        self.flight = Flight()
        self.aboard = 0
        self._among = among
        self._key = key
        self.task = asyncio.ensure_future(self._fly(fly))

    async def _fly(self, fly: Fly) -> None:
        try:
            await fly(self.flight)
        except Exception as error:  # noqa: BLE001 - whoever is aboard raises it
            self.flight.fail(error)
        finally:
            self._close()

    def _close(self) -> None:
        if self._among.get(self._key) is self:
            del self._among[self._key]

    def end(self) -> None:
        """The last one has left, and who comes now begins anew; what has landed may still be stored."""
        self._close()
        if not self.flight.has_landed:
            self.task.cancel()
        self.flight.forget()
