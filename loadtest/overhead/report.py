"""Medians over the rounds, ratios within a round, and tables of both."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from loadtest.overhead.measure import Window

_WHOLE_FROM = 100
_ONE_PLACE_FROM = 10


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a window."""

    name: str
    of: Callable[[Window], float]


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds: its median, and the least and the most that it was."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{figure(self.median)} ({figure(self.least)}..{figure(self.most)})"


def cpu(unit: str) -> Metric:
    """CPU by what it is counted by."""
    return Metric(f"CPU per {unit}, µs", lambda window: window.cpu_us)


def metrics(unit: str) -> tuple[Metric, ...]:
    """Every figure of the report."""
    return (
        cpu(unit),
        Metric("requests/s", lambda window: window.per_second),
        Metric("p50, ms", lambda window: window.load.p50_ms),
        Metric("p99, ms", lambda window: window.load.p99_ms),
    )


def spread(values: Iterable[float]) -> Spread:
    """The spread of figures, of which there is one at least."""
    known = sorted(values)
    return Spread(statistics.median(known), known[0], known[-1])


def over_rounds(windows: Sequence[Window], peer: str, metric: Metric) -> Spread:
    """A peer's figure in windows of one body."""
    return spread(metric.of(window) for window in windows if window.peer == peer)


def ratio(windows: Sequence[Window], peer: str, other: str, metric: Metric) -> Spread:
    """A peer's figure in windows of one body, as a multiple of `other`'s in the same round."""
    of_other = {window.round: metric.of(window) for window in windows if window.peer == other}
    return spread(metric.of(window) / of_other[window.round] for window in windows if window.peer == peer)


def more(windows: Sequence[Window], peer: str, other: str, metric: Metric) -> Spread:
    """By how much a peer's figure in windows of one body is above `other`'s in the same round."""
    of_other = {window.round: metric.of(window) for window in windows if window.peer == other}
    return spread(metric.of(window) - of_other[window.round] for window in windows if window.peer == peer)


def table(windows: Sequence[Window], body: str, unit: str, other: str) -> str:
    """A Markdown table of one body: a line for each peer in the order of the first round's windows, ratios to `other`."""
    mine = [window for window in windows if window.body == body]
    columns = metrics(unit)
    head = [body, *(cell for metric in columns for cell in (metric.name, f"times {other}'s"))]
    lines = [row(head), row(["---", *["--:"] * (len(head) - 1)])]
    for peer in peers_in(mine):
        figures = ((over_rounds(mine, peer, metric), ratio(mine, peer, other, metric)) for metric in columns)
        lines.append(row([peer, *(str(cell) for pair in figures for cell in pair)]))
    return "\n".join(lines) + "\n"


def peers_in(windows: Sequence[Window]) -> tuple[str, ...]:
    """The peers, each once, in the order in which they come first."""
    return tuple(dict.fromkeys(window.peer for window in windows))


def figure(value: float) -> str:
    """A figure with three digits that count, thousands in groups."""
    if abs(value) >= _WHOLE_FROM:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= _ONE_PLACE_FROM else f"{value:.2f}"


def row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
