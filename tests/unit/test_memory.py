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


@pytest.mark.parametrize(("held_mib", "given_back_each_time"), [(100, 1), (95, 0)])
def test_each_burst_has_its_own_and_what_is_less_has_none(
    given_back: mock.Mock, held_mib: int, given_back_each_time: int
) -> None:
    holding = memory()
    for _ in range(100):
        holding.take(held_mib * MIB)
        holding.give_back(held_mib * MIB)
    assert given_back.call_count == 100 * given_back_each_time
