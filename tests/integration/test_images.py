"""What becomes of images on their way through the gateway; the engine is a fake that keeps what it was sent."""

import base64
import contextlib
import http.server
import io
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil
import pytest
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.cache_clients import waiting
from tests.conftest import CATALOG, PATIENCE_S, RunningGateway, noise, picture, running_gateway
from tests.fake_engine import FakeEngine, completion
from tests.hostile_images import corpus
from tests.watching import SOON_S, eventually

DEMO_PIXELS = 28 * 28 * 256
SMALL_BUDGET = CATALOG.replace("body_mib: 1}", "body_mib: 64}").replace(
    "    context_tokens: 4096\n    images_per_request: 2",
    f"    image_processor: {{max_pixels: {DEMO_PIXELS}}}\n    context_tokens: 400\n    images_per_request: 2",
)


@pytest.fixture(scope="module")
def asked_slowly() -> threading.Event:
    """Set when `store` is asked for what takes it long."""
    return threading.Event()


@pytest.fixture(scope="module")
def store(asked_slowly: threading.Event) -> Iterator[str]:
    """A server of pictures on this machine, which the gateway below is told to trust; its address."""

    class Pictures(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/slow":
                asked_slowly.set()
                time.sleep(20)  # longer than a fetch may take, whose end would be a 400
            width, _, height = self.path.strip("/").partition("x")
            body = data_of(picture("PNG", (int(width), int(height)))) if height else b"<html></html>"
            if self.path == "/noise":
                body = data_of(noise((700, 700)))
            self.send_response(200)
            self.send_header("content-type", "text/plain")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def sized(fake_engine: FakeEngine, store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway before a model of small budget, which fetches from `store`."""
    folder: pathlib.Path = tmp_path_factory.mktemp("sized")
    settings = {
        "FOVEA_IMAGE_URL_SCHEMES": "https,http",
        "FOVEA_IMAGE_URL_HOSTS": store.removeprefix("http://"),
        "FOVEA_IMAGE_MIB": "4",
        "FOVEA_IMAGES_MIB": "6",
        "FOVEA_IMAGE_MEGAPIXELS": "16",
        "FOVEA_IMAGE_SIDE_PIXELS": "8000",
    }
    with running_gateway(folder, fake_engine.url, SMALL_BUDGET, **settings) as running:
        yield running


@pytest.fixture
def client(sized: RunningGateway, engine: FakeEngine) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{sized.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def data_of(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


def question(*urls: str, detail: str = "auto") -> list[Any]:
    parts = [{"type": "image_url", "image_url": {"url": url, "detail": detail}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What is this?"}]}]


def received(engine: FakeEngine) -> list[str]:
    """The URLs of the images of the last request."""
    return [part["image_url"]["url"] for part in engine.documents[-1]["messages"][0]["content"] if "image_url" in part]


def size_of(url: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(data_of(url))).size


def test_an_image_within_its_budget_is_passed_on_untouched(client: openai.OpenAI, engine: FakeEngine) -> None:
    url = picture("PNG", (448, 336))
    answer = client.chat.completions.with_raw_response.create(model="tiny", messages=question(url))
    assert received(engine) == [url]
    assert "x-fovea-image-sizes" not in answer.headers


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_an_image_over_its_budget_comes_as_large_as_its_model_would_make_it(
    client: openai.OpenAI, engine: FakeEngine, form: str
) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="tiny", messages=question(picture(form, (1600, 1200)), picture(form, (56, 56)))
    )
    large, small = map(size_of, received(engine))
    assert large == (504, 364)
    assert small == (56, 56)
    assert answer.headers["x-fovea-image-sizes"] == "504x364, 56x56"


def test_low_detail_fits_512_pixels(client: openai.OpenAI, engine: FakeEngine) -> None:
    client.chat.completions.create(model="mute", messages=question(picture("PNG", (1600, 1200)), detail="low"))
    assert max(size_of(received(engine)[0])) <= 512


def test_an_image_that_lies_on_its_side_is_put_upright_when_it_is_shrunk(client: openai.OpenAI, engine: FakeEngine) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (1600, 800), "red").save(buffer, "JPEG", exif=exif)
    url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    client.chat.completions.create(model="tiny", messages=question(url))
    width, height = size_of(received(engine)[0])
    assert width < height


def test_an_image_is_fetched_from_a_host_that_is_allowed(client: openai.OpenAI, engine: FakeEngine, store: str) -> None:
    client.chat.completions.create(model="tiny", messages=question(f"{store}/64x48", f"{store}/1600x1200"))
    first, second = received(engine)
    assert first == picture("PNG", (64, 48)), "with the type that its bytes have, not the one that was said"
    assert size_of(second) == (504, 364)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.png", "https://localhost/a.png", "http://169.254.169.254/latest/meta-data", "https://a@b/c"]
)
def test_an_image_elsewhere_within_is_refused(client: openai.OpenAI, engine: FakeEngine, url: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="tiny", messages=question(url))
    assert error.value.code == "invalid_image"
    assert error.value.param == "messages[0].content[0].image_url.url"
    assert engine.documents == []


def test_what_was_fetched_and_is_no_image_is_refused(client: openai.OpenAI, engine: FakeEngine, store: str) -> None:
    with pytest.raises(openai.BadRequestError, match="PNG, JPEG, WebP and GIF") as error:
        client.chat.completions.create(model="tiny", messages=question(f"{store}/page"))
    assert error.value.code == "invalid_image"


def test_what_the_images_make_of_a_request_is_no_larger_than_a_body_may_be(
    fake_engine: FakeEngine, store: str, tmp_path: pathlib.Path
) -> None:
    settings = {"FOVEA_IMAGE_URL_SCHEMES": "http", "FOVEA_IMAGE_URL_HOSTS": "127.0.0.1"}
    with running_gateway(tmp_path, fake_engine.url, **settings) as gateway:
        body = {"model": "tiny", "messages": question(f"{store}/noise")}
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "image_over_limit"
    assert "limits.body_mib allows 1048576" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["chat/completions", "images/estimate"])
def test_a_deadline_holds_while_an_image_is_fetched(sized: RunningGateway, store: str, path: str) -> None:
    answer = httpx.post(
        f"{sized.url}/v1/{path}",
        json={"model": "tiny", "messages": question(f"{store}/slow")},
        headers={"x-request-timeout-seconds": "0.5"},
        timeout=PATIENCE_S,
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize("path", ["chat/completions", "images/estimate"])
def test_a_client_that_goes_away_ends_the_fetching_of_its_images(
    sized: RunningGateway, store: str, asked_slowly: threading.Event, path: str
) -> None:
    def gone() -> float:
        return sized.counted(model="" if path == "images/estimate" else "tiny", status="499", path=f"/v1/{path}")

    before = gone()
    asked_slowly.clear()
    with waiting(sized, {"model": "tiny", "messages": question(f"{store}/slow")}, f"/v1/{path}"):
        assert asked_slowly.wait(SOON_S)
    assert eventually(lambda: gone() == before + 1)


def bomb(width: int, height: int) -> str:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


LIMITS = {
    "pixels": (bomb(5000, 5000), "is 5000x5000 pixels, 25.0 million; image_megapixels allows 16."),
    "a side": (bomb(9000, 100), "is 9000x100 pixels; image_side_pixels allows 8000."),
    "a short side": (bomb(100, 3), "is 100x3 pixels; image_min_side_pixels asks for 4."),
    "the aspect": (bomb(4000, 4), "is 4000x4 pixels, 1000.0 to 1; image_aspect allows 100 to 1."),
    "bytes": (
        "data:image/png;base64," + base64.b64encode(data_of(picture()) + bytes(5_000_000)).decode(),
        "bytes; image_mib allows 4 (4194304 bytes).",
    ),
}


@pytest.mark.parametrize(("url", "said"), LIMITS.values(), ids=LIMITS.keys())
def test_a_limit_is_told_with_its_name_its_value_and_the_image_s(
    client: openai.OpenAI, engine: FakeEngine, url: str, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="tiny", messages=question(url))
    assert said in error.value.message
    assert error.value.code == "image_over_limit"
    assert error.value.param == "messages[0].content[0].image_url.url"
    assert engine.documents == []


def test_images_that_are_too_large_together_are_refused(client: openai.OpenAI, engine: FakeEngine) -> None:
    url = "data:image/png;base64," + base64.b64encode(data_of(picture()) + bytes(4_000_000)).decode()
    with pytest.raises(openai.BadRequestError, match="images_mib allows 6") as error:
        client.chat.completions.create(model="tiny", messages=question(url, url))
    assert (error.value.code, error.value.param) == ("image_over_limit", "messages")


def test_images_that_fill_the_context_are_refused(client: openai.OpenAI, engine: FakeEngine) -> None:
    url = picture("PNG", (1600, 1200))
    with pytest.raises(openai.BadRequestError, match="The images become 472 tokens; context_tokens of 'tiny' is 400") as error:
        client.chat.completions.create(model="tiny", messages=question(url, url))
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "messages")
    assert engine.documents == []


def test_an_estimate_tells_the_tokens_of_every_model_and_asks_no_engine(
    sized: RunningGateway, engine: FakeEngine, store: str
) -> None:
    body = {"model": "tiny", "messages": question(picture("PNG", (1600, 1200)), f"{store}/64x48")}
    estimate = httpx.post(f"{sized.url}/v1/images/estimate", json=body, timeout=PATIENCE_S).raise_for_status().json()
    assert estimate["images"][0] | {"bytes": 0} == {
        "param": "messages[0].content[0].image_url.url",
        "format": "png",
        "width": 1600,
        "height": 1200,
        "frames": 1,
        "bytes": 0,
    }
    tiny, mute = estimate["models"]
    assert tiny["images"][0] == {"width": 504, "height": 364, "tokens": 18 * 13 + 2, "shrunk": True}
    assert tiny["image_tokens"] == sum(image["tokens"] for image in tiny["images"])
    assert mute["images"] or mute["refused"]
    assert engine.documents == []


def test_an_estimate_refuses_what_a_completion_would(sized: RunningGateway) -> None:
    answer = httpx.post(
        f"{sized.url}/v1/images/estimate", json={"model": "tiny", "messages": question(bomb(5000, 5000))}, timeout=PATIENCE_S
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "image_over_limit"


def test_a_damaged_image_costs_one_request_a_400(client: openai.OpenAI, engine: FakeEngine) -> None:
    whole = data_of(picture("JPEG", (1600, 1200)))
    damaged = f"data:image/jpeg;base64,{base64.b64encode(whole[: len(whole) // 2]).decode()}"
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="tiny", messages=question(damaged))
    assert error.value.code == "invalid_image"
    assert error.value.param == "messages[0].content[0].image_url.url"
    client.chat.completions.create(model="tiny", messages=question(picture("JPEG", (1600, 1200))))


def test_an_image_over_which_an_engine_fails_is_named(client: openai.OpenAI, engine: FakeEngine) -> None:
    """vLLM answers 500 to some damaged files that have a sound header."""

    async def fail(_: Request) -> Response:
        return JSONResponse({"error": {"message": "oops", "type": "InternalServerError", "param": None, "code": 500}}, 500)

    engine.answer = fail
    whole = picture("PNG")
    damaged = f"{whole[:-60]}{'A' * 40}{whole[-20:]}"
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="tiny", messages=question(whole, damaged))
    assert (error.value.code, error.value.param) == ("invalid_image", "messages[0].content[1].image_url.url")
    with pytest.raises(openai.InternalServerError) as failure:
        client.chat.completions.create(model="tiny", messages=question(whole, whole))
    assert failure.value.status_code == 502, "a sound image is not the cause"


@pytest.mark.parametrize(("content", "calls"), [(question(picture()), 2), ([{"role": "user", "content": "hi"}], 1)])
def test_an_engine_that_fails_on_a_sound_image_is_asked_once_more(
    client: openai.OpenAI, engine: FakeEngine, content: Any, calls: int
) -> None:
    """vLLM's two caches can differ in whether they know an image; the second time they do not. Words alone are asked once."""

    async def fail_once(_: Request) -> Response:
        if len(engine.documents) > 1:
            return completion("here")
        return JSONResponse({"error": {"message": "oops", "type": "InternalServerError", "param": None, "code": 500}}, 500)

    engine.answer = fail_once
    with contextlib.nullcontext() if calls > 1 else pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="tiny", messages=content)
    assert len(engine.documents) == calls


@pytest.mark.timeout(900)  # 16,180 requests
def test_of_a_hostile_corpus_nothing_but_200_and_400_comes(sized: RunningGateway, engine: FakeEngine) -> None:
    """And the gateway lives, in bounded memory."""
    statuses: dict[int, int] = {}
    with httpx.Client(timeout=60) as client:
        for hostile in corpus():
            url = f"data:{hostile.media_type};base64,{base64.b64encode(hostile.data).decode()}"
            answer = client.post(f"{sized.url}/v1/chat/completions", json={"model": "tiny", "messages": question(url)})
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert answer.status_code in {200, 400}, hostile.name
    assert sized.process.poll() is None
    assert statuses[200] > 100
    assert statuses[400] > 100
    assert psutil.Process(sized.process.pid).memory_info().rss < 400 * 1024**2
