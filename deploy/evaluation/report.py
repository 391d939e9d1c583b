"""Marks -> scores, as a table and as JSON."""

import json
import pathlib
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from deploy.evaluation.answers import Answer, Refusal
from deploy.evaluation.dataset import Row
from deploy.evaluation.intervals import bootstrap, wilson
from deploy.evaluation.marking import Mark

_FAILURES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Score:
    """The mean of one metric over all rows (`tag` and `of` empty), or over those whose tag `tag` is `of`, with its 95 %."""

    metric: str
    tag: str
    of: str
    value: float
    low: float
    high: float
    rows: int
    interval: str
    """`wilson` of what is right or wrong, `bootstrap` of what lies between."""

    @property
    def is_share(self) -> bool:
        return self.interval == "wilson"


@dataclass(frozen=True, slots=True)
class Marked:
    """A row, what came of it, and its marks."""

    row: Row
    answer: Answer
    marks: tuple[Mark, ...]

    @property
    def mean(self) -> float:
        """Of all its marks: what the running score is made of."""
        return statistics.fmean(mark.value for mark in self.marks)


def scores(marked: Sequence[Marked], seed: int = 0) -> list[Score]:
    """Every metric over all rows, then over the rows of each value of each tag, in the order of the dataset."""
    grouped: dict[tuple[str, str], list[Mark]] = {("", ""): []}
    for one in marked:
        for group in (("", ""), *one.row.tags.items()):
            grouped.setdefault(group, []).extend(one.marks)
    tags = list(dict.fromkeys(tag for tag, _ in grouped))
    groups = sorted(grouped.items(), key=lambda item: tags.index(item[0][0]))
    metrics = list(dict.fromkeys((mark.metric, mark.is_share) for mark in grouped["", ""]))
    return [score for (tag, of), marks in groups for score in _of_group(marks, metrics, tag, of, seed)]


def _of_group(marks: Sequence[Mark], metrics: Sequence[tuple[str, bool]], tag: str, of: str, seed: int) -> Iterator[Score]:
    for metric, is_share in metrics:
        values = [mark.value for mark in marks if (mark.metric, mark.is_share) == (metric, is_share)]
        if not values:
            continue
        interval = wilson(round(sum(values)), len(values)) if is_share else bootstrap(values, seed)
        kind = "wilson" if is_share else "bootstrap"
        yield Score(metric, tag, of, statistics.fmean(values), *interval, len(values), kind)


def score_table(all_scores: Sequence[Score]) -> Table:
    """A row for each score; sections by tag."""
    table = Table(box=None, pad_edge=False)
    tagged = any(score.tag for score in all_scores)
    for heading in (*(("ROWS WITH",) if tagged else ()), "METRIC"):
        table.add_column(heading, overflow="fold")
    for heading in ("VALUE", "95 %", "ROWS"):
        table.add_column(heading, justify="right", no_wrap=True)
    before = ("", "")
    for score in all_scores:
        group = (score.tag, score.of)
        if group != before:
            table.add_section()
        name = f"{score.tag}: {score.of}" if score.tag else "all"
        is_first = group != before or score is all_scores[0]
        table.add_row(*((escape(name) if is_first else "",) if tagged else ()), escape(score.metric), *_figures(score))
        before = group
    return table


def _figures(score: Score) -> tuple[str, str, str]:
    return figure(score.value, score), f"{figure(score.low, score)} to {figure(score.high, score)}", str(score.rows)


def figure(value: float, score: Score) -> str:
    """Shares in percent, means as they are."""
    return f"{100 * value:.1f} %" if score.is_share else f"{value:.3f}"


def no_box_is_met(all_scores: Sequence[Score]) -> bool:
    """Whether there are boxes, and none that was answered touches its truth."""
    overlaps = [score.value for score in all_scores if not score.is_share and score.metric.endswith(" IoU")]
    return bool(overlaps) and not any(overlaps)


def failures(marked: Sequence[Marked]) -> list[tuple[str, Refusal]]:
    """The ids of the rows that have no answer, and why."""
    return [(one.row.id, one.answer.error) for one in marked if one.answer.error]


def failure_table(failed: Sequence[tuple[str, Refusal]]) -> Table:
    """The first rows that have no answer, and why."""
    table = Table(box=None, pad_edge=False)
    table.add_column("ROW", no_wrap=True)
    table.add_column("STATUS", justify="right")
    table.add_column("CODE", no_wrap=True)
    table.add_column("MESSAGE", overflow="fold")
    for name, error in failed[:_FAILURES_SHOWN]:
        table.add_row(escape(name), str(error.status or "-"), escape(error.code), escape(error.message))
    if len(failed) > _FAILURES_SHOWN:
        table.add_row(f"... and {len(failed) - _FAILURES_SHOWN} more", "", "", "")
    return table


def as_document(marked: Sequence[Marked], all_scores: Sequence[Score], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `scores.json` holds; `asked` says of what."""
    answered = [one.answer for one in marked if not one.answer.error]
    failed = failures(marked)
    return {
        **asked,
        "rows": len(marked),
        "failed": [{"id": name, **error.model_dump()} for name, error in failed],
        "scores": [asdict(score) for score in all_scores],
        "latency_s": _latency(answered),
        "tokens": {
            "prompt": sum(answer.prompt_tokens or 0 for answer in answered),
            "completion": sum(answer.completion_tokens or 0 for answer in answered),
        },
        "finish_reasons": Counter(answer.finish_reason or "unknown" for answer in answered),
        "models": Counter(answer.model or "unknown" for answer in answered),
        "cache": Counter(answer.cache or "unknown" for answer in answered),
    }


def _latency(answered: Sequence[Answer]) -> dict[str, float] | None:
    """Median and 95th percentile of what was asked; nothing of no answers."""
    if not answered:
        return None
    took = sorted(answer.latency_s for answer in answered)
    return {"median": statistics.median(took), "p95": took[max(0, -(-len(took) * 95 // 100) - 1)]}


def write_json(document: Mapping[str, Any], file: pathlib.Path) -> None:
    """Writes `document` whole, or leaves the file as it was."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    new.replace(file)
