"""A model whose engines are not behind Ray: the gateway chooses among them, and goes on when one is away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.errors import EngineFailed, EngineLost, EngineUnavailable
from gateway.telemetry.metrics import Metrics
from gateway.upstream.health import HealthProbe, State
from gateway.upstream.openai_http import OpenAIHttpEngine
from tests.conftest import CATALOG, PATIENCE_S, RunningGateway, free_port, running_gateway
from tests.fake_engine import FakeEngine, completion, running_fake_engine
from tests.watching import AwakeClock, eventually

SESSIONS = [f"image-{number}" for number in range(12)]


@pytest.fixture(scope="module")
def running() -> Iterator[list[FakeEngine]]:
    with running_fake_engine() as one, running_fake_engine() as other:
        yield [one, other]


@pytest.fixture
def engines(running: list[FakeEngine]) -> list[FakeEngine]:
    for engine in running:
        engine.reset()
    return running


def urls_of(engines: Sequence[FakeEngine]) -> list[str]:
    return [f"{engine.url}/tiny" for engine in engines]


@contextlib.asynccontextmanager
async def asking(urls: list[str]) -> AsyncIterator[tuple[OpenAIHttpEngine, HealthProbe]]:
    probe = HealthProbe({"tiny": urls}, api_key=None)
    async with OpenAIHttpEngine(probe, Metrics().engine_requests, connect_timeout_s=20.0, api_key=None) as engine:
        yield engine, probe


async def ask(engine: OpenAIHttpEngine, session: str | None) -> bytes:
    async with engine.complete("tiny", [b"{}"], {"x-request-id": "1"}, session) as found:
        return b"".join([chunk async for chunk in found.chunks])


def ask_all(urls: list[str], sessions: Sequence[str | None]) -> tuple[list[bytes], HealthProbe]:
    """The answers to requests one after the other, and what is known of the engines after them."""

    async def run() -> tuple[list[bytes], HealthProbe]:
        async with asking(urls) as (engine, probe):
            return [await ask(engine, session) for session in sessions], probe

    return asyncio.run(run())


def sessions_at(engine: FakeEngine) -> set[str | None]:
    return {headers.get("x-session-id") for headers in engine.headers}


def test_the_requests_of_a_session_meet_one_engine_which_is_told_the_session(engines: list[FakeEngine]) -> None:
    ask_all(urls_of(engines), SESSIONS * 3)
    one, other = map(sessions_at, engines)
    assert one | other == set(SESSIONS)
    assert not one & other
    assert one
    assert other


def test_requests_without_session_are_spread_and_have_no_such_header(engines: list[FakeEngine]) -> None:
    ask_all(urls_of(engines), [None] * 10)
    assert [len(engine.headers) for engine in engines] == [5, 5]
    assert [sessions_at(engine) for engine in engines] == [{None}, {None}]


def test_a_lone_engine_is_told_the_session_too(engines: list[FakeEngine]) -> None:
    ask_all(urls_of(engines[:1]), ["image-1", None])
    assert [headers.get("x-session-id") for headers in engines[0].headers] == ["image-1", None]


def test_an_engine_that_cannot_be_connected_to_is_passed_over_within_the_request(engines: list[FakeEngine]) -> None:
    with AwakeClock() as clock:
        answers, probe = ask_all([f"http://127.0.0.1:{free_port()}/tiny", *urls_of(engines[:1])], SESSIONS)
    assert clock.now_s < 1, "nobody waits for one that is away while another is there"
    assert len(answers) == len(engines[0].documents) == len(SESSIONS)
    assert [engine.state for engine in probe.models["tiny"].engines] == [State.UNAVAILABLE, State.UNKNOWN]


def test_where_none_can_be_connected_to_the_model_is_unavailable() -> None:
    async def run() -> State:
        async with asking([f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"]) as (engine, probe):
            with pytest.raises(EngineUnavailable):
                await ask(engine, "image")
            return probe.models["tiny"].state

    assert asyncio.run(run()) == State.UNAVAILABLE


def test_what_was_sent_to_one_engine_is_not_given_to_another(engines: list[FakeEngine]) -> None:
    async def break_off(_: Request) -> Response:
        return Response(b"{}", headers={"content-encoding": "gzip"})

    async def run() -> None:
        async with asking(urls_of(engines)) as (engine, _):
            with pytest.raises(EngineFailed):
                await ask(engine, "image")

    for engine in engines:
        engine.answer = break_off
    asyncio.run(run())
    assert sum(len(engine.documents) for engine in engines) == 1


def test_one_image_that_everybody_asks_about_keeps_no_engine_idle(engines: list[FakeEngine]) -> None:
    async def slowly(_: Request) -> Response:
        await asyncio.sleep(0.3)
        return completion("late")

    async def run() -> None:
        async with asking(urls_of(engines)) as (engine, _):
            await asyncio.gather(*(ask(engine, "image") for _ in range(16)))

    for engine in engines:
        engine.answer = slowly
    asyncio.run(run())
    assert sorted(len(engine.documents) for engine in engines) == [6, 10], "1.25 times the half of 16, and the rest"


async def full_for_sessions(request: Request) -> Response:
    return Response(status_code=503) if "x-session-id" in request.headers else completion("here")


async def full(_: Request) -> Response:
    return Response("no place", status_code=503)


def test_a_request_whose_home_is_full_is_asked_once_without_session(engines: list[FakeEngine]) -> None:
    engines[0].answer = full_for_sessions
    answers, _ = ask_all(urls_of(engines[:1]), ["image"])
    assert b"here" in answers[0]
    assert [headers.get("x-session-id") for headers in engines[0].headers] == ["image", None]


def test_a_request_whose_engine_is_full_is_given_to_another(engines: list[FakeEngine]) -> None:
    engines[0].answer = full
    answers, _ = ask_all(urls_of(engines), SESSIONS)
    assert all(b"hello" in answer for answer in answers)
    assert engines[0].documents, "it was some session's home"


@pytest.mark.parametrize(("session", "times"), [("image", 2), (None, 1)])
def test_where_all_are_full_the_model_is_busy(engines: list[FakeEngine], session: str | None, times: int) -> None:
    for engine in engines:
        engine.answer = full
    with pytest.raises(EngineUnavailable, match="is busy"):
        ask_all(urls_of(engines), [session])
    assert sum(len(engine.documents) for engine in engines) == times


@pytest.mark.parametrize("answer", [Response("no place", 503), Response("", 502)], ids=["full", "gone"])
def test_a_model_that_had_no_room_is_said_to_have_refused_for_a_while(engines: list[FakeEngine], answer: Response) -> None:
    async def refuse(_: Request) -> Response:
        return answer

    async def run() -> bool:
        async with asking(urls_of(engines[:1])) as (engine, _):
            assert not engine.has_refused("tiny")
            with pytest.raises(EngineUnavailable):
                await ask(engine, None)
            return engine.has_refused("tiny")

    engines[0].answer = refuse
    assert asyncio.run(run()) == (answer.status_code == 503)


@pytest.mark.parametrize("answer", [JSONResponse({"error": {"message": "EngineCore died."}}, 500), Response("", 502)])
def test_an_engine_that_dies_of_a_request_is_told_from_one_that_never_had_it(
    engines: list[FakeEngine], answer: Response
) -> None:
    async def die(_: Request) -> Response:
        engines[0].is_well = False
        return answer

    async def run() -> None:
        async with asking(urls_of(engines[:1])) as (engine, probe), probe.running():
            with pytest.raises(EngineLost):
                await ask(engine, None)
            await probe.probe("tiny", probe.models["tiny"].engines[0])
            with pytest.raises(EngineUnavailable) as error:
                await ask(engine, None)
            assert not isinstance(error.value, EngineLost)

    engines[0].answer = die
    try:
        asyncio.run(run())
    finally:
        engines[0].is_well = True  # the gateway of the tests below looks before they begin


def catalog_of(urls: Sequence[str]) -> str:
    return CATALOG.replace("    tier: edge", f"    tier: edge\n    engine_urls: [{', '.join(urls)}]")


@pytest.fixture(scope="module")
def gateway(running: list[FakeEngine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with running_gateway(folder, "http://127.0.0.1:9", catalog_of(urls_of(running))) as gateway:
        yield gateway


def chat(gateway: RunningGateway) -> httpx.Response:
    request = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    return httpx.post(
        f"{gateway.url}/v1/chat/completions", json=request, headers={"x-session-id": "a client's"}, timeout=PATIENCE_S
    )


def wait_for(gateway: RunningGateway, state: str) -> None:
    def is_so() -> bool:
        return bool(httpx.get(f"{gateway.url}/v1/models/tiny", timeout=PATIENCE_S).json()["status"] == state)

    assert eventually(is_so), f"tiny did not become {state}"


def test_a_client_s_own_session_is_not_the_gateway_s(gateway: RunningGateway, engines: list[FakeEngine]) -> None:
    assert [chat(gateway).status_code for _ in range(4)] == [200] * 4
    assert [sessions_at(engine) for engine in engines] == [{None}, {None}]


def asked_of(gateway: RunningGateway, engines: Sequence[FakeEngine]) -> list[bool]:
    """Which of the engines get some of six requests, all of which are answered."""
    for engine in engines:
        engine.documents.clear()
    assert [chat(gateway).status_code for _ in range(6)] == [200] * 6
    return [bool(engine.documents) for engine in engines]


def wait_until_asked(gateway: RunningGateway, engines: Sequence[FakeEngine], expected: list[bool]) -> None:
    assert eventually(lambda: asked_of(gateway, engines) == expected), f"not {expected}"


def test_a_model_is_available_while_one_of_its_engines_is_well(gateway: RunningGateway, engines: list[FakeEngine]) -> None:
    wait_until_asked(gateway, engines, [True, True])
    for ill in (0, 1):
        engines[ill].is_well = False
        wait_until_asked(gateway, engines, [ill != 0, ill != 1])
        assert httpx.get(f"{gateway.url}/v1/models/tiny", timeout=PATIENCE_S).json()["status"] == "available"
        engines[ill].is_well = True
        wait_until_asked(gateway, engines, [True, True])
    for engine in engines:
        engine.is_well = False
    wait_for(gateway, "unavailable")
    assert chat(gateway).status_code == 503
    assert '"event":"engine_state"' in gateway.log.read_text()
