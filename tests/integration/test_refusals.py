"""Bad input: each as the class of the SDK that it should be, with a message that helps."""

import contextlib
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from tests.conftest import PATIENCE_S, RunningGateway, picture
from tests.fake_engine import FakeEngine

PNG = picture()


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    request: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]} | fields
    return client.chat.completions.create(**request)


def image(url: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


BAD: dict[str, tuple[dict[str, Any], type[openai.APIStatusError], str, str]] = {
    "an unknown model": ({"model": "gpt-4o"}, openai.NotFoundError, "model", "The model 'gpt-4o' does not exist"),
    "empty messages": ({"messages": []}, openai.BadRequestError, "messages", "at least 1 item"),
    "a wrong type": ({"temperature": "hot"}, openai.BadRequestError, "temperature", "expected a number, but got a string"),
    "a removed field": (
        {"extra_body": {"guided_json": {}}},
        openai.BadRequestError,
        "guided_json",
        "Use 'response_format' of type 'json_schema'",
    ),
    "an unknown content part": (
        {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
        openai.BadRequestError,
        "messages[0].content[0]",
        "'smell' is not one of 'text', 'image_url'",
    ),
    "tools for a model that has no parser": (
        {"model": "mute", "tools": [{"type": "function", "function": {"name": "f"}}]},
        openai.BadRequestError,
        "tools",
        "The model 'mute' cannot call tools",
    ),
    "an image at an address that is not encrypted": (
        {"messages": image("http://example.com/cat.png")},
        openai.BadRequestError,
        "messages[0].content[0].image_url.url",
        "FOVEA_IMAGE_URL_SCHEMES",
    ),
    "an image in a file": (
        {"messages": image("file:///etc/passwd")},
        openai.BadRequestError,
        "messages[0].content[0].image_url.url",
        "got scheme 'file'",
    ),
    "broken base64": (
        {"messages": image("data:image/png;base64,!!!!")},
        openai.BadRequestError,
        "messages[0].content[0].image_url.url",
        "does not hold valid base64",
    ),
    "base64 without its end": (
        {"messages": image(PNG[:-3])},
        openai.BadRequestError,
        "messages[0].content[0].image_url.url",
        "does not hold valid base64",
    ),
    "bytes that are no image": (
        {"messages": image("data:image/png;base64,aGVsbG8=")},
        openai.BadRequestError,
        "messages[0].content[0].image_url.url",
        "The bytes are no image that is known; PNG, JPEG, WebP and GIF are taken",
    ),
    "an image format that is not taken": (
        {"messages": image("data:image/tiff;base64,SUkqAA==")},
        openai.BadRequestError,
        "messages[0].content[0].image_url.url",
        "Media type 'image/tiff' is not supported",
    ),
    "too many images": (
        {"messages": image(PNG) * 3},
        openai.BadRequestError,
        "messages",
        "The request has 3 images; images_per_request of 'tiny' is 2.",
    ),
}


@pytest.mark.parametrize(("fields", "kind", "param", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_by_name_and_no_engine_is_asked(
    client: openai.OpenAI,
    engine: FakeEngine,
    fields: dict[str, Any],
    kind: type[openai.APIStatusError],
    param: str,
    said: str,
) -> None:
    with pytest.raises(kind) as error:
        ask(client, **fields)
    assert type(error.value) is kind
    assert (error.value.param, error.value.type) == (param, "invalid_request_error")
    assert said in error.value.message
    assert engine.documents == []


BODIES = {
    "not JSON": (b'{"model": ', 400, "line 1, column"),
    "an array": (b"[]", 400, "must be a JSON object"),
    "empty": (b"", 400, "is not valid JSON"),
    "not UTF-8": (b'{"model": "\xff"}', 400, "is not valid JSON"),
    "NaN": (b'{"temperature": NaN}', 400, "is not valid JSON"),
    "nested without end": (b'{"a":' * 100_000, 400, "is not valid JSON"),
}


@pytest.mark.parametrize(("body", "status", "said"), BODIES.values(), ids=BODIES.keys())
def test_a_malformed_body_is_a_400_that_says_where(gateway: RunningGateway, body: bytes, status: int, said: str) -> None:
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions", content=body, headers={"content-type": "application/json"}, timeout=PATIENCE_S
    )
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate"])
def test_a_compressed_body_is_a_415(gateway: RunningGateway, encoding: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": encoding}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", content=b"\x1f\x8b" * 100, headers=headers, timeout=PATIENCE_S)
    assert answer.status_code == 415
    assert f"Content-Encoding '{encoding}'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_not_called_json_is_a_415(gateway: RunningGateway, media_type: str) -> None:
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions", content=b"{}", headers={"content-type": media_type}, timeout=PATIENCE_S
    )
    assert answer.status_code == 415
    assert "Content-Type must be application/json" in answer.json()["error"]["message"]


def test_a_body_over_the_limit_is_a_413_that_the_sdk_gets_to_read(client: openai.OpenAI, engine: FakeEngine) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        ask(client, messages=[{"role": "user", "content": "x" * (24 * 1024**2)}])
    assert error.value.status_code == 413
    assert "limits.body_mib allows 1048576" in error.value.message
    assert engine.documents == []


def test_a_body_of_unknown_length_over_the_limit_is_a_413(gateway: RunningGateway) -> None:
    chunks = (b"x" * 65536 for _ in range(256))
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions", content=chunks, headers={"content-type": "application/json"}, timeout=PATIENCE_S
    )
    assert answer.status_code == 413


def test_the_same_connection_is_good_after_a_413(gateway: RunningGateway) -> None:
    with httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as client:
        too_large = {"model": "tiny", "messages": [{"role": "user", "content": "x" * 2 * 1024**2}]}
        assert client.post("/v1/chat/completions", json=too_large).status_code == 413
        fine = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
        assert client.post("/v1/chat/completions", json=fine).status_code == 200


def exchange(gateway: RunningGateway, *sent: bytes) -> bytes:
    """What comes back for bytes that are sent as they are, until the gateway closes or goes silent for half a second."""
    address = urlsplit(gateway.url)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=PATIENCE_S) as connection:
        answer = b""
        for part in sent:
            connection.sendall(part)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while chunk := connection.recv(65536):
                answer += chunk
                connection.settimeout(0.5)
        return answer


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 5000000", b"413"),
        (b"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 50", b"415"),
        (b"POST /nowhere HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 50", b"404"),
    ],
)
def test_who_asked_before_sending_and_is_refused_gets_a_closed_connection(
    gateway: RunningGateway, head: bytes, status: bytes
) -> None:
    answer = exchange(gateway, head + b"\r\nHost: x\r\nExpect: 100-continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in answer.lower()
    assert b"100 Continue" not in answer


def test_java_s_offer_of_http_2_is_ignored(gateway: RunningGateway) -> None:
    body = b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}'
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: %d\r\nHost: x\r\n"
        b"HTTP2-Settings: AAEAAEAAAAIAAAAA\r\nUpgrade: h2c\r\nContent-Type: application/json\r\n\r\n"
    )
    assert exchange(gateway, head % len(body), body).startswith(b"HTTP/1.1 200 OK")


