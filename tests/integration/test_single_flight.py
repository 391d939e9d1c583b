"""One question that many ask at once is put to an engine once, and nobody is the worse for it."""

import asyncio
import json
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from redis import Redis
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tests.cache_clients import (
    Caller,
    Said,
    asked_together,
    question,
    running_gateways,
    streaming,
    waiting,
    words,
)
from tests.conftest import PATIENCE_S, RunningGateway, free_port
from tests.fake_engine import FakeEngine, Gate, Speech, always, event, running_fake_engine
from tests.redis_server import RedisServer, running_redis
from tests.watching import SOON_S, AwakeClock, eventually, in_flight

Gateways = tuple[RunningGateway, ...]

REQUESTS = 100
REDIS_BUDGET_S = "5"
"""The claims are about who asks an engine; a busy machine may well take longer than the usual time to answer."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[FakeEngine]:
    with running_fake_engine() as engine:
        yield engine


@pytest.fixture
def gate() -> Gate:
    """Closed, until a test opens it."""
    return Gate()


@pytest.fixture
def engine(shared_engine: FakeEngine, gate: Gate) -> Iterator[FakeEngine]:
    """One that waits at the gate before each of its three tokens, which are others in each answer."""
    shared_engine.reset()
    shared_engine.answer = Speech(shared_engine, lambda _: ["It ", "is ", f"{len(shared_engine.documents)}."], gate=gate)
    yield shared_engine
    gate.open()


def trio(folder: pathlib.Path, engine: FakeEngine, redis_url: str) -> Any:
    settings = {"FOVEA_REDIS_URL": redis_url, "FOVEA_REDIS_BUDGET_S": REDIS_BUDGET_S}
    return running_gateways(3, folder, engine.url, **settings)


@pytest.fixture(scope="module")
def three(shared_engine: FakeEngine, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    """Gateways that share a Redis."""
    with trio(tmp_path_factory.mktemp("three"), shared_engine, redis.url) as gateways:
        yield gateways


@pytest.fixture(scope="module")
def three_alone(shared_engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    """Gateways whose Redis is not there."""
    with trio(tmp_path_factory.mktemp("alone"), shared_engine, f"redis://127.0.0.1:{free_port()}/0") as gateways:
        yield gateways


@pytest.fixture(scope="module")
def http_client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def caller(three: Gateways, http_client: httpx.Client) -> Caller:
    """Asks the first of the three."""
    return Caller(http_client, three[0])


@pytest.fixture
def other(three: Gateways, http_client: httpx.Client) -> Caller:
    """Asks the second of them."""
    return Caller(http_client, three[1])


@pytest.fixture
def beside(gate: Gate) -> Iterator[ThreadPoolExecutor]:
    """Where callers wait while the test goes on."""
    with ThreadPoolExecutor(16) as threads:
        try:
            yield threads
        finally:
            gate.open()


def waits(number: int, *gateways: RunningGateway) -> bool:
    """Whether so many requests come to wait at the gateways together."""
    return eventually(lambda: sum(map(in_flight, gateways)) == number)


def together(beside: ThreadPoolExecutor, gateways: Gateways, documents: list[dict[str, Any]]) -> Future[list[Said]]:
    """Asks all at once, and goes on once they wait."""
    asking = beside.submit(lambda: asyncio.run(asked_together(gateways, documents)))
    assert waits(len(documents), *gateways)
    return asking


def later(beside: ThreadPoolExecutor, caller: Caller, document: dict[str, Any], **headers: str) -> Future[Said]:
    return beside.submit(lambda: caller.ask(document, **headers))


def in_forms(document: dict[str, Any], forms: list[bool], number: int) -> list[dict[str, Any]]:
    return [document | {"stream": forms[index % len(forms)]} for index in range(number)]


FORMS = {"whole": [False], "streamed": [True], "mixed": [True, True, False, False, False]}
IN_ALL_FORMS = pytest.mark.parametrize("forms", FORMS.values(), ids=FORMS)

# ---------------------------------------------------------------------------------------------------------------------
# How often an engine is asked


@IN_ALL_FORMS
def test_a_hundred_who_ask_three_gateways_at_once_are_one_question_to_an_engine(
    three: Gateways, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor, forms: list[bool]
) -> None:
    document = question()
    asking = together(beside, three, in_forms(document, forms, REQUESTS))
    gate.open()
    answers = asking.result(PATIENCE_S)
    assert engine.calls(words(document)) == 1
    assert [answer.status for answer in answers] == [200] * REQUESTS
    assert all(answer.substance == answers[0].substance for answer in answers)
    assert all(answer.is_done for answer in answers)
    results = Counter(answer.cache for answer in answers)
    assert results["miss"] == 1
    assert results["joined"] + results["hit"] == REQUESTS - 1


@IN_ALL_FORMS
def test_without_redis_it_is_one_question_of_each_gateway(
    three_alone: Gateways, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor, forms: list[bool]
) -> None:
    document = question()
    asking = together(beside, three_alone, in_forms(document, forms, REQUESTS))
    gate.open()
    answers = asking.result(PATIENCE_S)
    assert engine.calls(words(document)) <= len(three_alone)
    assert [answer.status for answer in answers] == [200] * REQUESTS
    for number in range(len(three_alone)):
        of_one = answers[number :: len(three_alone)]
        assert all(answer.substance == of_one[0].substance for answer in of_one)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_samples_stay_as_many_as_were_asked_for(
    three: Gateways, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor, *, stream: bool
) -> None:
    document = question(temperature=1.0, stream=stream)
    asking = together(beside, three[:1], [document] * 10)
    assert eventually(lambda: engine.calls(words(document)) == 10)
    gate.open()
    assert {answer.cache for answer in asking.result(PATIENCE_S)} == {"bypass"}


@pytest.mark.parametrize("control", ["no-store", "no-cache"])
def test_who_wants_an_answer_of_their_own_joins_nobody(
    caller: Caller, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor, control: str
) -> None:
    document = question()
    shared = later(beside, caller, document)
    assert waits(1, caller.gateway)
    own = [later(beside, caller, document, cache_control=control) for _ in range(2)]
    assert eventually(lambda: engine.calls(words(document)) == 3)
    gate.open()
    assert [answer.result(PATIENCE_S).cache for answer in (shared, *own)] == ["miss", "bypass", "bypass"]


def test_those_whose_kept_answer_is_too_old_are_one_question_to_an_engine(
    caller: Caller, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    document = question()
    gate.open()
    first = caller.ask(document)
    gate.tokens = 0
    time.sleep(1.1)
    asking = [later(beside, caller, document, cache_control="max-age=1") for _ in range(10)]
    assert waits(10, caller.gateway)
    gate.open()
    answers = [answer.result(PATIENCE_S) for answer in asking]
    assert {answer.text for answer in answers} == {"It is 2."} != {first.text}
    assert engine.calls(words(document)) == 2


def test_questions_that_differ_do_not_wait_for_each_other(
    three: Gateways, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    documents = [question() for _ in range(9)]
    asking = together(beside, three, documents)
    assert eventually(lambda: all(engine.calls(words(document)) == 1 for document in documents))
    gate.open()
    assert {answer.cache for answer in asking.result(PATIENCE_S)} == {"miss"}


# ---------------------------------------------------------------------------------------------------------------------
# Joining


def test_who_joins_a_stream_gets_what_was_said_at_once_and_the_rest_as_it_comes(
    caller: Caller, engine: FakeEngine, gate: Gate
) -> None:
    document = question()
    gate.tokens = 2
    with streaming(caller, document) as first:
        first.until("is ")
        with streaming(caller, document | {"stream_options": {"include_usage": True}}) as second:
            assert (first.headers["x-fovea-cache"], second.headers["x-fovea-cache"]) == ("miss", "joined")
            second.until("is ")
            gate.open()
            second.until("1.")
            joined = second.rest()
        led = first.rest()
    assert led.substance == joined.substance
    assert led.text == "It is 1."
    assert led.is_done
    assert joined.is_done
    assert (led.usage, joined.usage is None) == (None, False), "each gets to know of usage what they have asked for"
    assert engine.calls(words(document)) == 1


@pytest.mark.parametrize("leads", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("joins", [False, True], ids=["joined whole", "joined streamed"])
@pytest.mark.parametrize("of_two", [False, True], ids=["at one gateway", "at two"])
def test_who_joins_gets_the_answer_in_the_form_they_asked_for(
    caller: Caller,
    other: Caller,
    engine: FakeEngine,
    gate: Gate,
    beside: ThreadPoolExecutor,
    *,
    leads: bool,
    joins: bool,
    of_two: bool,
) -> None:
    document = question(logprobs=True)
    gate.tokens = 1
    led = later(beside, caller, document | {"stream": leads})
    assert eventually(lambda: engine.calls(words(document)) == 1)
    joining = other if of_two else caller
    joined = later(beside, joining, document | {"stream": joins})
    assert waits(2, caller.gateway, other.gateway)
    gate.open()
    answers = led.result(PATIENCE_S), joined.result(PATIENCE_S)
    assert answers[0].cache == "miss"
    assert answers[1].cache in {"joined", "hit"}
    assert answers[0].substance == answers[1].substance
    assert [bool(answer.events) for answer in answers] == [leads, joins]
    assert all(answer.is_done for answer in answers)
    assert engine.calls(words(document)) == 1


def test_who_does_not_read_holds_up_nobody(caller: Caller, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor) -> None:
    tokens = [f"{number:06}" * 10_000 for number in range(200)]
    engine.answer = Speech(engine, always(*tokens), gate=gate)
    document = question(stream=True)
    with waiting(caller.gateway, document), waiting(caller.gateway, document):
        assert waits(2, caller.gateway)
        reading = later(beside, caller, document)
        assert waits(3, caller.gateway)
        gate.open()
        assert reading.result(PATIENCE_S).text == "".join(tokens)
        assert engine.calls(words(document)) == 1
    assert waits(0, caller.gateway)


# ---------------------------------------------------------------------------------------------------------------------
# Leaving


IN_BOTH_FORMS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@IN_BOTH_FORMS
def test_the_last_to_leave_ends_the_work_and_who_leaves_before_does_not(
    caller: Caller, engine: FakeEngine, gate: Gate, *, stream: bool
) -> None:
    document = question(stream=stream)
    gate.tokens = 1
    with waiting(caller.gateway, document):
        assert eventually(lambda: engine.calls(words(document)) == 1)
        with waiting(caller.gateway, document):
            assert waits(2, caller.gateway)
        assert waits(1, caller.gateway)
        assert not engine.cancelled.is_set()
        assert engine.running >= 1
    assert engine.cancelled.wait(SOON_S)
    gate.open()
    assert caller.ask(document).cache == "miss", "nothing of it is kept"


@IN_BOTH_FORMS
def test_who_stays_gets_it_all_though_the_one_who_asked_first_leaves(
    caller: Caller, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor, *, stream: bool
) -> None:
    document = question()
    gate.tokens = 1
    with waiting(caller.gateway, document):
        assert eventually(lambda: engine.calls(words(document)) == 1)
        stays = later(beside, caller, document | {"stream": stream})
        assert waits(2, caller.gateway)
    assert waits(1, caller.gateway)
    gate.open()
    assert stays.result(PATIENCE_S).text == "It is 1."
    assert not engine.cancelled.is_set()
    kept = caller.ask(document)
    assert (kept.cache, kept.text) == ("hit", "It is 1."), "what its first caller left is kept for the other's sake"
    assert engine.calls(words(document)) == 1


@IN_BOTH_FORMS
def test_who_waits_at_another_gateway_takes_over_when_nobody_is_left_at_the_first(
    caller: Caller, other: Caller, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor, *, stream: bool
) -> None:
    document = question(stream=stream)
    with waiting(caller.gateway, document):
        assert eventually(lambda: engine.calls(words(document)) == 1)
        stays = later(beside, other, document)
        assert waits(1, other.gateway)
    assert engine.cancelled.wait(SOON_S)
    gate.open()
    answer = stays.result(PATIENCE_S)
    assert (answer.status, answer.text) == (200, "It is 2.")
    assert engine.calls(words(document)) == 2


def leader(gateways: Gateways) -> RunningGateway:
    """The one that has asked an engine."""
    metric = 'fovea_engine_requests_in_flight{model="tiny"}'
    assert eventually(lambda: [gateway.metric(metric) for gateway in gateways].count(1) == 1)
    return next(gateway for gateway in gateways if gateway.metric(metric) == 1)


def test_those_at_other_gateways_are_answered_though_the_leading_one_is_killed(
    shared_engine: FakeEngine,
    redis: RedisServer,
    engine: FakeEngine,
    gate: Gate,
    beside: ThreadPoolExecutor,
    tmp_path: pathlib.Path,
) -> None:
    document = question()
    gate.tokens = 1
    with trio(tmp_path, shared_engine, redis.url) as gateways, httpx.Client(timeout=PATIENCE_S) as client:
        asked = [
            (gateway, later(beside, Caller(client, gateway), each))
            for gateway in gateways
            for each in in_forms(document, FORMS["mixed"], 5)
        ]
        assert waits(15, *gateways)
        killed = leader(gateways)
        killed.process.kill()
        assert eventually(lambda: engine.calls(words(document)) == 2), "one of the others takes over"
        gate.open()
        answers = [asking.result(PATIENCE_S) for gateway, asking in asked if gateway is not killed]
        assert [answer.status for answer in answers] == [200] * 10
        assert {answer.text for answer in answers} == {"It is 2."}
        assert engine.calls(words(document)) == 2
        lost = [asking.exception(PATIENCE_S) for gateway, asking in asked if gateway is killed]
        assert all(lost), "who had asked the one that was killed has no answer"


# ---------------------------------------------------------------------------------------------------------------------
# Deadlines


HURRY = {"x_request_timeout_seconds": "1.5"}


def told_that_it_is_too_late(said: Said) -> bool:
    """By a status, or in a stream whose first event, which says the role, had come."""
    return said.error is not None and said.status in {200, 504} and said.error["code"] == "deadline_exceeded"


@IN_BOTH_FORMS
@pytest.mark.parametrize("hurries", ["second", "elsewhere"])
def test_each_has_a_deadline_of_their_own(
    caller: Caller,
    other: Caller,
    engine: FakeEngine,
    gate: Gate,
    beside: ThreadPoolExecutor,
    hurries: str,
    *,
    stream: bool,
) -> None:
    document = question(stream=stream)
    patient = later(beside, caller, document)
    assert eventually(lambda: engine.calls(words(document)) == 1)
    hurried = later(beside, other if hurries == "elsewhere" else caller, document, **HURRY)
    assert told_that_it_is_too_late(hurried.result(PATIENCE_S))
    assert not engine.cancelled.is_set()
    gate.open()
    assert patient.result(PATIENCE_S).text == "It is 1."
    assert engine.calls(words(document)) == 1


@IN_BOTH_FORMS
def test_the_deadline_of_the_first_is_not_that_of_the_second(
    caller: Caller, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor, *, stream: bool
) -> None:
    def asked_together_in_time() -> tuple[Future[Said], Future[Said]] | None:
        """None, where the machine stood still for the time of the first."""
        hurried = later(beside, caller, document, **HURRY)
        eventually(lambda: engine.calls(words(document)) == 1 or hurried.done())
        patient = later(beside, caller, document)
        if eventually(lambda: in_flight(caller.gateway) == 2 or hurried.done()) and not hurried.done():
            return hurried, patient
        gate.open()
        patient.result(PATIENCE_S)
        gate.tokens = 0
        return None

    while True:
        engine.documents.clear()
        engine.cancelled.clear()
        document = question(stream=stream)
        if (asking := asked_together_in_time()) is not None:
            break
    hurried, patient = asking
    assert told_that_it_is_too_late(hurried.result(PATIENCE_S))
    assert not engine.cancelled.is_set()
    gate.open()
    assert patient.result(PATIENCE_S).text == "It is 1."
    assert engine.calls(words(document)) == 1


# ---------------------------------------------------------------------------------------------------------------------
# Answers that cannot be kept


def failing(gate: Gate) -> Callable[[Request], Any]:
    async def fails(_: Request) -> Response:
        await gate.passed(0)
        return JSONResponse({"error": {"message": "no", "type": "Oops", "param": None, "code": 500}}, 500)

    return fails


@IN_ALL_FORMS
def test_an_engine_s_error_reaches_all_who_wait_and_nobody_after_them(
    caller: Caller, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor, forms: list[bool]
) -> None:
    well, engine.answer = engine.answer, failing(gate)
    document = question()
    asking = together(beside, (caller.gateway,), in_forms(document, forms, 10))
    gate.open()
    assert [answer.status for answer in asking.result(PATIENCE_S)] == [502] * 10
    assert engine.calls(words(document)) == 1
    engine.answer = well
    assert [caller.ask(document).cache for _ in range(2)] == ["miss", "hit"]


def test_an_engine_s_error_is_everybody_s_at_every_gateway(
    three: Gateways, caller: Caller, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    well, engine.answer = engine.answer, failing(gate)
    document = question()
    asking = together(beside, three, [document] * 15)
    gate.open()
    assert [answer.status for answer in asking.result(PATIENCE_S)] == [502] * 15
    assert engine.calls(words(document)) <= len(three)
    engine.answer = well
    assert caller.ask(document).status == 200


def test_a_stream_that_fails_fails_for_all_who_have_joined_it(
    caller: Caller, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    async def fails(_: Request) -> Response:
        async def events() -> Any:
            yield event("So ")
            await gate.passed(0)
            error = {"error": {"message": "no", "type": "Oops", "param": None, "code": 500}}
            yield b"data: " + json.dumps(error).encode() + b"\n\ndata: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    well, engine.answer = engine.answer, fails
    document = question()
    with streaming(caller, document) as first:
        first.until("So ")
        with streaming(caller, document) as second:
            second.until("So ")
            whole = later(beside, caller, document)
            assert waits(3, caller.gateway)
            gate.open()
            streamed = [second.rest(), first.rest()]
    for answer in streamed:
        assert (answer.text, answer.error is not None, answer.is_done) == ("So ", True, False)
    assert whole.result(PATIENCE_S).status == 502
    assert engine.calls(words(document)) == 1
    engine.answer = well
    assert caller.ask(document).cache == "miss"


@IN_ALL_FORMS
def test_an_answer_that_was_cut_off_is_given_to_all_who_waited_and_not_kept(
    caller: Caller, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor, forms: list[bool]
) -> None:
    engine.answer = Speech(engine, always("So ", "far"), ["length"], gate=gate)
    document = question()
    asking = together(beside, (caller.gateway,), in_forms(document, forms, 10))
    gate.open()
    answers = asking.result(PATIENCE_S)
    assert {(answer.status, answer.text, answer.choices[0]["finish_reason"]) for answer in answers} == {
        (200, "So far", "length")
    }
    assert engine.calls(words(document)) == 1
    assert caller.ask(document).cache not in {"hit", "joined"}
    assert engine.calls(words(document)) == 2


IN_VAIN = {"cut off": 200, "failed": 502}


@IN_ALL_FORMS
@pytest.mark.parametrize("end", IN_VAIN)
def test_gateways_do_not_queue_for_an_answer_that_cannot_be_kept(
    three: Gateways, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor, forms: list[bool], end: str
) -> None:
    """Once the first has found out, the other two ask at the same time, not one after the other."""
    document = question()
    gates = [gate, Gate(), Gate()]

    async def answer(request: Request) -> Response:
        mine = gates[min(engine.calls(words(document)), 3) - 1]
        cut_off = Speech(engine, always("So ", "far"), ["length"], gate=mine)
        return await (cut_off if end == "cut off" else failing(mine))(request)

    engine.answer = answer
    asking = together(beside, three, in_forms(document, forms, 15))
    assert engine.calls(words(document)) == 1
    with AwakeClock() as clock:
        gate.open()
        # Others are told for two seconds: who did not run in them has not heard it, and waits for the second.
        assert eventually(lambda: engine.calls(words(document)) == 3 or clock.longest_pause_s > 1)
    for each in gates:
        each.open()
    assert {answer.status for answer in asking.result(PATIENCE_S)} == {IN_VAIN[end]}
    assert engine.calls(words(document)) == 3


def test_an_answer_that_came_and_then_did_not_fit_is_everybody_s(
    caller: Caller, other: Caller, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    """One of 2 MB is too large to be kept, also for those who wait at another gateway."""
    text = "0123456789abcdef" * 131_072
    engine.answer = Speech(engine, always(text[:10], text[10:]), gate=gate)
    document = question()
    asking = [later(beside, each, document) for each in (caller, caller, other, other)]
    assert waits(4, caller.gateway, other.gateway)
    gate.open()
    assert all(answer.result(PATIENCE_S).text == text for answer in asking)
    assert engine.calls(words(document)) == 2


def test_a_request_that_an_engine_refuses_is_refused_to_all(
    caller: Caller, engine: FakeEngine, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    async def refuses(_: Request) -> Response:
        await gate.passed(0)
        error = {"message": "top_k is odd", "type": "BadRequestError", "param": "top_k", "code": 400}
        return JSONResponse({"error": error}, 400)

    engine.answer = refuses
    asking = together(beside, (caller.gateway,), [question()] * 3)
    gate.open()
    assert {(answer.status, answer.error and answer.error["param"]) for answer in asking.result(PATIENCE_S)} == {(400, "top_k")}


def test_the_words_of_another_caller_s_request_are_in_nobody_s_log(
    caller: Caller, three: Gateways, engine: FakeEngine, gate: Gate
) -> None:
    gate.open()
    document = question(messages=[{"role": "user", "content": "a secret of mine"}])
    for _ in range(2):
        caller.ask(document)
    assert not any("a secret of mine" in gateway.log.read_text() for gateway in three)


def test_nothing_is_left_when_all_are_answered(three: Gateways, redis: RedisServer, engine: FakeEngine) -> None:
    assert waits(0, *three)
    assert eventually(lambda: engine.running == 0)
    assert eventually(lambda: all(gateway.metric("fovea_body_bytes_in_flight") == 0 for gateway in three))
    with Redis(port=redis.port) as store:
        assert eventually(lambda: not store.keys("fovea:flight:*"))
        times_s = [store.ttl(key) for key in store.scan_iter()]
    assert times_s
    assert min(times_s) > 0, "nothing stays for ever"
