"""Whether a provider answers, as far as its answers tell: nobody asks it for its health, which may cost money or not exist."""

import math
import time
from collections.abc import Callable

from gateway.upstream.health import State

AWAY_S = 30.0
"""For so long nobody asks a provider that keeps failing and does not say when to come back."""

_LONGEST_AWAY_S = 600.0
"""Whatever it says: somebody may have paid the bill meanwhile."""

_FAILURES = 3


class Presence:
    """A provider is away after three failures in a row, for as long as the last of them said, or for 30 s.

    After that time one more failure is enough, until something has been answered. `clock` gives seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._has_answered = False
        self._failures = 0
        self._away_until_s = -math.inf

    def answered(self) -> None:
        """It answered a request, if only by finding fault with it."""
        self._has_answered = True
        self._failures = 0
        self._away_until_s = -math.inf

    def failed(self, back_in_s: float | None = None) -> None:
        """It gave no answer, and may have said in how many seconds it would."""
        self._failures += 1
        self._has_answered = False
        if self._failures >= _FAILURES:
            self._away_until_s = self._clock() + min(AWAY_S if back_in_s is None else back_in_s, _LONGEST_AWAY_S)

    @property
    def state(self) -> State:
        if self._clock() < self._away_until_s:
            return State.UNAVAILABLE
        return State.AVAILABLE if self._has_answered else State.UNKNOWN

    @property
    def retry_after_s(self) -> int:
        """When it makes sense to try again."""
        return max(1, math.ceil(self._away_until_s - self._clock())) if self.state == State.UNAVAILABLE else 1
