"""Engines that speak OpenAI's API over HTTP, through aiohttp."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
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
from gateway.upstream.failures import failure, unreachable
from gateway.upstream.health import HealthProbe, State

_POOL_IDLE_S = 4.0
"""Shorter than the keep-alive of what may be behind (Ray Serve 90 s, uvicorn and so vLLM 5 s): it is this side that closes."""

_CONNECT_AGAIN_AFTER_S = 0.25

_STALE_WITHIN_S = 0.5

_VLLM_WATCHES = {"x-request-disconnect-disabled": "?1"}
"""Leaves it to vLLM to notice that the caller went away. Serve, where it does, cancels vLLM's handler in a way that vLLM's own
task for a whole answer outlives (ray 2.60, Replica._direct_ingress_asgi; vLLM 0.32, with_cancellation): the engine would work
to the end of it for nobody."""

_ERROR_AT_MOST_BYTES = 64 * 1024
_ERROR_AT_MOST_S = 5.0


class OpenAIHttpEngine:
    """The engines at `urls`, a base address for each model, over a pool of connections for each.

    `in_flight` counts what is asked of each model; `api_key` is the engines' own, which no caller of the gateway knows.

    A context manager, which opens and closes the pools.
    """

    def __init__(
        self, urls: Mapping[str, str], health: HealthProbe, in_flight: Gauge, connect_timeout_s: float, api_key: str | None
    ) -> None:
        self._urls = {model: f"{url.rstrip('/')}/v1/chat/completions" for model, url in urls.items()}
        self._health = health
        self._in_flight = {model: in_flight.labels(model) for model in urls}
        self._connect_timeout_s = connect_timeout_s
        self._authorization = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._pools: dict[str, aiohttp.ClientSession] = {}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for model in self._urls:
            self._pools[model] = await self._open.enter_async_context(self._pool())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def _pool(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=_Pool(limit=0, keepalive_timeout=_POOL_IDLE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    @asynccontextmanager
    async def complete(
        self, model: str, body: Sequence[bytes | memoryview], headers: Mapping[str, str]
    ) -> AsyncIterator[EngineAnswer]:
        """See `Engine.complete`."""
        if self._health.models[model].state == State.UNAVAILABLE:
            # Serve would keep the request until an engine is back, and nobody could tell the caller to come later.
            raise self._unreachable(model)
        with self._in_flight[model].track_inprogress():
            try:
                async with self._health.models[model].while_somebody_is_there():
                    response = await self._post(model, body, headers)
            except TimeoutError as error:
                raise self._unreachable(model) from error
            try:
                if response.status != HTTPStatus.OK:
                    raise await self._failure(model, response)
                if "content-encoding" in response.headers:
                    raise _unusable(model)
                yield EngineAnswer(response.headers.get("content-type", ""), self._chunks(model, response))
            finally:
                # Unless the answer was read to its end this closes the connection, which is how an engine learns to stop.
                response.close()

    async def _post(self, model: str, body: Sequence[bytes | memoryview], headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        # These and no others: what a client sends as headers is not for engines to see. And no redirects: the prompt
        # goes to the address in the catalog or nowhere.
        sent = {"content-type": "application/json", **headers, **self._authorization, **_VLLM_WATCHES}
        asked_s = self._health.models[model].now_s
        try:
            return await self._post_once_connected(self._pools[model], self._urls[model], body, sent)
        except aiohttp.ClientConnectorError as error:
            self._health.models[model].failed()
            raise self._unreachable(model) from error
        except aiohttp.ConnectionTimeoutError as error:
            self._health.models[model].was_silent(asked_s)
            raise self._unreachable(model) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unusable(model) from error

    def _unreachable(self, model: str) -> GatewayError:
        return unreachable(model, self._health.models[model].retry_after_s)

    async def _failure(self, model: str, response: aiohttp.ClientResponse) -> GatewayError:
        said = await _error_body(model, response)
        if response.status == HTTPStatus.INTERNAL_SERVER_ERROR and await self._health.probe(model) == State.UNAVAILABLE:
            # A replica whose engine has died answers so until Serve has noticed.
            return self._unreachable(model)
        return failure(model, response.status, response.content_type, said, self._health.models[model].retry_after_s)

    async def _chunks(self, model: str, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        health = self._health.models[model]
        try:
            async for chunk in response.content.iter_any():
                health.sent_something()
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            health.broke_off()
            raise EngineFailed(f"The engine of model '{model}' broke off its answer.") from error

    async def _post_once_connected(
        self, pool: aiohttp.ClientSession, url: str, body: Sequence[bytes | memoryview], headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Posts; once more where no connection came about, so that nothing was sent.

        A HAProxy that is being replaced refuses for a moment, and on a starved machine it may be this process that was late.
        """
        try:
            return await self._post_twice_if_stale(pool, url, body, headers)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            await asyncio.sleep(_CONNECT_AGAIN_AFTER_S)
        return await self._post_twice_if_stale(pool, url, body, headers)

    async def _post_twice_if_stale(
        self, pool: aiohttp.ClientSession, url: str, body: Sequence[bytes | memoryview], headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Posts; once more, where a connection of the pool turns out to have been closed on the other side meanwhile.

        Known by three things together: it had been used before, it failed at once, and not a byte had come back. A request that
        takes its engine down does so later, and must not be given to the next one.
        """
        # In chunks: where a body of known length comes in the segment after its headers, HAProxy 2.8 does not notice any more
        # that this side goes away, and the engine would work to the end of an answer for nobody.
        post = partial(pool.post, url, chunked=True, allow_redirects=False)
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


@dataclass(slots=True)
class _Attempt:
    started_s: float
    reused: bool = False

    def looks_stale(self, now_s: float) -> bool:
        return self.reused and now_s - self.started_s < _STALE_WITHIN_S


_attempt: ContextVar[_Attempt] = ContextVar("attempt")


class _Pool(aiohttp.TCPConnector):
    """Connections to a model's engines; the attempt that gets one is told whether it has been used before.

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
