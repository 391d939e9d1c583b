"""Free pages are given back when a burst of large bodies is over: once, and after nothing less than a burst."""

from collections.abc import Iterator
from unittest import mock

import pytest

from gateway.memory import BodyMemory

MIB = 1024**2


@pytest.fixture
def given_back() -> Iterator[mock.Mock]:
    with mock.patch("gateway.memory.give_free_pages_back") as given_back:
        yield given_back


def memory() -> BodyMemory:
    return BodyMemory(1024 * MIB, lambda _: None)


def test_free_pages_are_given_back_once_when_most_of_a_burst_is_over(given_back: mock.Mock) -> None:
    burst = memory()
    burst.take(96 * MIB)
    burst.give_back(63 * MIB)
    assert given_back.call_count == 0, "33 MiB of it are held still"
    burst.give_back(MIB)
    assert given_back.call_count == 1
    burst.give_back(32 * MIB)
    assert given_back.call_count == 1, "what is left of it is no burst"


def test_each_burst_has_its_own(given_back: mock.Mock) -> None:
    bursts = memory()
    for _ in range(3):
        bursts.take(100 * MIB)
        bursts.give_back(100 * MIB)
    assert given_back.call_count == 3


def test_what_is_held_and_let_go_of_in_small_parts_is_no_burst(given_back: mock.Mock) -> None:
    steady = memory()
    for _ in range(100):
        steady.take(95 * MIB)
        steady.give_back(95 * MIB)
    assert given_back.call_count == 0
