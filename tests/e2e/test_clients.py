"""Clients other than the SDK: curl, httpx, wrk, and bytes on a socket."""

import base64
import io
import json
import pathlib
import re
import shutil
import socket
import subprocess
from urllib.parse import urlsplit

import httpx
import pytest
import requests
from PIL import Image

from tests.e2e.conftest import Stack

QUESTION = {"model": "small", "messages": [{"role": "user", "content": "What is a flange?"}], "max_tokens": 4}
PATH = "/v1/chat/completions"


def command(*arguments: str) -> str:
    if shutil.which(arguments[0]) is None:
        pytest.fail(f"{arguments[0]} is not installed; `make test` installs it")
    return subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=120).stdout


def test_the_script_that_a_typical_user_has_works_but_for_its_url_and_model(stack: Stack, tmp_path: pathlib.Path) -> None:
    image_path = tmp_path / "part.jpg"
    Image.new("RGB", (640, 480), "#99aabb").save(image_path)

    # As in many a blog post of 2024.
    def encode_image(image_path: pathlib.Path) -> str:
        with open(image_path, "rb") as image_file:  # noqa: PTH123
            return base64.b64encode(image_file.read()).decode("utf-8")

    base64_image = encode_image(image_path)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-whatever"}
    payload = {
        "model": "small",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is in this image?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64_image}", "detail": "high"}},
                ],
            }
        ],
        "max_tokens": 300,
    }
    response = requests.post(f"{stack.url}/v1/chat/completions", headers=headers, json=payload, timeout=120)
    assert isinstance(response.json()["choices"][0]["message"]["content"], str)


def test_curl_keeps_its_connection(stack: Stack) -> None:
    ask = ["-H", "Content-Type: application/json", "-d", json.dumps(QUESTION), f"{stack.url}{PATH}"]
    said = command(
        "curl", "-sS", "-w", "connects=%{num_connects}\n", *ask, "--next", "-sS", "-w", "connects=%{num_connects}\n", *ask
    )
    assert re.findall(r"connects=(\d)", said) == ["1", "0"]
    assert said.count('"chat.completion"') == 2


def test_curl_s_expect_100_continue_is_answered(stack: Stack, tmp_path: pathlib.Path) -> None:
    body = tmp_path / "body.json"
    padded = QUESTION | {"metadata": {"padding": "x" * 2 * 1024**2}}
    body.write_text(json.dumps(padded))
    said = command(
        *("curl", "-sS", "-v", "--stderr", "-", "-H", "Content-Type: application/json", "-H", "Expect: 100-continue"),
        *("--expect100-timeout", "30", "--data-binary", f"@{body}", f"{stack.url}{PATH}"),
    )
    assert "100 Continue" in said
    assert '"chat.completion"' in said


def test_a_body_over_the_limit_is_refused_before_curl_sends_it(stack: Stack, tmp_path: pathlib.Path) -> None:
    body = tmp_path / "body.json"
    body.write_bytes(b" " * (65 * 1024**2))
    said = command(
        *("curl", "-sS", "-H", "Content-Type: application/json", "-H", "Expect: 100-continue", "--expect100-timeout", "30"),
        *("-w", "\nsent=%{size_upload} status=%{http_code}", "--data-binary", f"@{body}", f"{stack.url}{PATH}"),
    )
    assert "sent=0 status=413" in said
    assert "limits.body_mib allows 67108864" in said


def test_curl_sends_chunks(stack: Stack) -> None:
    chunked = ["-H", "Content-Type: application/json", "-H", "Transfer-Encoding: chunked", "-d", json.dumps(QUESTION)]
    assert '"chat.completion"' in command("curl", "-sS", *chunked, f"{stack.url}{PATH}")


def test_curl_gets_a_stream_as_it_comes(stack: Stack) -> None:
    question = json.dumps(QUESTION | {"stream": True})
    said = command("curl", "-sSN", "-i", "-H", "Content-Type: application/json", "-d", question, f"{stack.url}{PATH}")
    assert "content-type: text/event-stream" in said
    assert said.rstrip().endswith("data: [DONE]")


def test_httpx_keeps_its_connection_and_sends_chunks(stack: Stack) -> None:
    body = json.dumps(QUESTION).encode()
    with httpx.Client(base_url=stack.url, timeout=60, headers={"content-type": "application/json"}) as client:
        for content in (body, iter([body[:20], body[20:]])):
            assert client.post(PATH, content=content).json()["object"] == "chat.completion"


@pytest.mark.parametrize("path", ["/v1/models", PATH])
def test_wrk_meets_no_error(stack: Stack, tmp_path: pathlib.Path, path: str) -> None:
    script = tmp_path / "post.lua"
    script.write_text(
        f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = [==[{json.dumps(QUESTION)}]==]\n"
        if path == PATH
        else "-- GET\n"
    )
    said = command("wrk", "-t1", "-c8", "-d3s", "--timeout", "20s", "-s", str(script), f"{stack.url}{path}")
    assert int(re.findall(r"(\d+) requests in", said)[0]) > 0
    assert "Non-2xx" not in said
    assert "Socket errors" not in said


def test_pipelined_requests_are_answered_in_order_and_the_last_closes(stack: Stack) -> None:
    address = urlsplit(stack.url)
    body = json.dumps(QUESTION).encode()
    post = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    get = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=60) as connection:
        connection.sendall(post % (PATH.encode(), len(body), body) + get)
        answer = io.BytesIO()
        while chunk := connection.recv(65536):
            answer.write(chunk)
    said = answer.getvalue()
    assert said.count(b"HTTP/1.1 200 OK") == 2
    assert said.index(b'"chat.completion"') < said.index(b'"list"')


def test_http_1_0_without_keep_alive_is_closed_after_its_answer(stack: Stack) -> None:
    address = urlsplit(stack.url)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=60) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.endswith(b"ok")
