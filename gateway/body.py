"""Request bytes to a small JSON document and the images and videos that were in it, which stay where they came in.

A body is megabytes of base64 around a few hundred bytes that mean something. A data: URL has neither a quote nor a backslash
in it, so its end is found at memory speed; in its place goes a stand-in, and only what remains is parsed, checked and written
out again. On the way out the URLs are put back as they came.
"""

import asyncio
import binascii
import itertools
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pybase64
from starlette.types import Receive

from gateway.errors import BodyTooLarge, MalformedJson, Overloaded, UnsupportedMediaType
from gateway.memory import Share

_DISCARD_AT_MOST_S = 10.0
"""How long the rest of a refused body is still taken in. A client that sends gets to read its error only once it has sent:
closing on it would reset the connection, answer and all."""


class ClientDisconnected(Exception):
    """The client went away; nobody is left to answer."""


async def read_body(headers: Mapping[str, str], receive: Receive, limit_bytes: int, share: Share) -> bytearray:
    """The whole body of a JSON request, whose bytes are counted in `share`.

    Raises BodyTooLarge, UnsupportedMediaType: as the headers say, or as the bytes turn out. Overloaded. ClientDisconnected.
    """
    try:
        _check_headers(headers, limit_bytes)
        return await _collect(receive, headers, limit_bytes, share)
    except (BodyTooLarge, UnsupportedMediaType, Overloaded):
        # Who asked first whether to send (RFC 9110, Expect: 100-continue) is not sending yet, and now need not.
        if headers.get("expect", "").lower() != "100-continue":
            await _discard(receive)
        raise


def _check_headers(headers: Mapping[str, str], limit_bytes: int) -> None:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise UnsupportedMediaType(f"Content-Encoding '{encoding}' is not supported: send the body uncompressed.")
    # A page in a browser can post text/plain or a form to any address without asking; JSON it must ask for.
    media_type = headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(f"Content-Type must be application/json, got '{media_type or 'none'}'.")
    length = headers.get("content-length")
    if length is not None and int(length) > limit_bytes:
        raise _too_large(f"{length} bytes", limit_bytes)


async def _collect(receive: Receive, headers: Mapping[str, str], limit_bytes: int, share: Share) -> bytearray:
    # Pages that are not written to are not there yet; pieces that are joined at the end would take twice the room, and a buffer
    # that grows leaves holes.
    body = bytearray(int(headers.get("content-length", 0)))
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk: bytes = message.get("body", b"")
        if size + len(chunk) > limit_bytes:
            raise _too_large(f"more than {limit_bytes} bytes", limit_bytes)
        share.grow(len(chunk))
        body[size : size + len(chunk)] = chunk
        size += len(chunk)
        if not message.get("more_body", False):
            return body


