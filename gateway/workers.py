"""Several processes on one port, each with its share of the connections; one that dies is replaced."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from types import FrameType

from gateway.telemetry.logs import log_event

_START_APART_S = 1.0
"""A worker that dies as soon as it starts is not started again and again without a pause."""

Work = Callable[[int], None]
"""What a worker does until it is told to end; its argument is the worker's number, from 0."""


class Workers:
    """`count` processes that `work`; `gone` is called with the number of one that has died, before another takes its place.

    uvicorn's own supervisor could not be used: it makes servers of its own class, which know no drain, and kills a worker that
    is late with an answer over its pipe, with all that it is answering.
    """

    def __init__(self, count: int, work: Work, gone: Callable[[int], object]) -> None:
        self._work = work
        self._gone = gone
        self._spawn = multiprocessing.get_context("spawn")
        self._running: dict[int, SpawnProcess] = {}
        self._started_s = dict.fromkeys(range(count), 0.0)
        self._ending = False

    def run(self) -> bool:
        """Keeps them running until SIGTERM or SIGINT, lets them end, and tells whether all ended well."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        for slot in self._started_s:
            self._start(slot)
        ended_well = True
        while self._running:
            by_sentinel = {process.sentinel: slot for slot, process in self._running.items()}
            for sentinel in connection.wait(list(by_sentinel)):
                slot = by_sentinel[int(sentinel)]  # type: ignore[arg-type]  # sentinels are file descriptors on this system
                status = self._ended(slot)
                if self._ending:
                    ended_well = ended_well and status == 0
                else:
                    self._replace(slot, status)
        return ended_well

    def _start(self, slot: int) -> None:
        process = self._spawn.Process(target=_as_worker, args=(self._work, slot), name=f"worker {slot}")
        process.start()
        self._running[slot] = process
        self._started_s[slot] = time.monotonic()
        if self._ending:
            process.terminate()

    def _ended(self, slot: int) -> int:
        process = self._running.pop(slot)
        process.join()
        status = process.exitcode
        process.close()
        assert status is not None, "it has been joined"
        return status

    def _replace(self, slot: int, status: int) -> None:
        log_event("worker_died", logging.ERROR, worker=slot, status=status)
        self._gone(slot)
        time.sleep(max(0.0, self._started_s[slot] + _START_APART_S - time.monotonic()))
        if not self._ending:
            self._start(slot)

    def _end(self, _: int, __: FrameType | None) -> None:
        """Passes the signal on; a second one ends them at once, as uvicorn does."""
        self._ending = True
        for process in self._running.values():
            process.terminate()


def _as_worker(work: Work, slot: int) -> None:
    # Ctrl-C in a terminal reaches all processes of its group: a worker would be told twice, and end at once.
    os.setpgrp()
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is a child"
    threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()
    work(slot)


def _end_after(parent: int) -> None:
    """Workers whose parent was killed would keep the port."""
    connection.wait([parent])
    os.kill(os.getpid(), signal.SIGTERM)
