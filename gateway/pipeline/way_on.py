"""One of several models answers: the first that can, and the next where it fails before a word of its answer was sent."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from starlette.types import Send

from gateway.catalog.providers import Provider
from gateway.deadline import Patience
from gateway.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineLost,
    EngineRefused,
    EnginesFailed,
    EngineUnavailable,
    GatewayError,
    IncompleteJson,
    NotCached,
    SchemaRefused,
)
from gateway.pipeline.answers import Answers
from gateway.pipeline.call import Call, Caller
from gateway.pipeline.route import Routes, Way, route_header
from gateway.routing.budget import RetryBudget
from gateway.routing.choose import Standing
from gateway.structured.grammar_client import GrammarClient
from gateway.structured.kept import CUT
from gateway.structured.promise import Promise
from gateway.telemetry.logs import log_event

_TOO_LONG = "context_length_exceeded"


class Time:
    """How long a request may take: until `until_s` in all, by the event loop's clock, and what each model allows."""

    def __init__(self, patience: Patience, started_s: float, until_s: float) -> None:
        self._patience = patience
        self._started_s = started_s
        self._until_s = until_s
        self._give(until_s)

    def for_model(self, longest_s: float, *, is_first: bool) -> float:
        """The deadline with a model that is asked now; the time that the first has counts from the request's start."""
        begun_s = self._started_s if is_first else asyncio.get_running_loop().time()
        return self._give(min(self._until_s, begun_s + longest_s))

    def _give(self, until_s: float) -> float:
        in_all_s = round(until_s - self._started_s, 3)
        self._patience.until(until_s, DeadlineExceeded(f"The answer did not come within {in_all_s:g} s."))
        return until_s


@dataclass(frozen=True, slots=True, eq=False)
class WayOn:
    """Has requests answered by one of the models that may.

    `went_on` is told of each request that goes on to another model: from which, to which, and the code of why.
    """

    routes: Routes
    budget: RetryBudget
    went_on: Callable[[str, str, str], None]
    grammars: GrammarClient
    answers: Answers

    async def answer(self, ways: Iterator[Way], promise: Promise, caller: Caller, time: Time, send: Send) -> None:
        """Answers by the first of the models; by the next, where one fails before a word of it was sent.

        Raises what the last one that was asked does, and what `ways` does.
        """
        self.budget.earn()
        way, failed = next(ways), dict[str, Failure]()
        for why, better in way.over:
            # What it answered before needs nobody to be there.
            is_for_now = isinstance(why, Standing)
            if is_for_now and await self.answers.answer_stored(_call(better, promise, caller, time, failed), send):
                return
        while True:
            following = await self._answered_or_next(_call(way, promise, caller, time, failed), ways, failed, send)
            if following is None:
                return
            way = following

    async def _answered_or_next(self, call: Call, ways: Iterator[Way], failed: dict[str, "Failure"], send: Send) -> Way | None:
        """Answers, or puts into `failed` why not and gives the next way. Raises the error, where there is none."""
        is_there = self.routes.present(call.model).is_there
        try:
            await self._compiles(call)
            await self.answers.answer(call, send)
            return None
        except GatewayError as error:
            following = None
            if not call.record.is_answering and may_go_on(error, failed):
                following = next(ways, None)
            if following is None or not (_is_free(error) or not is_there or self.budget.take(error)):
                check_final(error, failed, call.asked.model.context_tokens)
                raise
            failure = failed[call.asked.served] = Failure.of(error, call.asked.model.context_tokens)
            _log(call, following, error)
        self.went_on(call.model, following.choice.model, failure.code)
        return following

    async def _compiles(self, call: Call) -> None:
        """Passes what engines of ours can compile in time, as far as it can be found out. Raises SchemaRefused."""
        constraints = {} if isinstance(call.asked.model, Provider) else call.promise.constraints
        for param, constraint in constraints.items():
            reason = await self.grammars.verdict(call.model, constraint)
            if reason is not None:
                raise SchemaRefused(f"'{param}' cannot be compiled for the engine: {reason}", param=param)


def _call(way: Way, promise: Promise, caller: Caller, time: Time, failed: "Mapping[str, Failure]") -> Call:
    """The request on its way to the model, of which the record knows from now on."""
    until_s = time.for_model(way.asked.model.longest_answer_s, is_first=not failed)
    route = route_header(way, {name: before.code for name, before in failed.items()})
    call = Call(way.asked, promise, way.images, caller, until_s, route)
    caller.record.asked_of(call.model, call.asked.served, call.route)
    return call


def _log(call: Call, following: Way, error: GatewayError) -> None:
    cause = repr(error.__cause__) if error.__cause__ else None
    request_id, to = call.record.request_id, following.choice.model
    log_event("request_gone_on", request_id=request_id, model=call.model, to=to, reason=error.logged, cause=cause)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a model of so many `context_tokens` was left: the code of its error.

    `broke_off` says that its engine did, for which the request may be why, and `retry_after_s` when it makes sense to ask it
    again, where time mends it.
    """

    code: str
    context_tokens: int
    broke_off: bool = False
    retry_after_s: int | None = None

    @classmethod
    def of(cls, error: GatewayError, context_tokens: int) -> Self:
        """What is kept of an error. The error itself would keep all that its frames hold."""
        retry_after_s = error.retry_after_s if isinstance(error, EngineUnavailable) else None
        return cls(error.error_code or "", context_tokens, _has_broken_off(error), retry_after_s)


def _has_broken_off(error: GatewayError) -> bool:
    return isinstance(error, EngineFailed | EngineLost)


def _is_free(error: GatewayError) -> bool:
    """Whether to go on after it costs nobody anything: no engine has worked on the request."""
    return isinstance(error, NotCached | SchemaRefused) or error.error_code == _TOO_LONG


def may_go_on(error: GatewayError, failed: Mapping[str, Failure]) -> bool:
    """Whether another model may do better: where this one is away, full or broken, or too small for what it was asked.

    `failed` has those that failed before. Two engines that broke off on a request may have done so because of it.
    """
    if isinstance(error, IncompleteJson):
        return (error.details or {}).get("reason") != CUT  # which the next one would be cut off at as well
    if isinstance(error, EngineRefused):
        return error.error_code == _TOO_LONG
    if _has_broken_off(error):
        return not any(before.broke_off for before in failed.values())
    return isinstance(error, EngineUnavailable | NotCached | SchemaRefused)


def check_final(error: GatewayError, failed: Mapping[str, Failure], context_tokens: int) -> None:
    """Passes an error of a model of so many tokens that is the caller's to hear, though other models have `failed` before.

    Raises EngineUnavailable: it says that a model is too small or comes back later, where a larger one, or any, is only busy;
    EnginesFailed: it is the second of its kind.
    """
    waits_s = {name: before.retry_after_s for name, before in failed.items() if before.retry_after_s is not None}
    longer_s = [wait_s for name, wait_s in waits_s.items() if failed[name].context_tokens > context_tokens]
    if isinstance(error, EngineRefused) and error.error_code == _TOO_LONG and longer_s:
        message = "The models that may have room for a request of this length are not available right now."
        raise EngineUnavailable(message, retry_after_s=min(longer_s))
    if isinstance(error, EngineUnavailable) and min(waits_s.values(), default=error.retry_after_s) < error.retry_after_s:
        raise EngineUnavailable(error.message, retry_after_s=min(waits_s.values()))
    if isinstance(error, EngineFailed) and any(before.broke_off for before in failed.values()):
        raise EnginesFailed("The engines of two models failed on this request.") from error.__cause__
