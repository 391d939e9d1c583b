"""Medians over the rounds, ratios within a round."""

from dataclasses import astuple

import pytest

from loadtest.overhead.measure import Load, Window
from loadtest.overhead.report import Spread, cpu, figure, more, over_rounds, peers_in, ratio, spread, table


def window(number: int, peer: str, cpu_us: float, body: str = "text") -> Window:
    return Window(number, body, peer, Load(1000, 2.0, 8.0, 20.0), cpu_s=cpu_us / 1000, units=1000)


WINDOWS = [
    window(0, "router", 50),
    window(0, "ours", 100),
    window(1, "ours", 400),
    window(1, "router", 100),
    window(2, "router", 60),
    window(2, "ours", 90),
]


def test_a_spread_is_the_median_with_its_bounds() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([4.0, 1.0]).median == 2.5


def test_a_figure_is_taken_over_the_rounds() -> None:
    assert astuple(over_rounds(WINDOWS, "ours", cpu("request"))) == pytest.approx((100, 90, 400))


def test_a_ratio_is_taken_within_each_round() -> None:
    assert astuple(ratio(WINDOWS, "ours", "router", cpu("request"))) == pytest.approx((2, 1.5, 4))


def test_a_difference_is_taken_within_each_round() -> None:
    assert astuple(more(WINDOWS, "ours", "router", cpu("request"))) == pytest.approx((50, 30, 300))


@pytest.mark.parametrize(
    ("value", "written"), [(0.1234, "0.12"), (9.994, "9.99"), (12.34, "12.3"), (436.4, "436"), (12345.6, "12,346")]
)
def test_figures_have_three_digits_that_count(value: float, written: str) -> None:
    assert figure(value) == written


def test_peers_stay_in_the_order_of_the_first_round() -> None:
    assert peers_in(WINDOWS) == ("router", "ours")


def test_a_table_is_of_one_body() -> None:
    lines = table([*WINDOWS, window(0, "ours", 7, body="stream")], "text", "request", "router").splitlines()
    assert lines[0].startswith("| text | CPU per request, µs | times router's | requests/s |")
    assert lines[1] == "| --- | --: | --: | --: | --: | --: | --: | --: | --: |"
    assert lines[2].startswith("| router | 60.0 (50.0..100) | 1.00 (1.00..1.00) | 500 (500..500) |")
    assert lines[3].startswith("| ours | 100 (90.0..400) | 2.00 (1.50..4.00) |")
    assert len(lines) == 4
