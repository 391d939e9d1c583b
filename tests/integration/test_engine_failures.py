"""What the client gets when an engine does not answer as it should."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from tests.conftest import RunningGateway, free_port, running_gateway
from tests.fake_engine import FakeEngine, completion, event, stream

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
        (openai.InternalServerError, "The model 'tiny' is not available right now.", None, "10"),
    ),
    "Ray's queue is full": (
        PlainTextResponse("Request dropped due to backpressure", 503),
        (openai.InternalServerError, "The model 'tiny' is not available right now.", None, "10"),
    ),
    "HAProxy has no server": (
        PlainTextResponse("Internal Server Error", 500),
        (openai.InternalServerError, "The model 'tiny' is not available right now.", None, "10"),
    ),
    "something answers in HTML": (
        Response("<html>", 200, media_type="text/html"),
        (openai.InternalServerError, "The engine's answer is not JSON.", None, None),
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


def test_an_engine_that_nobody_listens_for_is_a_503_with_retry_after(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("gateway")
    with running_gateway(folder, f"http://127.0.0.1:{free_port()}") as gateway:
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json={"model": "tiny", "messages": HELLO})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert answer.json()["error"]["code"] == "model_unavailable"
        assert httpx.get(f"{gateway.url}/readyz").status_code == 200, "readiness is about the gateway, not its engines"


def test_a_stream_without_its_end_ends_with_an_error(client: openai.OpenAI, engine: FakeEngine) -> None:
    async def break_off(_: Request) -> Response:
        return stream(["one"], done=False)

    engine.answer = break_off
    chunks = client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    assert next(chunks).choices[0].delta.content == "one"
    with pytest.raises(openai.APIError, match="The stream ended before the answer did"):
        list(chunks)


def test_a_client_that_leaves_a_stream_ends_its_request_at_the_engine(gateway: RunningGateway, engine: FakeEngine) -> None:
    async def answer(_: Request) -> Response:
        return StreamingResponse(_watched(engine), media_type="text/event-stream")

    engine.answer = answer
    request = {"model": "tiny", "messages": HELLO, "stream": True}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=request) as response:
        chunks = response.iter_bytes()  # kept: httpx closes the connection with it
        next(chunks)
        assert not engine.cancelled.is_set()
    assert engine.cancelled.wait(1.0)


async def _watched(engine: FakeEngine) -> AsyncIterator[bytes]:
    try:
        for _ in range(1000):
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
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.url}/v1/chat/completions", json={"model": "tiny", "messages": HELLO}, timeout=0.3)
    assert engine.cancelled.wait(1.0)
    assert 'status="499"' in httpx.get(f"{gateway.url}/metrics").text
