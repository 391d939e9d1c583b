"""Server-sent events as bytes: passed on whole, never parsed."""

import re
from collections.abc import Iterator

import orjson

from gateway.errors import GatewayError
from gateway.wire.errors import error_document

_END = b"\n\n"
_END_CRLF = b"\r\n\r\n"
_ANY_END = re.compile(rb"\r?\n\r?\n")
_DATA = b"data: "
_ERROR = re.compile(rb'(?:^|\n)data: ?(\{\s*"error"\s*:\s*[^n\s].*)')
"""How an event begins that tells of an error (vLLM 0.32, create_streaming_error_response); an error of `null` is none."""

_ERROR_BODY = re.compile(rb'\{\s*"error"\s*:\s*[^n\s]')
_SAYS = re.compile(rb"(?:^|\n)data:")

_DONE = re.compile(rb"(?:^|\n)data: ?\[DONE\]")


def whole_events(buffered: bytes, chunk: bytes) -> tuple[bytes, bytes]:
    """The events that are complete with `chunk`, and what is left over of one that is not.

    Only whole events are passed on, so that a stream that breaks can still end with an event of its own.
    """
    data = buffered + chunk if buffered else chunk
    end = max((data.rfind(mark) + len(mark) for mark in (_END, _END_CRLF) if mark in data), default=0)
    return data[:end], data[end:]


def split_events(events: bytes) -> Iterator[bytes]:
    """Each of the whole `events`, byte for byte."""
    start = 0
    for end in _ANY_END.finditer(events):
        yield events[start : end.end()]
        start = end.end()
    if start < len(events):
        yield events[start:]


def says_something(events: bytes) -> bool:
    """Whether one of the events is more than a comment."""
    return _SAYS.search(events) is not None


def is_error(document: bytes) -> bool:
    """Whether a JSON object is an error in OpenAI's form."""
    return _ERROR_BODY.match(document) is not None


def says_done(events: bytes) -> bool:
    """Whether one of the events is the one that ends a whole answer."""
    return b"[DONE]" in events and _DONE.search(events) is not None


def until_error(events: bytes) -> tuple[bytes, bytes | None]:
    """Whole events up to the engine's error, and the JSON of that error if there is one."""
    found = _ERROR.search(events) if b'"error"' in events else None
    if found is None:
        return events, None
    return events[: events.rfind(b"data:", 0, found.start(1))], found[1].rstrip()


def error_event(error: GatewayError) -> bytes:
    """The event that ends a stream which cannot go on; the SDK raises APIError on it."""
    return _DATA + orjson.dumps(error_document(error)) + _END
