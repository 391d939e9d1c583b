"""What wrk tells is taken only if every request was answered."""

import json

import pytest

from loadtest.overhead.measure import Load, Window, told_by_wrk
from loadtest.overhead.processes import BenchError

NO_ERRORS = {"connect": 0, "read": 0, "write": 0, "timeout": 0, "status": 0}


def output(requests: int = 1200, **errors: int) -> str:
    told = {"requests": requests, "microseconds": 2_000_000, "p50_us": 8125, "p99_us": 20500, "errors": NO_ERRORS | errors}
    return f"Running 2s test @ http://127.0.0.1:1\n  1 threads and 32 connections\n{json.dumps(told)}\n"


def test_the_last_line_is_what_counts() -> None:
    assert told_by_wrk(output()) == Load(requests=1200, seconds=2.0, p50_ms=8.125, p99_ms=20.5)


@pytest.mark.parametrize("kind", NO_ERRORS)
def test_one_failed_request_fails_the_run(kind: str) -> None:
    with pytest.raises(BenchError, match=f"'{kind}': 1"):
        told_by_wrk(output(**{kind: 1}))


def test_no_request_at_all_fails_the_run() -> None:
    with pytest.raises(BenchError, match="not one request"):
        told_by_wrk(output(requests=0))


@pytest.mark.parametrize("said", ["", "unable to connect to 127.0.0.1:1", '{"requests": 1}', "17"])
def test_other_words_fail_the_run(said: str) -> None:
    with pytest.raises(BenchError, match="did not tell"):
        told_by_wrk(said)


def test_a_window_divides_the_cpu_by_what_was_done() -> None:
    window = Window(0, "stream", "nginx", Load(100, 2.0, 1.0, 2.0), cpu_s=0.064, units=6400)
    assert window.cpu_us == pytest.approx(10.0)
    assert window.per_second == 50.0
