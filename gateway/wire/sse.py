"""Server-sent events as bytes: passed on whole, never parsed."""

import orjson

from gateway.errors import GatewayError
from gateway.wire.errors import error_document

DONE = b"data: [DONE]"

_END = b"\n\n"


def whole_events(buffered: bytes, chunk: bytes) -> tuple[bytes, bytes]:
    """The events that are complete with `chunk`, and what is left over of one that is not.

    Only whole events are passed on, so that a stream that breaks can still end with an event of its own.
    """
    data = buffered + chunk if buffered else chunk
    end = data.rfind(_END) + len(_END)
    return (data[:end], data[end:]) if end >= len(_END) else (b"", data)


def error_event(error: GatewayError) -> bytes:
    """The event that ends a stream which cannot go on; the SDK raises APIError on it."""
    return b"data: " + orjson.dumps(error_document(error)) + _END
