"""Every way in which what is behind the gateway can fail, and the exact answer that a client gets, whole and streamed."""

import contextlib
import json
import pathlib
import socket
import struct
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.conftest import PATIENCE_S, RunningGateway, running_gateway
from tests.fake_engine import event, raw_engine
from tests.watching import SOON_S

Fault = Callable[[socket.socket], None]

# Each connection is for one fault: the gateway is not to use it again.
JSON = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n"
SSE = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TIMEOUT_S = 1.5
"""Of those who wait in vain; all others have the time that a machine may stand still."""
SOCKETS = pathlib.Path("/proc/net/tcp")


def sends(*parts: bytes) -> Fault:
    def fault(connection: socket.socket) -> None:
        connection.sendall(b"".join(parts))

    return fault


def sends_slowly(*parts: bytes) -> Fault:
    """Each part, and the end, once what was sent before it has been read."""

    def fault(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
            until_read(connection)

    return fault


def resets_after(*parts: bytes) -> Fault:
    """Sends the parts, and then a reset: no orderly end (SO_LINGER with 0 s). What has not been read by then is lost."""

    def fault(connection: socket.socket) -> None:
        sends_slowly(*parts)(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return fault


def until_read(connection: socket.socket) -> None:
    """Returns once the other side has read what it was sent, and was given a moment to look at it.

    In short steps: of the moment, a machine that stands still takes one.
    """
    deadline_s = time.monotonic() + SOON_S
    while unread_bytes(connection) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    for _ in range(20):
        time.sleep(0.01)


def unread_bytes(connection: socket.socket) -> int:
    """What waits at the other side, as far as the system tells (Linux: proc(5), tx_queue:rx_queue of its socket)."""
    try:
        ends = [f":{end[1]:04X}" for end in (connection.getpeername(), connection.getsockname())]
    except OSError:
        return 0
    rows = [row.split() for row in SOCKETS.read_text().splitlines()[1:]] if SOCKETS.exists() else []
    queues = [row[4] for row in rows if row[1].endswith(ends[0]) and row[2].endswith(ends[1])]
    return sum(int(queue.partition(":")[2], 16) for queue in queues)


def is_silent_after(*parts: bytes) -> Fault:
    def fault(connection: socket.socket) -> None:
        sends(*parts)(connection)
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass

    return fault


def drips(head: bytes, body: bytes) -> Fault:
    def fault(connection: socket.socket) -> None:
        connection.sendall(head)
        for byte in body:
            connection.sendall(bytes([byte]))
            time.sleep(1)

    return fault


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def plain(status: bytes, body: bytes, media_type: bytes = b"text/plain") -> bytes:
    return b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        media_type,
        len(body),
        body,
    )


UNUSABLE = (502, "engine_error", "The engine of model 'tiny' gave no usable answer.")
BROKE_OFF = (502, "engine_error", "The engine of model 'tiny' broke off its answer.")
FAILED = (502, "engine_error", "The engine of model 'tiny' failed on this request.")
NO_OBJECT = (502, "engine_error", "The engine's answer is not a JSON object.")
NO_STREAM = (502, "engine_error", "The engine's answer is not a stream.")
ENDED = (502, "engine_error", "The stream ended before the answer did.")
AWAY = (503, "model_unavailable", "The model 'tiny' is not available right now.")
BUSY = (503, "model_unavailable", "The model 'tiny' is busy: its queue is full.")
TOO_LATE = (504, "deadline_exceeded", f"The answer did not come within {TIMEOUT_S:g} s.")

VLLM_ERROR = b'{"error": {"message": "boom at /usr/lib/x.py", "type": "InternalServerError", "param": null, "code": 500}}'

# Before the first byte of an answer, a stream and a whole answer fail alike: with a status.
BEFORE: dict[str, tuple[Fault, tuple[int, str, str]]] = {
    "closed at once": (sends(), UNUSABLE),
    "reset before headers": (resets_after(), UNUSABLE),
    "bytes that are not HTTP": (sends(b"SSH-2.0-OpenSSH_9.2\r\n"), UNUSABLE),
    "a head that breaks off": (sends(b"HTTP/1.1 200 OK\r\ncontent-type: appl"), UNUSABLE),
    "a head without end": (sends(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000 + b"\r\n\r\n"), UNUSABLE),
    "HAProxy's plain-text 500": (sends(plain(b"500 Internal Server Error", b"Internal Server Error")), AWAY),
    "Serve's plain-text 503": (sends(plain(b"503 Service Unavailable", b"Request dropped due to backpressure")), BUSY),
    "Serve's plain-text 404": (sends(plain(b"404 Not Found", b"Path '/tiny' not found.")), AWAY),
    "a gateway's HTML 502": (sends(plain(b"502 Bad Gateway", b"<html>nginx</html>", b"text/html")), AWAY),
    "vLLM's JSON 500": (sends(plain(b"500 X", VLLM_ERROR, b"application/json")), FAILED),
    "a redirect": (sends(b"HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n"), FAILED),
    "an error that breaks off": (
        sends(b"HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"),
        UNUSABLE,
    ),
    "silence": (is_silent_after(), TOO_LATE),
    "a head of one byte per second": (drips(b"", JSON), TOO_LATE),
}

WHOLE: dict[str, tuple[Fault, tuple[int, str, str]]] = {
    "HTML with 200": (sends(plain(b"200 OK", b"<html>", b"text/html")), NO_OBJECT),
    "a body that is no JSON": (sends(plain(b"200 OK", b"oops", b"application/json")), NO_OBJECT),
    "an empty body": (sends(plain(b"200 OK", b"", b"application/json")), NO_OBJECT),
    "200 with an error in it": (sends(plain(b"200 OK", VLLM_ERROR, b"application/json")), FAILED),
    "a body that ends early": (sends(JSON + b"content-length: 99\r\n\r\n{"), BROKE_OFF),
    "a reset after headers": (resets_after(JSON + b"content-length: 99\r\n\r\n"), BROKE_OFF),
    "a reset in the body": (resets_after(JSON + b'content-length: 99\r\n\r\n{"id"'), BROKE_OFF),
    "silence in the body": (is_silent_after(JSON + b'content-length: 99\r\n\r\n{"id"'), TOO_LATE),
    "a body of one byte per second": (drips(JSON + b"content-length: 99\r\n\r\n", b"{" * 99), TOO_LATE),
}

# A stream that has not begun can still get a status.
UNBEGUN: dict[str, tuple[Fault, tuple[int, str, str]]] = {
    "JSON instead of a stream": (sends(plain(b"200 OK", b"{}", b"application/json")), NO_STREAM),
    "a stream that is empty": (sends(SSE + b"0\r\n\r\n"), ENDED),
    "a reset after headers": (resets_after(SSE), BROKE_OFF),
    "garbage for events": (sends(SSE + chunk(b"\x00\xff garbage") + b"0\r\n\r\n"), ENDED),
    "an event that is cut": (sends(SSE + chunk(event("one")[:40]) + b"0\r\n\r\n"), ENDED),
    "an error for its first event": (sends(SSE + chunk(b"data: " + VLLM_ERROR + b"\n\n") + b"0\r\n\r\n"), FAILED),
    "silence after headers": (is_silent_after(SSE), TOO_LATE),
    "events of one byte per second": (drips(SSE, chunk(event("one"))), TOO_LATE),
}

BEGUN: dict[str, tuple[Fault, tuple[int, str, str]]] = {
    "an end without [DONE]": (sends_slowly(SSE + chunk(event("one")), b"0\r\n\r\n"), ENDED),
    "a close between events": (sends_slowly(SSE + chunk(event("one"))), BROKE_OFF),
    "a close within an event": (sends_slowly(SSE + chunk(event("one")), chunk(event("two")[:40])), BROKE_OFF),
    "a reset": (resets_after(SSE + chunk(event("one"))), BROKE_OFF),
    "an error": (sends_slowly(SSE + chunk(event("one")), chunk(b"data: " + VLLM_ERROR + b"\n\n")), FAILED),
    "silence": (is_silent_after(SSE + chunk(event("one"))), TOO_LATE),
}


class FaultyEngine:
    """An engine that fails as it is told to."""

    def __init__(self) -> None:
        self.fault: Fault = sends()

    def __call__(self, connection: socket.socket) -> None:
        self.fault(connection)


@pytest.fixture(scope="module")
def faulty() -> FaultyEngine:
    return FaultyEngine()


@pytest.fixture(scope="module")
def gateway(faulty: FaultyEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with raw_engine(faulty) as url, running_gateway(tmp_path_factory.mktemp("gateway"), url) as gateway:
        yield gateway


def ask(gateway: RunningGateway, *, stream: bool, in_vain: bool = False) -> httpx.Response:
    request = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    headers = {"x-request-timeout-seconds": str(TIMEOUT_S if in_vain else PATIENCE_S)}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=request, headers=headers, timeout=PATIENCE_S)


def told(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "server_error"
    return response.status_code, error["code"], error["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("fault", "expected"), BEFORE.values(), ids=BEFORE.keys())
def test_before_the_first_byte(
    gateway: RunningGateway, faulty: FaultyEngine, fault: Fault, expected: tuple[int, str, str], *, stream: bool
) -> None:
    faulty.fault = fault
    response = ask(gateway, stream=stream, in_vain=expected is TOO_LATE)
    assert told(response) == expected
    assert ("retry-after" in response.headers) == (expected[0] == 503)


@pytest.mark.parametrize(("fault", "expected"), WHOLE.values(), ids=WHOLE.keys())
def test_in_a_whole_answer(gateway: RunningGateway, faulty: FaultyEngine, fault: Fault, expected: tuple[int, str, str]) -> None:
    faulty.fault = fault
    assert told(ask(gateway, stream=False, in_vain=expected is TOO_LATE)) == expected


@pytest.mark.parametrize(("fault", "expected"), UNBEGUN.values(), ids=UNBEGUN.keys())
def test_in_a_stream_that_has_not_begun(
    gateway: RunningGateway, faulty: FaultyEngine, fault: Fault, expected: tuple[int, str, str]
) -> None:
    faulty.fault = fault
    assert told(ask(gateway, stream=True, in_vain=expected is TOO_LATE)) == expected


@pytest.mark.parametrize(("fault", "expected"), BEGUN.values(), ids=BEGUN.keys())
def test_in_a_stream_that_has_begun(
    gateway: RunningGateway, faulty: FaultyEngine, fault: Fault, expected: tuple[int, str, str]
) -> None:
    status, code, message = expected
    faulty.fault = fault
    before = gateway.counted(model="tiny", status=str(status))
    response = ask(gateway, stream=True, in_vain=expected is TOO_LATE)
    assert response.status_code == 200, response.text
    first, last = response.content.removesuffix(b"\n\n").split(b"\n\n")
    assert first + b"\n\n" == event("one")
    assert json.loads(last.removeprefix(b"data: ")) == {
        "error": {"message": message, "type": "server_error", "param": None, "code": code}
    }
    assert gateway.counted(model="tiny", status=str(status)) == before + 1, "not as the 200 that it began with"


def test_an_error_that_comes_in_two_pieces_is_read_whole(gateway: RunningGateway, faulty: FaultyEngine) -> None:
    body = b'{"error": {"message": "n is too large", "param": "n", "code": 400}}'
    answer = plain(b"400 X", body, b"application/json")
    faulty.fault = sends_slowly(answer[:-20], answer[-20:])
    response = ask(gateway, stream=False)
    assert (response.status_code, response.json()["error"]["message"]) == (400, "n is too large")


def test_a_connection_that_was_closed_while_it_was_idle_costs_no_request(gateway: RunningGateway, faulty: FaultyEngine) -> None:
    body = b'{"id": "1", "choices": []}'
    kept = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    def answer_and_close_on_the_next(connection: socket.socket) -> None:
        connection.sendall(kept)
        connection.recv(65536)  # the next request comes over the same connection, and finds it closed

    faulty.fault = answer_and_close_on_the_next
    assert [ask(gateway, stream=False).status_code for _ in range(6)] == [200] * 6


def test_a_request_that_takes_its_engine_down_is_not_given_to_the_next(gateway: RunningGateway, faulty: FaultyEngine) -> None:
    body = b'{"id": "1", "choices": []}'
    kept = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    taken = []

    def answer_and_die_of_the_next(connection: socket.socket) -> None:
        taken.append(1)
        connection.sendall(kept)
        if connection.recv(65536):
            taken.append(1)
            time.sleep(0.7)

    faulty.fault = answer_and_die_of_the_next
    assert ask(gateway, stream=False).status_code == 200
    assert told(ask(gateway, stream=False)) == UNUSABLE
    assert len(taken) == 2