async def _discard(receive: Receive) -> None:
    try:
        async with asyncio.timeout(_DISCARD_AT_MOST_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _too_large(size: str, limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is {size}; limits.body_mib allows {limit_bytes}.")


_STRUCTURE = b"{}[],:"
_NOT_STRUCTURE = bytes(set(range(256)) - set(_STRUCTURE))
_LOOKED_AT_BYTES = 1024**2
_STRUCTURE_AT_MOST = 200_000
"""So many of them are parsed in some 20 ms, in which this process serves nobody else; a million tokens of prose have fewer."""


def parse_document(body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object that `body` is.

    Raises MalformedJson, with line and column; BodyTooLarge: it has too many values.
    """
    if len(body) > _STRUCTURE_AT_MOST:
        _check_structure(body)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedJson(f"The body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from error
    if not isinstance(document, dict):
        raise MalformedJson("The body must be a JSON object.")
    return document


def _check_structure(body: bytes | bytearray) -> None:
    found = 0
    for at in range(0, len(body), _LOOKED_AT_BYTES):
        found += len(body[at : at + _LOOKED_AT_BYTES].translate(None, _NOT_STRUCTURE))
        if found > _STRUCTURE_AT_MOST:
            message = f"The body without its images has more than {_STRUCTURE_AT_MOST} of the characters {_STRUCTURE.decode()}"
            raise BodyTooLarge(f"{message}, more than are read at once.")


@dataclass(frozen=True, slots=True)
class DataUrl:
    """A data: URL within a body, of which it is a view; `payload` is the base64 in it, and known to be valid."""

    text: memoryview
    media_type: str
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Cut:
    """A body without its long data: URLs: `rest` is JSON that has a stand-in for each, `urls` what each stands in for."""

    rest: bytes | bytearray
    urls: Mapping[str, DataUrl]


_WORTH_CUTTING_BYTES = 1024
_BLOCK_BYTES = 64 * 1024
"""Base64 is decoded by blocks that stay in a core's cache; a multiple of four."""

_BEGINS = b'"data:'
_LOOKED_AT = 1024
"""So many strings that begin so are looked at; a body of nothing else would keep this process from all others for seconds."""
_KEY_BEFORE = re.compile(rb'"url"[ \t\r\n]*:[ \t\r\n]*"$')
_KEY_WITHIN_BYTES = 64
_HEADER = re.compile(rb"data:([!#-+\--:<-\[\]-~]*)(?:;[!#-+\--:<-\[\]-~]*)*;base64,")
_HEADER_AT_MOST_BYTES = 256


def cut(body: bytes | bytearray) -> Cut:
    r"""Takes the long data: URLs out of `body` that are the value of a key `url`, and are whole.

    What is cut is a JSON string without escapes, and the stand-in is one too: so `rest` is valid JSON exactly where `body` is,
    and means the same once the stand-ins are replaced. Everything else stays and is parsed as it came: URLs with escapes
    (`\/`), in capitals, with base64 that is broken, under keys that are spelt with escapes.
    """
    if body.find(_BEGINS) < 0:
        return Cut(body, {})
    name = _unknown_name()
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    urls: dict[str, DataUrl] = {}
    done = 0
    for start, end in itertools.islice(_strings_that_begin_with_data(body), _LOOKED_AT):
        url = _data_url(body, view, start, end)
        if url is not None:
            stand_in = f"{name}{len(urls)}"
            pieces += (view[done:start], stand_in.encode())
            urls[stand_in] = url
            done = end
    if not urls:
        return Cut(body, {})
    return Cut(b"".join((*pieces, view[done:])), urls)


def stand_ins(number: int) -> list[str]:
    """So many words that occur in no request."""
    name = _unknown_name()
    return [f"{name}{index}" for index in range(number)]


def _unknown_name() -> str:
    """Nobody who wrote the body can have known it."""
    return f"fovea:{secrets.token_hex(16)}:"


def splice(rest: bytes, pieces: Mapping[str, Sequence[bytes | memoryview]]) -> tuple[bytes | memoryview, ...]:
    """`rest`, in which every stand-in occurs once and in its order, with the pieces that each stands for in its place."""
    parts: list[bytes | memoryview] = []
    for stand_in, piece in pieces.items():
        before, _, rest = rest.partition(stand_in.encode())
        parts += (before, *piece)
    return (*parts, rest)


def _strings_that_begin_with_data(body: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Where each begins and ends, without its quotes."""
    quote = body.find(_BEGINS)
    while quote >= 0:
        end = body.find(b'"', quote + 1)
        if end < 0:
            return
        yield quote + 1, end
        quote = body.find(_BEGINS, end)


def _data_url(body: bytes | bytearray, view: memoryview, start: int, end: int) -> DataUrl | None:
    if end - start < _WORTH_CUTTING_BYTES or not _KEY_BEFORE.search(body, max(0, start - _KEY_WITHIN_BYTES), start):
        return None
    header = _HEADER.match(body, start, start + _HEADER_AT_MOST_BYTES)
    if header is None or not _is_base64(view[header.end() : end]):
        return None
    return DataUrl(view[start:end], header[1].decode(), view[header.end() : end])


def _is_base64(payload: memoryview) -> bool:
    try:
        for _ in decoded_blocks(payload):
            pass
    except (binascii.Error, ValueError):
        return False
    return True


def decoded_blocks(payload: bytes | memoryview) -> Iterator[bytes]:
    """What the base64 in `payload` stands for, block by block, so that it is nowhere as a whole.

    Raises ValueError or binascii.Error: it is not whole base64.
    """
    for at in range(0, len(payload), _BLOCK_BYTES):
        block = payload[at : at + _BLOCK_BYTES]
        decoded = pybase64.b64decode(block, validate=True)
        is_last = at + len(block) == len(payload)
        if len(decoded) * 4 < len(block) * 3 and not is_last:
            raise ValueError("padding in the middle")
        yield decoded
