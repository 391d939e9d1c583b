"""What another model may do better, and which error is told where none did."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from starlette.types import Message, Send

from gateway.deadline import Patience
from gateway.errors import (
    DeadlineExceeded,
    EngineErred,
    EngineFailed,
    EngineLost,
    EngineRefused,
    EnginesFailed,
    EngineUnavailable,
    GatewayError,
    IncompleteJson,
    InvalidField,
    NotCached,
    SchemaRefused,
)
from gateway.memory import BodyMemory
from gateway.pipeline.answers import Answers
from gateway.pipeline.call import Call, Caller
from gateway.pipeline.route import Routes
from gateway.pipeline.way_on import Failure, Time, WayOn, check_final, may_go_on
from gateway.routing.budget import RetryBudget
from gateway.routing.choose import Present
from gateway.structured.grammar_client import GrammarClient
from gateway.structured.promise import Promise
from gateway.telemetry.request import RequestRecord
from tests.unit.pipeline.test_route import AWAY, HERE, catalog, entry, request

BROKEN = Failure("engine_error", 100, broke_off=True)
FULL_BEFORE = Failure("model_unavailable", 100)

ON: dict[str, tuple[GatewayError, Mapping[str, Failure], bool]] = {
    "full, or away": (EngineUnavailable("x", retry_after_s=1), {}, True),
    "the second that is full": (EngineUnavailable("x", retry_after_s=1), {"a": FULL_BEFORE}, True),
    "full after one that broke off": (EngineUnavailable("x", retry_after_s=1), {"a": BROKEN}, True),
    "broken off": (EngineFailed("x"), {}, True),
    "broken off after a full one": (EngineFailed("x"), {"a": FULL_BEFORE}, True),
    "the second that broke off": (EngineFailed("x"), {"a": BROKEN}, False),
    "the second that failed, and lives": (EngineErred("x"), {"a": BROKEN}, False),
    "died of it": (EngineLost("x", retry_after_s=1), {}, True),
    "the second that died of it": (
        EngineLost("x", retry_after_s=1),
        {"a": Failure.of(EngineLost("x", retry_after_s=1), 100)},
        False,
    ),
    "died after one that broke off": (EngineLost("x", retry_after_s=1), {"a": BROKEN, "b": FULL_BEFORE}, False),
    "too long": (EngineRefused("x", param=None, reason="context_length_exceeded"), {"a": BROKEN}, True),
    "no stored answer": (NotCached("x"), {"a": BROKEN}, True),
    "a schema that its compiler does not take": (SchemaRefused("x"), {}, True),
    "too late": (DeadlineExceeded("x"), {}, False),
    "refused otherwise": (EngineRefused("x", param=None), {}, False),
    "the caller's to mend": (InvalidField("x", param=None, reason="context_length_exceeded"), {}, False),
    "JSON that does not fit": (IncompleteJson("x", details={"reason": "schema"}), {"a": BROKEN}, True),
    "JSON that was cut off": (IncompleteJson("x", details={"reason": "length"}), {}, False),
}


@pytest.mark.parametrize("case", ON)
def test_the_next_model_is_asked_where_it_may_do_better(case: str) -> None:
    error, failed, expected = ON[case]
    assert may_go_on(error, failed) == expected


TOO_LONG = EngineRefused("x", param=None, reason="context_length_exceeded")


def test_the_caller_learns_how_soon_one_of_them_may_be_back() -> None:
    busy = Failure.of(EngineUnavailable("x", retry_after_s=1), 100)
    with pytest.raises(EngineUnavailable, match="away") as error:
        check_final(EngineUnavailable("away", retry_after_s=60), {"a": busy}, 100)
    assert error.value.retry_after_s == 1


def test_a_request_that_two_engines_failed_on_is_not_to_be_asked_again() -> None:
    with pytest.raises(EnginesFailed) as error:
        check_final(EngineFailed("x"), {"a": BROKEN}, 100)
    assert (error.value.error_code, error.value.headers) == ("engine_error", {"x-should-retry": "false"})


def test_the_caller_learns_when_a_model_that_is_long_enough_may_have_room() -> None:
    busy, away = (Failure.of(EngineUnavailable("x", retry_after_s=seconds), 100) for seconds in (1, 60))
    shorter = Failure("model_unavailable", 50, retry_after_s=0)
    with pytest.raises(EngineUnavailable) as error:
        check_final(TOO_LONG, {"a": away, "b": busy, "c": BROKEN, "d": shorter}, 50)
    assert error.value.retry_after_s == 1


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (TOO_LONG, {}),
        (TOO_LONG, {"a": BROKEN}),
        (TOO_LONG, {"a": Failure("model_unavailable", 100, retry_after_s=1)}),
        (EngineRefused("x", param="temperature"), {"a": Failure("model_unavailable", 100, retry_after_s=1)}),
        (
            EngineUnavailable("x", retry_after_s=1),
            {"a": Failure.of(EngineUnavailable("x", retry_after_s=60), 100), "b": BROKEN},
        ),
        (EngineLost("x", retry_after_s=60), {"a": BROKEN}),
        (EngineFailed("x"), {"a": Failure("model_unavailable", 100, retry_after_s=1)}),
    ],
)
def test_any_other_error_is_told_as_it_is(error: GatewayError, failed: Mapping[str, Failure]) -> None:
    check_final(error, failed, 100)


THREE = catalog(
    entry("a", places=10, context=1000),
    entry("b", "server", places=10),
    entry("c", "top", places=10),
    routing="routing: {tiers: [edge, server, top]}",
)


class Scripted:
    """Answers that come as they are told to, by the model's name; `deadlines` has until when each was asked, from then on."""

    def __init__(self, errors: Mapping[str, GatewayError], takes_s: float = 0) -> None:
        self.errors = errors
        self.takes_s = takes_s
        self.asked: list[str] = []
        self.deadlines: list[float] = []

    async def answer(self, call: Call, _: Send) -> None:
        self.asked.append(call.model)
        self.deadlines.append(round(call.until_s - asyncio.get_running_loop().time(), 1))
        await asyncio.sleep(self.takes_s)
        if call.model in self.errors:
            raise self.errors[call.model]

    async def answer_stored(self, call: Call, _: Send) -> bool:
        self.asked.append(f"stored {call.model}")
        return False


