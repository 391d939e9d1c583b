"""What the gateway adds on the path to a real engine: `python -m loadtest.path`, while `fovea up` runs.

The same request goes through the gateway and to Ray Serve behind it, round by round in turn: first over many connections, which
tells requests per second, then over one, which tells the time to first token of a stream. The image and the words never change,
so the engine's caches know them, and what is before the engine weighs as much as it can.

With `--bare` a vLLM server that has neither in front of it has its turns too. It is comparable if it has the engine arguments
that the catalog leads to, and what Ray gives its workers: little priority and one thread (`nice -n 15 env OMP_NUM_THREADS=1`).
"""

import asyncio
import base64
import io
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import click
import psutil
import uvloop
from PIL import Image

from loadtest.overhead.processes import BenchError
from loadtest.overhead.report import figure, row, spread

CONNECTIONS = 32
TOKENS = 32

_STREAMS = 20
_WARM_UP_S = 1
_TIMEOUT = aiohttp.ClientTimeout(total=120)
_DATA = b"data: "
_DONE = b"data: [DONE]"


@dataclass(frozen=True, slots=True)
class Way:
    """A way to the engine: a server that is asked for `model`, with `key` if it wants one."""

    name: str
    url: str
    model: str
    key: str | None

    @property
    def headers(self) -> dict[str, str]:
        """What goes with every request."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


@dataclass(frozen=True, slots=True)
class Round:
    """What every way did in one round, by its name; the time to first token is a median."""

    per_second: Mapping[str, float]
    first_token_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Asker:
    """Asks one way, over the connections of one session."""

    way: Way
    session: aiohttp.ClientSession

    async def rate(self, until_s: float) -> float:
        """Requests per second of one connection that asks again and again; the one under way at `until_s` is its last.

        Raises BenchError: an answer is not 200, or none comes.
        """
        body, started_s, answers = _body(self.way.model, stream=False), time.perf_counter(), 0
        while time.perf_counter() < until_s:
            async with self._asked(body) as response:
                await self._require_ok(response)
                await response.read()
            answers += 1
        return answers / (time.perf_counter() - started_s)

    async def first_token_ms(self) -> float:
        """Milliseconds from the question to the first event of a stream that has words in it.

        Raises BenchError: the answer is not 200, or the stream has no words, or it does not come to its end.
        """
        body, started_s, first_s, last = _body(self.way.model, stream=True), time.perf_counter(), 0.0, b""
        async with self._asked(body) as response:
            await self._require_ok(response)
            async for line in response.content:
                if not first_s and _has_words(line):
                    first_s = time.perf_counter()
                last = line.strip() or last
        if not first_s or last != _DONE:
            raise BenchError(f"{self.way.name} ends a stream with {last[:500]!r}")
        return (first_s - started_s) * 1e3

    def _asked(self, body: bytes) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        headers = {"content-type": "application/json", **self.way.headers}
        return self.session.post(f"{self.way.url}/v1/chat/completions", data=body, headers=headers)

    async def _require_ok(self, response: aiohttp.ClientResponse) -> None:
        if response.status != 200:
            raise BenchError(f"{self.way.name} answers with {response.status}: {(await response.text())[:500]}")


def _body(model: str, *, stream: bool) -> bytes:
    content = [{"type": "text", "text": "Is there a defect on this part?"}, _IMAGE]
    question = {"model": model, "messages": [{"role": "user", "content": content}], "stream": stream}
    return json.dumps({**question, "max_tokens": TOKENS, "ignore_eos": True}).encode()


def _image() -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(buffer, "PNG")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"}}


_IMAGE = _image()


def _has_words(line: bytes) -> bool:
    """Whether a line of a stream brings text; the first event of vLLM's names the role, and nothing else."""
    if not line.startswith(_DATA) or line.strip() == _DONE:
        return False
    return any(choice["delta"].get("content") for choice in json.loads(line.removeprefix(_DATA)).get("choices", ()))


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Where the gateway of a `fovea up` is.")
@click.option("--model", default="small", show_default=True, help="Whom to ask.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="A key of the gateway's, if it asks for one.")
@click.option("--bare", metavar="URL", help="A bare vLLM server, which has its turns too.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often everybody has a turn.")
@click.option("--seconds", default=8, show_default=True, type=click.IntRange(1), help="How long a turn of many connections is.")
def main(*, url: str, model: str, api_key: str | None, bare: str | None, rounds: int, seconds: int) -> None:
    """Measure what the gateway adds on the path to a real engine, and print it as a Markdown table."""
    try:
        ways = (Way("gateway", url.rstrip("/"), model, api_key), direct(url, model))
        told = uvloop.run(_measured(ways, bare, rounds, seconds))
    except (BenchError, aiohttp.ClientError, TimeoutError, psutil.Error) as error:
        sys.exit(f"The measurement failed: {str(error) or type(error).__name__}")
    print(f"Model {model}: an image of 64x64 pixels, {TOKENS} tokens. Rounds: {rounds}, of {seconds} s a turn.\n\n{told}")


def direct(url: str, model: str) -> Way:
    """The way past the gateway that listens at `url`, which has address and key of the engines in its environment.

    Raises BenchError: it is not there, or not ours to look into.
    """
    environment = _environment_of_listener(urlsplit(url).port or 80)
    try:
        return Way("Ray Serve", f"{environment['FOVEA_ENGINES_URL']}/{model}", model, environment["FOVEA_ENGINES_API_KEY"])
    except KeyError as error:
        raise BenchError(f"who listens at {url} is not the gateway of a `fovea up`") from error


def _environment_of_listener(port: int) -> dict[str, str]:
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        if listens and connection.pid:
            return psutil.Process(connection.pid).environ()
    raise BenchError(f"no process of this user's listens on port {port}: start `fovea up` first")


async def _measured(ways: Sequence[Way], bare: str | None, rounds: int, seconds: int) -> str:
    if bare:
        ways = (*ways, await _bare(bare.rstrip("/")))
    for way in ways:
        await _per_second(way, _WARM_UP_S)
    done = []
    for number in range(rounds):
        done.append(await _round(_turned(ways, number), seconds))
        print(f"round {number + 1}  {_told(done[-1])}", file=sys.stderr, flush=True)
    return table(done, [way.name for way in ways])


def _turned(ways: Sequence[Way], number: int) -> Sequence[Way]:
    """The ways in their order, every other time from the last to the first."""
    return ways[::-1] if number % 2 else ways


def _told(done: Round) -> str:
    return ", ".join(
        f"{name}: {figure(per_second)} requests/s, {figure(done.first_token_ms[name])} ms"
        for name, per_second in done.per_second.items()
    )


async def _bare(url: str) -> Way:
    """The way to a vLLM server, which is asked what its model is called."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(f"{url}/v1/models") as response:
        if response.status != 200:
            raise BenchError(f"{url} answers with {response.status}")
        return Way("bare vLLM", url, (await response.json())["data"][0]["id"], None)


async def _round(ways: Sequence[Way], seconds: int) -> Round:
    per_second = {way.name: await _per_second(way, seconds) for way in ways}
    return Round(per_second, await _first_token_ms(ways))


async def _per_second(way: Way, seconds: int) -> float:
    """The sum of what each connection does, so that it does not matter how many answers the end of the turn cuts off."""
    async with _session(CONNECTIONS) as session:
        until_s = time.perf_counter() + seconds
        return sum(await asyncio.gather(*(_Asker(way, session).rate(until_s) for _ in range(CONNECTIONS))))


async def _first_token_ms(ways: Sequence[Way]) -> dict[str, float]:
    """The ways take turns from stream to stream, each on a connection of its own that stays open."""
    taken: dict[str, list[float]] = {way.name: [] for way in ways}
    async with AsyncExitStack() as stack:
        sessions = {way.name: await stack.enter_async_context(_session(1)) for way in ways}
        for way in ways:
            await _Asker(way, sessions[way.name]).first_token_ms()
        for number in range(_STREAMS):
            for way in _turned(ways, number):
                taken[way.name].append(await _Asker(way, sessions[way.name]).first_token_ms())
    return {name: statistics.median(times) for name, times in taken.items()}


def _session(connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections), timeout=_TIMEOUT)


def table(rounds: Sequence[Round], names: Sequence[str]) -> str:
    """A Markdown table: a line for each way, which is compared round by round with all ways but the first."""
    others = names[1:]
    head = [f"{CONNECTIONS} connections, requests/s", *(f"times {other}'s" for other in others)]
    head += ["one connection, first token, ms", *(f"ms more than {other}" for other in others)]
    lines = [row(["", *head]), row(["---", *["--:"] * len(head)])]
    return "\n".join([*lines, *(row([name, *_cells(rounds, name, others)]) for name in names)]) + "\n"


def _cells(rounds: Sequence[Round], name: str, others: Sequence[str]) -> list[str]:
    rates = [one.per_second for one in rounds]
    waits = [one.first_token_ms for one in rounds]
    spreads = [
        spread(rate[name] for rate in rates),
        *(spread(rate[name] / rate[other] for rate in rates) for other in others),
        spread(wait[name] for wait in waits),
        *(spread(wait[name] - wait[other] for wait in waits) for other in others),
    ]
    return [str(cell) for cell in spreads]


if __name__ == "__main__":
    main()
