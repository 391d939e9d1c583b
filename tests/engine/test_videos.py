"""Videos as vLLM takes them: with the arguments that deploy/engine.py derives, and the document that the gateway renders."""

import base64
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from deploy.engine import engine_args
from gateway.catalog.read import parse_catalog
from gateway.errors import EngineErred, EngineRefused, GatewayError
from gateway.images.engine_ids import EngineIds
from gateway.images.sized import ImageLimits
from gateway.pipeline.prepare import rendered
from gateway.upstream.failures import failure
from tests.conftest import CATALOG, asked_of, picture
from tests.engine.vllm_server import VllmServer

pytestmark = pytest.mark.timeout(600)  # an engine has to start first

FRAMES = 8
ENTRY = f"    images_per_request: 2\n    videos_per_request: 2\n    video_frames: {FRAMES}"
CATALOG_OF_VIDEOS = parse_catalog(
    CATALOG.replace("body_mib: 1}", "body_mib: 64}").replace("    images_per_request: 2", ENTRY).replace("hermes", "none")
)
LIMITS = ImageLimits(
    image_mib=20, images_mib=50, image_megapixels=50, image_side_pixels=16384, image_min_side_pixels=4, image_aspect=100
)
IDS = EngineIds(b"a secret")
CODECS = {"mp4": "mp4v", "mov": "mp4v", "avi": "MJPG", "mkv": "MJPG", "webm": "VP80"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    args = engine_args("tiny", CATALOG_OF_VIDEOS.models["tiny"], CATALOG_OF_VIDEOS.hardware)
    engine = VllmServer("qwen2_vl", tmp_path_factory.mktemp("engine"), **args)
    engine.wait()
    yield engine
    engine.end()


def movie(folder: pathlib.Path, frames: int, size: tuple[int, int] = (112, 84), form: str = "mp4") -> bytes:
    """At four frames a second; a codec that needs no display."""
    path = folder / f"movie.{form}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*CODECS[form]), 4.0, size)
    for shade in range(frames):
        writer.write(np.full((size[1], size[0], 3), shade * 20 % 255, np.uint8))
    writer.release()
    return path.read_bytes()


def video(data: bytes) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{base64.b64encode(data).decode()}"}}


def asked(engine: VllmServer, *parts: dict[str, Any]) -> httpx.Response:
    """What the engine says to the document that the gateway makes of a question."""
    content = [*parts, {"type": "text", "text": "what is in this"}]
    request = {"model": "tiny", "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 4}
    asked = asked_of(json.dumps(request).encode(), CATALOG_OF_VIDEOS, LIMITS)
    names = [IDS.uuid("ada", one.encoded.digest, "video") for one in asked.videos]
    unnamed: list[None] = [None] * len(asked.images)
    document = b"".join(rendered(asked, unnamed, unnamed, IDS.salt("ada"), video_uuids=names))
    # vLLM 0.32 closes the connection on which it has answered 500, a moment later.
    headers = {"content-type": "application/json", "connection": "close"}
    return engine.client.post("/v1/chat/completions", content=document, headers=headers)


def tokens(answer: httpx.Response) -> int:
    assert answer.status_code == 200, answer.text
    return int(answer.json()["usage"]["prompt_tokens"])


def as_error(answer: httpx.Response) -> GatewayError:
    return failure("tiny", answer.status_code, answer.headers["content-type"], answer.content, back_in_s=1)


@pytest.mark.parametrize("form", CODECS)
def test_a_video_that_the_gateway_lets_pass_is_seen(engine: VllmServer, tmp_path: pathlib.Path, form: str) -> None:
    words = tokens(asked(engine))
    assert tokens(asked(engine, video(movie(tmp_path, 8, form=form)))) > words + 20


def test_of_a_long_video_no_more_frames_are_seen_than_the_catalog_says(engine: VllmServer, tmp_path: pathlib.Path) -> None:
    short, enough, long = (tokens(asked(engine, video(movie(tmp_path, frames)))) for frames in (4, 2 * FRAMES, 400))
    assert short < enough == long


def test_images_and_videos_are_seen_beside_one_another(engine: VllmServer, tmp_path: pathlib.Path) -> None:
    words, image = tokens(asked(engine)), {"type": "image_url", "image_url": {"url": picture()}}
    one, other = video(movie(tmp_path, 8)), video(movie(tmp_path, 4))
    alone = [tokens(asked(engine, part)) - words for part in (one, image, other)]
    assert tokens(asked(engine, one, image, other, image)) == words + sum(alone) + alone[1]


def test_a_file_that_only_begins_as_a_video_is_the_caller_s_fault_and_the_engine_lives_on(
    engine: VllmServer, tmp_path: pathlib.Path
) -> None:
    good = {form: movie(tmp_path, 8, form=form) for form in CODECS}
    noise = np.random.default_rng(0).bytes(5000)
    for data in (*(file[:48] + noise for file in good.values()), good["mp4"][:48], good["mp4"][: len(good["mp4"]) // 2]):
        error = as_error(asked(engine, video(data)))
        assert isinstance(error, EngineRefused), error.message
        assert (error.error_code, error.message) == ("invalid_video", "A video of the request cannot be decoded.")
    damaged = bytearray(good["mp4"])
    sizes = damaged.find(b"stsz") + 4
    damaged[sizes : sizes + 40] = noise[:40]
    error = as_error(asked(engine, video(bytes(damaged))))
    assert (type(error), error.error_code) == (EngineRefused, "invalid_video"), error.message
    assert tokens(asked(engine, video(good["mp4"]))) > tokens(asked(engine))


def test_a_video_of_one_frame_is_what_vllm_fails_on_and_lives(engine: VllmServer, tmp_path: pathlib.Path) -> None:
    """vLLM 0.32: ZeroDivisionError in Qwen2VLVideoBackend. Should this pass, `_OF_VIDEOS` of generate.py is out of date."""
    answer = asked(engine, video(movie(tmp_path, 1)))
    assert answer.status_code == 500
    assert isinstance(as_error(answer), EngineErred)
    assert tokens(asked(engine, video(movie(tmp_path, 2)))) > tokens(asked(engine))


def test_a_video_that_comes_again_is_known_by_its_name(engine: VllmServer, tmp_path: pathlib.Path) -> None:
    def hits() -> float:
        lines = engine.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:mm_cache_hits_total"))

    seen = video(movie(tmp_path, 10))
    first, before = asked(engine, seen), hits()
    again = asked(engine, seen)
    assert hits() == before + 1
    assert (tokens(again), again.json()["choices"]) == (tokens(first), first.json()["choices"])
