"""What `helm test` runs: the gateway is ready, lists the models, and each of them answers.

It runs in the gateway's image, so it imports nothing but httpx and the standard library. It ends with 0, or says what is wrong
and ends with 1.
"""

import argparse
import base64
import json
import pathlib
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import httpx

_PAUSE_S = 2.0
_SIDE_PX = 56
_NOT_YET = frozenset({429, 502, 503, 504})
"""What a gateway or an engine says that is not there yet."""


class NoAnswer(Exception):
    """What was asked for has not come; the message says what was asked, and what came instead."""


class Refused(NoAnswer):
    """The same, and it will not come however long one waits."""


@dataclass(frozen=True)
class Asked:
    """A model, and what it takes."""

    name: str
    kind: str
    takes_images: bool


def main() -> None:
    """Asks, and says of each answer that it came."""
    parser = argparse.ArgumentParser(description="Ask a gateway for its models, and each of them a question.")
    parser.add_argument("--url", required=True, help="where the gateway answers")
    parser.add_argument("--models", type=pathlib.Path, required=True, help="a JSON list of name, kind and takes_images")
    parser.add_argument("--key-file", type=pathlib.Path, help="the file of an API key; without it nobody's is sent")
    parser.add_argument("--expect-keys", action="store_true", help="whether the gateway asks for API keys")
    parser.add_argument("--timeout-s", type=float, default=300.0, help="how long to wait for each (%(default)s)")
    arguments = parser.parse_args()
    models = [Asked(**entry) for entry in json.loads(arguments.models.read_text(encoding="utf-8"))]
    key = arguments.key_file.read_text(encoding="utf-8").strip() if arguments.key_file else None
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=arguments.url, headers=headers, timeout=arguments.timeout_s) as client:
        try:
            ask(client, models, arguments.timeout_s, is_locked=arguments.expect_keys and key is None)
        except NoAnswer as error:
            sys.exit(str(error))


def ask(client: httpx.Client, models: Iterable[Asked], timeout_s: float, *, is_locked: bool) -> None:
    """Asks everything there is to ask; with `is_locked`, only whether the gateway keeps strangers out.

    Raises NoAnswer.
    """
    _until(timeout_s, partial(_get, client, "/readyz", 200))
    print("The gateway is ready.")
    if is_locked:
        _get(client, "/v1/models", 401)
        print("It keeps out who has no API key. No model was asked: test.apiKey.existingSecret names no key to ask with.")
        return
    listed = {model["id"] for model in _get(client, "/v1/models", 200).json()["data"]}
    for model in models:
        if model.name not in listed:
            raise NoAnswer(f"/v1/models does not list {model.name}: it lists {', '.join(sorted(listed))}")
        _until(timeout_s, partial(_question, client, model))
        print(f"{model.name} answers.")


def _until(timeout_s: float, attempt: Callable[[], object]) -> None:
    """Tries until it succeeds. Raises NoAnswer: the last one's, when there is no time left."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            attempt()
            return
        except Refused:
            raise
        except NoAnswer:
            if time.monotonic() > end:
                raise
        time.sleep(_PAUSE_S)


def _get(client: httpx.Client, path: str, expected: int) -> httpx.Response:
    return _checked(f"GET {path}", lambda: client.get(path), expected)


def _question(client: httpx.Client, model: Asked) -> None:
    path, body = _request(model)
    # The engine is to answer, and not the cache.
    headers = {"cache-control": "no-store"}
    document = _checked(f"{model.name}: POST {path}", lambda: client.post(path, json=body, headers=headers), 200).json()
    key = "data" if model.kind == "embedding" else "choices"
    if not document.get(key):
        raise Refused(f"{model.name}: POST {path}: an answer without {key}")


def _checked(what: str, send: Callable[[], httpx.Response], expected: int) -> httpx.Response:
    try:
        response = send()
    except httpx.HTTPError as error:
        raise NoAnswer(f"{what}: {error!r}") from error
    if response.status_code == expected:
        return response
    message = f"{what}: {response.status_code} instead of {expected}: {response.text[:500]}"
    raise (NoAnswer if response.status_code in _NOT_YET else Refused)(message)


def _request(model: Asked) -> tuple[str, dict[str, object]]:
    if model.kind == "embedding":
        return "/v1/embeddings", {"model": model.name, "input": "a word"}
    image = {"type": "image_url", "image_url": {"url": _image_url()}}
    content = [{"type": "text", "text": "What is this?"}, *([image] if model.takes_images else [])]
    return "/v1/chat/completions", {
        "model": model.name,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 4,
    }


def _image_url() -> str:
    """A small grey square, as PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", _SIDE_PX, _SIDE_PX, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\x00" + b"\x80" * _SIDE_PX) * _SIDE_PX)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


if __name__ == "__main__":
    main()
