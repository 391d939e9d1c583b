"""Which of a model's engines takes a request, where the gateway itself chooses: those that are not behind Ray."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from blake3 import blake3

from gateway.upstream.health import EngineHealth, State

_LOAD_FACTOR = 1.25
"""How many times its even share an engine may have before sessions leave it: a cache is worth a wait, but not a long one."""


@dataclass(slots=True, eq=False)
class PooledEngine:
    """One engine, and how many requests of this process it is answering."""

    health: EngineHealth
    in_flight: int = 0

    @property
    def url(self) -> str:
        return self.health.url


class EnginePool:
    """The engines of one model, and how many requests of this process they are answering together."""

    def __init__(self, engines: Sequence[EngineHealth]) -> None:
        self.engines = tuple(PooledEngine(health) for health in engines)
        self.in_flight = 0
        self._turns = 0

    def turn(self, session: str | None) -> "Turn":
        """A request's turn at the engine that is best for it."""
        return Turn(self, session)

    def there(self, passed_over: Sequence[PooledEngine]) -> list[PooledEngine]:
        """The engines that could take a request, without those it has `passed_over`."""
        return [one for one in self.engines if one.health.state != State.UNAVAILABLE and one not in passed_over]

    def best(self, session: str | None, passed_over: Sequence[PooledEngine]) -> PooledEngine | None:
        """The engine for a request, None where there is none but those it has `passed_over`.

        Of a session's it is always the same one (rendezvous hashing: the engine that weighs most together with the session, so
        that one which goes away moves no session but its own), or the next best where that has its share: 1.25 times what were
        even, rounded up (consistent hashing with bounded loads, Mirrokni et al. 2016). Without a session it is the one with the
        least to do, and of several such the next in turn.
        """
        there = self.there(passed_over)
        if len(there) < 2:
            return there[0] if there else None
        if session is None:
            self._turns += 1
            first = self._turns % len(there)
            return min(there[first:] + there[:first], key=lambda one: one.in_flight)
        share = math.ceil(_LOAD_FACTOR * (sum(one.in_flight for one in there) + 1) / len(there))
        return max((one for one in there if one.in_flight < share), key=lambda one: _weight(session, one.url))


def _weight(session: str, url: str) -> bytes:
    return blake3(f"{session}\0{url}".encode()).digest(8)


class Turn:
    """A request at an engine, which counts it until the end of the block; `engine` is None where no engine is there."""

    __slots__ = ("_passed_over", "_pool", "_session", "engine")

    def __init__(self, pool: EnginePool, session: str | None) -> None:
        self._pool = pool
        self._session = session
        self._passed_over: tuple[PooledEngine, ...] = ()
        self.engine: PooledEngine | None = None

    def __enter__(self) -> Self:
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    @property
    def is_last(self) -> bool:
        """Whether no other engine could take the request."""
        if len(self._pool.engines) == 1 or self.engine is None:
            return True
        return not self._pool.there((*self._passed_over, self.engine))

    def pass_over(self) -> None:
        """Goes on to the next best engine: this one got nothing of the request."""
        assert self.engine is not None, "there is one to pass over"
        self._passed_over = (*self._passed_over, self.engine)
        self._leave()
        self._take()

    def leave_home(self) -> bool:
        """Goes on to another engine, as this one has no room, and says whether there may be one.

        Behind the one address of a model there may be several, among which Ray chooses.
        """
        if len(self._pool.engines) == 1:
            return True
        if self.is_last:
            return False
        self.pass_over()
        return True

    def _take(self) -> None:
        self.engine = self._pool.best(self._session, self._passed_over)
        if self.engine is not None:
            self.engine.in_flight += 1
            self._pool.in_flight += 1

    def _leave(self) -> None:
        if self.engine is not None:
            self.engine.in_flight -= 1
            self._pool.in_flight -= 1
        self.engine = None
