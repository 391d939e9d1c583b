"""Scores as a picture."""

import pathlib
from collections.abc import Sequence
from typing import Any

from deploy.evaluation.report import Score

_METRIC_INCHES = 0.32
_SPREAD = 0.7
"""Of the room that a metric has, what the values of a tag share."""


class NoMatplotlib(Exception):
    """There is nothing to draw with; the message says what to install."""


def plot(scores: Sequence[Score], title: str, file: pathlib.Path) -> None:
    """Draws every score with its interval, a panel for all rows and one for each tag, and writes a PNG.

    Raises NoMatplotlib: it is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - a part of `fovea[evaluate]` alone
        from matplotlib import pyplot as plt  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise NoMatplotlib('scores.png is not drawn without matplotlib: pip install "fovea[evaluate]"') from error
    mpl.use("Agg")
    tags = list(dict.fromkeys(score.tag for score in scores))
    panels = [[score for score in scores if score.tag == tag] for tag in tags]
    heights = [1 + _METRIC_INCHES * len(panel) for panel in panels]
    picture, axes = plt.subplots(
        len(panels), 1, figsize=(9, sum(heights)), height_ratios=heights, layout="constrained", squeeze=False
    )
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        _panel(axis, panel)
    picture.suptitle(title)
    picture.savefig(file, dpi=150)
    plt.close(picture)


def _panel(axis: Any, scores: Sequence[Score]) -> None:
    metrics = list(dict.fromkeys(score.metric for score in scores))
    values = list(dict.fromkeys(score.of for score in scores))
    for number, value in enumerate(values):
        series = [score for score in scores if score.of == value]
        aside = _SPREAD * ((number + 0.5) / len(values) - 0.5)
        places = [metrics.index(score.metric) + aside for score in series]
        middles = [score.value for score in series]
        arms = [[score.value - score.low for score in series], [score.high - score.value for score in series]]
        axis.errorbar(middles, places, xerr=[[max(0, arm) for arm in side] for side in arms], fmt="o", capsize=3, label=value)
    axis.set_yticks(range(len(metrics)), metrics)
    axis.set_ylim(len(metrics) - 0.5, -0.5)
    axis.set_xlim(-0.02, 1.02)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if scores[0].tag:
        axis.set_title(scores[0].tag, loc="left")
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
