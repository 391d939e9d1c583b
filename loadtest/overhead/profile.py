"""Where in the gateway the time goes: samples of its stack under load, summed up by layers.

`python -m loadtest.overhead.profile`, as root or where the kernel lets py-spy look into other processes.
"""

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import count

import click

from loadtest.overhead.cache import Asker, Case, kept_cases
from loadtest.overhead.layers import shares
from loadtest.overhead.peers import Site
from loadtest.overhead.processes import LOAD_CORES, BenchError
from loadtest.overhead.upstream import canned

_SAMPLES_PER_S = 200
_LOAD_AROUND_S = 4
"""How much longer the load lasts than the sampling, which takes a moment to begin."""

_Shares = Mapping[str, float]


@click.command()
@click.option("--seconds", default=10, show_default=True, type=click.IntRange(1), help="How long each sampling is.")
@click.option(
    "--out", default="build/bench", show_default=True, type=click.Path(path_type=pathlib.Path), help="Where the table goes."
)
def main(seconds: int, out: pathlib.Path) -> None:
    """Sample a gateway with keys and metrics under load, and write profile.md and the stacks themselves."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as made, ExitStack() as stack:
        folder = pathlib.Path(made)
        try:
            site = Site(folder, stack.enter_context(canned(folder)))
            asker = Asker(site, count())
            found = [(case, _profiled(case, asker, seconds, out)) for case in kept_cases(stack, site)]
        except BenchError as error:
            sys.exit(f"The measurement failed: {error}")
    told = "\n".join(_table(body, found) for body in dict.fromkeys(case.body.name for case, _ in found))
    print(told)
    (out / "profile.md").write_text(told, encoding="utf-8")


def _profiled(case: Case, asker: Asker, seconds: int, out: pathlib.Path) -> _Shares:
    asker.warm_up(case)
    stacks = out / f"profile-{case.body.name}-{case.name}.raw".replace(" ", "-").replace(",", "")
    # With native frames: without them the reading, the writing and the garbage collector would hide behind their callers.
    how = ("--native", "--full-filenames", "--rate", str(_SAMPLES_PER_S), "--duration", str(seconds), "--format", "raw")
    py_spy = str(pathlib.Path(sys.executable).with_name("py-spy"))
    pid = str(case.gateway.process.pid)
    command = ("taskset", "-c", LOAD_CORES, py_spy, "record", *how, "-o", str(stacks), "-p", pid)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sampling:
        asker.window(case, seconds + _LOAD_AROUND_S, number=0)
        said, _ = sampling.communicate()
    if sampling.returncode != 0:
        raise BenchError(f"py-spy ended with {sampling.returncode}: {said[-1000:]}")
    return shares(stacks.read_text(encoding="utf-8").splitlines())


def _table(body: str, found: Sequence[tuple[Case, _Shares]]) -> str:
    of_body = {case.name: shared for case, shared in found if case.body.name == body}
    layers = dict.fromkeys(layer for shared in of_body.values() for layer in shared)
    lines = [f"| share of the time, {body} | {' | '.join(of_body)} |", f"| --- |{' --: |' * len(of_body)}"]
    for layer in layers:
        cells = " | ".join(f"{shared.get(layer, 0.0):.1%}" for shared in of_body.values())
        lines.append(f"| {layer} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
