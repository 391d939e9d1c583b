"""What a short request waits for beside streams that last: `python -m loadtest.beside`, while `fovea up` runs.

First one stream is held, then as many as leave a place of those that the demo's engines have. Beside them one short request is
asked after the other. It is told how many chunks the streams brought in a second, all together, and how long the short ones
took: where a stack's processes are kept from the cores of their machine, the longest shows it, long before the median does.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import aiohttp
import click
import uvloop

from loadtest.overhead.processes import BenchError
from loadtest.overhead.report import figure, row

STREAMS = (1, 15)

_SETTLES_S = 2
"""Streams have begun by then."""
_PAUSE_S = 0.1
_STREAM_TOKENS = 16_000
_SHORT_TOKENS = 1
_TIMEOUT = aiohttp.ClientTimeout(total=300)
_DATA = b"data: "


@dataclass(slots=True)
class Beside:
    """What was seen beside so many streams: chunks of theirs, each with a token or several, and seconds of short requests."""

    streams: int
    seconds: float
    chunks: int = 0
    took_s: list[float] = field(default_factory=list)

    def cells(self) -> Sequence[str]:
        """A row of the table."""
        took_ms = [1000 * took_s for took_s in self.took_s]
        slow = sum(took_s > 1 for took_s in self.took_s)
        per_second = self.chunks / self.seconds
        return (
            str(self.streams),
            figure(per_second),
            str(len(took_ms)),
            figure(median(took_ms)),
            figure(max(took_ms)),
            str(slow),
        )


@dataclass(frozen=True, slots=True)
class _Asker:
    url: str
    model: str
    session: aiohttp.ClientSession

    async def hold(self, seen: Beside) -> None:
        """Reads streams, one after the other, until it is cancelled. Raises BenchError: an answer is not 200."""
        while True:
            async with self._asked(_STREAM_TOKENS, stream=True) as response:
                await _all_right(response)
                async for part in response.content.iter_any():
                    seen.chunks += part.count(_DATA)

    async def short(self) -> float:
        """The seconds that a short request takes. Raises BenchError: its answer is not 200."""
        started_s = time.perf_counter()
        async with self._asked(_SHORT_TOKENS, stream=False) as response:
            await _all_right(response)
            await response.read()
        return time.perf_counter() - started_s

    def _asked(self, tokens: int, *, stream: bool) -> Any:
        """A question of its own each time, which no cache can answer."""
        words = f"It is {time.time_ns()}: what do you see?"
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": words}],
            "max_tokens": tokens,
            "stream": stream,
            "ignore_eos": True,
        }
        return self.session.post(f"{self.url}/v1/chat/completions", json=body)


async def _all_right(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise BenchError(f"{response.status}: {await response.text()}")


async def _beside(asker: _Asker, streams: int, seconds: float) -> Beside:
    seen = Beside(streams, seconds)
    held = [asyncio.create_task(asker.hold(seen)) for _ in range(streams)]
    try:
        await asyncio.sleep(_SETTLES_S)
        seen.chunks, started_s = 0, time.perf_counter()
        while time.perf_counter() < started_s + seconds:
            seen.took_s.append(await asker.short())
            await asyncio.sleep(_PAUSE_S)
        seen.seconds = time.perf_counter() - started_s
    finally:
        for task in held:
            task.cancel()
        ends = await asyncio.gather(*held, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
    return seen


async def _measured(url: str, model: str, seconds: float) -> list[Beside]:
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session:
        return [await _beside(_Asker(url, model, session), streams, seconds) for streams in STREAMS]


def table(measured: Sequence[Beside]) -> str:
    """In Markdown."""
    head = ("streams", "their chunks/s", "short requests", "median, ms", "longest, ms", "over a second")
    return "\n".join([row(head), row(["--:"] * len(head)), *(row(seen.cells()) for seen in measured)])


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Where the gateway is.")
@click.option("--model", default="small", show_default=True, help="Whom to ask.")
@click.option(
    "--seconds",
    default=20.0,
    show_default=True,
    type=click.FloatRange(1),
    help="How long to ask beside each number of streams.",
)
def main(*, url: str, model: str, seconds: float) -> None:
    """Measure what a short request waits for beside streams, and print it as a Markdown table."""
    try:
        measured = uvloop.run(_measured(url, model, seconds))
    except (BenchError, aiohttp.ClientError, TimeoutError) as error:
        sys.exit(f"The measurement failed: {str(error) or type(error).__name__}")
    print(table(measured))


if __name__ == "__main__":
    main()
