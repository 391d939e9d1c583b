"""A request whose images were cut out of its body is prepared as the same request read whole."""

import json
import pathlib
from typing import Any

import orjson
import pytest

from gateway.catalog.models import Catalog
from gateway.catalog.read import load_catalog
from gateway.errors import GatewayError
from gateway.pipeline.chat import Ready, prepare
from tests.conftest import CATALOG, picture

LARGE = "data:image/png;base64," + "iVBORw0KGgoA" * 500
"""Begins as a PNG does, and is long enough to be cut out."""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    path: pathlib.Path = tmp_path_factory.mktemp("catalog") / "catalog.yaml"
    path.write_text(CATALOG)
    return load_catalog(path)


def image(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}} | more


def request(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": list(parts)}]} | fields


REQUESTS: dict[str, dict[str, Any]] = {
    "an image": request(image(LARGE)),
    "two images": request(image(LARGE), {"type": "text", "text": "and"}, image(LARGE.replace("png", "jpeg"))),
    "an image that is cut and one that is not": request(image(picture()), image(LARGE)),
    "words that look like an image": request(image(LARGE), {"type": "text", "text": LARGE}),
    "an image twice in a conversation": request(image(LARGE)) | {"messages": request(image(LARGE))["messages"] * 2},
    "a url within a schema": request(image(LARGE), structured_outputs={"json": {"properties": {"url": LARGE}}}),
    "a field that is left out": request(image(LARGE, uuid="1"), user="somebody"),
    "too many images": request(*[image(LARGE)] * 3),
    "bytes that are no image": request(image(LARGE.replace("iVBOR", "AAAAA"))),
    "another media type": request(image(LARGE.replace("image/png", "image/tiff"))),
    "a media type of many words": request(image(LARGE.replace("image/png", "x" * 200))),
    "broken base64": request(image(LARGE[:-1])),
    "an unknown field": request(image(LARGE), wibble=1),
    "an image of an assistant's": {"model": "tiny", "messages": [{"role": "assistant", "content": [image(LARGE)]}]},
    "an image as the model": request(image(LARGE), model={"url": LARGE}),
    "an image where a string is wanted": request(image(LARGE), stop={"url": LARGE}),
    "an unknown model": request(image(LARGE), model="nobody"),
    "no messages": {"model": "tiny", "url": LARGE},
}


def outcome(body: bytes, catalog: Catalog) -> Any:
    try:
        ready = prepare(body, catalog)
    except GatewayError as error:
        return type(error), str(error), error.param
    return ready.model, orjson.loads(b"".join(ready.body)), ready.stream, ready.headers


@pytest.mark.parametrize("name", REQUESTS)
def test_it_is_prepared_as_if_it_had_been_read_whole(name: str, catalog: Catalog) -> None:
    body = json.dumps(REQUESTS[name]).encode()
    # With its slashes escaped nothing is cut out of it, and it means the same.
    assert outcome(body, catalog) == outcome(
        body.replace(b"data:image/", b"data:image\\/").replace(b"data:x", b"data:\\u0078"), catalog
    )


def test_a_repeated_key_counts_once_and_last(catalog: Catalog) -> None:
    body = (
        json.dumps(request(image("FIRST"))).replace('"FIRST"', f'"{LARGE}", "url": "{LARGE.replace("png", "jpeg")}"').encode()
    )
    sent = orjson.loads(b"".join(prepare(body, catalog).body))
    assert sent["messages"][0]["content"][0]["image_url"] == {"url": LARGE.replace("png", "jpeg")}


def test_an_image_goes_to_the_engine_without_being_copied(catalog: Catalog) -> None:
    body = json.dumps(request(image(LARGE))).encode()
    ready: Ready = prepare(body, catalog)
    assert [part.obj is body for part in ready.body if isinstance(part, memoryview)] == [True]
