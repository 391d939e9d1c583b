"""Redis's connections, lent to one command at a time.

They are redis-py's: it speaks the protocol, TLS and the handshake. Its pool and client above them are left out: those hand a
connection on before anybody could say that the reply on it made no sense, and take as long as all the rest.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

from redis._parsers import _AsyncRESP3Parser
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, RedisSSLContext, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from gateway.cache.breaker import Budget

Command = tuple[bytes | str | int, ...]
_Reply = TypeVar("_Reply")

_MOST = 64
_HANDSHAKE_S = 1.0
"""What a handshake may take Redis. Who waits for it may leave earlier, and the next one finds the connection open."""


_OPTIONS = frozenset(
    ("db", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_cert_reqs", "ssl_check_hostname", "ssl_keyfile")
)
"""What the URL may say after its `?`. redis-py would take from there all that its connections take, our settings included."""


def check_url(url: str) -> None:
    """Passes a URL of a Redis that could be there.

    Raises ValueError, without a word of the URL, which may hold a password.
    """
    unknown = sorted(parse_qs(urlsplit(url).query).keys() - _OPTIONS)
    if unknown:
        raise ValueError(f"has the option {unknown[0]}; known are {', '.join(sorted(_OPTIONS))}")
    try:
        Connections(url)
    except Exception:  # noqa: BLE001 - ValueError, TypeError, OSError, RedisError
        raise ValueError("is no URL of a Redis, or names a file that cannot be read") from None


class Connections:
    """The connections to the Redis at `url`, 64 at most; who finds them all busy waits for one.

    Raises ValueError: the URL is none of Redis's; OSError: a file of certificates that it names cannot be read.
    """

    def __init__(self, url: str) -> None:
        # No retries, no timeouts, no notes to the server about the client: the caller has one budget for all of it.
        self._made_by = ConnectionPool.from_url(
            url,
            protocol=3,
            # hiredis, which would be taken where it is installed, makes room for as many items as a reply announces: of ten
            # bytes of garbage it makes 16 GiB, which takes 44 s. It saves nothing here.
            parser_class=_AsyncRESP3Parser,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=None,
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._tls: RedisSSLContext | None = None
        pattern = self._made_by.make_connection()  # type: ignore[no-untyped-call]
        if isinstance(pattern, SSLConnection):
            # One for all, and now: to read the authorities' certificates takes 20 ms, in which nobody is served.
            self._tls = pattern.ssl_context
            pattern.ssl_context.get()
        self._places = asyncio.Semaphore(_MOST)
        self._idle: list[AbstractConnection] = []
        self._opening: set[asyncio.Future[None]] = set()

    async def ask(self, command: Command, read: Callable[[object], _Reply]) -> _Reply:
        """What `read` makes of Redis's reply. A connection is used again only if that was all well, or Redis refused.

        Raises ResponseError: Redis refused; what `read` raises; and whatever redis-py does of a connection that failed.
        """
        async with self._places:
            connection = await self._idle_one()
            try:
                await connection.send_command(*command)
                reply = read(await connection.read_response())
            except ReadOnlyError:
                # It was the master once, it may be: the address leads to another by now, or soon.
                await connection.disconnect(nowait=True)
                raise
            except ResponseError:
                self._idle.append(connection)
                raise
            except BaseException:
                # Cancelled too: the reply that comes on it then is nobody else's.
                await connection.disconnect(nowait=True)
                raise
            self._idle.append(connection)
            return reply

    async def close_idle(self) -> None:
        """Closes those that nobody uses."""
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)

    async def close(self) -> None:
        """Closes them, once nobody uses any."""
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        closing = [connection.disconnect() for connection in self._idle]
        self._idle.clear()
        # TLS says goodbye, and would wait for half a minute for one that does not answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HANDSHAKE_S):
                await asyncio.gather(*closing, return_exceptions=True)

    async def _idle_one(self) -> AbstractConnection:
        while True:
            while self._idle:
                connection = self._idle.pop()
                # True also where Redis has closed it.
                if not await connection.can_read():
                    return connection
                await connection.disconnect(nowait=True)
            opening = asyncio.ensure_future(self._open())
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
            await asyncio.shield(opening)

    async def _open(self) -> None:
        """One more that is idle."""
        connection: AbstractConnection = self._made_by.make_connection()  # type: ignore[no-untyped-call]
        if isinstance(connection, SSLConnection) and self._tls is not None:
            connection.ssl_context = self._tls
        try:
            async with Budget(_HANDSHAKE_S):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, ResponseError):
                raise RedisConnectionError("the handshake was refused") from error
            raise
        self._idle.append(connection)