def test_headers_without_end_are_a_431(gateway: RunningGateway) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"y" * 4096) for n in range(32))
    answer = exchange(gateway, head + b"\r\n")
    # The rest of the headers is not read, so the connection may be reset before the answer is.
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431")
    assert httpx.get(f"{gateway.url}/healthz", timeout=PATIENCE_S).status_code == 200


def test_a_request_that_is_nested_too_deeply_is_a_400(gateway: RunningGateway) -> None:
    schema: dict[str, Any] = {}
    for _ in range(300):
        schema = {"type": "object", "properties": {"a": schema}}
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions",
        json={
            "model": "tiny",
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [tool],
            "tool_choice": "none",  # so that nobody reads it as a schema
        },
        timeout=PATIENCE_S,
    )
    assert answer.status_code == 400
    assert "nested too deeply" in answer.json()["error"]["message"]


def test_nothing_of_the_caller_s_becomes_a_header(gateway: RunningGateway, engine: FakeEngine) -> None:
    engine.reset()
    parts = [{"type": "text", "text": "x", "uuid": "a"}] * 400
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions",
        json={
            "model": "tiny",
            "messages": [{"role": "user", "content": parts}],
            "chat_template_kwargs": {"a\r\nx-evil: y": 1, "€": 1},
        },
        timeout=PATIENCE_S,
    )
    assert answer.status_code == 200
    assert answer.headers["x-fovea-left-out"] == "messages[].content[].uuid, chat_template_kwargs.*"
    assert "x-evil" not in answer.headers
