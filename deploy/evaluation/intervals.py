"""How sure a mean is: intervals of 95 %."""

import math
import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

_Z = statistics.NormalDist().inv_cdf(0.975)
_RESAMPLES = 1000


class Interval(NamedTuple):
    """Both ends are within."""

    low: float
    high: float


def wilson(right: int, rows: int) -> Interval:
    """Of a share, `right` of `rows`, between 0 and 1 (Wilson, "Probable Inference", JASA 1927); of no rows all is possible."""
    if not rows:
        return Interval(0.0, 1.0)
    share, weight = right / rows, _Z**2 / rows
    centre = (share + weight / 2) / (1 + weight)
    reach = _Z / (1 + weight) * math.sqrt(share * (1 - share) / rows + weight / (4 * rows))
    # Where all are right, or none is, one end is exact, and rounding must not put it beside the share.
    return Interval(max(0.0, centre - reach) if right else 0.0, min(1.0, centre + reach) if right < rows else 1.0)


def bootstrap(values: Sequence[float], seed: int) -> Interval:
    """Of the mean of `values`: percentiles of 1,000 resamples (Efron, "Bootstrap Methods", 1979), for one seed the same."""
    dice = random.Random(seed)  # noqa: S311 - statistics, no secret
    means = sorted(statistics.fmean(dice.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return Interval(means[round(0.025 * (_RESAMPLES - 1))], means[round(0.975 * (_RESAMPLES - 1))])
