"""What the client gets when an engine does not answer as it should."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

import httpx
import openai
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from gateway.upstream.health import EXPECTED_OUTAGE_S, PROBE_EVERY_S
from tests.cache_clients import waiting
from tests.conftest import PATIENCE_S, RunningGateway, free_port, running_gateway
from tests.fake_engine import FakeEngine, completion, event, stream
from tests.watching import SOON_S, eventually

HELLO: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]


def vllm_error(status: int, message: str, param: str | None = None) -> Response:
    return JSONResponse({"error": {"message": message, "type": "X", "param": param, "code": status}}, status)


FAILURES = {
    "vLLM refuses, naming a field": (
        vllm_error(400, "temperature must be in [0, 2]", "temperature"),
        (openai.BadRequestError, "temperature must be in [0, 2]", "temperature", None),
    ),
    "vLLM cannot decode an image": (
        vllm_error(400, "Failed to load image: cannot identify image file <_io.BytesIO object>"),
        (openai.BadRequestError, "An image of the request cannot be decoded.", "messages", None),
    ),
    "vLLM's queue is full": (
        vllm_error(503, "queue overflow"),
        (openai.InternalServerError, "The model 'tiny' is busy: its queue is full.", None, "1"),
    ),
    "vLLM fails inside": (
        vllm_error(500, "Traceback: /usr/lib/secret.py"),
        (openai.InternalServerError, "The engine of model 'tiny' failed on this request.", None, None),
    ),
    "Ray has no such route": (
        PlainTextResponse("Path '/tiny' not found.", 404),
        (openai.InternalServerError, "The model 'tiny' is not available right now.", None, "60"),
    ),
    "Ray's queue is full": (
        PlainTextResponse("Request dropped due to backpressure", 503),
        (openai.InternalServerError, "The model 'tiny' is busy: its queue is full.", None, "1"),
    ),
    "HAProxy has no server": (
        PlainTextResponse("Internal Server Error", 500),
        (openai.InternalServerError, "The model 'tiny' is not available right now.", None, "60"),
    ),
    "a prompt is too long": (
        vllm_error(400, "This model's maximum context length is 8 tokens."),
        (openai.BadRequestError, "This model's maximum context length is 8 tokens.", "messages", None),
    ),
    "the engine does not know its model's name yet": (
        vllm_error(404, "The model `tiny` does not exist."),
        (openai.InternalServerError, "The model 'tiny' is not available right now.", None, "60"),
    ),
    "something sends elsewhere": (
        Response(status_code=307, headers={"location": "/elsewhere"}),
        (openai.InternalServerError, "The engine of model 'tiny' failed on this request.", None, None),
    ),
    "an answer is compressed": (
        Response(b"{}", media_type="application/json", headers={"content-encoding": "gzip"}),
        (openai.InternalServerError, "The engine of model 'tiny' gave no usable answer.", None, None),
    ),
    "an answer is empty": (
        Response(b"", media_type="application/json"),
        (openai.InternalServerError, "The engine's answer is not a JSON object.", None, None),
    ),
    "something answers in HTML": (
        Response("<html>", 200, media_type="text/html"),
        (openai.InternalServerError, "The engine's answer is not a JSON object.", None, None),
    ),
}


@pytest.mark.parametrize(("answer", "expected"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_is_told_honestly_and_without_what_is_inside(
    client: openai.OpenAI,
    engine: FakeEngine,
    answer: Response,
    expected: tuple[type[openai.APIStatusError], str, str | None, str | None],
) -> None:
    async def fail(_: Request) -> Response:
        return answer

    engine.answer = fail
    kind, message, param, retry_after = expected
    with pytest.raises(kind) as error:
        client.chat.completions.create(model="tiny", messages=HELLO)
    assert isinstance(error.value.body, dict)
    assert error.value.body["message"] == message
    assert error.value.param == param
    assert error.value.response.headers.get("retry-after") == retry_after


def test_a_model_whose_engine_is_not_well_is_refused_at_once_until_it_is(
    gateway: RunningGateway, client: openai.OpenAI, engine: FakeEngine
) -> None:
    wait_for(gateway, "available")
    engine.is_well = False
    wait_for(gateway, "unavailable")
    with pytest.raises(openai.InternalServerError, match="not available right now") as error:
        client.chat.completions.create(model="tiny", messages=HELLO)
    assert error.value.status_code == 503
    assert int(error.value.response.headers["retry-after"]) > 0
    assert engine.documents == [], "it was not asked"
    assert 'fovea_model_available{model="tiny"} 0.0' in httpx.get(f"{gateway.url}/metrics", timeout=PATIENCE_S).text
    assert httpx.get(f"{gateway.url}/readyz", timeout=PATIENCE_S).status_code == 200
    engine.is_well = True
    wait_for(gateway, "available")
    assert client.chat.completions.create(model="tiny", messages=HELLO).choices[0].message.content == "hello"


def test_an_engine_that_has_just_died_is_unavailable_and_not_a_failure(
    gateway: RunningGateway, client: openai.OpenAI, engine: FakeEngine
) -> None:
    async def die(_: Request) -> Response:
        engine.is_well = False
        return vllm_error(500, "EngineCore encountered an issue.")

    wait_for(gateway, "available")
    engine.answer = die
    with pytest.raises(openai.InternalServerError) as error:
        client.chat.completions.create(model="tiny", messages=HELLO)
    assert error.value.status_code == 503
    engine.is_well = True
    wait_for(gateway, "available")


def wait_for(gateway: RunningGateway, state: str) -> None:
    """Waits until the gateway has noticed the state of `tiny`."""

    def is_so() -> bool:
        return bool(httpx.get(f"{gateway.url}/v1/models/tiny", timeout=PATIENCE_S).json()["status"] == state)

    assert eventually(is_so), f"tiny did not become {state}"


def test_an_engine_that_nobody_listens_for_is_a_503_with_retry_after(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("gateway")
    started_s = time.monotonic()
    with running_gateway(folder, f"http://127.0.0.1:{free_port()}") as gateway:
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json={"model": "tiny", "messages": HELLO}, timeout=PATIENCE_S)
        away_s = time.monotonic() - started_s
        assert answer.status_code == 503
        assert EXPECTED_OUTAGE_S - away_s <= int(answer.headers["retry-after"]) <= EXPECTED_OUTAGE_S, "what is left of it"
        assert answer.json()["error"]["code"] == "model_unavailable"
        assert httpx.get(f"{gateway.url}/readyz", timeout=PATIENCE_S).status_code == 200, (
            "readiness is about the gateway, not its engines"
        )


def test_a_stream_without_its_end_ends_with_an_error(
    gateway: RunningGateway, client: openai.OpenAI, engine: FakeEngine
) -> None:
    async def break_off(_: Request) -> Response:
        return stream(["one"], done=False)

    engine.answer = break_off
    before = gateway.counted(model="tiny", status="502")
    chunks = client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    assert next(chunks).choices[0].delta.content == "one"
    with pytest.raises(openai.APIError, match="The stream ended before the answer did"):
        list(chunks)
    assert gateway.counted(model="tiny", status="502") == before + 1
    assert "The stream ended before the answer did" in gateway.log.read_text()


def error_events(*before: str) -> Response:
    error = b'data: {"error": {"message": "n is too large", "type": "BadRequestError", "param": "n", "code": 400}}\n\n'
    return Response(b"".join(map(event, before)) + error + b"data: [DONE]\n\n", media_type="text/event-stream")


def test_a_stream_that_begins_with_an_error_is_a_status_instead(client: openai.OpenAI, engine: FakeEngine) -> None:
    async def answer(_: Request) -> Response:
        return error_events()

    engine.answer = answer
    with pytest.raises(openai.BadRequestError, match="n is too large") as error:
        client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    assert error.value.param == "n"


def test_a_stream_that_meets_an_error_ends_with_it_in_openai_s_form(client: openai.OpenAI, engine: FakeEngine) -> None:
    async def answer(_: Request) -> Response:
        return error_events("one")

    engine.answer = answer
    chunks = client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    assert next(chunks).choices[0].delta.content == "one"
    with pytest.raises(openai.APIError, match="n is too large") as error:
        list(chunks)
    assert (error.value.type, error.value.param, error.value.code) == ("invalid_request_error", "n", "invalid_value")


def test_a_client_that_leaves_a_stream_ends_its_request_at_the_engine(gateway: RunningGateway, engine: FakeEngine) -> None:
    async def answer(_: Request) -> Response:
        return StreamingResponse(_watched(engine), media_type="text/event-stream")

    engine.answer = answer
    request = {"model": "tiny", "messages": HELLO, "stream": True}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=request, timeout=PATIENCE_S) as response:
        chunks = response.iter_bytes()  # kept: httpx closes the connection with it
        next(chunks)
        assert not engine.cancelled.is_set()
    assert engine.cancelled.wait(SOON_S)


async def _watched(engine: FakeEngine) -> AsyncIterator[bytes]:
    try:
        while True:
            yield event("a")
            await asyncio.sleep(0.02)
    finally:
        engine.cancelled.set()


def test_a_client_that_does_not_wait_for_its_answer_ends_its_request_at_the_engine(
    gateway: RunningGateway, engine: FakeEngine
) -> None:
    async def answer(request: Request) -> Response:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        engine.cancelled.set()
        return completion("too late")

    engine.answer = answer
    with waiting(gateway, {"model": "tiny", "messages": HELLO}):
        assert eventually(lambda: engine.documents != [])
        assert not engine.cancelled.is_set()
    assert engine.cancelled.wait(SOON_S)


def test_who_waits_is_told_once_nobody_is_there(gateway: RunningGateway, engine: FakeEngine) -> None:
    """As when a replica is killed: its streams break off, and Serve keeps all else, health checks too, for the next one."""

    async def breaks_off(_: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            yield event("a")
            engine.is_silent = True
            raise ConnectionResetError

        return StreamingResponse(events(), media_type="text/event-stream")

    async def keeps(_: Request) -> Response:
        await engine.speaks()
        return completion("late")

    wait_for(gateway, "available")
    engine.answer = breaks_off
    ask = partial(httpx.post, f"{gateway.url}/v1/chat/completions", timeout=PATIENCE_S)
    assert '"error"' in ask(json={"model": "tiny", "messages": HELLO, "stream": True}).text
    engine.answer = keeps
    response = ask(json={"model": "tiny", "messages": HELLO})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_unavailable")
    assert int(response.headers["retry-after"]) > 0
    engine.reset()
    wait_for(gateway, "available")


def test_who_waits_goes_on_while_one_of_several_replicas_is_not_well(gateway: RunningGateway, engine: FakeEngine) -> None:
    async def meanwhile(_: Request) -> Response:
        engine.is_well = False
        await asyncio.sleep(PROBE_EVERY_S * 1.5)
        engine.is_well = True
        return completion("here")

    wait_for(gateway, "available")
    engine.answer = meanwhile
    response = httpx.post(f"{gateway.url}/v1/chat/completions", json={"model": "tiny", "messages": HELLO}, timeout=PATIENCE_S)
    assert response.json()["choices"][0]["message"]["content"] == "here"
    wait_for(gateway, "available")
