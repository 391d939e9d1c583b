"""The bytes behind an image's URL, fetched from the public internet and from stores that are named, and from nowhere else.

The guard sits where a connection is made, `_connection`: the name is resolved once, all its addresses are judged, and one of
those very addresses is connected to. httpcore below httpx is used without httpx around it: it knows no redirects, cookies,
proxies, .netrc or compression that would have to be turned off, and takes a place in its parts, so that no URL is parsed twice.
"""

import asyncio
import functools
import ipaddress
import math
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import httpcore

from gateway import __version__
from gateway.errors import shortened
from gateway.images.addresses import AllowedHosts, IPAddress, Place, UnfitUrl

MOST_REDIRECTS = 3

_ADDRESSES_TRIED = 4
"""Of a name that has more, most are as good as the rest; and nobody should have us knock at hundreds of doors."""
_NAME_THREADS = 8
_HEAD_BYTES = 64 * 1024
_FEW_PIECES = 4096
_PIECE_BYTES = 256
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK = 200
_HEADERS = (
    ("user-agent", f"Fovea/{__version__}"),
    ("accept", "image/png, image/jpeg, image/webp, image/gif"),
    ("accept-encoding", "identity"),
    ("connection", "close"),
)
_UNUSABLE = (OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)
"""What connecting, TLS and HTTP raise of a host that does not do its part."""


class CannotFetch(Exception):
    """The image was not fetched. The message is for the caller: what was refused, and by which rule or setting."""


class NoTurn(Exception):
    """As many images as may be are being fetched, and have been for as long as fetching one may take."""


class Resolver(Protocol):
    """Finds the addresses of names."""

    async def resolve(self, host: str, port: int) -> Sequence[IPAddress]:
        """All addresses of `host`, the best first.

        Raises OSError: there are none.
        """
        ...


class SystemResolver:
    """The machine's own resolver, in threads of its own.

    A look-up cannot be called off. A domain whose servers do not answer would occupy the loop's few threads for look-ups
    (libuv lends two of its four), and with them the way to the engines.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_NAME_THREADS, thread_name_prefix="image-names")

    async def resolve(self, host: str, port: int) -> Sequence[IPAddress]:
        ask = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [ipaddress.ip_address(str(address[0])) for *_, address in found]


class _BriefHead(httpcore.AsyncNetworkStream):
    """A connection that gives up on an answer which does not begin: 1xx before it may be sent without end."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._bytes_left: float = _HEAD_BYTES

    def head_ended(self) -> None:
        self._bytes_left = math.inf

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # httpcore's own
        if self._bytes_left <= 0:
            raise httpcore.RemoteProtocolError
        data = await self._stream.read(max_bytes, timeout)
        self._bytes_left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  # httpcore's own
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: bytes


