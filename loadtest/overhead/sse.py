"""A server of streams: every POST gets 64 deltas, 5 ms apart. `python -m loadtest.overhead.sse PORT`

A GET of /deltas answers how many it has sent in all; any other says that all is well.
"""

import asyncio
import sys
from typing import cast

import httptools
import orjson
import uvloop

DELTAS = 64
GAP_S = 0.005
DELTAS_PATH = "/deltas"


def _event(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-8f14e45fceea167a", "object": "chat.completion.chunk", "created": 1763700000, "model": "bench"}
    return _event(orjson.dumps({**head, "choices": [choice]}))


_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
_FIRST = _HEAD + _chunk({"role": "assistant", "content": ""})
_DELTA = _chunk({"content": " scratch"})
_LAST = _chunk({"content": ""}, "stop") + _event(b"[DONE]") + b"0\r\n\r\n"


class _Sent:
    """How many deltas the process has sent."""

    deltas = 0


class _Connection(asyncio.Protocol):
    """One connection; a plain protocol, so that the core it shares with wrk is left to wrk."""

    def __init__(self, sent: _Sent) -> None:
        self._sent = sent
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._path = ""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own, which is not of asyncio's family

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url.decode()

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"POST":
            self._left = DELTAS
            self._transport.write(_FIRST)
            self._loop.call_later(GAP_S, self._go_on)
        else:
            said = str(self._sent.deltas) if self._path == DELTAS_PATH else '{"object":"list","data":[{"id":"bench"}]}'
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(said)}\r\n\r\n"
            self._transport.write((head + said).encode())

    def _go_on(self) -> None:
        if self._transport.is_closing():
            return
        if self._left == 0:
            self._transport.write(_LAST)
            return
        self._left -= 1
        self._sent.deltas += 1
        self._transport.write(_DELTA)
        # From now on, not from when it was due: deltas of a server that is late would come two at a time, at the cost of one.
        self._loop.call_later(GAP_S, self._go_on)


async def _serve(port: int) -> None:
    sent = _Sent()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(sent), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
