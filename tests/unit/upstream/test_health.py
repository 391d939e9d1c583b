import asyncio
from collections.abc import Callable

import pytest

from gateway.upstream.health import EXPECTED_OUTAGE_S, ModelHealth, State


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def model(clock: Clock) -> ModelHealth:
    return ModelHealth(clock)


def test_nothing_is_known_at_first(model: ModelHealth) -> None:
    assert model.state == State.UNKNOWN


def test_an_engine_that_is_late_is_not_gone_until_it_has_been_three_times(model: ModelHealth, clock: Clock) -> None:
    model.answered()
    states = []
    for _ in range(3):
        model.was_silent(clock.now_s)
        states.append(model.state)
    assert states == [State.AVAILABLE, State.AVAILABLE, State.UNAVAILABLE]


def test_an_engine_that_is_late_and_sends_is_busy(model: ModelHealth, clock: Clock) -> None:
    model.answered()
    for _ in range(10):
        model.was_silent(clock.now_s)
        model.was_silent(clock.now_s)
        model.sent_something()
    assert model.state == State.AVAILABLE


def test_an_answer_ends_a_row_of_silences(model: ModelHealth, clock: Clock) -> None:
    for _ in range(5):
        model.was_silent(clock.now_s)
        model.was_silent(clock.now_s)
        model.answered()
    assert model.state == State.AVAILABLE


def test_the_first_outage_is_expected_to_last_as_long_as_a_start(model: ModelHealth, clock: Clock) -> None:
    model.failed()
    assert model.retry_after_s == EXPECTED_OUTAGE_S
    clock.now_s += 20
    model.failed()
    assert model.retry_after_s == EXPECTED_OUTAGE_S - 20


def test_the_next_is_expected_to_last_as_long_as_the_last(model: ModelHealth, clock: Clock) -> None:
    model.failed()
    clock.now_s += 33
    model.answered()
    clock.now_s += 1000
    model.failed()
    assert model.retry_after_s == 33


def test_a_hiccup_teaches_nothing_about_outages(model: ModelHealth, clock: Clock) -> None:
    model.failed()
    clock.now_s += 3
    model.answered()
    model.failed()
    assert model.retry_after_s == EXPECTED_OUTAGE_S


def test_an_outage_that_lasts_longer_than_expected_is_over_soon(model: ModelHealth, clock: Clock) -> None:
    model.failed()
    clock.now_s += 500
    assert model.retry_after_s == 5


def test_an_engine_whose_answer_broke_off_and_that_is_late_is_gone(model: ModelHealth, clock: Clock) -> None:
    model.answered()
    states = []
    for happens in (model.broke_off, lambda: model.was_silent(clock.now_s)):
        happens()
        states.append(model.state)
    assert states == [State.AVAILABLE, State.UNAVAILABLE]


def test_a_check_from_before_the_answer_broke_off_proves_nothing(model: ModelHealth, clock: Clock) -> None:
    model.answered()
    asked_s = clock.now_s
    clock.now_s += 4
    model.broke_off()
    model.was_silent(asked_s)
    assert model.state == State.AVAILABLE


def outcome_of_waiting(model: ModelHealth, happens: Callable[[], None]) -> str:
    """What becomes of somebody who waits for an answer while this happens."""

    async def wait() -> str:
        try:
            async with model.while_somebody_is_there():
                asyncio.get_running_loop().call_soon(happens)
                await asyncio.sleep(0.2)
        except TimeoutError:
            return "ended"
        return "went on"

    return asyncio.run(wait())


def test_who_waits_is_ended_once_nobody_is_there(model: ModelHealth, clock: Clock) -> None:
    model.broke_off()
    assert outcome_of_waiting(model, lambda: model.was_silent(clock.now_s)) == "ended"


def test_who_waits_goes_on_when_a_replica_is_not_well_or_a_check_is_late(model: ModelHealth, clock: Clock) -> None:
    assert outcome_of_waiting(model, model.failed) == "went on"
    assert outcome_of_waiting(model, lambda: model.was_silent(clock.now_s)) == "went on"


def test_who_has_waited_is_not_touched_by_a_later_outage(model: ModelHealth, clock: Clock) -> None:
    async def wait() -> str:
        async with model.while_somebody_is_there():
            pass
        model.broke_off()
        model.was_silent(clock.now_s)
        await asyncio.sleep(0)
        return "went on"

    assert asyncio.run(wait()) == "went on"
