"""Rounds: how many, how long a turn is, whose turn comes first, and what is told meanwhile."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from loadtest.overhead.measure import Window
from loadtest.overhead.report import figure

WARM_UP_S = 1

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Extent:
    """How many rounds, and how many seconds a turn is."""

    rounds: int
    seconds: int


def turned(those: Sequence[_T], number: int) -> list[_T]:
    """Those whose turns a round has, of which round by round another one is the first."""
    first = number % len(those)
    return [*those[first:], *those[:first]]


def tell(window: Window, unit: str) -> None:
    """Says what a turn came to, for whoever waits."""
    cost = f"{figure(window.cpu_us)} µs per {unit}, {figure(window.per_second)} requests/s"
    print(f"round {window.round + 1}  {window.body:<22}  {window.peer:<42}  {cost}", file=sys.stderr, flush=True)
