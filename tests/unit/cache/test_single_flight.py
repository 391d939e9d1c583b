"""Flights: one for all who ask the same, however they come and go."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from gateway.cache.results import Stored
from gateway.cache.single_flight import SHARED_BYTES, Flight, Flights
from gateway.errors import EngineFailed, EngineUnavailable


class Pilot:
    """Flies when it is told to; `began` and `ended` count."""

    def __init__(self) -> None:
        self.began = 0
        self.cancelled = 0
        self.go = asyncio.Event()

    @staticmethod
    async def in_a_hurry(flight: Flight) -> None:
        flight.land()

    async def fly(self, flight: Flight) -> None:
        self.began += 1
        try:
            await flight.add(b"a")
            await self.go.wait()
            await flight.add(b"b")
            flight.land(b"ab")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def read(flights: Flights, fly: Callable[[Flight], Awaitable[None]], key: str = "key") -> tuple[list[bytes], bool]:
    async with flights.aboard(key, fly) as (flight, joined):
        await flight.begun()
        return [piece async for piece in flight.read()], joined


async def soon() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_hundred_who_ask_the_same_are_one_flight() -> None:
    async def ask() -> None:
        flights, pilot = Flights(), Pilot()
        asking = [asyncio.ensure_future(read(flights, pilot.fly)) for _ in range(100)]
        await soon()
        pilot.go.set()
        answers = await asyncio.gather(*asking)
        assert pilot.began == 1
        assert {b"".join(pieces) for pieces, _ in answers} == {b"ab"}
        assert [joined for _, joined in answers].count(False) == 1

    asyncio.run(ask())


def test_who_joins_late_gets_what_was_said_so_far_at_once() -> None:
    async def ask() -> None:
        flights, pilot = Flights(), Pilot()
        first = asyncio.ensure_future(read(flights, pilot.fly))
        await soon()
        async with flights.aboard("key", pilot.fly) as (flight, joined):
            pieces = flight.read()
            assert joined
            assert await anext(pieces) == b"a"
            pilot.go.set()
            assert await anext(pieces) == b"b"
            with pytest.raises(StopAsyncIteration):
                await anext(pieces)
        await first

    asyncio.run(ask())


def test_the_last_to_leave_ends_the_work_and_nobody_before_him() -> None:
    async def ask() -> None:
        flights, pilot = Flights(), Pilot()
        first, second = (asyncio.ensure_future(read(flights, pilot.fly)) for _ in range(2))
        await soon()
        first.cancel()
        await soon()
        assert pilot.cancelled == 0
        second.cancel()
        await soon()
        assert pilot.cancelled == 1

    asyncio.run(ask())


def test_who_comes_after_the_last_has_left_begins_anew() -> None:
    async def ask() -> None:
        flights, pilot = Flights(), Pilot()
        first = asyncio.ensure_future(read(flights, pilot.fly))
        await soon()
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        pilot.go.set()
        pieces, joined = await read(flights, pilot.fly)
        assert (b"".join(pieces), joined, pilot.began) == (b"ab", False, 2)

    asyncio.run(ask())


def test_what_has_landed_is_stored_though_everybody_has_left() -> None:
    async def ask() -> None:
        flights, stored = Flights(), asyncio.Event()

        async def fly(flight: Flight) -> None:
            await flight.add(b"a")
            flight.land(b"a")
            await soon()
            stored.set()

        await read(flights, fly)
        async with asyncio.timeout(20):
            await stored.wait()

    asyncio.run(ask())


def test_a_failure_reaches_all_and_the_next_one_tries_again() -> None:
    async def ask() -> None:
        flights, calls = Flights(), []

        async def fly(flight: Flight) -> None:
            calls.append(flight)
            await soon()
            raise EngineFailed("broken")

        outcomes = await asyncio.gather(*(read(flights, fly) for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [EngineFailed] * 3
        assert len(calls) == 1
        with pytest.raises(EngineFailed):
            await read(flights, fly)
        assert len(calls) == 2

    asyncio.run(ask())


def test_a_failure_after_the_first_piece_comes_after_it() -> None:
    async def ask() -> None:
        async def fly(flight: Flight) -> None:
            await flight.add(b"a")
            await soon()
            raise EngineFailed("broken")

        async with Flights().aboard("key", fly) as (flight, _):
            await flight.begun()
            pieces = flight.read()
            assert await anext(pieces) == b"a"
            with pytest.raises(EngineFailed):
                await anext(pieces)

    asyncio.run(ask())


def test_what_was_stored_is_found_by_all() -> None:
    async def ask() -> None:
        stored = Stored(b"{}", 1.0)

        async def fly(flight: Flight) -> None:
            await soon()
            flight.find(stored)

        async def find() -> Stored | None:
            async with flights.aboard("key", fly) as (flight, _):
                await flight.begun()
                return flight.found

        flights = Flights()
        assert list(await asyncio.gather(find(), find())) == [stored, stored]

    asyncio.run(ask())


def test_an_answer_that_gets_long_is_joined_no_more_and_comes_as_fast_as_it_is_read() -> None:
    async def ask() -> None:
        flights, piece, added = Flights(), bytes(SHARED_BYTES // 2 + 1), []

        async def fly(flight: Flight) -> None:
            for number in range(6):
                await flight.add(piece)
                added.append(number)
            flight.land()

        async with flights.aboard("key", fly) as (flight, _):
            await soon()
            assert len(added) == 1, "the second waits until it is read"
            assert (await read(flights, Pilot.in_a_hurry))[1] is False
            sizes = [len(some) async for some in flight.read()]
            assert sum(sizes) == 6 * len(piece)
            assert max(sizes) == 2 * len(piece), "and nothing of it is kept"

    asyncio.run(ask())


def test_those_aboard_are_told_when_the_gateway_ends() -> None:
    async def ask() -> None:
        flights, pilot = Flights(), Pilot()
        waiting = asyncio.ensure_future(read(flights, pilot.fly))
        await soon()
        await flights.aclose()
        with pytest.raises(EngineUnavailable):
            await waiting

    asyncio.run(ask())


def test_what_has_landed_is_stored_before_the_gateway_ends() -> None:
    async def ask() -> None:
        flights, stored = Flights(), []

        async def fly(flight: Flight) -> None:
            flight.land()
            await asyncio.sleep(0.01)
            stored.append(True)

        async with flights.aboard("key", fly) as (flight, _):
            await flight.landed()
        await flights.aclose()
        assert stored == [True]

    asyncio.run(ask())


class Body(bytearray):
    """What can be seen to be gone."""


async def fails(flight: Flight) -> None:
    await soon()
    raise EngineFailed("broken")


async def goes_on(flight: Flight) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("fate", [fails, goes_on])
def test_a_flight_that_ends_early_holds_no_body_until_the_garbage_collector_runs(
    fate: Callable[[Flight], Awaitable[None]],
) -> None:
    async def ask() -> bool:
        flights = Flights()

        async def fly(held: Body, flight: Flight) -> None:
            await fate(flight)
            raise AssertionError(held)

        body = Body(b"body")
        known = weakref.ref(body)
        asking = asyncio.ensure_future(read(flights, partial(fly, body)))
        del body
        for _ in range(3):
            await soon()
        asking.cancel()
        await asyncio.wait([asking])
        del asking
        await soon()
        return known() is None

    gc.disable()
    try:
        assert asyncio.run(ask())
    finally:
        gc.enable()
