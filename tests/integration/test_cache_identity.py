"""No answer is ever given to another question: the engine's is a digest of all that it got, so that a false one shows.

A question is asked twice, between others that differ from it in one thing only, and each answer is held against that of a
gateway which keeps nothing.
"""

import asyncio
import base64
import contextlib
import hashlib
import http.server
import io
import json
import pathlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from PIL import Image, ImageOps, PngImagePlugin
from starlette.requests import Request
from starlette.responses import Response

from gateway.tenants.keys import digest as key_digest
from gateway.tenants.keys import new_key
from gateway.wire.chat import ChatCompletionRequest
from tests.cache_clients import MODELS, NEVER, Caller, Said, asked_together, catalog, question, words
from tests.conftest import PATIENCE_S, running_gateway
from tests.fake_engine import FakeEngine, Speech, always, running_fake_engine
from tests.redis_server import RedisServer, running_redis

Document = dict[str, Any]

BY_PIXELS = {"pixels", "brief-pixels"}

# ---------------------------------------------------------------------------------------------------------------------
# An engine that says what it was asked


def seen(document: Document) -> list[str]:
    """What a model sees of a request, as two words. Fields that say how an answer is sent, and ids of caches, are not seen."""
    others = {"stream", "stream_options", "stream_interval", "cache_salt"}
    kept = {name: value for name, value in document.items() if name not in others}
    kept["messages"] = [_seen_message(message, document["model"]) for message in document["messages"]]
    digest = hashlib.sha256(json.dumps(kept).encode()).hexdigest()
    constraint = document.get("structured_outputs", {})
    if "choice" in constraint:
        return [constraint["choice"][0]]
    if "response_format" in document or "json" in constraint:
        return ['{"digest": ', f'"{digest}"}}']
    return [digest[:32], digest[32:]]


def _seen_message(message: Document, model: str) -> Document:
    if not isinstance(message.get("content"), list):
        return message
    return message | {"content": [_seen_part(part, model) for part in message["content"]]}


def _seen_part(part: Document, model: str) -> Document:
    if part["type"] != "image_url":
        return part
    data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    return {"image": pixels(data) if model in BY_PIXELS else hashlib.sha256(data).hexdigest()}


