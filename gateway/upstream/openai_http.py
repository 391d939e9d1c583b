"""Engines that speak OpenAI's API over HTTP, through aiohttp."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Self
from weakref import WeakSet

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from prometheus_client import Gauge

from gateway.errors import EngineFailed, GatewayError
from gateway.upstream.engine import EngineAnswer
from gateway.upstream.failures import BUSY, RETRY_AFTER_BUSY_S, failure, failure_in_answer, lost, unreachable
from gateway.upstream.health import EngineHealth, HealthProbe, State
from gateway.upstream.pool import EnginePool, PooledEngine, Turn

_POOL_IDLE_S = 4.0
"""Shorter than the keep-alive of what may be behind (Ray Serve 90 s, uvicorn and so vLLM 5 s): it is this side that closes."""

_CONNECT_AGAIN_AFTER_S = 0.25

_STALE_WITHIN_S = 0.5

_VLLM_WATCHES = {"x-request-disconnect-disabled": "?1"}
"""Leaves it to vLLM to notice that the caller went away. Serve, where it does, cancels vLLM's handler in a way that vLLM's own
task for a whole answer outlives (ray 2.60, Replica._direct_ingress_asgi; vLLM 0.32, with_cancellation): the engine would work
to the end of it for nobody."""

SESSION_HEADER = "x-session-id"
"""Ray Serve's name for it, unless RAY_SERVE_SESSION_ID_HEADER_KEY says otherwise where Ray runs."""

_COMPLETIONS = "/v1/chat/completions"
_EMBEDDINGS = "/v1/embeddings"

_ERROR_AT_MOST_BYTES = 64 * 1024
_ERROR_AT_MOST_S = 5.0


