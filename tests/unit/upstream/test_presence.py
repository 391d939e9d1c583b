"""Whether a provider answers, by a clock of ours."""

from dataclasses import dataclass

from gateway.upstream.health import State
from gateway.upstream.presence import Presence


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


def failing(times: int, back_in_s: float | None = None) -> tuple[Presence, Clock]:
    clock = Clock()
    presence = Presence(clock)
    for _ in range(times):
        presence.failed(back_in_s)
    return presence, clock


def test_until_it_has_answered_nothing_is_known() -> None:
    presence = Presence(Clock())
    states = [presence.state]
    presence.answered()
    states.append(presence.state)
    presence.failed()
    states.append(presence.state)
    assert states == [State.UNKNOWN, State.AVAILABLE, State.UNKNOWN]


def test_three_failures_in_a_row_are_an_outage_of_half_a_minute() -> None:
    assert failing(2)[0].state == State.UNKNOWN
    presence, clock = failing(3)
    assert (presence.state, presence.retry_after_s) == (State.UNAVAILABLE, 30)
    clock.now_s += 29.5
    assert (presence.state, presence.retry_after_s) == (State.UNAVAILABLE, 1)
    clock.now_s += 1
    assert presence.state == State.UNKNOWN


def test_an_answer_between_begins_the_count_anew() -> None:
    presence, _ = failing(2)
    presence.answered()
    presence.failed()
    presence.failed()
    assert presence.state == State.UNKNOWN


def test_an_answer_ends_an_outage() -> None:
    presence, _ = failing(3)
    presence.answered()
    assert presence.state == State.AVAILABLE


def test_after_an_outage_one_failure_is_enough() -> None:
    presence, clock = failing(3)
    clock.now_s += 31
    presence.failed()
    assert presence.state == State.UNAVAILABLE


def test_it_is_away_for_as_long_as_it_says_and_ten_minutes_at_most() -> None:
    assert failing(3, 7)[0].retry_after_s == 7
    assert failing(3, 86_400)[0].retry_after_s == 600
