"""Providers that speak OpenAI's API over HTTP, through httpx: what that costs more than aiohttp is little beside the way."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Self

import httpx
from prometheus_client import Gauge

from gateway.catalog.providers import Provider
from gateway.errors import EngineFailed, EngineRefused, EngineUnavailable, GatewayError
from gateway.telemetry.logs import log_event
from gateway.telemetry.request import REQUEST_ID_HEADER
from gateway.upstream.engine import EngineAnswer
from gateway.upstream.failures import RETRY_AFTER_BUSY_S, refusal
from gateway.upstream.health import State
from gateway.upstream.presence import Presence

_POOL_IDLE_S = 4.0
"""Shorter than anybody's keep-alive: it is this side that closes, and no request goes to a connection that is gone."""

_ERROR_AT_MOST_BYTES = 64 * 1024
_ERROR_AT_MOST_S = 5.0
_A_DAY_S = 86_400
_DATE = "%a, %d %b %Y %H:%M:%S GMT"
"""RFC 9110, 5.6.7: the one form that may be sent. (email.utils reads more, and raises OverflowError on some of it.)"""

_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_NOT_LET_IN = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_FAULT_FOUND = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)


class ProviderEngine:
    """The `providers`, each over a pool of connections of its own, with its key from `keys`, if it has one there.

    A provider gets the request's document, its key and the request's id: nothing else of a caller, and no trace. `in_flight`
    counts what is asked of each.

    A context manager, which opens and closes the pools.
    """

    def __init__(
        self, providers: Mapping[str, Provider], keys: Mapping[str, str], in_flight: Gauge, connect_timeout_s: float
    ) -> None:
        self._providers = {
            name: _Line(name, provider, keys.get(name), in_flight, connect_timeout_s) for name, provider in providers.items()
        }
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for provider in self._providers.values():
            await self._open.enter_async_context(provider.opened())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    @property
    def presences(self) -> dict[str, Presence]:
        """Whether each answers, by name."""
        return {name: provider.presence for name, provider in self._providers.items()}

    def in_flight(self, name: str) -> int:
        """How many requests of this process the provider has."""
        return self._providers[name].in_flight

    @asynccontextmanager
    async def complete(
        self,
        model: str,
        body: Sequence[bytes | memoryview],
        headers: Mapping[str, str],
        session: str | None = None,  # noqa: ARG002  # there is one address
    ) -> AsyncIterator[EngineAnswer]:
        """See `Engine.complete`."""
        provider = self._providers[model]
        with provider.turn():
            response = await provider.post(body, headers.get(REQUEST_ID_HEADER, ""))
            try:
                if response.status_code != HTTPStatus.OK:
                    raise await provider.failure(response)
                if "content-encoding" in response.headers:
                    raise provider.unusable()
                content_type = response.headers.get("content-type", "")
                yield EngineAnswer(content_type, provider.chunks(response), provider.failure_in_answer)
            finally:
                # Unless the answer was read to its end this closes the connection, by which a server learns to stop.
                await response.aclose()


