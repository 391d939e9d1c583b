"""What it is worth that questions about one image meet one replica: `python -m loadtest.affinity`, while `fovea up` runs two.

Each round asks several questions about each of many images that no engine has seen, at Ray Serve, past the gateway: once with
the image for the session, as the gateway sends it, and once without a session, in turn. Each image has somebody who asks one
question, and then all the others at once. What the replicas' prefix caches knew of the prompts is told beside the rate.

`loadtest/two_replicas.yaml` is a catalog for it. Of a large model on a GPU the gain is another: there an image takes the vision
tower, and hundreds of tokens to prefill, more of the time than here.
"""

import asyncio
import base64
import io
import itertools
import json
import random
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import click
import httpx
import psutil
import uvloop
from PIL import Image

from loadtest.overhead.processes import BenchError
from loadtest.overhead.report import figure, row, spread
from loadtest.path import Way, direct

QUESTIONS = 8
IMAGES = 50

_ASKERS = 8
"""Images that are asked about at once. With their questions they keep two replicas busy, and fill the queue of none if all of
them meet one: Serve hands a session's request to its replica even if that is full, and it would be refused."""

_TOKENS = 2
_REPLICA_PORTS = range(30000, 31001)
"""Where Ray Serve's replicas listen, unless RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT says otherwise."""

_TIMEOUT = aiohttp.ClientTimeout(total=300)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a replica has counted since it started: requests, and tokens of prompts, of which its prefix cache knew some."""

    answered: float = 0
    prompt_tokens: float = 0
    known_tokens: float = 0

    @classmethod
    def at(cls, replica: str) -> Self:
        """By the metrics under the replica's address. Raises httpx.HTTPError."""
        text = httpx.get(f"{replica}/metrics").raise_for_status().text
        names = ("vllm:request_success_total", "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total")
        return cls(*(_sum_of(name, text) for name in names))

    def __sub__(self, before: "Counted") -> "Counted":
        return Counted(*(getattr(self, one.name) - getattr(before, one.name) for one in fields(self)))

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    @property
    def known(self) -> float:
        """The share of the prompts' tokens that was in the cache."""
        return self.known_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


def _sum_of(name: str, text: str) -> float:
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ")))


def total(counted: Iterable[Counted]) -> Counted:
    """Of several replicas."""
    return reduce(Counted.__add__, counted, Counted())


def replicas(url: str, model: str) -> list[str]:
    """The addresses of the model's replicas in the `fovea up` whose gateway listens at `url`.

    Raises BenchError: nobody listens there.
    """
    listening = {
        one.laddr.port: one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr and one.pid
    }
    port = urlsplit(url).port or 80
    if port not in listening:
        raise BenchError(f"no process of this user's listens on port {port}: start `fovea up` first")
    up = next(one for one in psutil.Process(listening[port]).parents() if "up" in one.cmdline())
    of_stack = {process.pid for process in up.children(recursive=True)}
    ports = [port for port in _REPLICA_PORTS if listening.get(port) in of_stack]
    return [address for port in ports if _is_replica(address := f"http://127.0.0.1:{port}/{model}")]


def _is_replica(address: str) -> bool:
    """Whether an engine answers there: Serve's router, and other models' replicas, listen in the same range."""
    try:
        return httpx.get(f"{address}/health").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def picture(seed: str, side: int) -> str:
    """A picture of its own for each seed, `side` pixels wide and high, as a data: URL."""
    coarse = Image.frombytes("RGB", (16, 16), random.Random(seed).randbytes(16 * 16 * 3))
    buffer = io.BytesIO()
    coarse.resize((side, side)).save(buffer, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def question(model: str, url: str, number: int, tokens: int = _TOKENS) -> bytes:
    """The body of a question about a picture, which comes before the words, so that all questions begin alike."""
    content: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": f"Question {number}: what is in row {number}?"},
    ]
    return json.dumps({"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": tokens}).encode()


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks over the connections of `session`."""

    way: Way
    session: aiohttp.ClientSession

    async def ask_all(self, url: str, affinity: str | None = None) -> None:
        """Asks every question about a picture: one, and then the others at once; `affinity` is the session to name.

        Raises BenchError: an answer is not 200.
        """
        await self.ask(question(self.way.model, url, 0), affinity)
        others = [self.ask(question(self.way.model, url, number), affinity) for number in range(1, QUESTIONS)]
        await asyncio.gather(*others)

    async def ask(self, body: bytes, affinity: str | None = None) -> None:
        """Asks one question. Raises BenchError: the answer is not 200."""
        headers = {"content-type": "application/json", **self.way.headers}
        if affinity is not None:
            headers["x-session-id"] = affinity
        async with self.session.post(f"{self.way.url}/v1/chat/completions", data=body, headers=headers) as response:
            if response.status != 200:
                raise BenchError(f"{self.way.name} answers with {response.status}: {(await response.text())[:500]}")
            await response.read()


def session() -> aiohttp.ClientSession:
    """As many connections as questions are asked at once."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=_TIMEOUT)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn came to."""

    per_second: float
    known: float


