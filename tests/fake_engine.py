"""An engine of our own, for what the real one cannot be made to do on demand. It records what it is asked."""

import asyncio
import base64
import contextlib
import hashlib
import json
import math
import socket
import struct
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.conftest import free_port

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
        if request.url.path.endswith("/embeddings"):
            return embeddings(document)
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
        await self.speaks()
        return Response(status_code=200 if self.is_well else 503)

    async def speaks(self) -> None:
        """Returns once it is not silent any more."""
        while self.is_silent:  # noqa: ASYNC110 - tests tell it from another thread
            await asyncio.sleep(0.05)

    def calls(self, about: str) -> int:
        """How often it was asked something that has the words `about` in its messages."""
        return sum(about in json.dumps(document.get("messages")) for document in list(self.documents))

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


DIMENSIONS = 4


def vector(about: str) -> list[float]:
    """A vector of words, or of an image's URL, that is no other's: 32-bit floats."""
    digest = hashlib.sha256(about.encode()).digest()
    return [value / 256 for value in digest[:DIMENSIONS]]


def embeddings(document: dict[str, Any]) -> Response:
    """As vLLM 0.32 answers, in the encoding that is asked for."""
    abouts = document.get("input") or [document["messages"][0]["content"][0]["image_url"]["url"]]
    packed = [base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *vector(about))).decode() for about in abouts]
    return vectors(packed if document.get("encoding_format") == "base64" else [vector(about) for about in abouts])


def vectors(embedded: Sequence[Any]) -> Response:
    """vLLM's answer with these as its vectors; each cost three tokens."""
    data = [{"index": index, "object": "embedding", "embedding": embedding} for index, embedding in enumerate(embedded)]
    tokens = 3 * len(data)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
    head = {"id": f"embd-{uuid.uuid4().hex}", "object": "list", "created": 1_700_000_000, "model": "tiny"}
    return JSONResponse(head | {"data": data, "usage": usage})


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


@dataclass
class Gate:
    """Where an engine waits before each token of its answers, until so many are let through."""

    tokens: float = 0

    def open(self) -> None:
        self.tokens = math.inf

    async def passed(self, number: int) -> None:
        """Waits until the token of this number, counted from 0, is let through."""
        while self.tokens <= number:  # noqa: ASYNC110 - it is opened from another thread
            await asyncio.sleep(0.005)


Tokens = Callable[[dict[str, Any]], Sequence[str]]


def always(*tokens: str) -> Tokens:
    """The same tokens, whatever is asked."""
    return lambda _: tokens


