"""Requests with videos: to whom they go, what of them an engine gets, and that nothing of them is kept."""

import base64
import json
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.cache_clients import Caller, question
from tests.conftest import PATIENCE_S, RunningGateway, picture, running_gateway
from tests.fake_engine import FakeEngine, Speech, always, running_fake_engine
from tests.unit.images.test_videos import MP4, PLAYLIST, url

_ENTRY = """
  {name}:
    source: nowhere
    family: qwen2_vl
    tier: for-{name}
    parameters_b: {size}
    kv_cache: {{layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    context_tokens: 4096
    images_per_request: {images}
    videos_per_request: {videos}
    concurrency: 8
    queue_depth: 8
    longest_answer_s: 60
    engine_url: {engines}/{name}
    cache: {{answers: always}}
"""
MODELS = {"words": (1, 0, 0), "seeing": (2, 2, 0), "watching": (3, 2, 1), "staring": (4, 2, 2)}
"""Size, images and videos of each."""

LARGE = url(MP4 + random.Random(0).randbytes(5 * 2**20))
SHORT = url(MP4)

Document = dict[str, Any]


@pytest.fixture(scope="module")
def running_engine() -> Iterator[FakeEngine]:
    with running_fake_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(running_engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    entries = "".join(
        _ENTRY.format(name=name, size=size, images=images, videos=videos, engines=running_engine.url)
        for name, (size, images, videos) in MODELS.items()
    )
    catalog = f"hardware: {{kind: cpu}}\nlimits: {{body_mib: 16}}\nmodels:{entries}"
    with running_gateway(tmp_path_factory.mktemp("gateway"), "http://127.0.0.1:1", catalog) as running:
        yield running


@pytest.fixture
def engine(running_engine: FakeEngine) -> FakeEngine:
    running_engine.reset()
    running_engine.answer = Speech(running_engine, always("yes"))
    return running_engine


@pytest.fixture
def caller(gateway: RunningGateway, engine: FakeEngine) -> Iterator[Caller]:
    with httpx.Client(timeout=PATIENCE_S) as client:
        yield Caller(client, gateway)


def video(text: str) -> Document:
    return {"type": "video_url", "video_url": {"url": text}}


def image() -> Document:
    return {"type": "image_url", "image_url": {"url": picture()}}


def asked(model: str, *parts: Document, **fields: Any) -> Document:
    document = question(model, **fields)
    content = [{"type": "text", "text": document["messages"][0]["content"]}, *parts]
    return document | {"messages": [{"role": "user", "content": content}]}


def test_a_video_of_megabytes_reaches_the_engine_byte_for_byte(caller: Caller, engine: FakeEngine) -> None:
    document = asked("watching", image(), video(LARGE), image())
    said = caller.ask(document)
    assert said.status == 200, said.error
    [sent] = engine.documents
    words, first, between, second = sent["messages"][0]["content"]
    assert between["video_url"] == {"url": LARGE}
    assert [part["image_url"]["url"] for part in (first, second)] == [picture(), picture()]
    assert words == document["messages"][0]["content"][0]
    assert first["uuid"] == second["uuid"] != between["uuid"]
    assert caller.gateway.metric("fovea_body_bytes_in_flight") == 0


WORK = {
    "words": (asked("auto"), "words"),
    "an image": (asked("auto", image()), "seeing"),
    "a video": (asked("auto", video(SHORT)), "watching"),
    "a video and an image": (asked("auto", video(SHORT), image()), "watching"),
    "two videos": (asked("auto", video(SHORT), video(LARGE)), "staring"),
    "a video, in the caller's own order": (asked("words", video(SHORT), models=["seeing", "staring"]), "staring"),
    "words to a model that takes nothing else": (asked("words"), "words"),
    "words to one that takes all": (asked("staring"), "staring"),
}


@pytest.mark.parametrize("name", WORK)
def test_a_request_goes_to_who_takes_what_is_in_it(caller: Caller, engine: FakeEngine, name: str) -> None:
    document, model = WORK[name]
    said = caller.ask(document)
    assert (said.status, said.headers.get("x-fovea-model")) == (200, model), said.error
    assert [sent["model"] for sent in engine.documents] == [model]


REFUSED: dict[str, tuple[Document, str, str, str]] = {
    "a video for who takes none": (
        asked("seeing", video(SHORT)),
        "messages",
        "too_many_videos",
        "The request has 1 video; videos_per_request of 'seeing' is 0.",
    ),
    "more videos than anybody takes": (
        asked("auto", *[video(SHORT)] * 3),
        "messages",
        "no_model_fits",
        "No model of 'auto' takes the request. words: The request has 3 videos; videos_per_request of 'words' is 0. seeing:",
    ),
    "a video elsewhere": (
        asked("watching", video("https://example.com/a.mp4")),
        "messages[0].content[1].video_url.url",
        "invalid_video",
        "Videos are taken as data: URLs only, got scheme 'https'.",
    ),
    "a playlist": (
        asked("watching", video(url(PLAYLIST * 100))),
        "messages[0].content[1].video_url.url",
        "invalid_video",
        "The bytes do not begin as those of a video do: MP4, QuickTime, WebM, Matroska and AVI files are taken.",
    ),
    "how it is to be read": (
        asked("watching", {"type": "video_url", "video_url": {"url": LARGE, "fps": 60}}),
        "messages[0].content[1].video_url.fps",
        "unknown_parameter",
        "Unknown parameter: 'messages[0].content[1].video_url.fps'.",
    ),
    "a video called an image": (
        asked("watching", {"type": "image_url", "image_url": {"url": SHORT.replace("video/mp4", "image/png")}}),
        "messages[0].content[1].image_url.url",
        "invalid_image",
        "The image is MP4 or QuickTime video;",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_taken_is_refused_by_name_before_any_engine_is_asked(caller: Caller, engine: FakeEngine, name: str) -> None:
    document, param, code, message = REFUSED[name]
    said = caller.ask(document)
    assert said.error is not None
    assert (said.status, said.error["param"], said.error["code"]) == (400, param, code)
    assert said.error["message"].startswith(message)
    assert not engine.documents


def test_a_choice_is_explained_by_what_the_others_lack(caller: Caller, engine: FakeEngine) -> None:
    answer = caller.http.post(f"{caller.gateway.url}/v1/route", json=asked("auto", video(LARGE))).json()
    assert answer["model"] == "watching"
    assert {model["model"]: model["lacks"] for model in answer["models"]} == {
        "watching": None,
        "staring": None,
        "words": "The request has 1 video; videos_per_request of 'words' is 0.",
        "seeing": "The request has 1 video; videos_per_request of 'seeing' is 0.",
    }
    costs = caller.http.post(f"{caller.gateway.url}/v1/images/estimate", json=asked("auto", video(LARGE), image())).json()
    assert [model["refused"] is None for model in costs["models"]] == [False, False, True, True]
    assert not engine.documents


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_an_answer_about_a_video_is_made_anew_for_each(caller: Caller, engine: FakeEngine, *, is_stream: bool) -> None:
    document = asked("watching", video(LARGE), seed=1, stream=is_stream)
    assert [caller.ask(document).cache for _ in range(2)] == ["bypass", "bypass"]
    assert len(engine.documents) == 2
    assert caller.ask(document, "only-if-cached").status == 504
    pictured = asked("watching", image(), seed=1, stream=is_stream)
    assert [caller.ask(pictured).cache for _ in range(2)] == ["miss", "hit"]


def test_an_engine_knows_a_video_by_a_name_of_what_is_in_it(caller: Caller, engine: FakeEngine) -> None:
    other = url(MP4 + b"other")
    misnamed = LARGE.replace("video/mp4", "video/webm")
    for part in (video(LARGE), video(misnamed), video(LARGE) | {"uuid": "theirs"}, video(other)):
        assert caller.ask(asked("watching", part)).status == 200
    names = [sent["messages"][0]["content"][1]["uuid"] for sent in engine.documents]
    assert names[0] == names[1] == names[2] != names[3]
    assert "theirs" not in names
    assert [sent["messages"][0]["content"][1]["video_url"]["url"] == LARGE for sent in engine.documents[:3]] == [True] * 3


def error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "X", "param": None, "code": status}}, status)


