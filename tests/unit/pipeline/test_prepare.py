"""A request whose images were cut out of its body is prepared as the same request read whole."""

import base64
import json
import pathlib
import tracemalloc
from typing import Any

import orjson
import pytest

from gateway.catalog.models import Catalog
from gateway.catalog.read import load_catalog
from gateway.errors import GatewayError, InvalidVideo
from gateway.images.sized import ImageLimits
from gateway.images.source import RemoteImage
from gateway.pipeline.prepare import Asked, Pieces, rendered, understood
from tests.conftest import CATALOG, asked_of, noise, picture
from tests.unit.images.test_videos import MP4

LARGE = noise((32, 24))
"""Long enough to be cut out."""

CLIP = f"data:video/mp4;base64,{base64.b64encode(MP4 + bytes(range(256)) * 8).decode()}"
"""As long."""

SHORT = f"data:video/mp4;base64,{base64.b64encode(MP4).decode()}"

LIMITS = ImageLimits(
    image_mib=0.05, images_mib=1, image_megapixels=1, image_side_pixels=1000, image_min_side_pixels=4, image_aspect=100
)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    path: pathlib.Path = tmp_path_factory.mktemp("catalog") / "catalog.yaml"
    path.write_text(CATALOG.replace("images_per_request: 2", "images_per_request: 2\n    videos_per_request: 2"))
    return load_catalog(path)


def image(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}} | more


def video(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}} | more


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
    "a broken header": request(image(LARGE[:40] + "AAAA" + LARGE[44:])),
    "too large a file": request(image(noise((200, 200)))),
    "too small an image": request(image(LARGE), image(noise((1000, 2)))),
    "an image elsewhere": request(image(LARGE), image("https://example.com/a.png", detail=None)),
    "an unknown field": request(image(LARGE), wibble=1),
    "an image of an assistant's": {"model": "tiny", "messages": [{"role": "assistant", "content": [image(LARGE)]}]},
    "an image as the model": request(image(LARGE), model={"url": LARGE}),
    "an image where a string is wanted": request(image(LARGE), stop={"url": LARGE}),
    "no messages": {"model": "tiny", "url": LARGE},
    "a video": request(video(CLIP), {"type": "text", "text": CLIP}),
    "a video between images": request(image(LARGE), video(CLIP), image(picture())),
    "two videos, one of them short": request(video(SHORT), video(CLIP, uuid="1")),
    "too many videos": request(*[video(CLIP)] * 3),
    "a video by another name": request(video(CLIP.replace("video/mp4", "video/webm"))),
    "a video that is called an image": request(video(CLIP.replace("video/mp4", "image/png"))),
    "a video where an image should be": request(image(CLIP)),
    "an image where a video should be": request(video(LARGE)),
    "an image that is called a video": request(video(LARGE.replace("image/png", "video/mp4"))),
    "broken base64 of a video": request(video(CLIP[:-1])),
    "a video elsewhere": request(image(LARGE), video("https://example.com/a.mp4")),
    "a video with more said of it": request(video(CLIP) | {"fps": 1}),
}


def outcome(body: bytes, catalog: Catalog) -> Any:
    try:
        asked = asked_of(body, catalog, LIMITS)
    except GatewayError as error:
        return type(error), str(error), error.param
    images = [
        (one.param, one.detail, one.image if isinstance(one.image, RemoteImage) else one.image.header) for one in asked.images
    ]
    videos = [(one.media_type, one.encoded.digest) for one in asked.videos]
    return asked.request.model, sent_as(asked), images, videos, asked.stream, asked.headers


def sent_as(asked: Asked) -> Any:
    unnamed: list[None] = [None] * len(asked.images)
    return orjson.loads(b"".join(rendered(asked, unnamed, unnamed, None, video_uuids=[None] * len(asked.videos))))


@pytest.mark.parametrize("name", REQUESTS)
def test_it_is_prepared_as_if_it_had_been_read_whole(name: str, catalog: Catalog) -> None:
    body = json.dumps(REQUESTS[name]).encode()
    # With its slashes escaped nothing is cut out of it, and it means the same.
    assert outcome(body, catalog) == outcome(
        body.replace(b"data:image/", b"data:image\\/")
        .replace(b"data:video/", b"data:video\\/")
        .replace(b"data:x", b"data:\\u0078"),
        catalog,
    )


def test_a_repeated_key_counts_once_and_last(catalog: Catalog) -> None:
    body = (
        json.dumps(request(image("FIRST"))).replace('"FIRST"', f'"{LARGE}", "url": "{LARGE.replace("png", "jpeg")}"').encode()
    )
    sent = sent_as(asked_of(body, catalog, LIMITS))
    assert sent["messages"][0]["content"][0]["image_url"] == {"url": LARGE.replace("png", "jpeg")}


