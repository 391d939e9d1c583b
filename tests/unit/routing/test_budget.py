"""How many requests may go on to another model."""

import weakref

from gateway.errors import EngineFailed
from gateway.routing.budget import RetryBudget


def test_what_one_model_leaves_behind_may_all_go_on_at_once() -> None:
    budget = RetryBudget(8)
    assert [budget.take(EngineFailed("x")) for _ in range(9)] == [True] * 8 + [False]


def test_for_long_a_fifth_of_the_requests_may() -> None:
    budget = RetryBudget(4)
    went_on = 0
    for _ in range(1000):
        budget.earn()
        went_on += budget.take(EngineFailed("x"))
    assert abs(went_on - (4 + 200)) <= 1  # fifths are no binary fractions


def test_no_more_is_saved_up_than_there_was_to_begin_with() -> None:
    budget = RetryBudget(2)
    for _ in range(100):
        budget.earn()
    assert [budget.take(EngineFailed("x")) for _ in range(3)] == [True, True, False]


def test_all_who_waited_for_one_answer_go_on_for_one() -> None:
    budget = RetryBudget(2)
    shared, own = EngineFailed("x"), EngineFailed("x")
    assert [budget.take(shared) for _ in range(100)] == [True] * 100
    assert [budget.take(failure) for failure in (own, EngineFailed("x"), shared, own)] == [True, False, True, True]


def test_a_failure_is_not_kept() -> None:
    budget = RetryBudget(2)
    failure = EngineFailed("x")
    known = weakref.ref(failure)
    assert budget.take(failure)
    del failure
    assert known() is None
