"""uvicorn's HTTP protocol, with two things mended that clients meet, and a body copied less often."""

import re

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 1024

_H2C = b"pgrade: h2c"
_UPGRADE = re.compile(rb"\r\nUpgrade: h2c", re.IGNORECASE)

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Http11Protocol(HttpToolsProtocol):
    """HTTP/1.1 alone, with headers of a bounded size.

    Java's own client offers to go on in HTTP/2 (`Upgrade: h2c`) with every first request. A server may ignore the offer (RFC
    9110, 7.8), but httptools stops reading at it, and the body is lost. So the offer is made unreadable before it gets there.
    JSON has no line break followed by that word, so the part of a body that comes with its headers is not touched either.
    """

    _header_bytes = 0
    _is_in_body = False
    _is_as_it_came = False

    def data_received(self, data: bytes) -> None:
        if not self._is_in_body and _H2C in data:
            data = _UPGRADE.sub(b"\r\nX-Offer: h2c", data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_body = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Takes what comes as it is where nothing waits to be taken; uvicorn would copy it into a buffer, and out again."""
        if self.cycle.body or self.cycle.response_complete:
            if self._is_as_it_came:
                self.cycle.body = bytearray(self.cycle.body)  # to grow: a body may come in many small pieces at once
                self._is_as_it_came = False
            super().on_body(body)
            return
        self._is_as_it_came = True
        self.cycle.body = body  # type: ignore[assignment]  # which it reads, and adds to, as it would a bytearray
        if len(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._is_in_body = False
        super().on_message_complete()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()
