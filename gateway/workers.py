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

_SECOND_SIGNAL_S = 0.2

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
                    # Who was told before it could listen to that ends by the signal itself.
                    ended_well = ended_well and status in (0, -signal.SIGTERM)
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
        while not self._ending and slot not in self._running:
            time.sleep(max(0.0, self._started_s[slot] + _START_APART_S - time.monotonic()))
            try:
                self._start(slot)
            except OSError as error:
                # No memory for another process, say: the others go on.
                self._started_s[slot] = time.monotonic()
                log_event("worker_not_started", logging.ERROR, worker=slot, reason=str(error))

    def _end(self, number: int, _: FrameType | None) -> None:
        """Has them end in good order; what comes after that is passed on, and a second Ctrl-C ends them at once."""
        passed_on = number if self._ending else signal.SIGTERM
        self._ending = True
        for process in self._running.values():
            if process.pid is not None:
                os.kill(process.pid, passed_on)


def _as_worker(work: Work, slot: int) -> None:
    # Ctrl-C in a terminal reaches all processes of its group: a worker would be told twice, and end at once.
    os.setpgrp()
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is a child"
    threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()
    work(slot)


def _end_after(parent: int) -> None:
    """Workers whose parent was killed would keep the port: they end, and without waiting for anybody to route elsewhere."""
    connection.wait([parent])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECOND_SIGNAL_S)
    os.kill(os.getpid(), signal.SIGTERM)
