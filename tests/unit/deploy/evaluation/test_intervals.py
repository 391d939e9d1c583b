import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.evaluation.intervals import bootstrap, wilson


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    [
        # Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion" (2001), and by hand.
        (0, 10, 0, 0.2775),
        (10, 10, 0.7225, 1),
        (5, 10, 0.2366, 0.7634),
        (950, 1000, 0.9347, 0.9619),
        (0, 0, 0, 1),
    ],
)
def test_wilson_s_interval_is_the_known_one(right: int, rows: int, low: float, high: float) -> None:
    assert wilson(right, rows) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 5000), st.data())
def test_a_share_is_within_its_interval(rows: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, rows))
    low, high = wilson(right, rows)
    assert 0 <= low <= right / rows <= high <= 1


def test_a_bootstrap_is_the_same_for_the_same_seed_and_holds_the_mean() -> None:
    values = [number % 11 / 10 for number in range(200)]
    low, high = bootstrap(values, seed=1)
    assert (low, high) == bootstrap(values, seed=1)
    assert (low, high) != bootstrap(values, seed=2)
    assert low < statistics.fmean(values) < high
    # The normal approximation: 1.96 standard errors to each side.
    error = statistics.stdev(values) / len(values) ** 0.5
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)


def test_a_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap([0.25] * 7, seed=0) == (0.25, 0.25)
