"""The first requests to an engine, made before anybody waits for them.

The first request of each kind takes seconds (kernels are chosen, the processor and the grammar compiler are loaded), so an
engine is called ready only after one of each: words with an image, and JSON by a schema; or vectors of words, and of an image.
"""

import base64
import struct
import zlib

import httpx

from gateway.catalog.models import Model
from gateway.wire.embeddings import of_image, of_words

_TIMEOUT_S = 300.0

_TRIES_PER_REPLICA = 8
"""Of several replicas Serve takes one by chance for a request without a session, so that all of them want more tries than there
are replicas. With this many, one of two is left out once in 30,000 starts; and a replica that is warm answers at once."""

_SIDE_PX = 56


def warm_up(url: str, name: str, model: Model, api_key: str) -> None:
    """Has each replica behind `url` answer a request of each kind, as far as chance allows.

    Raises httpx.HTTPError: it does not.
    """
    with httpx.Client(base_url=url, timeout=_TIMEOUT_S, headers={"authorization": f"Bearer {api_key}"}) as client:
        path, requests = _asked(name, model)
        for request in requests:
            for _ in range(1 if model.least_replicas == 1 else model.least_replicas * _TRIES_PER_REPLICA):
                client.post(path, json=request).raise_for_status()


def _asked(name: str, model: Model) -> tuple[str, list[dict[str, object]]]:
    if model.kind == "embedding":
        return "/v1/embeddings", [{"model": name} | about for about in (of_words(["a"], padded=False), of_image(_image_url()))]
    return "/v1/chat/completions", _requests(name, with_image=model.images_per_request > 0)


def _requests(name: str, *, with_image: bool) -> list[dict[str, object]]:
    image = {"type": "image_url", "image_url": {"url": _image_url()}}
    content = [{"type": "text", "text": "What is this?"}, *([image] if with_image else [])]
    request: dict[str, object] = {"model": name, "messages": [{"role": "user", "content": content}], "max_tokens": 4}
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    by_schema = {"type": "json_schema", "json_schema": {"name": "warm_up", "schema": schema}}
    return [request, request | {"response_format": by_schema, "max_tokens": 16}]


def _image_url() -> str:
    """A grey square in PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", _SIDE_PX, _SIDE_PX, 8, 0, 0, 0, 0)
    rows = (b"\x00" + b"\x80" * _SIDE_PX) * _SIDE_PX
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