class NoCompiler:
    """Has nothing to say of any constraint."""

    async def verdict(self, _: str, __: object) -> str | None:
        raise AssertionError("nothing is constrained")


class Line:
    """One way on through THREE, and who went on from which model to which."""

    def __init__(self, answers: Scripted, tries: int = 10, present: Mapping[str, Present] | None = None) -> None:
        known = present or {}
        self.routes = Routes(THREE, lambda name: known.get(name, HERE))
        self.gone_on: list[tuple[str, str, str]] = []
        self.answers = answers
        self.way_on = WayOn(
            routes=self.routes,
            budget=RetryBudget(tries),
            went_on=lambda *gone: self.gone_on.append(gone),
            grammars=cast("GrammarClient", NoCompiler()),
            answers=cast("Answers", answers),
        )

    async def ask(self, timeout_s: float = 600, language: str | None = None, **fields: Any) -> RequestRecord:
        asked = request(**fields)
        record = RequestRecord("id", 0)
        caller = Caller({}, record, BodyMemory(10**6, lambda _: None).share().__enter__(), None)
        started_s = asyncio.get_running_loop().time()
        ways = self.routes.ways(asked, self.routes.targets(asked.request), [], language)
        async with Patience(started_s + timeout_s, DeadlineExceeded("late")) as patience:
            time = Time(patience, started_s, started_s + timeout_s)
            await self.way_on.answer(ways, Promise(asked.request), caller, time, _send_nothing)
        return record


async def _send_nothing(_: Message) -> None:
    raise AssertionError("nothing is sent here")


BUSY_ENGINE = EngineUnavailable("x", retry_after_s=1)


def test_each_who_fails_is_followed_by_the_next_and_the_record_says_who_it_was_in_the_end() -> None:
    line = Line(Scripted({"a": BUSY_ENGINE, "b": EngineFailed("x")}))
    record = asyncio.run(line.ask())
    assert line.answers.asked == ["a", "b", "c"]
    assert line.gone_on == [("a", "b", "model_unavailable"), ("b", "c", "engine_error")]
    route = "auto; leaning=balanced; tier=edge; after=a:model_unavailable,b:engine_error"
    assert (record.model, record.served, record.route) == ("c", "c", route)


def test_a_later_model_has_its_own_time_within_what_is_left_of_the_request_s() -> None:
    """Each of them allows 60 s."""
    line = Line(Scripted({"a": BUSY_ENGINE}, takes_s=0.5))
    asyncio.run(line.ask(timeout_s=60.3))
    assert line.answers.deadlines[0] == 60.0
    assert 59.0 <= line.answers.deadlines[1] <= 59.8
    line = Line(Scripted({"a": BUSY_ENGINE}, takes_s=0.5))
    asyncio.run(line.ask(timeout_s=600))
    assert line.answers.deadlines == [60.0, 60.0]


def test_without_a_try_left_a_failure_is_told_and_every_fifth_request_earns_one() -> None:
    async def main() -> list[bool]:
        line = Line(Scripted({"a": EngineFailed("x")}), tries=1)
        outcomes = []
        for _ in range(11):
            line.answers.errors = {"a": EngineFailed("x")}  # another one: who waits for the same pays once
            try:
                await line.ask()
                outcomes.append(True)
            except EngineFailed:
                outcomes.append(False)
        return outcomes

    outcomes = asyncio.run(main())
    assert outcomes[0]
    assert sum(outcomes[1:]) == 2


FREE = {
    "too long a prompt": EngineRefused("x", param=None, reason="context_length_exceeded"),
    "a schema that does not compile": SchemaRefused("x"),
    "no stored answer": NotCached("x"),
}


@pytest.mark.parametrize("error", FREE.values(), ids=FREE)
def test_what_no_engine_has_worked_on_goes_on_without_a_try(error: GatewayError) -> None:
    line = Line(Scripted({"a": error}), tries=0)
    asyncio.run(line.ask())
    assert line.answers.asked == ["a", "b"]


def test_who_is_away_is_passed_over_without_a_try() -> None:
    everybody = dict.fromkeys("abc", AWAY)
    line = Line(Scripted({"a": BUSY_ENGINE, "b": BUSY_ENGINE}), tries=0, present=everybody)
    asyncio.run(line.ask())
    assert line.answers.asked == ["a", "b", "c"]


def test_stored_answers_are_looked_for_at_models_that_are_away_or_full_and_not_at_those_that_may_not_do() -> None:
    line = Line(Scripted({}), present={"a": AWAY, "b": Present(is_there=True, in_flight=10)})
    record = asyncio.run(line.ask())
    assert line.answers.asked == ["stored b", "stored a", "c"]
    assert record.route == "auto; leaning=balanced; tier=edge; over=b:full,a:away"
    line = Line(Scripted({}))
    record = asyncio.run(line.ask(max_tokens=2000))
    assert (line.answers.asked, record.route) == (["b"], "auto; leaning=balanced; tier=edge; over=a:context")
