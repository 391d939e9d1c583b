"""Answers come as they were to come, or nothing is reported; what is reported stands beside what was forwarded."""

import json

import pytest

from loadtest.overhead.cache import FORWARDED, MISSES, WITHOUT_REDIS, cache_tables, is_as_wanted, outcomes_by_wrk
from loadtest.overhead.measure import Load, Window
from loadtest.overhead.processes import BenchError


def window(number: int, case: str, cpu_us: float, body: str = "text") -> Window:
    return Window(number, body, case, Load(1000, 2.0, 8.0, 20.0), cpu_s=cpu_us / 1000, units=1000)


WINDOWS = [
    window(number, case, cpu_us + 10 * number, body)
    for number in range(3)
    for body, case, cpu_us in [
        ("text", FORWARDED, 400),
        ("text", "hit, memory", 200),
        ("text", MISSES[0], 450),
        ("text", MISSES[1], 800 + 10 * number),
        ("1 MB image", FORWARDED, 2000),
        ("1 MB image", "hit, memory", 1500),
        ("one connection", WITHOUT_REDIS, 600),
        ("one connection", "Redis killed", 600),
    ]
]


def output(outcomes: object) -> str:
    return f"Running 2s test @ http://127.0.0.1:1\n{json.dumps({'requests': 1200, 'outcomes': outcomes})}\n"


def test_what_came_of_the_look_ups_is_in_the_last_line() -> None:
    assert outcomes_by_wrk(output({"hit": 1199, "joined": 1})) == {"hit": 1199, "joined": 1}


@pytest.mark.parametrize("said", ["", "unable to connect", '{"requests": 1}', "17", output([]), output({"hit": "often"})])
def test_other_words_fail_the_run(said: str) -> None:
    with pytest.raises(BenchError, match="did not tell what came of the look-ups"):
        outcomes_by_wrk(said)


@pytest.mark.parametrize(
    ("outcomes", "wanted"),
    [({"hit": 990, "miss": 10}, True), ({"hit": 989, "miss": 11}, False), ({"unsaid": 1000}, False), ({}, False)],
)
def test_one_answer_of_a_hundred_may_come_otherwise(outcomes: dict[str, int], *, wanted: bool) -> None:
    assert is_as_wanted(outcomes, "hit") is wanted


def test_hits_stand_beside_the_same_forwarded_and_a_redis_that_is_away_beside_none() -> None:
    text, image, one, _ = cache_tables(WINDOWS).split("\n\n")
    assert f"times {FORWARDED}'s" in text
    assert "| hit, memory | 210 (200..220) | 0.51 (0.50..0.52) |" in text
    assert "| hit, memory | 1,510 (1,500..1,520) | 0.75 (0.75..0.75) |" in image
    assert f"times {WITHOUT_REDIS}'s" in one
    assert "| Redis killed | 610 (600..620) | 1.00 (1.00..1.00) |" in one


def test_a_miss_is_told_by_what_it_takes_more_than_forwarding_in_the_same_round() -> None:
    lines = cache_tables(WINDOWS).split("\n\n")[-1].splitlines()
    assert lines[0] == "| text | CPU per request, µs | more than forwarded, µs |"
    assert lines[2:] == [
        "| miss, memory | 460 (450..470) | 50.0 (50.0..50.0) |",
        "| miss, Redis | 820 (800..840) | 410 (400..420) |",
    ]