class _Line:
    """One provider: its address, its key, its connections, and how it is doing."""

    def __init__(self, name: str, provider: Provider, key: str | None, in_flight: Gauge, connect_timeout_s: float) -> None:
        self.presence = Presence()
        self.in_flight = 0
        self._name = name
        self._provider = provider
        self._key = key
        self._gauge = in_flight.labels(name)
        self._url = f"{provider.url.rstrip('/')}/v1/chat/completions"
        self._connect_timeout_s = connect_timeout_s
        self._client: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Has connections until the end of the block."""
        async with httpx.AsyncClient(
            headers={"accept-encoding": "identity", "user-agent": "fovea"}
            | ({"authorization": f"Bearer {self._key}"} if self._key else {}),
            # What an answer has said would go along with other tenants' requests.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=httpx.Timeout(None, connect=self._connect_timeout_s),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=_POOL_IDLE_S),
            follow_redirects=False,
            trust_env=False,
        ) as self._client:
            yield

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A request of the provider's. Raises EngineUnavailable: it is away, or has as many as it is to have."""
        if self.presence.state == State.UNAVAILABLE:
            raise self._away()
        if self.in_flight >= self._provider.concurrency:
            message = f"The model '{self._name}' is busy: {self.in_flight} requests are there, which is its concurrency."
            raise EngineUnavailable(message, retry_after_s=RETRY_AFTER_BUSY_S)
        self.in_flight += 1
        try:
            with self._gauge.track_inprogress():
                yield
        finally:
            self.in_flight -= 1

    async def post(self, body: Sequence[bytes | memoryview], request_id: str) -> httpx.Response:
        """The beginning of its answer, of whatever status. Raises EngineUnavailable, EngineFailed."""
        assert self._client is not None, "used while it is not open"
        size = sum(map(len, body))
        # With its length, and not in chunks: not every proxy before a provider takes those.
        headers = {"content-type": "application/json", "content-length": str(size), REQUEST_ID_HEADER: request_id}
        request = self._client.build_request("POST", self._url, content=_parts(body), headers=headers)
        try:
            return await self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self.presence.failed()
            raise self._away() from error
        except httpx.HTTPError as error:
            raise self.unusable() from error

    async def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """The bytes of an answer as they come. Raises EngineFailed: it breaks off."""
        try:
            async for chunk in response.aiter_raw():
                yield chunk
        except httpx.HTTPError as error:
            self.presence.failed()
            raise EngineFailed(f"The provider of model '{self._name}' broke off its answer.") from error
        self.presence.answered()

    async def failure(self, response: httpx.Response) -> GatewayError:
        """The error that an answer of another status than 200 stands for."""
        status = response.status_code
        try:
            said = await _error_body(response)
        except (httpx.HTTPError, TimeoutError):
            said = b""
        refused = refusal(response.headers.get("content-type", ""), said, self._key) if status in _FAULT_FOUND else None
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            message = f"The request is too large for the provider of model '{self._name}'."
            refused = EngineRefused(message, param="messages", reason="request_too_large")
        if status in _FAULT_FOUND or refused is not None:
            self.presence.answered()  # one request says nothing of the others
            return refused or self._failed()
        back_in_s = _seconds(response.headers.get("retry-after", ""))
        self.presence.failed(back_in_s)
        level = logging.ERROR if status in _NOT_LET_IN else logging.WARNING
        event = "provider_refused_the_key" if status in _NOT_LET_IN else "provider_failed"
        log_event(event, level, model=self._name, host=self._provider.host, status=status, key_name=self._provider.key)
        if status in _BUSY:
            retry_after_s = RETRY_AFTER_BUSY_S if back_in_s is None else back_in_s
            return EngineUnavailable(f"The model '{self._name}' takes no more requests right now.", retry_after_s=retry_after_s)
        return self._failed()

    def failure_in_answer(self, _: bytes) -> EngineFailed:
        """The error that comes with status 200; what it says stays here, for it may be about our key."""
        self.presence.failed()
        return self._failed()

    def _failed(self) -> EngineFailed:
        return EngineFailed(f"The provider of model '{self._name}' failed on this request.")

    def unusable(self) -> EngineFailed:
        """The error for an answer of which nothing can be made."""
        self.presence.failed()
        return EngineFailed(f"The provider of model '{self._name}' gave no usable answer.")

    def _away(self) -> EngineUnavailable:
        message = f"The model '{self._name}' is not available right now."
        return EngineUnavailable(message, retry_after_s=self.presence.retry_after_s)


async def _parts(body: Sequence[bytes | memoryview]) -> AsyncIterator[bytes]:
    for part in body:
        yield bytes(part)


async def _error_body(response: httpx.Response) -> bytes:
    body = b""
    async with asyncio.timeout(_ERROR_AT_MOST_S):
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > _ERROR_AT_MOST_BYTES:
                break
    return body


def _seconds(retry_after: str) -> int | None:
    """What the header says (RFC 9110, 10.2.3), a day at most; None where it is not there or says nothing."""
    try:
        if retry_after.isascii() and retry_after.isdigit():
            seconds = float(retry_after)
        else:
            seconds = (datetime.strptime(retry_after, _DATE).replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
    except ValueError:
        return None
    return math.ceil(min(max(seconds, 1), _A_DAY_S))
