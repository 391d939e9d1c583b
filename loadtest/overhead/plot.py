"""The CPU of every peer, body by body, as a picture."""

import pathlib
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib import pyplot as plt

from loadtest.overhead.bodies import Body
from loadtest.overhead.measure import Window
from loadtest.overhead.report import cpu, figure, over_rounds, peers_in

_OURS = "#2a6f97"
_OTHERS = "#a3a3a3"


def plot(windows: Sequence[Window], bodies: Sequence[Body], file: pathlib.Path) -> None:
    """Draws a bar for each peer's median, with a whisker from the least to the most, and writes a PNG."""
    mpl.use("Agg")
    picture, axes = plt.subplots(len(bodies), 1, figsize=(9, 2.6 * len(bodies)), layout="constrained")
    for axis, body in zip(axes, bodies, strict=True):
        _bars(axis, [window for window in windows if window.body == body.name], body)
    picture.savefig(file, dpi=150)
    plt.close(picture)


def _bars(axis: plt.Axes, windows: Sequence[Window], body: Body) -> None:
    metric = cpu(body.unit)
    peers = peers_in(windows)
    spreads = [over_rounds(windows, peer, metric) for peer in peers]
    medians = [spread.median for spread in spreads]
    whiskers = [[spread.median - spread.least for spread in spreads], [spread.most - spread.median for spread in spreads]]
    colours = [_OURS if peer.startswith("Fovea") else _OTHERS for peer in peers]
    bars = axis.barh(peers, medians, xerr=whiskers, color=colours, error_kw={"lw": 1})
    axis.bar_label(bars, [figure(median) for median in medians], padding=6)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_title(f"{body.name}: {metric.name}", loc="left")
    axis.spines[["top", "right"]].set_visible(False)
