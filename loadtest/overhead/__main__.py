"""The rounds: every peer once for each body, in an order that turns. `make bench`, or `python -m loadtest.overhead --help`."""

import json
import pathlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version

import click

from gateway import __version__
from loadtest.overhead.bodies import Body, stream_body, whole_bodies
from loadtest.overhead.measure import Started, Window, measured, started, wait_until_it_answers
from loadtest.overhead.peers import COMPARED_WITH, Site, all_peers
from loadtest.overhead.plot import plot
from loadtest.overhead.processes import BenchError, nginx
from loadtest.overhead.report import figure, table
from loadtest.overhead.upstream import Upstream, canned, streams

_WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class _Extent:
    rounds: int
    seconds: int


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often every peer has its turn.")
@click.option("--seconds", default=4, show_default=True, type=click.IntRange(1), help="How long each turn is.")
@click.option(
    "--out", default="build/bench", show_default=True, type=click.Path(path_type=pathlib.Path), help="Where the report goes."
)
def main(rounds: int, seconds: int, out: pathlib.Path) -> None:
    """Measure what the gateway costs, beside nginx and vllm-router, and write overhead.md, overhead.png and overhead.json."""
    extent = _Extent(rounds, seconds)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as made:
        folder = pathlib.Path(made)
        whole, stream = whole_bodies(folder), stream_body(folder)
        try:
            windows = [
                *_phase(canned(folder), folder, whole, extent),
                *_phase(streams(folder), folder, (stream,), extent),
            ]
            told = _report(windows, (*whole, stream), extent, folder)
        except BenchError as error:
            sys.exit(f"The measurement failed: {error}")
    print(told)
    (out / "overhead.md").write_text(told, encoding="utf-8")
    (out / "overhead.json").write_text(json.dumps([asdict(window) for window in windows], indent=1), encoding="utf-8")
    plot(windows, (*whole, stream), out / "overhead.png")


def _phase(
    upstream: AbstractContextManager[Upstream], folder: pathlib.Path, bodies: Sequence[Body], extent: _Extent
) -> Iterator[Window]:
    """All windows in front of one upstream; every peer runs from the first to the last."""
    with ExitStack() as stack:
        site = Site(folder, stack.enter_context(upstream))
        peers = [stack.enter_context(started(peer, site)) for peer in all_peers(site)]
        for peer in peers:
            for body in bodies:
                wait_until_it_answers(peer, body, site)
                measured(peer, body, site, _WARM_UP_S, number=0)
        for number in range(extent.rounds):
            for body in bodies:
                for peer in _turned(peers, number):
                    window = measured(peer, body, site, extent.seconds, number)
                    _tell(window, body)
                    yield window


def _turned(peers: Sequence[Started], number: int) -> list[Started]:
    """The peers, of which round by round another one is the first."""
    first = number % len(peers)
    return [*peers[first:], *peers[:first]]


def _tell(window: Window, body: Body) -> None:
    cost = f"{figure(window.cpu_us)} µs per {body.unit}, {figure(window.per_second)} requests/s"
    print(f"round {window.round + 1}  {window.body:<12}  {window.peer:<42}  {cost}", file=sys.stderr, flush=True)


def _report(windows: Sequence[Window], bodies: Sequence[Body], extent: _Extent, folder: pathlib.Path) -> str:
    said = subprocess.run([nginx(folder, folder)[0], "-v"], capture_output=True, text=True, check=False)
    nginx_version = said.stderr.strip().removeprefix("nginx version: ")
    measured_with = (
        f"Rounds: {extent.rounds}, of {extent.seconds} s a peer. Each cell is the median over the rounds and, in brackets,\n"
        f"the least and the most; a ratio is to {COMPARED_WITH}'s figure in the same round. A peer has one core, wrk and the\n"
        "upstream share another; CPU is user and system time of the peer's processes.\n\n"
        f"Fovea {__version__}, {COMPARED_WITH} {version(COMPARED_WITH)}, {nginx_version}, Python {platform.python_version()}, "
        f"{_cpu_model()}.\n"
    )
    return "\n".join((measured_with, *(table(windows, body.name, body.unit, COMPARED_WITH) for body in bodies)))


def _cpu_model() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
