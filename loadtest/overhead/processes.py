"""Processes on cores of their own, and the CPU that they take."""

import os
import pathlib
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import psutil

PEER_CORES = "0"
LOAD_CORES = "1"
"""Of the upstream and of wrk: what is measured has its core to itself."""

_STOPS_WITHIN_S = 10.0

_PORTS = iter(range(21000, 30000))
"""Below those that the kernel gives to connections, of which there are many here."""


class BenchError(Exception):
    """The measurement cannot go on; the message says what failed, and the last words of the process that did."""


@contextmanager
def running(
    command: Sequence[str], cores: str, log: pathlib.Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process pinned to `cores` until the end of the block; `environment` is added to ours, what it says goes to `log`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FOVEA_", "OTEL_"))}
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["taskset", "-c", cores, *command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**inherited, **(environment or {})},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of all below it that still run."""
    process = psutil.Process(pid)
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system
    return total


def free_port() -> int:
    """A port of this machine that nobody listens on, another one each time."""
    for port in _PORTS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise BenchError("no port is free")


def nginx(folder: pathlib.Path, conf: pathlib.Path) -> tuple[str, ...]:
    """The command that runs nginx with `conf`, whose relative paths are in `folder`.

    Raises BenchError: there is no nginx.
    """
    # Debian keeps it out of the way of those who are not root.
    path = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        raise BenchError("nginx is not installed")
    return (path, "-e", "stderr", "-p", str(folder), "-c", str(conf), "-g", "daemon off;")


def last_words(log: pathlib.Path) -> str:
    """The end of what a process has said."""
    return log.read_text(encoding="utf-8", errors="replace")[-2000:] if log.exists() else ""
