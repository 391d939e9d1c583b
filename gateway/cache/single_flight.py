"""One computation of an answer at a time, whoever asks for it, in this process; `results.py` has the same among processes."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager

from gateway.cache.results import Stored
from gateway.errors import EngineUnavailable

SHARED_BYTES = 4 * 1024**2
"""So much of an answer is kept for who may still join. What is longer is shared with those who are aboard by then, comes no
faster than one of them reads it, and is not stored."""


class Flight:
    """An answer in the making, for all who are aboard: pieces as they come, or one that had been stored.

    `aboard` is how many are.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self.aboard = 0
        self.found: Stored | None = None
        self.answer: bytes | None = None
        self.whole = b""
        self.is_streamed = False
        self.has_landed = False
        self.is_long = False
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._dropped = 0
        self._read: dict[object, float] = {}
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    @property
    def has_begun(self) -> bool:
        """Whether a piece of it is there, or was."""
        return bool(self._pieces or self._dropped)

    async def add(self, piece: bytes) -> None:
        """The next piece is here; returns once there is room for another."""
        self._pieces.append(piece)
        self._bytes += len(piece)
        self._tell()
        if self._bytes > SHARED_BYTES:
            self.is_long = True
            self._close()
            while self._nobody_keeps_up():
                await self._changed.wait()
            self._drop_what_all_have_read()

    def begin_whole(self, body: bytes) -> None:
        """All of it is here, and is not read in pieces."""
        self.whole = body
        self._pieces.append(body)
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

    def left(self) -> None:
        """One is aboard no more."""
        self.aboard -= 1
        if not self.aboard:
            self._error = None
            self._pieces.clear()
        self._tell()

    async def begun(self) -> None:
        """Returns once there is a piece or a stored answer, or all of nothing. Raises what it failed with before that."""
        while not (self.has_begun or self.has_landed):
            await self._changed.wait()
        if not self.has_begun:
            self._raise_error()

    async def landed(self) -> None:
        """Returns once it is all there, for one who reads none of its pieces before. Raises what it failed with."""
        reader = object()
        self._read[reader] = math.inf
        try:
            while not self.has_landed:
                await self._changed.wait()
        finally:
            del self._read[reader]
        self._raise_error()

    async def read(self) -> AsyncIterator[bytes]:
        """What there is so far as one piece, then each further one as it comes. Raises what it failed with."""
        reader, at = object(), 0
        self._read[reader] = 0
        try:
            while True:
                if at < self._end:
                    news = b"".join(self._pieces[at - self._dropped :])
                    at = self._end
                    yield news
                    self._read[reader] = at
                    self._tell()
                elif self.has_landed:
                    self._raise_error()
                    return
                else:
                    await self._changed.wait()
        finally:
            del self._read[reader]
            self._tell()

    @property
    def _end(self) -> int:
        return self._dropped + len(self._pieces)

    def _nobody_keeps_up(self) -> bool:
        """Whether there are some who are to read, and none of them has read all there is."""
        reading = [at for at in self._read.values() if at < math.inf]
        return (bool(reading) or len(self._read) < self.aboard) and self._end not in reading

    def _drop_what_all_have_read(self) -> None:
        """Who is aboard and does not read yet has read nothing."""
        slowest = self._dropped if len(self._read) < self.aboard else min((self._end, *self._read.values()))
        del self._pieces[: int(slowest) - self._dropped]
        self._dropped = int(slowest)
        self._bytes = sum(map(len, self._pieces))

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
        self._open: dict[Hashable, _Crewed] = {}
        self._flying: set[_Crewed] = set()

    @asynccontextmanager
    async def aboard(self, key: Hashable, fly: Fly) -> AsyncIterator[tuple[Flight, bool]]:
        """The flight about `key`, and whether there was one already; if not, it begins with `fly`.

        The last to leave the block before it has landed ends it.
        """
        crewed = self._open.get(key)
        joined = crewed is not None
        if crewed is None:
            crewed = self._begin(key, fly)
        crewed.flight.aboard += 1
        try:
            yield crewed.flight, joined
        finally:
            crewed.flight.left()
            if not crewed.flight.aboard:
                crewed.end()

    def _begin(self, key: Hashable, fly: Fly) -> "_Crewed":
        def close() -> None:
            if self._open.get(key) is crewed:
                del self._open[key]

        crewed = self._open[key] = _Crewed(close, fly)
        self._flying.add(crewed)
        crewed.task.add_done_callback(lambda _: self._flying.discard(crewed))
        return crewed

    async def aclose(self) -> None:
        """Ends those that have not landed, and returns when the others are stored."""
        for crewed in self._flying:
            crewed.end()
        await asyncio.gather(*(crewed.task for crewed in self._flying), return_exceptions=True)


class _Crewed:
    """A flight with the task that flies it; `close` has it joined by nobody any more."""

    def __init__(self, close: Callable[[], None], fly: Fly) -> None:
        self.flight = Flight(close)
        self._close = close
        self.task = asyncio.ensure_future(self._fly(fly))

    async def _fly(self, fly: Fly) -> None:
        try:
            await fly(self.flight)
        except asyncio.CancelledError:
            # Which is not raised on: the task would keep it, with the frames that hold the body of a request and the task.
            self.flight.fail(EngineUnavailable("The gateway ends.", retry_after_s=1))
        except Exception as error:  # noqa: BLE001 - whoever is aboard raises it
            self.flight.fail(error)
        finally:
            self._close()

    def end(self) -> None:
        """Nobody joins it any more, and unless it has landed, and may be being stored, it is ended."""
        self._close()
        if not self.flight.has_landed:
            self.task.cancel()
