import math
from collections import Counter
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.health import EngineHealth
from gateway.upstream.pool import EnginePool


def pool_of(count: int) -> EnginePool:
    return EnginePool([EngineHealth(f"http://engine-{number}") for number in range(count)])


def homes(pool: EnginePool, sessions: int = 300) -> dict[str, str]:
    """Where each session goes while there is nothing to do."""
    found = {f"s{number}": pool.best(f"s{number}", ()) for number in range(sessions)}
    return {session: engine.url for session, engine in found.items() if engine is not None}


def test_a_session_goes_to_the_same_engine_in_every_gateway_in_whatever_order_they_are_listed() -> None:
    urls = ["http://a", "http://b", "http://c"]
    first, second = (EnginePool([EngineHealth(url) for url in order]) for order in (urls, urls[::-1]))
    assert homes(first) == homes(second)


def test_sessions_are_spread_evenly() -> None:
    counted = Counter(homes(pool_of(4), 4000).values())
    assert len(counted) == 4
    assert max(counted.values()) < 1.15 * min(counted.values())


def test_an_engine_that_goes_away_moves_its_own_sessions_only_and_gets_them_back() -> None:
    pool = pool_of(4)
    before = homes(pool)
    gone = pool.engines[1]
    gone.health.failed()
    meanwhile = homes(pool)
    assert gone.url not in meanwhile.values()
    assert all(meanwhile[session] == url for session, url in before.items() if url != gone.url)
    assert len({meanwhile[session] for session, url in before.items() if url == gone.url}) == 3, "spread over the others"
    gone.health.answered()
    assert homes(pool) == before


@given(st.integers(2, 6), st.lists(st.integers(0, 3), max_size=80))
def test_no_engine_takes_more_than_a_quarter_above_its_even_share(count: int, sessions: list[int]) -> None:
    pool = pool_of(count)
    with ExitStack() as stack:
        for taken, session in enumerate(sessions):
            turn = stack.enter_context(pool.turn(f"s{session}"))
            assert turn.engine is not None
            assert turn.engine.in_flight <= math.ceil(1.25 * (taken + 1) / count)


def test_a_session_whose_engine_has_its_share_goes_to_the_next_best_and_comes_back() -> None:
    pool = pool_of(3)
    with ExitStack() as stack:
        taken = [stack.enter_context(pool.turn("hot")).engine for _ in range(30)]
        assert len(set(taken)) == 3
    assert pool.best("hot", ()) == taken[0]


def test_a_request_without_session_goes_where_there_is_least_to_do_and_else_in_turn() -> None:
    pool = pool_of(3)
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(pool.turn(None))
        assert [engine.in_flight for engine in pool.engines] == [10, 10, 10]
    assert {engine.in_flight for engine in pool.engines} == {0}


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_engines_that_have_nothing_to_do_take_requests_without_session_in_turn(count: int) -> None:
    pool = pool_of(count)
    taken = []
    for _ in range(count):
        with pool.turn(None) as turn:
            assert turn.is_last == (count == 1)
            taken.append(turn.engine)
    assert set(taken) == set(pool.engines)


@pytest.mark.parametrize("session", [None, "s"])
def test_engines_that_are_away_are_not_chosen_until_none_is_left(session: str | None) -> None:
    pool = pool_of(3)
    pool.engines[0].health.failed()
    pool.engines[2].health.failed()
    assert pool.best(session, ()) is pool.engines[1]
    pool.engines[1].health.failed()
    assert pool.best(session, ()) is None
    with pool.turn(session) as turn:
        assert turn.engine is None


def test_an_engine_that_is_passed_over_is_not_chosen_again() -> None:
    pool = pool_of(3)
    met = []
    with pool.turn("s") as turn:
        while turn.engine is not None:
            met.append((turn.engine, turn.is_last))
            assert [engine.in_flight for engine in pool.engines].count(1) == pool.in_flight == 1
            turn.pass_over()
    assert {engine for engine, _ in met} == set(pool.engines)
    assert [is_last for _, is_last in met] == [False, False, True]
    assert {engine.in_flight for engine in pool.engines} == {pool.in_flight} == {0}


def test_a_single_engine_takes_all() -> None:
    pool = pool_of(1)
    with pool.turn("s") as one, pool.turn(None) as other:
        assert one.engine is other.engine is pool.engines[0]
        assert one.is_last
