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


def test_an_engine_that_is_late_is_not_gone_until_it_has_been_three_times(model: ModelHealth) -> None:
    model.answered()
    states = []
    for _ in range(3):
        model.was_silent()
        states.append(model.state)
    assert states == [State.AVAILABLE, State.AVAILABLE, State.UNAVAILABLE]


def test_an_engine_that_is_late_and_sends_is_busy(model: ModelHealth) -> None:
    model.answered()
    for _ in range(10):
        model.was_silent()
        model.was_silent()
        model.sent_something()
    assert model.state == State.AVAILABLE


def test_an_answer_ends_a_row_of_silences(model: ModelHealth) -> None:
    for _ in range(5):
        model.was_silent()
        model.was_silent()
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


def test_an_outage_that_lasts_longer_than_expected_is_over_soon(model: ModelHealth, clock: Clock) -> None:
    model.failed()
    clock.now_s += 500
    assert model.retry_after_s == 5
