"""What the tests see of a running gateway from outside."""

import threading
import time
from collections.abc import Callable
from typing import Any, Self

import psutil

from tests.conftest import RunningGateway

SOON_S = 20
HEALTH_CHECKS = 2
"""Connections, one for each model. One may be missing for a moment: an engine closes it after a machine stood still."""
TICK_S = 0.02


def eventually(is_so: Callable[[], bool]) -> bool:
    """Whether it comes to be so soon."""
    deadline = time.monotonic() + SOON_S
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


class AwakeClock:
    """Counts seconds, in a block, in which this machine ran: of the time in which it stood still it counts a tick.

    `longest_pause_s` is the longest such time.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.longest_pause_s = 0.0
        self._has_ended = threading.Event()
        self._ticking = threading.Thread(target=self._tick, daemon=True)

    def _tick(self) -> None:
        ticked_s = time.monotonic()
        while not self._has_ended.wait(TICK_S):
            self.now_s += TICK_S
            last_s, ticked_s = ticked_s, time.monotonic()
            self.longest_pause_s = max(self.longest_pause_s, ticked_s - last_s - TICK_S)

    def __enter__(self) -> Self:
        self._ticking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self._ticking.join()


def in_flight(gateway: RunningGateway) -> float:
    """Requests beside the one that asks."""
    return gateway.metric("fovea_requests_in_flight") - 1


def connections(process: psutil.Process) -> list[Any]:
    """Those that are open, but for the ones of health checks, of which there is one for each model."""
    found = [c for c in process.net_connections("tcp") if c.status not in (psutil.CONN_LISTEN, psutil.CONN_TIME_WAIT)]
    return found[HEALTH_CHECKS:]