@dataclass(frozen=True)
class Speech:
    """An engine's answer, whole or as the stream that vLLM 0.32 makes of it: the tokens that `tokens` makes of the request.

    `calls` are names and arguments of functions, which every choice calls after its tokens. The engine's `cancelled` is set
    when its caller leaves before the end.
    """

    engine: FakeEngine
    tokens: Tokens
    ends: Sequence[str | None] = ("stop",)
    """Why each choice ends; those after them end as the last of them."""
    calls: Sequence[tuple[str, str]] = ()
    gate: Gate = field(default_factory=lambda: Gate(math.inf))
    is_whole: bool = True
    """Whether its streams come to their end; one that does not breaks off after its last token."""

    async def __call__(self, request: Request) -> Response:
        document = await request.json()
        tokens = self.tokens(document)
        if document.get("stream"):
            return StreamingResponse(self._events(document, tokens), media_type="text/event-stream")
        if not await self._speaks(request, len(tokens)):
            self.engine.cancelled.set()
        choices = [self._choice(document, tokens, index) for index in _choices(document)]
        head = _head("chat.completion", document)
        return JSONResponse(head | {"choices": choices, "usage": _usage(document, tokens), "system_fingerprint": None})

    async def _speaks(self, request: Request, tokens: int) -> bool:
        """Waits until all tokens are through, and tells whether the caller does too."""
        speaking = asyncio.ensure_future(self.gate.passed(tokens - 1))
        leaving = asyncio.ensure_future(request.receive())
        await asyncio.wait((speaking, leaving), return_when=asyncio.FIRST_COMPLETED)
        has_spoken = speaking.done()
        for task in (speaking, leaving):
            task.cancel()
        return has_spoken

    def _choice(self, document: dict[str, Any], tokens: Sequence[str], index: int) -> dict[str, Any]:
        calls = [_call(*call) for call in self.calls]
        content = "".join(_of_choice(tokens, index)) or None
        message = {"role": "assistant", "content": content, "reasoning": None} | ({"tool_calls": calls} if calls else {})
        logprobs = _logprobs(document, _of_choice(tokens, index))
        return {"index": index, "message": message, "logprobs": logprobs} | self._end(index)

    def _end(self, index: int) -> dict[str, Any]:
        return {"finish_reason": self.ends[min(index, len(self.ends) - 1)], "stop_reason": None}

    async def _events(self, document: dict[str, Any], tokens: Sequence[str]) -> AsyncIterator[bytes]:
        head = _head("chat.completion.chunk", document)
        has_ended = False
        try:
            for token, chunk in self._chunks(document, tokens):
                await self.gate.passed(token)
                yield _written(head | {"choices": [chunk]})
            if self.is_whole and (document.get("stream_options") or {}).get("include_usage"):
                yield _written(head | {"choices": [], "usage": _usage(document, tokens)})
            if self.is_whole:
                yield b"data: [DONE]\n\n"
            has_ended = True
        finally:
            if not has_ended:
                self.engine.cancelled.set()

    def _chunks(self, document: dict[str, Any], tokens: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """For each choice a chunk with its role, one for each token and each call, and its end within the last.

        Each comes after the number of the token that is to be let through before it.
        """
        for index in _choices(document):
            yield -1, _chunk(index, {"role": "assistant", "content": ""})
        for number in range(len(tokens)):
            is_last = number == len(tokens) - 1 and self.is_whole and not self.calls
            for index in _choices(document):
                said = _of_choice(tokens, index)[number]
                chunk = _chunk(index, {"content": said}, _logprobs(document, [said]))
                yield number, chunk | (self._end(index) if is_last else {})
        for index in _choices(document):
            if not tokens and not self.calls:
                yield -1, _chunk(index, {}) | self._end(index)
            for chunk in self._calls_of(index):
                yield len(tokens) - 1, chunk

    def _calls_of(self, index: int) -> Iterator[dict[str, Any]]:
        for number, (name, arguments) in enumerate(self.calls):
            yield _chunk(index, {"tool_calls": [{"index": number} | _call(name, "")]})
            for at in range(0, len(arguments), 5):
                more = {"index": number, "function": {"arguments": arguments[at : at + 5]}}
                is_last = number == len(self.calls) - 1 and at + 5 >= len(arguments)
                yield _chunk(index, {"tool_calls": [more]}) | (self._end(index) if is_last else {})


def _choices(document: dict[str, Any]) -> range:
    return range(document.get("n") or 1)


def _of_choice(tokens: Sequence[str], index: int) -> list[str]:
    """Every choice says it in its own way."""
    return [token + "'" * index for token in tokens]


def _head(kind: str, document: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": 1_700_000_000, "model": document["model"]}


def _usage(document: dict[str, Any], tokens: Sequence[str]) -> dict[str, Any]:
    said = len(tokens) * len(_choices(document))
    return {"prompt_tokens": 7, "completion_tokens": said, "total_tokens": 7 + said, "prompt_tokens_details": None}


def _chunk(index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None, "token_ids": None}


def _logprobs(document: dict[str, Any], tokens: Sequence[str]) -> dict[str, Any] | None:
    if not document.get("logprobs"):
        return None
    others = [{"token": f"~{rank}", "logprob": -1.5 - rank, "bytes": None} for rank in range(document.get("top_logprobs") or 0)]
    return {
        "content": [
            {"token": token, "logprob": -len(token) / 8, "bytes": list(token.encode()), "top_logprobs": others}
            for token in tokens
        ]
    }


def _call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call-{uuid.uuid4().hex}", "type": "function", "function": function}


def _written(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


@contextlib.contextmanager
def running_fake_engine() -> Iterator[FakeEngine]:
    """A fake engine on a port of its own, in a thread."""
    port = free_port()
    engine = FakeEngine(url=f"http://127.0.0.1:{port}")
    routes = [
        Route("/{model}/v1/chat/completions", engine.handle, methods=["POST"]),
        Route("/{model}/v1/embeddings", engine.handle, methods=["POST"]),
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
            asked = connection.recv(65536)
            if b"/health" in asked:
                connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                return
            # To its end, which comes in a chunk of nothing: what is closed with something unread is reset.
            while not asked.endswith(b"0\r\n\r\n"):
                more = connection.recv(65536)
                if not more:
                    return
                asked = asked[-4:] + more
            answer(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