class ImageFetcher:
    """Fetches images by URL, `at_once` of them at a time, so that their bodies take at most twice that many times `max_bytes`.

    `allowed_hosts` are entries of `AllowedHosts`, a ValueError if they are not; `ssl_context` takes the system's and certifi's
    roots unless given. Every fetch has connections of its own, which end with it.
    """

    def __init__(
        self,
        *,
        schemes: frozenset[str],
        allowed_hosts: frozenset[str],
        max_bytes: int,
        at_once: int,
        connect_s: float = 2.0,
        total_s: float = 5.0,
        ssl_context: ssl.SSLContext | None = None,
        resolver: Resolver | None = None,
        backend: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._schemes = schemes
        self._allowed = AllowedHosts.of(allowed_hosts)
        self._max_bytes = max_bytes
        self._turns = asyncio.Semaphore(at_once)
        self._connect_s = connect_s
        self._total_s = total_s
        self._ssl_context = ssl_context or httpcore.default_ssl_context()
        self._ssl_context.set_alpn_protocols(["http/1.1"])
        self._resolver = resolver or SystemResolver()
        self._backend = backend or httpcore.AnyIOBackend()

    async def fetch(self, url: str, count: Callable[[int], None]) -> bytes:
        """The bytes that an https: or http: URL leads to over at most three redirects, whatever they are.

        `count` is told of further bytes as they come, and may raise. Takes `total_s` seconds at most, and as long before its
        turn. Raises CannotFetch, NoTurn.
        """
        subject = "The image URL"
        try:
            place = Place.of(url, self._schemes)
            subject = f"The image URL with host '{shortened(place.host)}'"
            async with self._turn(), asyncio.timeout(self._total_s):
                for _ in range(MOST_REDIRECTS + 1):
                    answer = await self._answer(place, count)
                    if isinstance(answer, bytes):
                        return answer
                    # Where it leads is not repeated: it may come from a host that the caller does not see.
                    subject = "A redirect of the image URL"
                    place = place.redirected(answer.location, self._schemes)
                raise UnfitUrl(f"leads to another: {MOST_REDIRECTS} are followed.")
        except UnfitUrl as refusal:
            raise CannotFetch(f"{subject} {refusal}") from refusal
        except TimeoutError as late:
            raise CannotFetch(f"{subject} was not answered in full: {self._total_s:g} s are given to all of it.") from late

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._total_s):
                await self._turns.acquire()
        except TimeoutError as error:
            raise NoTurn from error
        try:
            yield
        finally:
            self._turns.release()

    async def _answer(self, place: Place, count: Callable[[int], None]) -> bytes | _Redirect:
        try:
            stream = await self._connection(place)
            try:
                return await self._exchange(place, _BriefHead(stream), count)
            finally:
                await stream.aclose()
        except _UNUSABLE as error:
            # One message for all of these: which of them it was would tell an open port from a closed one.
            raise UnfitUrl(
                f"gave no answer: no connection within {self._connect_s:g} s, no valid certificate, or no whole HTTP/1.1."
            ) from error

    async def _connection(self, place: Place) -> httpcore.AsyncNetworkStream:
        async with asyncio.timeout(self._connect_s):
            stream = await self._connection_to(await self._permitted_addresses(place), place.port)
            if place.scheme == "http":
                return stream
            try:
                return await stream.start_tls(self._ssl_context, server_hostname=place.host)
            except BaseException:
                await stream.aclose()
                raise

    async def _permitted_addresses(self, place: Place) -> Sequence[IPAddress]:
        """The addresses of the host of `place`, all of which images may come from."""
        addresses = await self._addresses(place) if self._allowed.may_permit(place) else ()
        if addresses and all(self._allowed.permit(place, address) for address in addresses):
            return addresses
        if not place.has_usual_port:
            raise UnfitUrl(f"asks for port {place.port}: FOVEA_IMAGE_URL_HOSTS must list the host for any but 443 and 80.")
        # The same words where there is no such host: a caller does not learn which names exist within.
        raise UnfitUrl("does not lead to public addresses only, and FOVEA_IMAGE_URL_HOSTS does not list others of its host.")

    async def _addresses(self, place: Place) -> Sequence[IPAddress]:
        if place.address is not None:
            return (place.address,)
        try:
            return await self._resolver.resolve(place.host, place.port)
        except (OSError, UnicodeError):
            return ()

    async def _connection_to(self, addresses: Sequence[IPAddress], port: int) -> httpcore.AsyncNetworkStream:
        tried = addresses[:_ADDRESSES_TRIED]
        for address in tried[:-1]:
            try:
                return await self._backend.connect_tcp(str(address), port, timeout=self._connect_s / len(tried))
            except (httpcore.NetworkError, httpcore.TimeoutException):
                continue
        return await self._backend.connect_tcp(str(tried[-1]), port)

    async def _exchange(self, place: Place, stream: _BriefHead, count: Callable[[int], None]) -> bytes | _Redirect:
        url = httpcore.URL(
            scheme=place.scheme.encode(), host=place.host.encode(), port=place.port, target=place.target.encode()
        )
        headers = (("host", place.authority), *_HEADERS)
        connection = httpcore.AsyncHTTP11Connection(url.origin, stream)
        response = await connection.handle_async_request(httpcore.Request("GET", url, headers=headers))
        stream.head_ended()
        locations = _values(response, b"location")
        if response.status in _REDIRECTS and locations:
            return _Redirect(locations[0])
        if response.status != _OK:
            raise UnfitUrl(f"was answered with status {response.status}; 200 brings an image.")
        return await self._body(response, count)

    async def _body(self, response: httpcore.Response, count: Callable[[int], None]) -> bytes:
        if any(encoding.lower() != b"identity" for encoding in _values(response, b"content-encoding")):
            raise UnfitUrl("was answered in a Content-Encoding, which was not asked for and is not undone.")
        for length in _values(response, b"content-length"):
            self._check_size(int(length))
        assert isinstance(response.stream, AsyncIterable)
        pieces: list[bytes] = []
        size = 0
        async for piece in response.stream:
            pieces.append(piece)
            size += len(piece)
            self._check_size(size)
            count(len(piece))
            # Chunks of one byte cost as much work as chunks of 64 KiB, work that is done between two other requests.
            if len(pieces) > _FEW_PIECES + size // _PIECE_BYTES:
                raise UnfitUrl(f"is answered in pieces of less than {_PIECE_BYTES} bytes.")
        return b"".join(pieces)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise UnfitUrl(f"gives {size} bytes or more; FOVEA_IMAGE_MIB allows {self._max_bytes}.")


def _values(response: httpcore.Response, name: bytes) -> list[bytes]:
    return [value for key, value in response.headers if key.lower() == name]
