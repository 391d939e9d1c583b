"""Engines that speak OpenAI's API over HTTP, through aiohttp."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Self

import aiohttp

from gateway.errors import EngineFailed
from gateway.upstream.engine import EngineAnswer
from gateway.upstream.failures import failure, unreachable

_POOL_IDLE_S = 4.0
"""Shorter than the keep-alive of what may be behind (Ray Serve 90 s, uvicorn and so vLLM 5 s): it is this side that closes."""

_ERROR_AT_MOST_BYTES = 64 * 1024
_ERROR_AT_MOST_S = 5.0


class OpenAIHttpEngine:
    """The engines at `urls`, a base address for each model, over one pool of connections.

    A context manager, which opens and closes the pool.
    """

    def __init__(self, urls: Mapping[str, str], connect_timeout_s: float) -> None:
        self._urls = {model: f"{url.rstrip('/')}/v1/chat/completions" for model, url in urls.items()}
        self._connect_timeout_s = connect_timeout_s
        self._pool: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._pool = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_POOL_IDLE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pool is not None:
            await self._pool.close()

    @asynccontextmanager
    async def complete(self, model: str, body: bytes, request_id: str) -> AsyncIterator[EngineAnswer]:
        """See `Engine.complete`."""
        response = await self._post(model, body, request_id)
        try:
            if response.status != HTTPStatus.OK:
                raise failure(model, response.status, response.content_type, await _error_body(model, response))
            if "content-encoding" in response.headers:
                raise _unusable(model)
            yield EngineAnswer(response.headers.get("content-type", ""), _chunks(model, response))
        finally:
            # Unless the answer was read to its end this closes the connection, which is how an engine learns to stop.
            response.close()

    async def _post(self, model: str, body: bytes, request_id: str) -> aiohttp.ClientResponse:
        assert self._pool is not None, "used outside its context"
        # These and no others: what a client sends as headers is not for engines to see. And no redirects: the prompt
        # goes to the address in the catalog or nowhere.
        headers = {"content-type": "application/json", "x-request-id": request_id}
        try:
            return await self._pool.post(self._urls[model], data=body, headers=headers, allow_redirects=False)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise unreachable(model) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unusable(model) from error


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


async def _chunks(model: str, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise EngineFailed(f"The engine of model '{model}' broke off its answer.") from error


def _unusable(model: str) -> EngineFailed:
    return EngineFailed(f"The engine of model '{model}' gave no usable answer.")
