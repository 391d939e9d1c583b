import asyncio
from collections.abc import Callable

import pytest

from gateway.upstream.health import EXPECTED_OUTAGE_S, EngineHealth, ModelHealth, State


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(clock: Clock) -> EngineHealth:
    return EngineHealth("http://engine", clock)


def test_nothing_is_known_at_first(engine: EngineHealth) -> None:
    assert engine.state == State.UNKNOWN


def test_an_engine_that_is_late_is_not_gone_until_it_has_been_three_times(engine: EngineHealth, clock: Clock) -> None:
    engine.answered()
    states = []
    for _ in range(3):
        engine.was_silent(clock.now_s)
        states.append(engine.state)
    assert states == [State.AVAILABLE, State.AVAILABLE, State.UNAVAILABLE]


def test_an_engine_that_is_late_and_sends_is_busy(engine: EngineHealth, clock: Clock) -> None:
    engine.answered()
    for _ in range(10):
        engine.was_silent(clock.now_s)
        engine.was_silent(clock.now_s)
        engine.sent_something()
    assert engine.state == State.AVAILABLE


def test_an_answer_ends_a_row_of_silences(engine: EngineHealth, clock: Clock) -> None:
    for _ in range(5):
        engine.was_silent(clock.now_s)
        engine.was_silent(clock.now_s)
        engine.answered()
    assert engine.state == State.AVAILABLE


def test_the_first_outage_is_expected_to_last_as_long_as_a_start(engine: EngineHealth, clock: Clock) -> None:
    engine.failed()
    assert engine.retry_after_s == EXPECTED_OUTAGE_S
    clock.now_s += 20
    engine.failed()
    assert engine.retry_after_s == EXPECTED_OUTAGE_S - 20


def test_the_next_is_expected_to_last_as_long_as_the_last(engine: EngineHealth, clock: Clock) -> None:
    engine.failed()
    clock.now_s += 33
    engine.answered()
    clock.now_s += 1000
    engine.failed()
    assert engine.retry_after_s == 33


def test_a_hiccup_teaches_nothing_about_outages(engine: EngineHealth, clock: Clock) -> None:
    engine.failed()
    clock.now_s += 3
    engine.answered()
    engine.failed()
    assert engine.retry_after_s == EXPECTED_OUTAGE_S


def test_an_outage_that_lasts_longer_than_expected_is_over_soon(engine: EngineHealth, clock: Clock) -> None:
    engine.failed()
    clock.now_s += 500
    assert engine.retry_after_s == 5


def test_an_engine_whose_answer_broke_off_and_that_is_late_is_gone(engine: EngineHealth, clock: Clock) -> None:
    engine.answered()
    states = []
    for happens in (engine.broke_off, lambda: engine.was_silent(clock.now_s)):
        happens()
        states.append(engine.state)
    assert states == [State.AVAILABLE, State.UNAVAILABLE]


def test_a_check_from_before_the_answer_broke_off_proves_nothing(engine: EngineHealth, clock: Clock) -> None:
    engine.answered()
    asked_s = clock.now_s
    clock.now_s += 4
    engine.broke_off()
    engine.was_silent(asked_s)
    assert engine.state == State.AVAILABLE


def outcome_of_waiting(engine: EngineHealth, happens: Callable[[], None]) -> str:
    """What becomes of somebody who waits for an answer while this happens."""

    async def wait() -> str:
        try:
            async with engine.while_somebody_is_there():
                asyncio.get_running_loop().call_soon(happens)
                await asyncio.sleep(0.2)
        except TimeoutError:
            return "ended"
        return "went on"

    return asyncio.run(wait())


def test_who_waits_is_ended_once_nobody_is_there(engine: EngineHealth, clock: Clock) -> None:
    engine.broke_off()
    assert outcome_of_waiting(engine, lambda: engine.was_silent(clock.now_s)) == "ended"


def test_who_waits_goes_on_when_a_replica_is_not_well_or_a_check_is_late(engine: EngineHealth, clock: Clock) -> None:
    assert outcome_of_waiting(engine, engine.failed) == "went on"
    assert outcome_of_waiting(engine, lambda: engine.was_silent(clock.now_s)) == "went on"


def test_who_has_waited_is_not_touched_by_a_later_outage(engine: EngineHealth, clock: Clock) -> None:
    async def wait() -> str:
        async with engine.while_somebody_is_there():
            pass
        engine.broke_off()
        engine.was_silent(clock.now_s)
        await asyncio.sleep(0)
        return "went on"

    assert asyncio.run(wait()) == "went on"


def test_a_model_is_available_while_one_of_its_engines_is() -> None:
    one, other = EngineHealth("http://one"), EngineHealth("http://other")
    model = ModelHealth((one, other))
    states = [model.state]
    for happens in (one.answered, other.failed, one.failed):
        happens()
        states.append(model.state)
    assert states == [State.UNKNOWN, State.AVAILABLE, State.AVAILABLE, State.UNAVAILABLE]


def test_trying_again_makes_sense_soon_while_another_engine_is_there(clock: Clock) -> None:
    one, other = EngineHealth("http://one", clock), EngineHealth("http://other", clock)
    model = ModelHealth((one, other))
    one.failed()
    assert model.retry_after_s == 5
    clock.now_s += 20
    other.failed()
    assert model.retry_after_s == EXPECTED_OUTAGE_S - 20


def test_the_only_engine_is_waited_for_as_long_as_its_outages_last(engine: EngineHealth) -> None:
    engine.answered()
    assert ModelHealth((engine,)).retry_after_s == EXPECTED_OUTAGE_S