def test_a_failure_that_may_be_a_video_s_is_tried_again_once_and_then_told(caller: Caller, engine: FakeEngine) -> None:
    async def fails(_: Request) -> Response:
        return error(500, "division by zero")

    engine.answer = fails
    said = caller.ask(asked("watching", video(SHORT)))
    assert said.error is not None
    assert (said.status, said.error["code"]) == (502, "engine_error")
    assert said.error["param"] == "messages[0].content[1].video_url.url"
    assert "A video may be why" in said.error["message"]
    assert "zero" not in said.error["message"]
    assert len(engine.documents) == 2


ENGINE_S = {
    "it does not open": ("Could not open video stream", "invalid_video", "A video of the request cannot be decoded.", 1),
    "it has no frames": (
        "Failed to apply Qwen2VLProcessor on data={'videos': [array([], shape=(0, 0, 0, 3), dtype=uint8)]} with kwargs={}",
        "invalid_video",
        "A video of the request cannot be decoded.",
        1,
    ),
    "its times make no sense": (
        "Failed to apply Qwen3VLProcessor on data={'text': '<|video_pad|>', 'videos': [[array([[[[0, 0, 0],\n [0, 0, 0]]]])]]}",
        "invalid_video",
        "A video of the request cannot be decoded.",
        1,
    ),
    "its one frame is broken": (
        "Failed to apply InternVLProcessor on data={'text': '<video>', 'videos': array([], shape=(0, 84, 112, 3))}",
        "invalid_video",
        "A video of the request cannot be decoded.",
        1,
    ),
    "it is too long": (
        "The decoder prompt contains a(n) video item with 9000 embedding tokens, which exceeds the pre-allocated encoder cache "
        "size 8192.",
        "context_length_exceeded",
        "The decoder prompt contains",
        2,
    ),
}


@pytest.mark.parametrize("name", ENGINE_S)
def test_what_an_engine_finds_wrong_with_a_video_is_told(caller: Caller, engine: FakeEngine, name: str) -> None:
    words, code, message, asked_of = ENGINE_S[name]

    async def refuses(_: Request) -> Response:
        return error(400, words)

    engine.answer = refuses
    said = caller.ask(asked("auto", video(SHORT)))
    assert said.error is not None
    assert (said.status, said.error["param"], said.error["code"]) == (400, "messages", code)
    assert said.error["message"].startswith(message)
    assert len(engine.documents) == asked_of


def test_a_video_that_is_written_with_escapes_is_the_same(caller: Caller, engine: FakeEngine) -> None:
    """As PHP's json_encode does."""
    body = json.dumps(asked("watching", video(LARGE))).replace("video/mp4", "video\\/mp4")
    answer = caller.http.post(
        f"{caller.gateway.url}/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200
    [sent] = engine.documents
    assert base64.b64decode(sent["messages"][0]["content"][1]["video_url"]["url"].split(",")[1]) == base64.b64decode(
        LARGE.split(",")[1]
    )
