"""All parts, and what they report. `make bench`, or `python -m loadtest.overhead --help`."""

import json
import pathlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from importlib.metadata import version

import click

from gateway import __version__
from loadtest.overhead.bodies import Body, stream_body, whole_bodies
from loadtest.overhead.cache import FORWARDED, WITHOUT_REDIS, cache_tables, cache_windows
from loadtest.overhead.choices import choice_rounds, choices_table
from loadtest.overhead.lookups import Lookups, lookup_rounds, lookups_table
from loadtest.overhead.measure import Window, measured, started, wait_until_it_answers
from loadtest.overhead.peers import COMPARED_WITH, Site, all_peers
from loadtest.overhead.plot import plot
from loadtest.overhead.processes import BenchError, nginx
from loadtest.overhead.report import table
from loadtest.overhead.rounds import WARM_UP_S, Extent, tell, turned
from loadtest.overhead.upstream import Upstream, canned, streams


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often every peer has its turn.")
@click.option("--seconds", default=4, show_default=True, type=click.IntRange(1), help="How long each turn is.")
@click.option("--only", type=click.Choice(("peers", "cache", "choices")), help="One part of it.")
@click.option(
    "--out", default="build/bench", show_default=True, type=click.Path(path_type=pathlib.Path), help="Where the report goes."
)
def main(rounds: int, seconds: int, only: str | None, out: pathlib.Path) -> None:
    """Measure what the gateway costs, and write overhead.md, overhead.png, overhead.json, cache.md, cache.json and choices.md.

    Beside nginx and vllm-router; where it answers from its cache, beside itself; and what it costs to choose a model.
    """
    extent = Extent(rounds, seconds)
    out.mkdir(parents=True, exist_ok=True)
    try:
        if only in (None, "peers"):
            _measure_peers(extent, out)
        if only in (None, "cache"):
            _measure_cache(extent, out)
        if only in (None, "choices"):
            _measure_choices(extent, out)
    except BenchError as error:
        sys.exit(f"The measurement failed: {error}")


def _measure_peers(extent: Extent, out: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as made:
        folder = pathlib.Path(made)
        whole, stream = whole_bodies(folder), stream_body(folder)
        windows = [
            *_phase(canned(folder), folder, whole, extent),
            *_phase(streams(folder), folder, (stream,), extent),
        ]
        told = _report(windows, (*whole, stream), extent, folder)
    _write(out / "overhead", told, windows)
    plot(windows, (*whole, stream), out / "overhead.png")


def _measure_cache(extent: Extent, out: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as made:
        folder = pathlib.Path(made)
        with canned(folder) as upstream:
            windows = list(cache_windows(folder, upstream, extent))
        lookups = list(lookup_rounds(folder, extent.rounds))
    _write(out / "cache", _cache_report(windows, lookups, extent), windows)


def _measure_choices(extent: Extent, out: pathlib.Path) -> None:
    told = choices_table(list(choice_rounds(extent.rounds)))
    print(told)
    (out / "choices.md").write_text(told, encoding="utf-8")


def _write(path: pathlib.Path, told: str, windows: Sequence[Window]) -> None:
    print(told)
    path.with_suffix(".md").write_text(told, encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps([asdict(window) for window in windows], indent=1), encoding="utf-8")


def _phase(
    upstream: AbstractContextManager[Upstream], folder: pathlib.Path, bodies: Sequence[Body], extent: Extent
) -> Iterator[Window]:
    """All windows in front of one upstream; every peer runs from the first to the last."""
    with ExitStack() as stack:
        site = Site(folder, stack.enter_context(upstream))
        peers = [stack.enter_context(started(peer, site)) for peer in all_peers(site)]
        for peer in peers:
            for body in bodies:
                wait_until_it_answers(peer, body, site)
                measured(peer, body, site, WARM_UP_S, number=0)
        for number in range(extent.rounds):
            for body in bodies:
                for peer in turned(peers, number):
                    window = measured(peer, body, site, extent.seconds, number)
                    tell(window, body.unit)
                    yield window


def _report(windows: Sequence[Window], bodies: Sequence[Body], extent: Extent, folder: pathlib.Path) -> str:
    said = subprocess.run([nginx(folder, folder)[0], "-v"], capture_output=True, text=True, check=False)
    nginx_version = said.stderr.strip().removeprefix("nginx version: ")
    programs = (f"{COMPARED_WITH} {version(COMPARED_WITH)}", nginx_version)
    tables = (table(windows, body.name, body.unit, COMPARED_WITH) for body in bodies)
    return "\n".join((_measured_with(extent, f"{COMPARED_WITH}'s", programs), *tables))


def _cache_report(windows: Sequence[Window], lookups: Sequence[Lookups], extent: Extent) -> str:
    programs = (f"redis-py {version('redis')}",)
    measured_with = _measured_with(extent, f"'{FORWARDED}', or '{WITHOUT_REDIS}',", programs)
    return "\n".join((measured_with, cache_tables(windows), lookups_table(lookups)))


def _measured_with(extent: Extent, compared_with: str, programs: Iterable[str]) -> str:
    return (
        f"Rounds: {extent.rounds}, of {extent.seconds} s a peer. Each cell is the median over the rounds and, in brackets,\n"
        f"the least and the most; a ratio is to {compared_with} figure in the same round. A peer has one core, wrk and the\n"
        "upstream share another; CPU is user and system time of the peer's processes.\n\n"
        f"Fovea {__version__}, {', '.join(programs)}, Python {platform.python_version()}, {_cpu_model()}.\n"
    )


def _cpu_model() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
