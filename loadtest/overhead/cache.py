"""The cache: a hit beside the same request forwarded, a look-up that finds nothing, and a Redis that is away.

Every question has a number. Of those that are to be hits there are few, which are all asked before; of those that are to be
misses none comes twice.
"""

import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

from loadtest.overhead.bodies import Body, numbered_bodies, numbered_text
from loadtest.overhead.measure import Started, Window, said_by_wrk, started, told_by_wrk, wait_until_it_answers
from loadtest.overhead.peers import Gateway, Site
from loadtest.overhead.processes import BenchError, cpu_seconds, last_words
from loadtest.overhead.redis_server import redis_server
from loadtest.overhead.report import cpu, more, over_rounds, peers_in, row, table
from loadtest.overhead.rounds import WARM_UP_S, Extent, tell, turned
from loadtest.overhead.upstream import Upstream

FORWARDED = "forwarded"
MISSES = ("miss, memory", "miss, Redis")
WITHOUT_REDIS = "no Redis"

_SCRIPT = pathlib.Path(__file__).with_name("numbered.lua")
_KNOWN = 64
"""How many questions are asked again and again: more than there are connections, so no two ask the same at once."""
_NEVER_AGAIN = 0
_APART = 1_000_000
"""Between the first numbers of two windows whose questions are all new: more than a window asks."""
_AS_WANTED = 0.99
"""The share of answers that must have come as they were to come."""
_FILLED_WITHIN = 5
_ATTEMPTS = 3
"""Redis has its core with wrk and the upstream, and 30 ms: where others' work comes in between, its breaker may open."""


