"""An engine of our own, for what the real one cannot be made to do on demand. It records what it is asked."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.conftest import free_port

SILENT_S = 10
"""Longer than a health check waits."""

Answer = Callable[[Request], Awaitable[Response]]


@dataclass
class FakeEngine:
    """Answers as `answer` does; `documents` and `headers` are what it was asked, in order; `running` is how many it answers."""

    url: str = ""
    answer: Answer | None = None
    documents: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    is_well: bool = True
    is_silent: bool = False
    running: int = 0

    async def handle(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        document = await request.json()
        self.documents.append(document)
        if self.answer is not None:
            return await self.answer(request)
        return stream(["a", "b"]) if document.get("stream") else completion("hello")

    def counting(self, app: ASGIApp) -> ASGIApp:
        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            is_request = scope["type"] == "http"
            self.running += is_request
            try:
                await app(scope, receive, send)
            finally:
                self.running -= is_request

        return counted

    async def health(self, _: Request) -> Response:
        if self.is_silent:
            await asyncio.sleep(SILENT_S)
        return Response(status_code=200 if self.is_well else 503)

    def reset(self) -> None:
        self.is_well = True
        self.is_silent = False
        self.answer = None
        self.documents.clear()
        self.headers.clear()
        self.cancelled.clear()


def completion(content: str) -> Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    document = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]}
    return JSONResponse(document | {"usage": usage})


def event(delta: str) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": delta}, "finish_reason": None}
    document = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny", "choices": [choice]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def stream(deltas: list[str], *, gap_s: float = 0, done: bool = True) -> Response:
    async def events() -> AsyncIterator[bytes]:
        for delta in deltas:
            yield event(delta)
            await asyncio.sleep(gap_s)
        if done:
            yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@contextlib.contextmanager
def running_fake_engine() -> Iterator[FakeEngine]:
    """A fake engine on a port of its own, in a thread."""
    port = free_port()
    engine = FakeEngine(url=f"http://127.0.0.1:{port}")
    routes = [
        Route("/{model}/v1/chat/completions", engine.handle, methods=["POST"]),
        Route("/{model}/health", engine.health),
    ]
    app = engine.counting(Starlette(routes=routes))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        pass
    try:
        yield engine
    finally:
        server.should_exit = True
        thread.join(10)


@contextlib.contextmanager
def raw_engine(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """An engine of bytes: health checks are answered, and every other connection is given to `answer`; its address."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if b"/health" in connection.recv(65536):
                connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            else:
                answer(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
