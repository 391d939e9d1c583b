"""A real redis-server in a process of its own, which a test may kill, pause and start again."""

import contextlib
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import STARTS_S, free_port


@dataclass(frozen=True)
class RedisServer:
    port: int
    process: subprocess.Popen[bytes]
    log: pathlib.Path

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def pause(self) -> None:
        """Takes it off the processor: connections stay, and new ones are made, but nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Ends a pause, if there is one."""
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running_redis(folder: pathlib.Path, *arguments: str, port: int | None = None) -> Iterator[RedisServer]:
    """A redis-server that keeps nothing on disk, with further `arguments`, until the end of the block; the test may kill it."""
    port = free_port() if port is None else port
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    log = folder / f"redis-{port}.log"
    with log.open("ab") as output:
        process = subprocess.Popen([*command, "--save", "", "--appendonly", "no", *arguments], stdout=output, stderr=output)
    server = RedisServer(port, process, log)
    try:
        _wait_until_answering(server)
        yield server
    finally:
        # Not SIGTERM: a test may have paused it, and it has nothing to keep.
        process.kill()
        process.wait(20)


def _wait_until_answering(server: RedisServer) -> None:
    deadline = time.monotonic() + STARTS_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            pytest.fail(f"redis-server did not start:\n{server.log.read_text()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=20) as probe:
            probe.sendall(b"PING\r\n")
            # One that wants a password answers too, with an error.
            if probe.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                return
        time.sleep(0.02)
    pytest.fail("redis-server did not begin to answer")