@dataclass(frozen=True, slots=True)
class Case:
    """A way of asking a gateway with a body: every answer is to say `outcome` in x-fovea-cache."""

    name: str
    gateway: Started
    body: Body
    outcome: str

    @property
    def different(self) -> int:
        """How many questions there are."""
        return _NEVER_AGAIN if self.outcome == "miss" else _KNOWN


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks, with a range of numbers for each window."""

    site: Site
    windows: Iterator[int]

    def window(self, case: Case, seconds: int, number: int) -> Window:
        """The window of `seconds` in round `number`; one in which too few answers came as they were to come is asked again.

        Raises BenchError: a request failed, or it was so every time.
        """
        for _ in range(_ATTEMPTS):
            window, outcomes = self._asked(case, seconds, number)
            if is_as_wanted(outcomes, case.outcome):
                return window
            told = f"{case.name}, {case.body.name}: answers were to be '{case.outcome}', and were {dict(outcomes)}"
            print(told, file=sys.stderr, flush=True)
        raise BenchError(f"{told}\n{last_words(case.gateway.log)}")

    def _asked(self, case: Case, seconds: int, number: int) -> tuple[Window, Mapping[str, int]]:
        pid = case.gateway.process.pid
        cpu_s = cpu_seconds(pid)
        try:
            said = self._said(case, seconds)
            load = told_by_wrk(said)
        except BenchError as error:
            raise BenchError(f"{case.name}, {case.body.name}: {error}\n{last_words(case.gateway.log)}") from error
        cpu_s = cpu_seconds(pid) - cpu_s
        return Window(number, case.body.name, case.name, load, cpu_s, load.requests), outcomes_by_wrk(said)

    def warm_up(self, case: Case) -> None:
        """Asks until the answers come as they are to come.

        Raises BenchError: they do not.
        """
        wait_until_it_answers(case.gateway, case.body, self.site)
        for _ in range(_FILLED_WITHIN - 1):
            if share(outcomes_by_wrk(self._said(case, WARM_UP_S)), case.outcome) == 1:
                return
        self.window(case, WARM_UP_S, number=0)

    def _said(self, case: Case, seconds: int) -> str:
        first = next(self.windows) * _APART if case.different == _NEVER_AGAIN else 0
        numbers = (str(first), str(case.different))
        return said_by_wrk(case.gateway.peer, case.body, _SCRIPT, seconds, str(case.body.file), self.site.key, *numbers)


def outcomes_by_wrk(output: str) -> Mapping[str, int]:
    """How often x-fovea-cache said what, from what numbered.lua has written.

    Raises BenchError: it is not what numbered.lua writes.
    """
    try:
        told: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        return {outcome: int(times) for outcome, times in told["outcomes"].items()}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"wrk did not tell what came of the look-ups: {output[-500:]!r}") from error


def share(outcomes: Mapping[str, int], outcome: str) -> float:
    """The share of answers that came as `outcome`."""
    return outcomes.get(outcome, 0) / max(1, sum(outcomes.values()))


def is_as_wanted(outcomes: Mapping[str, int], outcome: str) -> bool:
    """Whether no more than one of a hundred answers came otherwise than as `outcome`."""
    return share(outcomes, outcome) >= _AS_WANTED


def cache_windows(folder: pathlib.Path, upstream: Upstream, extent: Extent) -> Iterator[Window]:
    """All windows of the cache's part; gateways and Redis run from the first to the last.

    Raises BenchError: something does not start, a request failed, or answers did not come as they were to come.
    """
    with ExitStack() as stack:
        site = Site(folder, upstream)
        asker = Asker(site, count())
        cases = [*kept_cases(stack, site), *_away(stack, site, asker)]
        for case in cases:
            asker.warm_up(case)
        bodies = dict.fromkeys(case.body.name for case in cases)
        for number in range(extent.rounds):
            for body in bodies:
                for case in turned([case for case in cases if case.body.name == body], number):
                    window = asker.window(case, extent.seconds, number)
                    tell(window, case.body.unit)
                    yield window


def kept_cases(stack: ExitStack, site: Site) -> Iterator[Case]:
    """What is forwarded, what is kept in memory and in Redis, and what is not there."""
    redis_url = stack.enter_context(redis_server(site.folder)).url
    memory = _gateway(stack, site)
    both = _gateway(stack, site, redis_url)
    redis = _gateway(stack, site, redis_url, cache_mib=0)
    for body in numbered_bodies(site.folder):
        yield Case(FORWARDED, memory, body.forwarded, "bypass")
        yield Case("hit, memory", memory, body.cached, "hit")
        yield Case("hit, memory before Redis", both, body.cached, "hit")
        yield Case("hit, Redis alone", redis, body.cached, "hit")
        if body.cached.name == "text":
            for name, gateway in zip(MISSES, (memory, both), strict=True):
                yield Case(name, gateway, body.cached, "miss")


def _away(stack: ExitStack, site: Site, asker: Asker) -> list[Case]:
    """Questions that are not there, to gateways whose Redis went away, and to one that has none."""
    killed, paused = (stack.enter_context(redis_server(site.folder)) for _ in range(2))
    gateways = {
        WITHOUT_REDIS: _gateway(stack, site),
        "Redis killed": _gateway(stack, site, killed.url),
        "Redis paused": _gateway(stack, site, paused.url),
    }
    bodies = [numbered_text(site.folder, "one connection", 1), numbered_text(site.folder, "32 connections", 32)]
    cases = [Case(name, gateway, body, "miss") for body in bodies for name, gateway in gateways.items()]
    for case in cases:
        asker.warm_up(case)
    killed.kill()
    paused.pause()
    return cases


def _gateway(stack: ExitStack, site: Site, redis_url: str | None = None, cache_mib: int | None = None) -> Started:
    gateway = Gateway("Fovea", keys=True, metrics=True, redis_url=redis_url, cache_mib=cache_mib)
    return stack.enter_context(started(gateway.peer(site), site))


def cache_tables(windows: Sequence[Window]) -> str:
    """The tables of the cache's part: a body each, the misses', and those of a Redis that is away."""
    bodies = tuple(dict.fromkeys(window.body for window in windows))
    compared = {body: FORWARDED if FORWARDED in _cases(windows, body) else WITHOUT_REDIS for body in bodies}
    tables = [table(windows, body, "request", other) for body, other in compared.items()]
    return "\n".join((*tables, _misses(windows)))


def _cases(windows: Sequence[Window], body: str) -> tuple[str, ...]:
    return peers_in([window for window in windows if window.body == body])


def _misses(windows: Sequence[Window]) -> str:
    """What it takes to look up, to find nothing, and to store what was forwarded then: beside forwarding alone."""
    metric, known = cpu("request"), [window for window in windows if window.body == "text"]
    figures = {case: (over_rounds(known, case, metric), more(known, case, FORWARDED, metric)) for case in MISSES}
    lines = [row(["text", metric.name, f"more than {FORWARDED}, µs"]), row(["---", "--:", "--:"])]
    return "\n".join((*lines, *(row([case, *map(str, cells)]) for case, cells in figures.items()))) + "\n"
