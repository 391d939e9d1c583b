"""A redis-server that keeps nothing on disk, on a port of its own."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from loadtest.overhead.processes import LOAD_CORES, BenchError, free_port, last_words, running

_LISTENS_WITHIN_S = 10.0
_ATTEMPT_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A server that runs, unless it was killed."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def kill(self) -> None:
        """Ends it at once: from now on nobody listens at its port."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Lets it listen, and answer nobody any more."""
        self.process.send_signal(signal.SIGSTOP)


@contextmanager
def redis_server(folder: pathlib.Path) -> Iterator[RedisServer]:
    """A server until the end of the block, beside the load, so that what is measured has its core to itself.

    Raises BenchError: there is no redis-server, or it does not listen.
    """
    path = shutil.which("redis-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        raise BenchError("redis-server is not installed")
    port = free_port()
    log = folder / f"redis-{port}.log"
    keeps_nothing = ("--save", "", "--appendonly", "no", "--dir", str(folder))
    command = (path, "--bind", "127.0.0.1", "--port", str(port), *keeps_nothing)
    with running(command, LOAD_CORES, log) as process:
        _wait_until_it_listens(port, log)
        try:
            yield RedisServer(port, process)
        finally:
            # One that is paused would not hear that it is to end.
            process.send_signal(signal.SIGCONT)


def _wait_until_it_listens(port: int, log: pathlib.Path) -> None:
    give_up_s = time.monotonic() + _LISTENS_WITHIN_S
    while time.monotonic() < give_up_s:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(_ATTEMPT_EVERY_S)
    raise BenchError(f"redis-server does not listen: {last_words(log)}")
