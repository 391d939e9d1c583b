"""Request bytes to a JSON document, within the limit."""

import asyncio
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.types import Receive

from gateway.errors import BodyTooLarge, MalformedJson, UnsupportedMediaType

_DISCARD_AT_MOST_S = 10.0
"""How long the rest of a refused body is still taken in. A client that sends gets to read its error only once it has sent:
closing on it would reset the connection, answer and all."""


class ClientDisconnected(Exception):
    """The client went away; nobody is left to answer."""


async def read_body(headers: Headers, receive: Receive, limit_bytes: int) -> bytes:
    """The whole body of a JSON request.

    Raises BodyTooLarge, UnsupportedMediaType: as the headers say, or as the bytes turn out. ClientDisconnected.
    """
    try:
        _check_headers(headers, limit_bytes)
        return await _collect(receive, limit_bytes)
    except (BodyTooLarge, UnsupportedMediaType):
        # Who asked first whether to send (RFC 9110, Expect: 100-continue) is not sending yet, and now need not.
        if headers.get("expect", "").lower() != "100-continue":
            await _discard(receive)
        raise


def _check_headers(headers: Headers, limit_bytes: int) -> None:
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


async def _collect(receive: Receive, limit_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large(f"more than {limit_bytes} bytes", limit_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


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


def parse_document(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is.

    Raises MalformedJson, with line and column.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedJson(f"The body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from error
    if not isinstance(document, dict):
        raise MalformedJson("The body must be a JSON object.")
    return document