def test_an_image_goes_to_the_engine_without_being_copied(catalog: Catalog) -> None:
    body = json.dumps(request(image(LARGE))).encode()
    parts = rendered(asked_of(body, catalog, LIMITS), [None], [None], None)
    assert [part.obj is body for part in parts if isinstance(part, memoryview)] == [True]


def test_a_video_goes_to_the_engine_without_being_copied_and_under_a_header_of_ours(catalog: Catalog) -> None:
    body = json.dumps(request(video(CLIP.replace("video/mp4", "VIDEO/webm;codecs=x")))).encode()
    parts = rendered(asked_of(body, catalog, LIMITS), [], [], None, video_uuids=[None])
    assert [part.obj is body for part in parts if isinstance(part, memoryview)] == [True]
    assert orjson.loads(b"".join(parts))["messages"][0]["content"] == [video(CLIP)]


def test_images_and_videos_keep_their_places_and_their_names(catalog: Catalog) -> None:
    mixed = request(video(CLIP), image(LARGE), {"type": "text", "text": "?"}, image(picture()), video(SHORT))
    asked = asked_of(json.dumps(mixed).encode(), catalog, LIMITS)
    for replaced, url in ((None, picture()), ([b"data:x"], "data:x")):
        parts = rendered(asked, [None, replaced], ["i1", "i2"], "salt", video_uuids=["v1", None])
        sent = orjson.loads(b"".join(parts))["messages"][0]["content"]
        assert sent == [
            video(CLIP, uuid="v1"),
            image(LARGE, uuid="i1"),
            {"type": "text", "text": "?"},
            image(url, uuid="i2"),
            video(SHORT),
        ]


def test_a_file_that_is_no_video_costs_no_second_reading_of_the_body(catalog: Catalog) -> None:
    size = 8 * 2**20
    body = json.dumps(request(video(f"data:video/mp4;base64,{'A' * size}"))).encode()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidVideo):
            asked_of(body, catalog, LIMITS)
        assert tracemalloc.get_traced_memory()[1] < size / 8
    finally:
        tracemalloc.stop()


def test_images_that_were_replaced_take_their_own_places(catalog: Catalog) -> None:
    asked = asked_of(
        json.dumps(request(image(LARGE), image(picture()), image("https://a/b"))).encode(), two_more(catalog), LIMITS
    )
    cases: list[tuple[list[Pieces | None], list[str]]] = [
        ([None, None, [b"data:", b"c"]], [LARGE, picture(), "data:c"]),
        ([[b"data:a"], None, [b"data:c"]], ["data:a", picture(), "data:c"]),
        ([[b"data:a"], [b"data:b"], [b"data:c"]], ["data:a", "data:b", "data:c"]),
    ]
    for replaced, urls in cases:
        sent = orjson.loads(b"".join(rendered(asked, replaced, [None] * 3, None)))
        assert [part["image_url"] for part in sent["messages"][0]["content"]] == [{"url": url} for url in urls]


def test_names_go_with_their_images_and_the_salt_with_every_request(catalog: Catalog) -> None:
    asked = asked_of(json.dumps(request(image(LARGE, uuid="theirs"), image(picture()))).encode(), catalog, LIMITS)
    sent = orjson.loads(b"".join(rendered(asked, [[b"data:a"], None], ["first", "second"], "salt")))
    first, second = sent["messages"][0]["content"]
    assert first == image("data:a", uuid="first")
    assert second == image(picture(), uuid="second")
    assert sent["cache_salt"] == "salt"
    words = asked_of(json.dumps(request({"type": "text", "text": "hi"})).encode(), catalog, LIMITS)
    assert orjson.loads(b"".join(rendered(words, [], [], "salt")))["cache_salt"] == "salt"


def two_more(catalog: Catalog) -> Catalog:
    tiny = catalog.models["tiny"].model_copy(update={"images_per_request": 4})
    return catalog.model_copy(update={"models": catalog.models | {"tiny": tiny}})


def test_an_engine_is_asked_by_its_own_name_whatever_the_request_names(catalog: Catalog) -> None:
    wanted = understood(orjson.dumps(request({"type": "text", "text": "hi"}, model="auto:fast")), LIMITS)
    for adapter, served in ((None, "tiny"), ("words", "tiny:words")):
        asked = wanted.of("tiny", catalog.models["tiny"], adapter)
        assert sent_as(asked)["model"] == asked.headers["x-fovea-model"] == served
    assert wanted.request.model == "auto:fast"