def pixels(data: bytes) -> list[Any]:
    """An image as vLLM 0.32 has it in the end (ImageMediaIO.load_bytes): upright, its first frame, on white, in RGB."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    return [*image.size, hashlib.sha256(image.tobytes()).hexdigest()]


@dataclass
class Files:
    """What a server of pictures has, by path; it may change."""

    url: str = ""
    data: dict[str, bytes] = field(default_factory=dict)


@pytest.fixture(scope="module")
def files() -> Iterator[Files]:
    here = Files()

    class Pictures(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = here.data[self.path]
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here.url = f"http://127.0.0.1:{server.server_port}"
    yield here
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def listener() -> Iterator[FakeEngine]:
    """The engine of this module."""
    with running_fake_engine() as engine:

        async def answer(request: Request) -> Response:
            document = await request.json()
            calls = [("look", json.dumps({"seen": "".join(seen(document))}))] if _has_to_call(document) else []
            return await Speech(engine, seen, calls=calls)(request)

        engine.answer = answer
        yield engine


def _has_to_call(document: Document) -> bool:
    return document.get("tool_choice") not in (None, "auto", "none")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def fetching(files: Files) -> dict[str, str]:
    """Settings of a gateway that may fetch from `files`."""
    return {"FOVEA_IMAGE_URL_SCHEMES": "https,http", "FOVEA_IMAGE_URL_HOSTS": files.url.removeprefix("http://")}


@pytest.fixture(scope="module")
def http_client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture(scope="module")
def fresh(
    listener: FakeEngine, fetching: dict[str, str], http_client: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Caller]:
    """Asks a gateway that keeps nothing, shrunk images included."""
    nothing = {"FOVEA_CACHE_MIB": "0", "FOVEA_SHRUNK_IMAGES_MIB": "0"}
    folder = tmp_path_factory.mktemp("fresh")
    with running_gateway(folder, listener.url, catalog(NEVER), **fetching, **nothing) as gateway:
        yield Caller(http_client, gateway)


@pytest.fixture(scope="module", params=["memory", "redis"])
def kept(
    request: pytest.FixtureRequest,
    listener: FakeEngine,
    redis: RedisServer,
    fetching: dict[str, str],
    http_client: httpx.Client,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Caller]:
    """Asks a gateway that keeps answers, in its memory or in Redis alone."""
    in_redis = {"FOVEA_REDIS_URL": redis.url, "FOVEA_REDIS_BUDGET_S": "5", "FOVEA_CACHE_MIB": "0"}
    settings = fetching | (in_redis if request.param == "redis" else {})
    with running_gateway(tmp_path_factory.mktemp("kept"), listener.url, catalog(), **settings) as gateway:
        yield Caller(http_client, gateway)


def _substance(said: Said) -> Any:
    """What makes it an answer to its question: ids of calls are drawn anew in every one."""
    choices = [choice | {"calls": [call | {"id": ""} for call in choice["calls"]]} for choice in said.choices]
    return choices, said.error


def told_apart(kept: Caller, fresh: Caller, documents: Sequence[Document], *, all_differ: bool = True) -> list[Said]:
    """Asks all, twice over, and holds each answer against a fresh one; the answers of the second round."""
    expected = [fresh.ask(document) for document in documents]
    assert all(answer.status == 200 for answer in expected), [answer.error for answer in expected]
    if all_differ:
        assert len({json.dumps(answer.choices) for answer in expected}) == len(documents), "an engine tells them apart"
    for _ in range(2):
        answers = [kept.ask(document) for document in documents]
        for answer, right in zip(answers, expected, strict=True):
            assert _substance(answer) == _substance(right), f"a false answer ({answer.cache})"
    assert all(answer.cache in {"hit", "bypass"} for answer in answers), [answer.cache for answer in answers]
    return answers


# ---------------------------------------------------------------------------------------------------------------------
# Fields


def tool(name: str = "look", **fields: Any) -> Document:
    return {"type": "function", "function": {"name": name} | fields}


def properties(*names: str, **more: Any) -> Document:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}} | more


def schema(name: str = "s", form: Document | None = None, **more: Any) -> Document:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": form or properties("digest")} | more}


VALUES: list[Any] = [1, 1.0, True, "1", None, []]


def beside(value: Any) -> Document:
    """A schema whose objects may have this value beside the digest."""
    return properties("digest") | {"properties": {"digest": {"type": "string"}, "kind": {"enum": [value]}}}


HI = {"role": "user", "content": "Hi."}
TWO_TOOLS = [tool("look"), tool("leap")]


def said(text: Any, **fields: Any) -> list[Document]:
    return [{"role": "user", "content": text} | fields]


def call(arguments: str, name: str = "look", identity: str = "c1") -> list[Document]:
    calls = [{"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}]
    return [HI, {"role": "assistant", "content": None, "tool_calls": calls}]


FIELDS: dict[str, list[Document]] = {
    "frequency_penalty": [{}, {"frequency_penalty": 0.5}, {"frequency_penalty": 0.25}, {"presence_penalty": 0.5}],
    "logit_bias": [{}, {"logit_bias": {"1": 5}}, {"logit_bias": {"1": 6}}, {"logit_bias": {"2": 5}}],
    "logprobs": [{}, {"logprobs": True}],
    "top_logprobs": [{"logprobs": True, "top_logprobs": number} for number in (1, 2, 3)],
    "max_tokens": [{}, {"max_tokens": 10}, {"max_tokens": 11}],
    "max_completion_tokens": [{}, {"max_completion_tokens": 10}, {"max_completion_tokens": 11}],
    "n": [{}, {"n": 2}, {"n": 3}],
    "parallel_tool_calls": [{"tools": TWO_TOOLS, "parallel_tool_calls": value} for value in (True, False)],
    "presence_penalty": [{}, {"presence_penalty": 0.5}, {"presence_penalty": 0.25}],
    "reasoning_effort": [{}, {"reasoning_effort": "low"}, {"reasoning_effort": "high"}],
    "response_format": [
        {},
        {"response_format": {"type": "json_object"}},
        {"response_format": schema()},
        {"response_format": schema("t")},
        {"response_format": schema(description="Say it.")},
        {"response_format": schema(description="Tell it.")},
        {"response_format": schema(strict=True)},
        {"response_format": schema(form=properties("digest", "a", "b"))},
        {"response_format": schema(form=properties("digest", "b", "a"))},
        *({"response_format": schema(form=beside(value))} for value in VALUES),
    ],
    "seed": [{}, {"seed": 0}, {"seed": 1}, {"seed": -1}, {"seed": 2**53}, {"seed": 2**53 + 1}],
    "stop": [{}, {"stop": "a"}, {"stop": ["a", "b"]}, {"stop": ["b", "a"]}, {"stop": ["ab"]}, {"stop": ["a,b"]}],
    "temperature": [{"temperature": 0}, *({"temperature": value, "seed": 1} for value in (0, 0.5, 0.25))],
    "tool_choice": [
        *({"tools": TWO_TOOLS, "tool_choice": value} for value in ("auto", "none", "required")),
        *({"tools": TWO_TOOLS, "tool_choice": {"type": "function", "function": {"name": name}}} for name in ("look", "leap")),
    ],
    "tools": [
        {},
        {"tools": [tool("look")]},
        {"tools": [tool("leap")]},
        {"tools": TWO_TOOLS},
        {"tools": TWO_TOOLS[::-1]},
        {"tools": [tool("look", description="At it.")]},
        {"tools": [tool("look", description="Away.")]},
        {"tools": [tool("look", strict=True)]},
        {"tools": [tool("look", parameters=properties("a", "b"))]},
        {"tools": [tool("look", parameters=properties("b", "a"))]},
        {"tools": [tool("look", parameters=properties("a", "b", required=["a"]))]},
        {"tools": [tool("look", parameters=properties("a", "b", required=["b"]))]},
    ],
    "top_p": [{}, {"top_p": 0.5}, {"top_p": 0.25}],
    "add_generation_prompt": [{}, {"add_generation_prompt": False}],
    "allowed_token_ids": [{}, {"allowed_token_ids": [1]}, {"allowed_token_ids": [1, 2]}],
    "bad_words": [{}, {"bad_words": ["a"]}, {"bad_words": ["b"]}, {"bad_words": ["a", "b"]}],
    "chat_template_kwargs": [{}, *({"chat_template_kwargs": {"enable_thinking": value}} for value in (True, False))],
    "continue_final_message": [
        {"messages": [HI, {"role": "assistant", "content": "So"}], "add_generation_prompt": False, "continue_final_message": go}
        for go in (True, False)
    ],
    "ignore_eos": [{}, {"ignore_eos": True}],
    "include_reasoning": [{}, {"include_reasoning": False}],
    "include_stop_str_in_output": [{"stop": "a"}, {"stop": "a", "include_stop_str_in_output": True}],
    "length_penalty": [{}, {"length_penalty": 0.5}, {"length_penalty": 2.0}],
    "logprob_token_ids": [{"logprobs": True}, *({"logprobs": True, "logprob_token_ids": ids} for ids in ([1], [2]))],
    "min_p": [{}, {"min_p": 0.5}, {"min_p": 0.25}],
    "min_tokens": [{}, {"min_tokens": 2}, {"min_tokens": 3}],
    "repetition_detection": [
        {},
        *({"repetition_detection": {"max_pattern_size": 9, "min_pattern_size": 2, "min_count": count}} for count in (3, 4)),
    ],
    "repetition_penalty": [{}, {"repetition_penalty": 1.5}, {"repetition_penalty": 1.25}],
    "return_token_ids": [{}, {"return_token_ids": True}],
    "return_tokens_as_token_ids": [{"logprobs": True}, {"logprobs": True, "return_tokens_as_token_ids": True}],
    "skip_special_tokens": [{}, {"skip_special_tokens": False}],
    "spaces_between_special_tokens": [{}, {"spaces_between_special_tokens": False}],
    "stop_token_ids": [{}, {"stop_token_ids": [1]}, {"stop_token_ids": [1, 2]}, {"stop_token_ids": [12]}],
    "structured_outputs": [
        {},
        {"structured_outputs": {"regex": "a|[0-9a-f]+"}},
        {"structured_outputs": {"grammar": "a|b"}},
        {"structured_outputs": {"choice": ["a", "b"]}},
        {"structured_outputs": {"choice": ["b", "a"]}},
        {"structured_outputs": {"choice": ["a|b"]}},
        {"structured_outputs": {"json": properties("digest", "a", "b")}},
        {"structured_outputs": {"json": properties("digest", "b", "a")}},
    ],
    "thinking_token_budget": [{}, {"thinking_token_budget": 5}, {"thinking_token_budget": 6}],
    "top_k": [{}, {"top_k": 5}, {"top_k": 6}],
    "truncate_prompt_tokens": [{}, {"truncate_prompt_tokens": 50}, {"truncate_prompt_tokens": 60}],
    "truncation_side": [{"truncate_prompt_tokens": 50, "truncation_side": side} for side in ("left", "right")],
}
"""For each field requests that differ in it, and in nothing else."""

MESSAGES: dict[str, list[list[Document]]] = {
    "words": [said(text) for text in ("a", "A", "a ", " a", "a\n", "\u00e9", "e\u0301", "a\u200b", "", "image:0")],
    "roles": [
        [HI],
        [{"role": "system", "content": "Hi."}],
        [{"role": "developer", "content": "Hi."}],
        [HI, HI],
        [{"role": "system", "content": "Hi."}, HI],
        [HI, {"role": "system", "content": "Hi."}],
        [HI, {"role": "assistant", "content": "Hi."}],
    ],
    "names": [[HI], said("Hi.", name="ada"), said("Hi.", name="bob")],
    "parts": [
        said([{"type": "text", "text": text} for text in texts])
        for texts in (["ab", "c"], ["a", "bc"], ["abc"], ["ab", "c", ""])
    ],
    "where messages end": [said("a") + said("b"), said("ab"), said("a\nb"), said('a"},{"role":"user","content":"b')],
    "calls": [
        call("{}"),
        call("{ }"),
        call("{}", name="leap"),
        call("{}", identity="c2"),
        [HI, {"role": "assistant", "content": ""}],
    ],
    "results of tools": [
        [*call("{}"), {"role": "tool", "content": content, "tool_call_id": identity}]
        for content, identity in (("1", "c1"), ("2", "c1"), ("1", "c2"))
    ],
    "thoughts": [
        [HI, {"role": "assistant", "content": "a"}],
        [HI, {"role": "assistant", "content": "a", "reasoning": "b"}],
        [HI, {"role": "assistant", "content": "a", "reasoning": "c"}],
        [HI, {"role": "assistant", "content": "a", "reasoning_content": "b"}],
        [HI, {"role": "assistant", "content": "a", "refusal": "b"}],
    ],
}
SENT_OTHERWISE = {"stream", "stream_options", "stream_interval"}
"""Fields that decide how an answer is sent, and not what it is."""

ELSEWHERE = {"model", "models", "messages"}
"""Fields with tests of their own."""


def test_every_field_of_a_request_is_among_these_tests() -> None:
    assert FIELDS.keys() | SENT_OTHERWISE | ELSEWHERE == ChatCompletionRequest.model_fields.keys()
    assert all(any(name in variant for variant in variants) for name, variants in FIELDS.items())


@pytest.mark.parametrize("name", FIELDS)
def test_requests_that_differ_in_one_field_are_told_apart(kept: Caller, fresh: Caller, name: str) -> None:
    told_apart(kept, fresh, [question(messages=[HI]) | variant for variant in FIELDS[name]])


@pytest.mark.parametrize("name", MESSAGES)
def test_requests_that_differ_in_their_messages_are_told_apart(kept: Caller, fresh: Caller, name: str) -> None:
    told_apart(kept, fresh, [question(messages=messages) for messages in MESSAGES[name]])


def test_a_value_does_not_pass_for_another_field_s(kept: Caller, fresh: Caller) -> None:
    fields = ("frequency_penalty", "presence_penalty", "top_p", "min_p", "repetition_penalty", "length_penalty")
    told_apart(kept, fresh, [question(messages=[HI]) | {name: 0.5} for name in fields])
    numbers = ("seed", "max_tokens", "max_completion_tokens", "min_tokens", "top_k", "thinking_token_budget")
    told_apart(kept, fresh, [question(messages=[HI]) | {name: 7} for name in numbers])


def test_two_models_of_one_source_are_told_apart(kept: Caller, fresh: Caller) -> None:
    told_apart(kept, fresh, [question(model, messages=[HI]) for model in ("tiny", "twin", "always", "pixels")])


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": False},
        {"stream": True, "stream_options": {"include_usage": False}},
    ],
    ids=json.dumps,
)
def test_how_an_answer_is_sent_does_not_tell_questions_apart(kept: Caller, listener: FakeEngine, fields: Document) -> None:
    whole = question()
    first, second = kept.ask(whole), kept.ask(whole | fields)
    assert (first.cache, second.cache) == ("miss", "hit")
    assert first.substance == second.substance
    assert listener.calls(words(whole)) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_interval": 5},
        {"stream": True, "stream_interval": 5},
        {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    ],
    ids=json.dumps,
)
def test_an_answer_that_is_sent_in_other_pieces_is_the_same(kept: Caller, fresh: Caller, fields: Document) -> None:
    whole = question()
    told_apart(kept, fresh, [whole, whole | fields], all_differ=False)


def test_what_is_left_out_of_a_request_does_not_tell_questions_apart(kept: Caller) -> None:
    document = question()
    kept.ask(document)
    for fields in ({"user": "ada"}, {"cache_salt": "mine"}, {"metadata": {"a": "b"}}, {"seed": None}, {"top_p": None}):
        assert kept.ask(document | fields).cache == "hit", fields


# ---------------------------------------------------------------------------------------------------------------------
# Images


def scene(size: tuple[int, int] = (60, 48), mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture that looks otherwise from every side, and is too large to be parsed with the rest of its request."""
    return Image.frombytes(mode, size, noise(size[0] * size[1] * len(mode), seed))


