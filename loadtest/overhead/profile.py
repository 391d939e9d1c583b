"""Where in the gateway the time goes: samples of its stack under load, summed up by layers.

`python -m loadtest.overhead.profile`, as root or where the kernel lets py-spy look into other processes.
"""

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace

import click

from loadtest.overhead.bodies import Body, numbered_bodies, whole_bodies
from loadtest.overhead.layers import shares
from loadtest.overhead.measure import Started, measured, started, wait_until_it_answers
from loadtest.overhead.peers import Gateway, Site
from loadtest.overhead.processes import LOAD_CORES, BenchError
from loadtest.overhead.upstream import canned

_SAMPLES_PER_S = 200
_LOAD_AROUND_S = 4
"""How much longer the load lasts than the sampling, which takes a moment to begin."""


@click.command()
@click.option("--seconds", default=10, show_default=True, type=click.IntRange(1), help="How long each body's sampling is.")
@click.option(
    "--out", default="build/bench", show_default=True, type=click.Path(path_type=pathlib.Path), help="Where the table goes."
)
def main(seconds: int, out: pathlib.Path) -> None:
    """Sample a gateway with keys and metrics under load, and write profile.md and the stacks themselves."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as made:
        folder = pathlib.Path(made)
        try:
            with canned(folder) as upstream:
                site = Site(folder, upstream)
                with started(Gateway("Fovea", keys=True, metrics=True).peer(site), site) as gateway:
                    found = {body.name: _profiled(gateway, body, site, seconds, out) for body in _bodies(folder)}
        except BenchError as error:
            sys.exit(f"The measurement failed: {error}")
    told = _table(found)
    print(told)
    (out / "profile.md").write_text(told, encoding="utf-8")


def _bodies(folder: pathlib.Path) -> Iterator[Body]:
    """What is forwarded, and what is answered out of memory: the same question each time, its place for a number being one."""
    yield from whole_bodies(folder)
    for body in numbered_bodies(folder):
        yield replace(body.cached, name=f"{body.cached.name}, a hit")


def _profiled(gateway: Started, body: Body, site: Site, seconds: int, out: pathlib.Path) -> dict[str, float]:
    wait_until_it_answers(gateway, body, site)
    stacks = out / f"profile-{body.file.stem}.raw"
    # With native frames: without them the reading, the writing and the garbage collector would hide behind their callers.
    how = ("--native", "--full-filenames", "--rate", str(_SAMPLES_PER_S), "--duration", str(seconds), "--format", "raw")
    py_spy = str(pathlib.Path(sys.executable).with_name("py-spy"))
    command = ("taskset", "-c", LOAD_CORES, py_spy, "record", *how, "-o", str(stacks), "-p", str(gateway.process.pid))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sampling:
        measured(gateway, body, site, seconds + _LOAD_AROUND_S, number=0)
        said, _ = sampling.communicate()
    if sampling.returncode != 0:
        raise BenchError(f"py-spy ended with {sampling.returncode}: {said[-1000:]}")
    return shares(stacks.read_text(encoding="utf-8").splitlines())


def _table(found: Mapping[str, Mapping[str, float]]) -> str:
    layers = dict.fromkeys(layer for of_body in found.values() for layer in of_body)
    lines = [f"| share of the time | {' | '.join(found)} |", f"| --- |{' --: |' * len(found)}"]
    for layer in layers:
        cells = " | ".join(f"{of_body.get(layer, 0.0):.1%}" for of_body in found.values())
        lines.append(f"| {layer} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