Round = Mapping[str, Turn]
"""By its way's name; both are of the same number of questions, about other images."""

WITH, WITHOUT = "by image", "by chance"


async def _turn(way: Way, addresses: Sequence[str], pictures: Sequence[str], *, by_image: bool) -> Turn:
    before, waiting = _counted(addresses), iter(enumerate(pictures))

    async def take(asker: Asker) -> None:
        for number, url in waiting:
            await asker.ask_all(url, f"{number}-{hash(url)}" if by_image else None)

    async with session() as connections:
        started_s = time.perf_counter()
        await asyncio.gather(*(take(Asker(way, connections)) for _ in range(_ASKERS)))
        took_s = time.perf_counter() - started_s
    return Turn(QUESTIONS * len(pictures) / took_s, (_counted(addresses) - before).known)


def _counted(addresses: Sequence[str]) -> Counted:
    return total(Counted.at(address) for address in addresses)


async def _measured(way: Way, addresses: Sequence[str], rounds: int, images: int, side: int) -> list[Round]:
    seeds = (f"{time.time_ns()}-{number}" for number in itertools.count())
    done: list[Round] = []
    await _turn(way, addresses, [picture(next(seeds), side) for _ in range(_ASKERS)], by_image=False)
    for number in range(rounds):
        turns: dict[str, Turn] = {}
        for name in (WITHOUT, WITH) if number % 2 else (WITH, WITHOUT):
            pictures = [picture(next(seeds), side) for _ in range(images)]
            turns[name] = await _turn(way, addresses, pictures, by_image=name == WITH)
        done.append(turns)
        print(f"round {number + 1}  {_told(turns)}", file=sys.stderr, flush=True)
    return done


def _told(turns: Round) -> str:
    return ", ".join(
        f"{name}: {figure(turn.per_second)} requests/s, {turn.known:.2f} known" for name, turn in sorted(turns.items())
    )


def table(rounds: Sequence[Round]) -> str:
    """A Markdown table: a line for each way, its medians over the rounds, and ratios within a round."""
    head = ["", "requests/s", f"times {WITHOUT}", "share of prompt tokens known"]
    lines = [row(head), row(["---", *["--:"] * (len(head) - 1)])]
    for name in (WITH, WITHOUT):
        rates = spread(one[name].per_second for one in rounds)
        ratios = spread(one[name].per_second / one[WITHOUT].per_second for one in rounds)
        lines.append(row([name, str(rates), str(ratios), str(spread(one[name].known for one in rounds))]))
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Where the gateway of a `fovea up` is.")
@click.option("--model", default="small", show_default=True, help="Whom to ask; it has several replicas.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often both have a turn.")
@click.option("--images", default=IMAGES, show_default=True, type=click.IntRange(1), help="How many images a turn is about.")
@click.option("--side", default=448, show_default=True, type=click.IntRange(28), help="How many pixels wide and high they are.")
def main(*, url: str, model: str, rounds: int, images: int, side: int) -> None:
    """Measure what it is worth that questions about one image meet one replica, and print it as a Markdown table."""
    try:
        way, addresses = direct(url, model), replicas(url, model)
        if len(addresses) < 2:
            sys.exit(f"{model} has {len(addresses)} replica: fovea up loadtest/two_replicas.yaml")
        done = uvloop.run(_measured(way, addresses, rounds, images, side))
    except (BenchError, aiohttp.ClientError, httpx.HTTPError, TimeoutError, psutil.Error) as error:
        sys.exit(f"The measurement failed: {str(error) or type(error).__name__}")
    asked = f"{QUESTIONS} questions on each of {images} images of {side}x{side} pixels, {_TOKENS} tokens each"
    print(f"Model {model}, {len(addresses)} replicas: {asked}. Rounds: {rounds}.\n\n{table(done)}")


if __name__ == "__main__":
    main()
