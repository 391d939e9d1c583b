"""What a short request waits for beside streams that last: `python -m loadtest.beside`, while `fovea up` runs.

First one stream is held, then 15: of the 16 places of the demo's engines that leaves one free. Once they have begun, one short
request is asked after the other. Where a stack's processes are kept from the cores of their machine, the longest of these shows
it, long before their median does. Beside it stands what the streams brought, by the ids of their tokens.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass

import aiohttp
import click
import orjson
import uvloop

from loadtest.overhead.processes import BenchError
from loadtest.overhead.report import figure, row
from loadtest.path import Way

STREAMS = (1, 15)

_BEGUN_WITHIN_S = 90
_PAUSE_S = 0.1
_STREAM_TOKENS = 16_000
_SHORT_TOKENS = 1
_TIMEOUT = aiohttp.ClientTimeout(total=300)
_DATA = b"data: "
_DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Beside:
    """What was seen beside so many streams for so long: tokens of theirs, and how many seconds each short request took."""

    streams: int
    seconds: float
    tokens: int
    took_s: Sequence[float]


class _Held:
    """A stream that is read, and another one when it has ended; `tokens` have arrived so far."""

    def __init__(self) -> None:
        self.tokens = 0
        self.has_begun = asyncio.Event()

    async def hold(self, asker: "_Asker") -> None:
        """Goes on until it is cancelled. Raises BenchError: an answer is not 200."""
        while True:
            async with asker.asked(_STREAM_TOKENS, stream=True) as response:
                async for line in response.content:
                    self.tokens += tokens_of(line)
                    self.has_begun.set()


@dataclass(frozen=True, slots=True)
class _Asker:
    """Asks one way, each time with words of its own, which no cache can answer."""

    way: Way
    session: aiohttp.ClientSession

    async def short(self) -> float:
        """The seconds that a short request takes. Raises BenchError: its answer is not 200."""
        started_s = time.perf_counter()
        async with self.asked(_SHORT_TOKENS, stream=False) as response:
            await response.read()
        return time.perf_counter() - started_s

    def asked(self, tokens: int, *, stream: bool) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The answer to a question. The session raises BenchError where it is not 200."""
        body = {
            "model": self.way.model,
            "messages": [{"role": "user", "content": f"It is {time.time_ns()}: what do you see?"}],
            "max_tokens": tokens,
            "stream": stream,
            "ignore_eos": True,
            "return_token_ids": stream,
        }
        headers = {"content-type": "application/json", **self.way.headers}
        return self.session.post(f"{self.way.url}/v1/chat/completions", data=json.dumps(body), headers=headers)


def tokens_of(line: bytes) -> int:
    """How many tokens a line of a stream brings, whose chunks have their ids."""
    event = line.removeprefix(_DATA).strip()
    if not line.startswith(_DATA) or event == _DONE:
        return 0
    return sum(len(choice.get("token_ids") or ()) for choice in orjson.loads(event)["choices"])


@contextmanager
def _readers(asker: _Asker, held: Sequence[_Held]) -> Iterator[Sequence[asyncio.Task[None]]]:
    readers = [asyncio.create_task(one.hold(asker)) for one in held]
    try:
        yield readers
    finally:
        for reader in readers:
            reader.cancel()


async def _beside(asker: _Asker, streams: int, seconds: float) -> Beside:
    held = [_Held() for _ in range(streams)]
    with _readers(asker, held) as readers:
        async with asyncio.timeout(_BEGUN_WITHIN_S):
            await asyncio.gather(*(one.has_begun.wait() for one in held))
        tokens, started_s, took_s = sum(one.tokens for one in held), time.perf_counter(), []
        while time.perf_counter() < started_s + seconds:
            took_s.append(await asker.short())
            await asyncio.sleep(_PAUSE_S)
            for reader in readers:
                if reader.done():
                    reader.result()
        return Beside(streams, time.perf_counter() - started_s, sum(one.tokens for one in held) - tokens, took_s)


async def _require_ok(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise BenchError(f"the gateway answers with {response.status}: {(await response.text())[:500]}")


async def _measured(way: Way, seconds: float) -> list[Beside]:
    async with aiohttp.ClientSession(timeout=_TIMEOUT, raise_for_status=_require_ok) as session:
        return [await _beside(_Asker(way, session), streams, seconds) for streams in STREAMS]


def table(measured: Sequence[Beside]) -> str:
    """In Markdown."""
    head = ("streams", "their tokens/s", "short requests", "median, ms", "longest, ms", "over a second")
    return "\n".join([row(head), row(["--:"] * len(head)), *(row(_cells(seen)) for seen in measured)])


def _cells(seen: Beside) -> Sequence[str]:
    median_ms, longest_ms = 1000 * statistics.median(seen.took_s), 1000 * max(seen.took_s)
    slow = sum(took_s > 1 for took_s in seen.took_s)
    rate = figure(seen.tokens / seen.seconds)
    return str(seen.streams), rate, str(len(seen.took_s)), figure(median_ms), figure(longest_ms), str(slow)


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Where the gateway is.")
@click.option("--model", default="small", show_default=True, help="Whom to ask.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="A key of the gateway's, if it asks for one.")
@click.option("--seconds", default=20, show_default=True, type=click.IntRange(1, 60), help="How long each number is held.")
def main(*, url: str, model: str, api_key: str | None, seconds: int) -> None:
    """Measure what a short request waits for beside streams, and print it as a Markdown table."""
    try:
        measured = uvloop.run(_measured(Way("gateway", url.rstrip("/"), model, api_key), seconds))
    except (BenchError, aiohttp.ClientError, TimeoutError) as error:
        sys.exit(f"The measurement failed: {str(error) or type(error).__name__}")
    print(table(measured))


if __name__ == "__main__":
    main()
