"""What the tests see of a running gateway from outside."""

import time
from collections.abc import Callable
from typing import Any

import psutil

from tests.conftest import RunningGateway

SOON_S = 20
HEALTH_CHECKS = 2


def eventually(is_so: Callable[[], bool]) -> bool:
    """Whether it comes to be so soon."""
    deadline = time.monotonic() + SOON_S
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def in_flight(gateway: RunningGateway) -> float:
    """Requests beside the one that asks."""
    return gateway.metric("fovea_requests_in_flight") - 1


def connections(process: psutil.Process) -> list[Any]:
    """Those that are open, but for the ones of health checks, of which there is one for each model."""
    found = [c for c in process.net_connections("tcp") if c.status not in (psutil.CONN_LISTEN, psutil.CONN_TIME_WAIT)]
    return found[HEALTH_CHECKS:]
