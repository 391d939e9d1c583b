"""The real stack, started once: `fovea up`, as a user starts it.

It is started twice, in truth. The first is that of the demo, whose models see: test_demo.py asks it for the truth, and Ctrl-C
ends it. The one under all other tests comes right after it, on the same port, with models of random weights (catalog.yaml).
`--stack URL` takes a stack that is already up instead, for whoever writes a test; what needs what it does not have is skipped.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import openai
import psutil
import pytest

from deploy.processes import adopt_orphans
from tests.conftest import free_port
from tests.processes import still_running
from tests.redis_server import RedisServer, running_redis

CATALOG = pathlib.Path(__file__).parent / "catalog.yaml"

START_AT_MOST_S = 600
STOP_AT_MOST_S = 60
_running: list[int] = []
"""Ids of what is meant to run: `fovea up` of each stack, and Redis, which no stack starts."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if pathlib.Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(900))
    items.sort(key=lambda item: item.path.name != "test_demo.py")  # the demo's stack has ended when the other starts


@dataclass(frozen=True)
class Stack:
    url: str
    pid: int
    """Of `fovea up`."""

    def processes(self) -> list[psutil.Process]:
        """Every process of the stack."""
        return psutil.Process(self.pid).children(recursive=True)


@dataclass(frozen=True)
class OwnStack(Stack):
    process: subprocess.Popen[str]
    output: pathlib.Path


@dataclass(frozen=True)
class Ended:
    status: int
    seconds: float
    left: list[str]
    output: str


def start_stack(folder: pathlib.Path, port: int, catalog: pathlib.Path | None = None, **settings: str) -> OwnStack:
    """`fovea up` of a catalog, or else the demo, on `port`, with further variables, once it says that it is ready."""
    adopt_orphans()
    output = folder / "fovea-up.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "up", *([str(catalog)] if catalog else []), "--port", str(port)],
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | settings,
        )
    _running.append(process.pid)
    deadline = time.monotonic() + START_AT_MOST_S
    while "Ready." not in output.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            pytest.fail(f"the stack did not start:\n{output.read_text()}")
        time.sleep(0.5)
    return OwnStack(f"http://127.0.0.1:{port}", process.pid, process, output)


def end_stack(stack: OwnStack, number: signal.Signals) -> Ended:
    """Sends the signal to `fovea up` alone, and tells what came of it."""
    started_s = time.monotonic()
    stack.process.send_signal(number)
    status = stack.process.wait(STOP_AT_MOST_S)
    _running.remove(stack.process.pid)
    seconds = time.monotonic() - started_s
    return Ended(status, seconds, left_behind(), stack.output.read_text())


def pid_of_fovea_up(url: str) -> int:
    """Of the stack whose gateway listens at `url`."""
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    connections = psutil.net_connections("tcp")
    gateway = next(found.pid for found in connections if found.status == psutil.CONN_LISTEN and found.laddr == address)
    return next(process.pid for process in psutil.Process(gateway).parents() if "up" in process.cmdline())


def left_behind() -> list[str]:
    """What is left of stacks that have ended: this process adopts whatever they orphan, so it is all below it."""
    return still_running(besides=_running)


@pytest.fixture(scope="session")
def port() -> int:
    return free_port()


@pytest.fixture(scope="session")
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[OwnStack]:
    """The stack of the demo, which test_demo.py asks before the other takes its place."""
    if request.config.getoption("--stack"):
        pytest.skip("--stack names a stack that is to stay up")
    running = start_stack(tmp_path_factory.mktemp("demo"), port)
    yield running
    if running.process.poll() is None:  # no test needed the other
        end_stack(running, signal.SIGINT)


@pytest.fixture(scope="session")
def ended_by_ctrl_c(demo: OwnStack) -> Ended:
    return end_stack(demo, signal.SIGINT)


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Where the stack stores its answers."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        _running.append(server.process.pid)
        yield server
        _running.remove(server.process.pid)


@pytest.fixture(scope="session")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, port: int, redis: RedisServer
) -> Iterator[Stack]:
    url = request.config.getoption("--stack")
    if url:
        yield Stack(url, pid_of_fovea_up(url))
        return
    request.getfixturevalue("ended_by_ctrl_c")
    folder = tmp_path_factory.mktemp("stack")
    # Time enough for Redis on a busy machine: what is tested here is not how soon it is given up.
    running = start_stack(folder, port, CATALOG, FOVEA_REDIS_URL=redis.url, FOVEA_REDIS_BUDGET_S="5")
    yield running
    ended = end_stack(running, signal.SIGTERM)
    assert (ended.status, ended.left) == (0, []), ended.output


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    """Whose answers are all made for it, and none is one that another test has got."""
    fresh = {"Cache-Control": "no-cache"}
    with openai.OpenAI(
        base_url=f"{stack.url}/v1", api_key="unused", max_retries=0, timeout=120, default_headers=fresh
    ) as client:
        yield client


def gateway_process(stack: Stack) -> psutil.Process:
    """The gateway itself, not its guardian."""
    return next(process for process in stack.processes() if process.cmdline()[1:3] == ["-m", "gateway"])


@pytest.fixture(scope="session")
def engines(stack: Stack) -> tuple[str, str]:
    """Where the engines are, and their key: the gateway's secrets, the same for one that takes its place."""
    environment = gateway_process(stack).environ()
    return environment["FOVEA_ENGINES_URL"], environment["FOVEA_ENGINES_API_KEY"]


def counted(engines: tuple[str, str], model: str, row: str) -> float:
    """What the engine of `model` counts in the rows of its metrics that begin with `row`."""
    rows = httpx.get(f"{engines[0]}/{model}/metrics", timeout=30).text.splitlines()
    return sum(float(found.split()[-1]) for found in rows if found.startswith(row))
