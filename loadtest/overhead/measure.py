"""One window: wrk against one peer, and the CPU that the peer takes meanwhile."""

import json
import pathlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from loadtest.overhead.bodies import Body
from loadtest.overhead.peers import Peer, Site
from loadtest.overhead.processes import LOAD_CORES, BenchError, cpu_seconds, last_words, running
from loadtest.overhead.sse import DELTAS

_SCRIPT = pathlib.Path(__file__).with_name("load.lua")
_ANSWERS_WITHIN_S = 60.0
_ATTEMPT_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk tells of a run, every request of which was answered."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Window:
    """What one peer did with one body for a few seconds of round `round`."""

    round: int
    body: str
    peer: str
    load: Load
    cpu_s: float
    units: int
    """What the CPU is divided by: requests; of streams, deltas."""

    @property
    def cpu_us(self) -> float:
        """CPU per request or delta, in microseconds."""
        return self.cpu_s / self.units * 1e6

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return self.load.requests / self.load.seconds


@dataclass(frozen=True, slots=True)
class Started:
    """A peer that runs."""

    peer: Peer
    process: subprocess.Popen[bytes]
    log: pathlib.Path


@contextmanager
def started(peer: Peer, site: Site) -> Iterator[Started]:
    """Runs `peer` until the end of the block."""
    log = site.folder / f"{peer.port}.log"
    with running(peer.command, peer.cores, log, peer.environment) as process:
        yield Started(peer, process, log)


def wait_until_it_answers(asked: Started, body: Body, site: Site) -> None:
    """Asks the peer until it gives a whole answer to `body`.

    Raises BenchError: it ends, or does not within a minute.
    """
    give_up_s = time.monotonic() + _ANSWERS_WITHIN_S
    told = ""
    while asked.process.poll() is None and time.monotonic() < give_up_s:
        try:
            _check_answer(asked.peer, body, site)
            return
        except (httpx.HTTPError, BenchError) as error:
            told = str(error)
        time.sleep(_ATTEMPT_EVERY_S)
    raise BenchError(f"{asked.peer.name} does not answer: {told}\n{last_words(asked.log)}")


def _check_answer(peer: Peer, body: Body, site: Site) -> None:
    headers = {"content-type": "application/json", "authorization": f"Bearer {site.key}"}
    answer = httpx.post(peer.url, content=body.file.read_bytes(), headers=headers, trust_env=False, timeout=10)
    if answer.status_code != httpx.codes.OK:
        raise BenchError(f"{peer.name} answers {body.name} with {answer.status_code}: {answer.text[:500]}")
    if body.stream and (answer.text.count('" scratch"') != DELTAS or not answer.text.endswith("data: [DONE]\n\n")):
        raise BenchError(f"{peer.name} does not pass the stream on as it is: {answer.text[-500:]}")
    if not body.stream and not answer.json()["choices"]:
        raise BenchError(f"{peer.name} does not pass the answer on as it is: {answer.text[:500]}")


def measured(asked: Started, body: Body, site: Site, seconds: int, number: int) -> Window:
    """The window of `seconds` in round `number`.

    Raises BenchError: a request failed.
    """
    try:
        _check_answer(asked.peer, body, site)
        deltas = site.upstream.deltas() if body.stream else 0
        cpu_s = cpu_seconds(asked.process.pid)
        load = _load(asked.peer, body, site, seconds)
        cpu_s = cpu_seconds(asked.process.pid) - cpu_s
        units = site.upstream.deltas() - deltas if body.stream else load.requests
    except (httpx.HTTPError, BenchError) as error:
        raise BenchError(f"{asked.peer.name}, {body.name}: {error}\n{last_words(asked.log)}") from error
    return Window(number, body.name, asked.peer.name, load, cpu_s, units)


def _load(peer: Peer, body: Body, site: Site, seconds: int) -> Load:
    return told_by_wrk(said_by_wrk(peer, body, _SCRIPT, seconds, str(body.file), site.key))


def said_by_wrk(peer: Peer, body: Body, script: pathlib.Path, seconds: int, *arguments: str) -> str:
    """What wrk writes that has asked `peer` for `seconds`, over the connections of `body`; `arguments` are the script's.

    Raises BenchError: it failed.
    """
    how = ("-t1", f"-c{body.connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script))
    command = ("taskset", "-c", LOAD_CORES, "wrk", *how, peer.url, "--", *arguments)
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise BenchError(f"wrk ended with {run.returncode}: {run.stdout[-500:]}{run.stderr[-500:]}")
    return run.stdout


def told_by_wrk(output: str) -> Load:
    """What wrk and load.lua have written, of which the last line counts.

    Raises BenchError: a request failed, none came to its end, or it is not what load.lua writes.
    """
    lines = output.strip().splitlines()
    try:
        told: dict[str, Any] = json.loads(lines[-1])
        errors = {kind: number for kind, number in told["errors"].items() if number}
        load = Load(told["requests"], told["microseconds"] / 1e6, told["p50_us"] / 1e3, told["p99_us"] / 1e3)
    except (IndexError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise BenchError(f"wrk did not tell its figures: {output[-500:]!r}") from error
    if errors:
        raise BenchError(f"requests failed, {errors} of {load.requests}")
    if load.requests == 0:
        raise BenchError("not one request came to its end")
    return load