class OpenAIHttpEngine:
    """The engines that `health` knows of, over a pool of connections for each.

    `in_flight` counts what is asked of each model; `api_key` is the engines' own, which no caller of the gateway knows.

    A context manager, which opens and closes the pools.
    """

    def __init__(self, health: HealthProbe, in_flight: Gauge, connect_timeout_s: float, api_key: str | None) -> None:
        self._health = health
        self._engines = {model: EnginePool(known.engines) for model, known in health.models.items()}
        self._in_flight = {model: in_flight.labels(model) for model in health.models}
        self._connect_timeout_s = connect_timeout_s
        self._authorization = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._lines: dict[PooledEngine, aiohttp.ClientSession] = {}
        self._refused_s: dict[str, float] = {}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for pool in self._engines.values():
            for engine in pool.engines:
                self._lines[engine] = await self._open.enter_async_context(self._pool())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def in_flight(self, model: str) -> int:
        """How many requests of this process the model's engines have."""
        return self._engines[model].in_flight

    def has_refused(self, model: str) -> bool:
        """Whether an engine of the model refused a request within the last second, because it had no room."""
        refused_s = self._refused_s.get(model)
        return refused_s is not None and time.monotonic() - refused_s < RETRY_AFTER_BUSY_S

    def _pool(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=_Pool(limit=0, keepalive_timeout=_POOL_IDLE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def complete(
        self, model: str, body: Sequence[bytes | memoryview], headers: Mapping[str, str], session: str | None = None
    ) -> AbstractAsyncContextManager[EngineAnswer]:
        """See `Engine.complete`."""
        return self._ask(_Question(_COMPLETIONS, model, body), headers, session)

    def embed(
        self, model: str, body: Sequence[bytes | memoryview], headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[EngineAnswer]:
        """See `EmbeddingEngine.embed`."""
        return self._ask(_Question(_EMBEDDINGS, model, body), headers, None)

    @asynccontextmanager
    async def _ask(self, question: "_Question", headers: Mapping[str, str], session: str | None) -> AsyncIterator[EngineAnswer]:
        model = question.model
        with self._engines[model].turn(session) as turn, self._in_flight[model].track_inprogress():
            response = await self._post(question, turn, self._sent(headers, session))
            if response.status == HTTPStatus.SERVICE_UNAVAILABLE and session is not None and turn.leave_home():
                # Its home is full: refused before any work was done, and the others may have room. Ray's router does not look,
                # with direct streaming, whether the replica that it names has.
                response.close()
                response = await self._post(question, turn, self._sent(headers, None))
            assert turn.engine is not None, "somebody answered"
            engine = turn.engine.health
            try:
                if response.status != HTTPStatus.OK:
                    raise await self._failure(model, engine, response)
                if "content-encoding" in response.headers:
                    raise _unusable(model)
                content_type = response.headers.get("content-type", "")
                yield EngineAnswer(content_type, self._chunks(model, engine, response), partial(failure_in_answer, model))
            finally:
                # Unless the answer was read to its end this closes the connection, which is how an engine learns to stop.
                response.close()

    def _sent(self, headers: Mapping[str, str], session: str | None) -> dict[str, str]:
        """The headers for an engine: these and no others. What a client sends as headers is not for engines to see."""
        sent = {"content-type": "application/json", **headers, **self._authorization, **_VLLM_WATCHES}
        if session is not None:
            sent[SESSION_HEADER] = session
        return sent

    async def _post(self, question: "_Question", turn: Turn, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """The answer of the turn's engine, or, where nothing could be sent to that, of the next best.

        Raises EngineUnavailable, EngineFailed.
        """
        while turn.engine is not None:
            engine, is_last = turn.engine, turn.is_last
            try:
                async with engine.health.while_somebody_is_there():
                    return await self._post_to(question, engine, headers, is_last=is_last)
            except _NotConnectedError as error:
                if is_last:
                    raise self._unreachable(question.model) from error
                turn.pass_over()
            except TimeoutError as error:
                raise self._lost(question.model) from error
        # Serve would keep the request until an engine is back, and nobody could tell the caller to come later.
        raise self._unreachable(question.model)

    async def _post_to(
        self, question: "_Question", engine: PooledEngine, headers: Mapping[str, str], *, is_last: bool
    ) -> aiohttp.ClientResponse:
        asked_s = engine.health.now_s
        post = self._post_once_connected if is_last else self._post_twice_if_stale
        try:
            return await post(_Line(self._lines[engine], f"{engine.url}{question.path}"), question.body, headers)
        except aiohttp.ClientConnectorError as error:
            engine.health.failed()
            raise _NotConnectedError from error
        except aiohttp.ConnectionTimeoutError as error:
            engine.health.was_silent(asked_s)
            raise _NotConnectedError from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unusable(question.model) from error

    def _unreachable(self, model: str) -> GatewayError:
        return unreachable(model, self._health.models[model].retry_after_s)

    def _lost(self, model: str) -> GatewayError:
        return lost(model, self._health.models[model].retry_after_s)

    async def _failure(self, model: str, engine: EngineHealth, response: aiohttp.ClientResponse) -> GatewayError:
        said = await _error_body(model, response)
        if response.status in BUSY:
            self._refused_s[model] = time.monotonic()
        is_defect = response.status == HTTPStatus.INTERNAL_SERVER_ERROR
        if is_defect and await self._health.probe(model, engine) == State.UNAVAILABLE:
            # A replica whose engine has died answers so until Serve has noticed.
            return self._lost(model)
        return failure(model, response.status, response.content_type, said, self._health.models[model].retry_after_s)

    async def _chunks(self, model: str, engine: EngineHealth, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.content.iter_any():
                engine.sent_something()
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            engine.broke_off()
            raise EngineFailed(f"The engine of model '{model}' broke off its answer.") from error

    async def _post_once_connected(
        self, line: "_Line", body: Sequence[bytes | memoryview], headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Posts; once more where no connection came about, so that nothing was sent.

        A HAProxy that is being replaced refuses for a moment, and on a starved machine it may be this process that was late.
        """
        try:
            return await self._post_twice_if_stale(line, body, headers)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            await asyncio.sleep(_CONNECT_AGAIN_AFTER_S)
        return await self._post_twice_if_stale(line, body, headers)

    async def _post_twice_if_stale(
        self, line: "_Line", body: Sequence[bytes | memoryview], headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Posts; once more, where a connection of the pool turns out to have been closed on the other side meanwhile.

        Known by three things together: it had been used before, it failed at once, and not a byte had come back. A request that
        takes its engine down does so later, and must not be given to the next one.
        """
        # In chunks: where a body of known length comes in the segment after its headers, HAProxy 2.8 does not notice any more
        # that this side goes away, and the engine would work to the end of an answer for nobody.
        # And no redirects: the prompt goes to the address in the catalog or nowhere.
        post = partial(line.session.post, line.url, chunked=True, allow_redirects=False)
        attempt = _Attempt(time.monotonic())
        _attempt.set(attempt)
        try:
            return await post(data=_sendable(body), headers=headers)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) or not attempt.looks_stale(time.monotonic()):
                raise
        return await post(data=_sendable(body), headers={**headers, "connection": "close"})


_JOINED_AT_MOST_BYTES = 256 * 1024
"""A body of this size is copied in less time than it takes to send it in pieces, each with a call of the system."""


def _sendable(body: Sequence[bytes | memoryview]) -> bytes | AsyncIterator[bytes | memoryview]:
    """What aiohttp sends: a small body as one piece, a large one without joining images to the words between them."""

    async def parts() -> AsyncIterator[bytes | memoryview]:
        for part in body:
            yield part

    return b"".join(body) if sum(map(len, body)) <= _JOINED_AT_MOST_BYTES else parts()


class _NotConnectedError(Exception):
    """No connection came about, so that nothing of the request was sent."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of a model: `path` is the one after its engine's address, and `body` in parts."""

    path: str
    model: str
    body: Sequence[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class _Line:
    """How an engine is asked: over the connections of `session`, at `url`."""

    session: aiohttp.ClientSession
    url: str


@dataclass(slots=True)
class _Attempt:
    started_s: float
    reused: bool = False

    def looks_stale(self, now_s: float) -> bool:
        return self.reused and now_s - self.started_s < _STALE_WITHIN_S


_attempt: ContextVar[_Attempt] = ContextVar("attempt")


class _Pool(aiohttp.TCPConnector):
    """Connections to an engine; the attempt that gets one is told whether it has been used before.

    aiohttp's traces tell as much, and cost as much as the parsing of a request.
    """

    def __init__(self, *, limit: int, keepalive_timeout: float) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout)
        self._used: WeakSet[object] = WeakSet()

    async def connect(self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:  # noqa: ASYNC109 - its own
        connection = await super().connect(req, traces, timeout)
        _attempt.get().reused = connection.protocol in self._used
        self._used.add(connection.protocol)
        return connection


async def _error_body(model: str, response: aiohttp.ClientResponse) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(_ERROR_AT_MOST_S):
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _ERROR_AT_MOST_BYTES:
                    break
    except (aiohttp.ClientError, OSError) as error:
        raise _unusable(model) from error
    return body


def _unusable(model: str) -> EngineFailed:
    return EngineFailed(f"The engine of model '{model}' gave no usable answer.")
