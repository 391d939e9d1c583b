"""Traces, as a real OTLP receiver gets them: HTTP, protobuf, and the spans nested."""

import pathlib
import threading
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.conftest import PATIENCE_S, free_port, running_gateway
from tests.fake_engine import FakeEngine

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Receiver:
    """What a collector does on port 4318, as far as it concerns traces."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.spans: list[Span] = []

    async def take(self, request: Request) -> Response:
        message = ExportTraceServiceRequest.FromString(await request.body())
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return Response(media_type="application/x-protobuf")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    app = Starlette(routes=[Route("/v1/traces", receiver.take, methods=["POST"])])
    port = int(receiver.url.rsplit(":", 1)[1])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield receiver
    server.should_exit = True
    thread.join(10)


def attributes(span: Span) -> dict[str, str | int]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_one_tree_below_the_caller_s_span(
    engine: FakeEngine, receiver: Receiver, tmp_path: pathlib.Path, *, stream: bool
) -> None:
    with running_gateway(tmp_path, engine.url, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as gateway:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        answer = httpx.post(
            f"{gateway.url}/v1/chat/completions", json=HELLO | {"stream": stream}, headers=headers, timeout=PATIENCE_S
        )
    spans = {span.name: span for span in receiver.spans}
    assert spans.keys() == {"POST /v1/chat/completions", "read body", "prepare", "chat tiny"}
    assert {span.trace_id.hex() for span in receiver.spans} == {TRACE}
    request, call = spans["POST /v1/chat/completions"], spans["chat tiny"]
    assert (request.parent_span_id.hex(), request.kind) == (PARENT, Span.SPAN_KIND_SERVER)
    for name in ("read body", "prepare", "chat tiny"):
        assert spans[name].parent_span_id == request.span_id
        assert request.start_time_unix_nano <= spans[name].start_time_unix_nano
        assert spans[name].end_time_unix_nano <= request.end_time_unix_nano
    assert attributes(request)["http.response.status_code"] == 200
    assert attributes(request)["fovea.request_id"] == answer.headers["x-request-id"]
    assert attributes(call) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "tiny",
    }
    assert engine.headers[0]["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"


def test_a_request_that_fails_is_told_with_its_status(engine: FakeEngine, receiver: Receiver, tmp_path: pathlib.Path) -> None:
    with running_gateway(tmp_path, f"http://127.0.0.1:{free_port()}", FOVEA_OTLP_ENDPOINT=receiver.url) as gateway:
        httpx.post(f"{gateway.url}/v1/chat/completions", json=HELLO, timeout=PATIENCE_S)
        httpx.post(f"{gateway.url}/v1/chat/completions", json={}, timeout=PATIENCE_S)
    told = {
        attributes(span)["http.response.status_code"]: span.status.code
        for span in receiver.spans
        if span.kind == Span.SPAN_KIND_SERVER
    }
    assert told.keys() == {503, 400}
    assert told[503] == 2, "an error"
    assert told[400] == 0, "the caller's, not ours"


def test_without_an_endpoint_the_caller_s_trace_is_passed_on(engine: FakeEngine, tmp_path: pathlib.Path) -> None:
    with running_gateway(tmp_path, engine.url) as gateway:
        parent = f"00-{TRACE}-{PARENT}-01"
        httpx.post(f"{gateway.url}/v1/chat/completions", json=HELLO, headers={"traceparent": parent}, timeout=PATIENCE_S)
    assert engine.headers[0]["traceparent"] == parent


def test_without_an_endpoint_nothing_is_traced(engine: FakeEngine, tmp_path: pathlib.Path) -> None:
    with running_gateway(tmp_path, engine.url) as gateway:
        httpx.post(f"{gateway.url}/v1/chat/completions", json=HELLO, timeout=PATIENCE_S)
    assert "traceparent" not in engine.headers[0]
