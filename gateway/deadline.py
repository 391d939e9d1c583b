"""How long a request may take, and what else ends it early: every wait of the gateway is under its patience."""

import asyncio
import math
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from gateway.errors import InvalidField

TIMEOUT_HEADER = "x-request-timeout-seconds"
"""Ray Serve's own name for it."""


def requested_timeout_s(headers: Mapping[str, str], default_s: float) -> float:
    """How many seconds the caller gives the request, from its first byte on.

    Raises InvalidField: the header does not say a number of seconds.
    """
    value = headers.get(TIMEOUT_HEADER)
    if value is None:
        return default_s
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidField(f"The header {TIMEOUT_HEADER} must be a number of seconds above 0.", param=TIMEOUT_HEADER)
    return seconds


class Patience:
    """A block that ends with an exception as soon as there is a reason: its deadline, or what somebody else has to say.

    `at_s` is a time of the event loop's clock, `late` what is raised then.
    """

    def __init__(self, at_s: float, late: Exception) -> None:
        self._timeout = asyncio.timeout_at(at_s)
        self._reason: Exception | None = late
        self._is_over = False

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over = True
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as cause:
            reason, self._reason = self._reason, None
            assert reason is not None, "it ends once"
            try:
                raise reason from cause
            finally:
                # What is raised holds the frames it passes, the body of a request among their variables. Were it held by one of
                # them in turn, all of that would stay until the garbage collector runs.
                del reason

    def until(self, at_s: float, late: Exception) -> None:
        """From now on the deadline is another one, unless the block ends already."""
        if self._is_over:
            return
        self._reason = late
        self._timeout.reschedule(at_s)

    def end(self, reason: Exception) -> None:
        """Ends the block now, unless it has ended."""
        if not self._is_over and not self._timeout.expired():
            self._is_over = True
            self._reason = reason
            self._timeout.reschedule(asyncio.get_running_loop().time())