def noise(size: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(str(seed).encode()).digest(size)


def file_of(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def url_of(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def shown(*images: bytes, text: str = "What is this?", **fields: str) -> list[Document]:
    return shown_at(*map(url_of, images), text=text, **fields)


def shown_at(*urls: str, text: str = "What is this?", **fields: str) -> list[Document]:
    parts = [{"type": "image_url", "image_url": {"url": url} | fields} for url in urls]
    return said([*parts, {"type": "text", "text": text}])


def turned(orientation: int, form: str, side: int = 48) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_of(scene((side, side)), form, exif=exif)


def animated(form: str, *seeds: int, **options: Any) -> bytes:
    frames = [scene(seed=seed) for seed in seeds]
    first, *others = [frame.quantize(32) for frame in frames] if form == "GIF" else frames
    return file_of(first, form, save_all=True, append_images=others, duration=100, **options)


def one_pixel_changed(size: tuple[int, int] = (60, 48), by: int = 1) -> Image.Image:
    image = scene(size)
    red, green, blue = image.crop((30, 20, 31, 21)).tobytes()
    image.putpixel((30, 20), (red ^ by, green, blue))
    return image


def see_through(alpha: int) -> Image.Image:
    image = scene()
    image.putalpha(alpha)
    return image


def of_palette(colours: Sequence[int], **options: Any) -> bytes:
    image = Image.frombytes("P", (60, 48), bytes(value % 4 for value in noise(60 * 48)))
    image.putpalette(colours)
    return file_of(image, **options)


def of_16_bits(low: int) -> bytes:
    return file_of(Image.frombytes("I;16", (60, 48), bytes(part for value in noise(60 * 48) for part in (low, value))))


def of_one_colour(size: tuple[int, int], colour: str) -> bytes:
    return file_of(Image.new("RGB", size, colour))


FOUR = [0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255]
GREY = file_of(Image.frombytes("L", (60, 48), noise(60 * 48)))

IMAGES: dict[str, list[bytes]] = {
    "others": [file_of(scene(seed=seed)) for seed in range(3)],
    "small ones": [of_one_colour((40, 30), colour) for colour in ("#7788aa", "#7788ab", "#8788aa")],
    "one pixel": [file_of(image) for image in (scene(), one_pixel_changed())],
    "one pixel of a photo": [file_of(image, "JPEG", quality=100) for image in (scene(), one_pixel_changed(by=128))],
    "one pixel of a large one": [file_of(image) for image in (scene((400, 300)), one_pixel_changed((400, 300)))],
    "turned photos": [turned(orientation, "JPEG") for orientation in range(1, 9)],
    "turned PNGs": [turned(orientation, "PNG") for orientation in (1, 3, 6)],
    "turned WebPs": [turned(orientation, "WEBP") for orientation in (1, 3, 6)],
    "sides": [file_of(Image.frombytes("RGB", size, noise(9000))) for size in ((30, 100), (100, 30), (50, 60), (60, 50))],
    "sides of one colour": [of_one_colour(size, "#123456") for size in ((30, 100), (100, 30), (50, 60))],
    "the first frame of a GIF": [animated("GIF", *seeds) for seeds in ((0, 1), (1, 0), (2, 1))],
    "the first frame of a WebP": [animated("WEBP", *seeds, lossless=True) for seeds in ((0, 1), (1, 0))],
    "alpha": [file_of(see_through(alpha)) for alpha in (255, 254, 128, 0)],
    "alpha of a WebP": [file_of(see_through(alpha), "WEBP", lossless=True, exact=True) for alpha in (255, 128)],
    "a palette": [of_palette(colours) for colours in (FOUR, FOUR[::-1], [*FOUR[:11], 254])],
    "alpha of a palette": [of_palette(FOUR, transparency=alpha) for alpha in (b"\xff", b"\x80\xff", b"\xff\x80")],
    "depth": [of_16_bits(0), GREY],
    "colour and grey": [file_of(image) for image in (scene(), scene().convert("L"))],
    "colour spaces": [file_of(image, "JPEG") for image in (scene(), scene(mode="CMYK"), scene().convert("L"))],
}


@pytest.mark.parametrize("model", ["tiny", "pixels"])
@pytest.mark.parametrize("name", IMAGES)
def test_images_that_look_otherwise_are_told_apart(kept: Caller, fresh: Caller, name: str, model: str) -> None:
    told_apart(kept, fresh, [question(model, messages=shown(image)) for image in IMAGES[name]])


def with_words(words_in_it: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", words_in_it)
    return file_of(scene(), pnginfo=info)


ALIKE: dict[str, list[bytes]] = {
    "the second frame of a GIF": [animated("GIF", 0, 1), animated("GIF", 0, 2), animated("GIF", 0)],
    "the second frame of a PNG": [animated("PNG", 0, 1), animated("PNG", 0, 2), file_of(scene())],
    "what is behind a PNG's first picture": [animated("PNG", 0, seed, default_image=True) for seed in (1, 2)],
    "low bits": [of_16_bits(0), of_16_bits(1), of_16_bits(255)],
    "alpha that hides nothing": [file_of(scene()), file_of(see_through(255))],
    "colours beneath what is see-through": [file_of(see_through(0)), file_of(Image.new("RGBA", (60, 48), "#ffffff00"))],
    "order of a palette": [of_palette(FOUR), file_of(Image.open(io.BytesIO(of_palette(FOUR))).convert("RGB"))],
    "kinds of file": [file_of(scene()), file_of(scene(), "WEBP", lossless=True)],
    "grey as colour": [GREY, file_of(Image.open(io.BytesIO(GREY)).convert("RGB"))],
    "turned already": [turned(6, "PNG"), file_of(scene((48, 48)).transpose(Image.Transpose.ROTATE_270))],
    "words": [with_words("a"), with_words("b")],
    "resolution": [file_of(scene(), dpi=dots) for dots in ((72, 72), (300, 300))],
    "what follows": [file_of(scene()), file_of(scene()) + b"more"],
}
"""Files of other bytes, which look the same to a model, or nearly so."""


@pytest.mark.parametrize("model", ["tiny", "pixels"])
@pytest.mark.parametrize("name", ALIKE)
def test_images_that_look_alike_get_a_right_answer_each(kept: Caller, fresh: Caller, name: str, model: str) -> None:
    told_apart(kept, fresh, [question(model, messages=shown(image)) for image in ALIKE[name]], all_differ=model == "tiny")


def compressed(level: int, size: tuple[int, int] = (60, 48), **options: Any) -> bytes:
    return file_of(scene(size), compress_level=level, **options)


TWINS: dict[str, tuple[bytes, bytes]] = {
    "a PNG that was packed anew": (compressed(1), compressed(9)),
    "words in a PNG": (with_words("a"), with_words("b")),
    "resolution of a PNG": (file_of(scene(), dpi=(72, 72)), file_of(scene(), dpi=(300, 300))),
    "a comment in a photo": (file_of(scene(), "JPEG", comment=b"a"), file_of(scene(), "JPEG", comment=b"bc")),
}


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(("model", "second"), [("tiny", "miss"), ("pixels", "hit")])
def test_files_of_the_same_pixels_are_one_image_where_the_catalog_says_so(
    kept: Caller, listener: FakeEngine, name: str, model: str, second: str
) -> None:
    text = words(question())
    one, twin = (question(model, messages=shown(image, text=text)) for image in TWINS[name])
    assert (kept.ask(one).cache, kept.ask(twin).cache) == ("miss", second)
    assert listener.calls(text) == 1 + (second == "miss")


@pytest.mark.parametrize(("model", "second"), [("tiny", "miss"), ("pixels", "hit")])
def test_files_of_the_same_pixels_are_one_image_after_they_were_shrunk(kept: Caller, model: str, second: str) -> None:
    text = words(question())
    images = (compressed(level, (700, 500)) for level in (1, 9))
    one, twin = (question(model, messages=shown(image, text=text, detail="low")) for image in images)
    assert (kept.ask(one).cache, kept.ask(twin).cache) == ("miss", second)


def test_twins_that_come_together_get_one_answer(kept: Caller) -> None:
    text = words(question())
    documents = [question("pixels", messages=shown(image, text=text)) for image in TWINS["words in a PNG"] * 4]
    answers = asyncio.run(asked_together((kept.gateway,), documents))
    assert all(answer.substance == answers[0].substance for answer in answers)


def test_a_twin_does_not_keep_an_answer_beyond_its_time(kept: Caller) -> None:
    found = ""
    while found != "hit":
        text = words(question())
        one, twin = (question("brief-pixels", messages=shown(image, text=text)) for image in TWINS["words in a PNG"])
        asked_s = time.monotonic()
        assert kept.ask(one).cache == "miss"
        time.sleep(1.0)
        found = kept.ask(twin).cache
        assert found == "hit" or time.monotonic() - asked_s > 1.8, "its time was over only if the machine stood still"
    time.sleep(1.2)
    assert [kept.ask(document).cache for document in (twin, one)] == ["miss", "hit"]


A, B, C = (file_of(scene(seed=seed)) for seed in (10, 11, 12))
LARGE = file_of(scene((700, 500)))

PLACES: dict[str, list[list[Document]]] = {
    "order": [shown(A, B), shown(B, A)],
    "how often": [shown(A), shown(A, A), shown(A, A, B), shown(A, B, B), shown(A, B, A), shown(A, B)],
    "message": [
        [*shown(A, B), {"role": "assistant", "content": "So."}, *shown(C)],
        [*shown(A), {"role": "assistant", "content": "So."}, *shown(B, C)],
        [*shown(A), {"role": "assistant", "content": "So."}, *shown(C, B)],
        [*shown(A, B, C), {"role": "assistant", "content": "So."}, *shown()],
    ],
    "place within a message": [
        said([*shown(A)[0]["content"], {"type": "text", "text": "b"}]),
        said([{"type": "text", "text": "What is this?"}, *shown(A, text="b")[0]["content"]]),
    ],
    "words instead": [shown(A), said(url_of(A)), shown(text=url_of(A)), shown(A, text=url_of(A))],
    "words beside": [shown(A, text=text) for text in ("a", "b", url_of(A), url_of(B), hashlib.sha256(A).hexdigest())],
    "small and large beside each other": [
        shown(*images) for images in ((of_one_colour((40, 30), "red"), A), (A, of_one_colour((40, 30), "red")), (A,))
    ],
    "detail": [shown(LARGE, detail=detail) for detail in ("low", "high")],
    "detail of one of two": [
        said([*shown(LARGE, detail=first)[0]["content"], *shown(LARGE, detail=second)[0]["content"]])
        for first, second in (("low", "high"), ("high", "low"), ("low", "low"), ("high", "high"))
    ],
}


@pytest.mark.parametrize("model", ["tiny", "pixels"])
@pytest.mark.parametrize("name", PLACES)
def test_images_in_other_places_are_told_apart(kept: Caller, fresh: Caller, name: str, model: str) -> None:
    told_apart(kept, fresh, [question(model, messages=messages) for messages in PLACES[name]])


@pytest.mark.parametrize("detail", ["auto", "original"])
def test_detail_that_changes_nothing_gets_a_right_answer(kept: Caller, fresh: Caller, detail: str) -> None:
    documents = [question(messages=shown(LARGE)), question(messages=shown(LARGE, detail=detail))]
    told_apart(kept, fresh, documents, all_differ=False)


# ---------------------------------------------------------------------------------------------------------------------
# Images elsewhere


def test_what_changes_behind_an_address_is_another_question(kept: Caller, fresh: Caller, files: Files) -> None:
    document = question(messages=shown_at(f"{files.url}/a"))
    answers = []
    for image in (A, B, A, B):
        files.data["/a"] = image
        answers.append(kept.ask(document))
        assert answers[-1].substance == fresh.ask(document).substance
    assert answers[0].text != answers[1].text
    assert [answer.cache for answer in answers[2:]] == ["hit", "hit"]


def test_an_image_is_the_same_wherever_it_comes_from(kept: Caller, files: Files, listener: FakeEngine) -> None:
    files.data |= {"/b": A, "/c": A}
    text = words(question())
    urls = [f"{files.url}/b", url_of(A), f"{files.url}/c", url_of(A).replace("image/png", "image/jpeg")]
    answers = [kept.ask(question(messages=shown_at(url, text=text))) for url in urls]
    assert [answer.cache for answer in answers] == ["miss", "hit", "hit", "hit"]
    assert listener.calls(text) == 1


def test_an_address_as_words_is_not_what_is_there(kept: Caller, fresh: Caller, files: Files) -> None:
    files.data["/d"] = A
    url = f"{files.url}/d"
    told_apart(kept, fresh, [question(messages=messages) for messages in (shown_at(url), shown(text=url), said(url))])


# ---------------------------------------------------------------------------------------------------------------------
# Tenants, and models that change


def test_nobody_gets_an_answer_to_another_tenant_s_question(
    listener: FakeEngine, redis: RedisServer, http_client: httpx.Client, tmp_path: pathlib.Path
) -> None:
    keys = {name: new_key() for name in ("ads", "labels")}
    spare = new_key()
    lines = [f"{name} {key_digest(key)}" for name, key in keys.items()] + [f"ads {key_digest(spare)}"]
    (tmp_path / "keys.txt").write_text("\n".join(lines))
    settings = {"FOVEA_API_KEYS_FILE": str(tmp_path / "keys.txt"), "FOVEA_REDIS_URL": redis.url, "FOVEA_REDIS_BUDGET_S": "5"}
    with running_gateway(tmp_path, listener.url, catalog(), **settings) as gateway:
        ads, labels, ads_too = (
            Caller(http_client, gateway, {"authorization": f"Bearer {key}"}) for key in (*keys.values(), spare)
        )
        document = question(messages=shown(A, text=words(question())))
        text = document["messages"][0]["content"][1]["text"]
        assert [caller.ask(document).cache for caller in (ads, labels, ads, labels)] == ["miss", "miss", "hit", "hit"]
        assert ads_too.ask(document).cache == "hit", "of one tenant's keys each may be another's heir"
        assert listener.calls(text) == 2
        caller_cannot_say_so = document | {"user": "ads", "cache_salt": "ads"}
        assert labels.ask(caller_cannot_say_so).cache == "hit"
        assert listener.calls(text) == 2
    sent = [document for document in listener.documents if text in json.dumps(document["messages"])]
    salts = [document["cache_salt"] for document in sent]
    names = [document["messages"][0]["content"][0]["uuid"] for document in sent]
    assert len(set(salts)) == len(set(names)) == 2, "engines keep the tenants apart too"
    assert hashlib.sha256(A).hexdigest() not in str(names), "nobody can guess the name"


def test_a_new_revision_of_a_model_is_another_model(
    redis: RedisServer, http_client: httpx.Client, tmp_path: pathlib.Path
) -> None:
    document = question(messages=shown(A, text=words(question())))
    settings = {"FOVEA_REDIS_URL": redis.url, "FOVEA_REDIS_BUDGET_S": "5"}
    answers = []
    with running_fake_engine() as engine:
        for revision in ("r1", "r2", "r1"):
            engine.answer = Speech(engine, always(f"as {revision} says"))
            with running_gateway(tmp_path, engine.url, catalog(revision=revision), **settings) as gateway:
                answers += [Caller(http_client, gateway).ask(document) for _ in range(2)]
    assert [answer.cache for answer in answers] == ["miss", "hit", "miss", "hit", "hit", "hit"]
    assert [answer.text[3:5] for answer in answers] == ["r1", "r1", "r2", "r2", "r1", "r1"]


def test_no_two_images_have_one_name_at_an_engine(kept: Caller, listener: FakeEngine) -> None:
    """vLLM 0.32 takes what it has computed for an image of that name, without a look at the bytes."""
    named: dict[str, set[Any]] = {}
    for document in list(listener.documents):
        for message in document["messages"]:
            for part in message["content"] if isinstance(message.get("content"), list) else ():
                if part["type"] == "image_url" and part.get("uuid") is not None:
                    image = _seen_part(part, document["model"])["image"]
                    named.setdefault(f"{document['model']} {part['uuid']}", set()).add(json.dumps(image))
    assert len(named) > 100
    assert {name: images for name, images in named.items() if len(images) > 1} == {}


def test_every_model_here_has_been_asked(listener: FakeEngine) -> None:
    asked = {document["model"] for document in listener.documents}
    assert asked <= MODELS.keys()
    assert {"tiny", "twin", "pixels"} <= asked
