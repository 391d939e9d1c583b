"""Vectors of words and of images, as callers of the gateway get them, and what becomes of an engine's that are none."""

import base64
import math
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import openai
import pytest
from openai.types import CreateEmbeddingResponse
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tests.cache_clients import waiting
from tests.conftest import PATIENCE_S, RunningGateway, as_data_url, noise, picture, running_gateway
from tests.fake_engine import DIMENSIONS, Answer, FakeEngine, Gate, embeddings, running_fake_engine, vector, vectors
from tests.watching import eventually

PATH = "/v1/embeddings"
PLACES = 3
"""Texts that an engine works on at once."""

_ENTRY = """
  {name}:
    source: nowhere
    family: {family}
    kind: {kind}
    tier: {tier}
    parameters_b: 0.15
    kv_cache: {{layers: 12, attention_heads: 8, kv_heads: 8, head_dim: 64, memory_gib: 1}}
    context_tokens: {context}
    concurrency: 3
    queue_depth: 8
    longest_answer_s: 60
    cache: {cache}
"""


def entry(name: str, family: str = "clip", tier: str = "edge", cache: str = "{}") -> str:
    kind, context = ("generate", 4096) if family == "qwen2_vl" else ("embedding", 77)
    return _ENTRY.format(name=name, family=family, kind=kind, context=context, tier=tier, cache=cache)


CATALOG = f"""
hardware: {{kind: cpu}}
limits: {{body_mib: 8}}
models:
{entry("small", "qwen2_vl")}
{entry("clip")}
{entry("twin", tier="vectors")}
{entry("siglip", "siglip", tier="vectors")}
{entry("pixels", cache="{identity: pixels}")}
{entry("asked", cache="{answers: asked}")}
routing:
  aliases: {{pictures: clip, words: small}}
"""

Document = dict[str, Any]


@pytest.fixture(scope="module")
def running_engine() -> Iterator[FakeEngine]:
    with running_fake_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(running_engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), running_engine.url, CATALOG) as running:
        yield running


@pytest.fixture
def engine(running_engine: FakeEngine) -> FakeEngine:
    running_engine.reset()
    return running_engine


@dataclass(frozen=True)
class Told:
    """An answer, or an error."""

    status: int
    headers: httpx.Headers
    document: Document

    @property
    def cache(self) -> str:
        return str(self.headers.get("x-fovea-cache", "not said"))

    @property
    def vectors(self) -> list[list[float]]:
        return [floats(each["embedding"]) for each in self.document["data"]]

    @property
    def error(self) -> Document:
        error: Document = self.document["error"]
        return error


def floats(embedding: list[float] | str) -> list[float]:
    if isinstance(embedding, list):
        return embedding
    return list(struct.unpack(f"<{DIMENSIONS}f", base64.b64decode(embedding)))


@dataclass(frozen=True)
class Caller:
    http: httpx.Client
    url: str

    def ask(self, document: Document, **headers: str) -> Told:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.http.post(f"{self.url}{PATH}", json=document, headers=named)
        return Told(answer.status_code, answer.headers, answer.json())


@pytest.fixture
def caller(gateway: RunningGateway, engine: FakeEngine) -> Iterator[Caller]:
    with httpx.Client(timeout=PATIENCE_S) as client:
        yield Caller(client, gateway.url)


@pytest.fixture
def client(gateway: RunningGateway, engine: FakeEngine) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def words() -> str:
    """Some that nobody has asked for before."""
    return f"red dress {uuid.uuid4().hex}"


def of_words(*texts: str, model: str = "clip", **fields: Any) -> Document:
    return {"model": model, "input": list(texts) or [words()], **fields}


def image_part(url: str, **fields: Any) -> Document:
    return {"type": "image_url", "image_url": {"url": url} | fields}


def of_image(url: str, model: str = "clip", **fields: Any) -> Document:
    return {"model": model, "messages": [{"role": "user", "content": [image_part(url)]}], **fields}


def new_picture() -> str:
    return noise((48, 48), seed=uuid.uuid4().int)


def test_the_sdk_gets_a_vector_for_each_text(client: openai.OpenAI, engine: FakeEngine) -> None:
    texts = [words(), words()]
    answer = client.embeddings.create(model="clip", input=texts)
    assert [each.embedding for each in answer.data] == [vector(text) for text in texts]
    assert [each.index for each in answer.data] == [0, 1]
    assert (answer.object, answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("list", "clip", 6, 6)
    [sent] = engine.documents
    assert sent == {
        "model": "clip",
        "input": texts,
        "encoding_format": "base64",
        "embed_dtype": "float32",
        "endianness": "little",
    }


def test_the_sdk_gets_the_vector_of_an_image(client: openai.OpenAI, engine: FakeEngine) -> None:
    url = new_picture()
    answer = client.post("/embeddings", body=of_image(url), cast_to=CreateEmbeddingResponse)
    assert answer.data[0].embedding == vector(url)
    [sent] = engine.documents
    assert sent["messages"] == [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def test_either_encoding_is_written_from_what_was_made_once(caller: Caller, engine: FakeEngine) -> None:
    document = of_words()
    told = [caller.ask(document | form) for form in ({}, {"encoding_format": "base64"}, {"encoding_format": "float"})]
    assert [type(each.document["data"][0]["embedding"]) for each in told] == [list, str, list]
    assert told[0].vectors == told[1].vectors == told[2].vectors == [vector(document["input"][0])]
    assert [each.cache for each in told] == ["miss", "hit", "hit"]
    assert "age" in told[1].headers
    assert len(engine.documents) == 1


def test_a_text_alone_is_a_list_of_it(caller: Caller) -> None:
    text = words()
    assert caller.ask({"model": "clip", "input": text}).vectors == [vector(text)]
    assert caller.ask(of_words(text)).cache == "hit"


def test_the_same_image_is_not_looked_at_twice(caller: Caller, engine: FakeEngine) -> None:
    url = new_picture()
    assert [caller.ask(of_image(url)).cache for _ in range(3)] == ["miss", "hit", "hit"]
    assert caller.ask(of_image(new_picture())).cache == "miss"
    assert len(engine.documents) == 2


DIFFERENT: dict[str, Document] = {
    "another model": {"model": "twin"},
    "other words": {"input": ["other words"]},
    "more words": {"input": ["red", "dress"]},
    "fewer of their tokens": {"truncate_prompt_tokens": 5},
    "without the last step": {"use_activation": False},
}


@pytest.mark.parametrize("change", DIFFERENT.values(), ids=DIFFERENT)
def test_what_asks_for_another_vector_is_not_answered_with_the_same(
    caller: Caller, engine: FakeEngine, change: Document
) -> None:
    document = of_words()
    caller.ask(document)
    assert caller.ask(document | change).cache == "miss"
    sent = engine.documents[-1]
    assert {name: sent[name] for name in change} == change


def test_the_order_of_texts_is_that_of_their_vectors(caller: Caller) -> None:
    one, other = words(), words()
    assert caller.ask(of_words(one, other)).vectors == [vector(one), vector(other)]
    told = caller.ask(of_words(other, one))
    assert (told.cache, told.vectors) == ("miss", [vector(other), vector(one)])


def test_more_texts_than_an_engine_has_places_for_are_asked_in_parts(caller: Caller, engine: FakeEngine) -> None:
    texts = [words() for _ in range(2 * PLACES + 1)]
    told = caller.ask(of_words(*texts))
    assert told.vectors == [vector(text) for text in texts]
    assert [each["index"] for each in told.document["data"]] == list(range(len(texts)))
    assert told.document["usage"] == {"prompt_tokens": 3 * len(texts), "total_tokens": 3 * len(texts)}
    assert [sent["input"] for sent in engine.documents] == [texts[:3], texts[3:6], texts[6:]]


def test_an_image_is_sent_at_the_size_that_the_model_looks_at(caller: Caller, engine: FakeEngine) -> None:
    told = caller.ask(of_image(noise((600, 400), seed=uuid.uuid4().int)))
    assert told.headers["x-fovea-image-sizes"] == "336x224"
    [sent] = engine.documents
    assert sent["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    squeezed = caller.ask(of_image(noise((600, 400), seed=uuid.uuid4().int), model="siglip"))
    assert squeezed.headers["x-fovea-image-sizes"] == "224x224"


def test_words_are_padded_for_the_family_that_was_trained_so_and_images_are_not(caller: Caller, engine: FakeEngine) -> None:
    for document in (of_words(model="siglip"), of_image(new_picture(), model="siglip"), of_words(model="clip")):
        assert caller.ask(document).status == 200
    assert [sent.get("padding") for sent in engine.documents] == ["max_length", None, None]


def test_pixels_are_known_again_in_another_file(caller: Caller, engine: FakeEngine) -> None:
    image = Image.new("RGB", (40, 40), f"#{uuid.uuid4().hex[:6]}")
    files = [as_data_url(image, "PNG", compress_level=level) for level in (0, 9)]
    assert [caller.ask(of_image(url, model="pixels")).cache for url in files] == ["miss", "hit"]
    assert [caller.ask(of_image(url, model="clip")).cache for url in files] == ["miss", "miss"]


def test_those_who_ask_at_the_same_time_share_one_computation(
    caller: Caller, gateway: RunningGateway, engine: FakeEngine
) -> None:
    gate = Gate()

    async def slow(request: Request) -> Response:
        await gate.passed(0)
        return embeddings(await request.json())

    engine.answer = slow
    document = of_words()
    joined = 'fovea_cache_requests_total{model="clip",result="joined"}'
    before = gateway.metric(joined)
    with waiting(gateway, document, PATH), waiting(gateway, document, PATH):
        assert eventually(lambda: len(engine.documents) == 1)
        gate.open()
        assert eventually(lambda: gateway.metric(joined) == before + 1)
    assert len(engine.documents) == 1
    assert caller.ask(document).cache == "hit"


def test_a_client_that_goes_away_ends_the_work(gateway: RunningGateway, engine: FakeEngine) -> None:
    async def for_ever(request: Request) -> Response:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        engine.cancelled.set()
        return Response()

    engine.answer = for_ever
    with waiting(gateway, of_words(), PATH):
        assert eventually(lambda: len(engine.documents) == 1)
    assert engine.cancelled.wait(20)
    assert eventually(lambda: gateway.counted(model="clip", status="499", path=PATH) >= 1)


def test_what_takes_too_long_is_late(caller: Caller, engine: FakeEngine) -> None:
    gate = Gate()

    async def slow(_: Request) -> Response:
        await gate.passed(0)
        return vectors([])

    engine.answer = slow
    told = caller.ask(of_words(), x_request_timeout_seconds="0.2")
    gate.open()
    assert (told.status, told.error["code"]) == (504, "deadline_exceeded")


CONTROLS: dict[str, tuple[str, list[str], int]] = {
    "no-cache": ("no-cache", ["bypass", "hit"], 1),
    "no-store": ("no-store", ["bypass", "miss"], 2),
    "max-age": ("max-age=60", ["miss", "hit"], 1),
    "too old": ("max-age=0", ["bypass", "hit"], 1),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_cache_control_means_what_it_does_for_a_chat(caller: Caller, engine: FakeEngine, name: str) -> None:
    control, results, asked = CONTROLS[name]
    document = of_words()
    first = caller.ask(document, cache_control=control)
    assert [first.cache, caller.ask(document).cache] == results
    assert len(engine.documents) == asked


def test_who_takes_stored_vectors_only_is_told_that_there_are_none(caller: Caller, engine: FakeEngine) -> None:
    told = caller.ask(of_words(), cache_control="only-if-cached")
    assert (told.status, told.error["code"]) == (504, "not_cached")
    assert not engine.documents


def test_a_model_whose_answers_are_kept_for_those_who_ask_keeps_them_for_no_others(caller: Caller) -> None:
    document = of_words(model="asked")
    assert [caller.ask(document).cache for _ in range(2)] == ["bypass", "bypass"]
    assert [caller.ask(document, cache_control="max-age=60").cache for _ in range(2)] == ["miss", "hit"]


def test_a_response_says_which_model_it_is_of_and_what_was_left_out(caller: Caller, engine: FakeEngine) -> None:
    document = of_image(new_picture(), user="somebody", padding="max_length")
    document["messages"][0]["content"][0] |= {"uuid": "mine"}
    document["messages"][0]["content"][0]["image_url"]["detail"] = "low"
    told = caller.ask(document)
    assert told.headers["x-fovea-model"] == "clip"
    assert told.headers["x-fovea-left-out"] == (
        "user, padding, messages[].content[].image_url.detail, messages[].content[].uuid"
    )
    [sent] = engine.documents
    assert sent.keys() == {"model", "messages", "encoding_format", "embed_dtype", "endianness"}
    assert sent["messages"][0]["content"][0].keys() == {"type", "image_url"}


def test_an_alias_is_the_model_it_stands_for(caller: Caller, client: openai.OpenAI) -> None:
    document = of_words(model="pictures")
    told = caller.ask(document)
    assert (told.status, told.headers["x-fovea-model"], told.document["model"]) == (200, "clip", "clip")
    assert caller.ask(document | {"model": "clip"}).cache == "hit"
    listed = {model.id: (model.model_extra or {})["kind"] for model in client.models.list()}
    assert list(listed) == ["small", "clip", "twin", "siglip", "pixels", "asked", "pictures", "words"]
    assert [name for name, kind in listed.items() if kind == "generate"] == ["small", "words"]
    alias = client.models.retrieve("pictures").model_extra
    assert alias == {"kind": "embedding", "stands_for": ["clip"], "status": "available"}
    known = client.models.retrieve("clip").model_extra or {}
    assert (known["kind"], known["max_model_len"], known["status"]) == ("embedding", 77, "available")


REFUSED: dict[str, tuple[Document, int, str, str]] = {
    "a name that stands for nothing": (of_words("a", model="none"), 404, "model", "The model 'none' does not exist"),
    "a model that answers chats": (
        of_words("a", model="small"),
        400,
        "model",
        "'small' makes no embeddings. Models: clip, twin",
    ),
    "an alias of one": (of_words("a", model="words"), 400, "model", "'words' makes no embeddings."),
    "a tier": (of_words("a", model="vectors"), 400, "model", "Embeddings are asked of one model by its name: vectors of"),
    "auto": (of_words("a", model="auto"), 400, "model", "Embeddings are asked of one model by its name: vectors of"),
    "auto, leaning": (of_words("a", model="auto:fast"), 400, "model", "Embeddings are asked of one model by its name"),
    "no model": ({"input": "a"}, 400, "model", "Missing required parameter: 'model'."),
    "nothing to embed": ({"model": "clip"}, 400, "input", "One of 'input' (words) and 'messages' (an image) must be given."),
    "words and an image": (of_image(picture(), input="a"), 400, "input", "One of 'input' (words) and 'messages'"),
    "an empty text": (of_words("a", ""), 400, "input[1]", "Invalid value for 'input[1]': string should have at least 1 char"),
    "no texts": ({"model": "clip", "input": []}, 400, "input", "Invalid value for 'input': list should have at least 1 item"),
    "too many texts": (
        of_words(*["a"] * 2049),
        400,
        "input",
        "Invalid value for 'input': list should have at most 2048 items after validation, not 2049, got an array of 2049.",
    ),
    "a number": ({"model": "clip", "input": 7}, 400, "input", "Invalid value for 'input': input should be a string or an arr"),
    "fewer tokens than the markers take": (
        of_words("a", truncate_prompt_tokens=2),
        400,
        "truncate_prompt_tokens",
        "Invalid value for 'truncate_prompt_tokens': it is 2, of which 2 are markers; -1 stands for",
    ),
    "fewer tokens of an image": (
        of_image(picture(), truncate_prompt_tokens=-1),
        400,
        "truncate_prompt_tokens",
        "'truncate_prompt_tokens' is only allowed with 'input'.",
    ),
    "the other end of words": (of_words("a", truncation_side="left"), 400, "truncation_side", "'truncation_side' is not supp"),
    "token ids": ({"model": "clip", "input": [1, 2]}, 400, "input", "Token ids in 'input' are not supported: send the words"),
    "lists of token ids": ({"model": "clip", "input": [[1, 2]]}, 400, "input", "Token ids in 'input' are not supported"),
    "another length": (of_words("a", dimensions=2), 400, "dimensions", "'dimensions' is not supported. Leave it out: vectors"),
    "another encoding": (
        of_words("a", encoding_format="bytes"),
        400,
        "encoding_format",
        "Invalid value for 'encoding_format': input should be 'float' or 'base64', got 'bytes'.",
    ),
    "a field that nobody knows": (of_words("a", dimension=2), 400, "dimension", "Unknown parameter: 'dimension'."),
    "words beside an image": (
        {"model": "clip", "messages": [{"role": "user", "content": [image_part(picture()), {"type": "text", "text": "a"}]}]},
        400,
        "messages[0].content",
        "Words in 'messages' are not supported: these models embed words or an image, not both. Send words as 'input'.",
    ),
    "words as a message": (
        {"model": "clip", "messages": [{"role": "user", "content": "a"}]},
        400,
        "messages[0].content",
        "Words in 'messages' are not supported",
    ),
    "two images": (
        {"model": "clip", "messages": [{"role": "user", "content": [image_part(picture())] * 2}]},
        400,
        "messages[0].content",
        "Invalid value for 'messages[0].content': list should have at most 1 item after validation, not 2",
    ),
    "two messages": (
        {"model": "clip", "messages": [{"role": "user", "content": [image_part(picture())]}] * 2},
        400,
        "messages",
        "Invalid value for 'messages': list should have at most 1 item after validation, not 2",
    ),
    "an image that is none": (
        of_image("data:image/png;base64,AAAA"),
        400,
        "messages[0].content[0].image_url.url",
        "The bytes are no image that is known",
    ),
    "a file of another scheme": (
        of_image("file:///etc/passwd"),
        400,
        "messages[0].content[0].image_url.url",
        "Images are taken as data: URLs and from https: addresses, got scheme 'file'.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_embedded_is_refused_by_name(caller: Caller, engine: FakeEngine, name: str) -> None:
    document, status, param, message = REFUSED[name]
    told = caller.ask(document)
    assert (told.status, told.error["param"]) == (status, param), told.error
    assert told.error["message"].startswith(message)
    assert not engine.documents


CHATS: dict[str, tuple[Document, str, str]] = {
    "by its name": ({"model": "clip"}, "model", "clip"),
    "by an alias": ({"model": "pictures"}, "model", "pictures"),
    "by a tier of nothing else": ({"model": "vectors"}, "model", "vectors"),
    "among others": ({"model": "small", "models": ["clip"]}, "models[0]", "clip"),
}


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_with_a_model_of_embeddings_is_refused(caller: Caller, engine: FakeEngine, name: str) -> None:
    fields, param, named = CHATS[name]
    document = {"messages": [{"role": "user", "content": "hello"}], **fields}
    for path in ("/v1/chat/completions", "/v1/route", "/v1/images/estimate"):
        answer = caller.http.post(f"{caller.url}{path}", json=document)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, param)
        assert error["message"] == f"'{named}' makes embeddings, and answers no chats: ask it at /v1/embeddings."
    assert not engine.documents


@pytest.mark.parametrize("model", ["auto", "auto:fast", "auto:accurate", "edge", "words"])
def test_a_model_of_embeddings_is_never_chosen_for_a_chat(caller: Caller, model: str) -> None:
    document = {"model": model, "messages": [{"role": "user", "content": words()}]}
    assert caller.http.post(f"{caller.url}/v1/chat/completions", json=document).headers["x-fovea-model"] == "small"
    route = caller.http.post(f"{caller.url}/v1/route", json=document).json()
    assert [known["model"] for known in route["models"]] == ["small"]


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


NO_VECTORS: dict[str, Response] = {
    "too few": vectors([packed(1.0)]),
    "too many": vectors([packed(1.0)] * 3),
    "of different lengths": vectors([packed(1.0), packed(1.0, 2.0)]),
    "of no length": vectors(["", ""]),
    "no number": vectors([packed(1.0), packed(math.nan)]),
    "without end": vectors([packed(1.0), packed(math.inf)]),
    "both ends": vectors([packed(math.inf, -math.inf), packed(1.0, 1.0)]),
    "not whole": vectors([base64.b64encode(b"12345").decode()] * 2),
    "no base64": vectors(["****", "****"]),
    "decimals": vectors([[1.0], [1.0]]),
    "something else": JSONResponse({"object": "chat.completion", "choices": []}),
    "no JSON": PlainTextResponse("{", media_type="application/json"),
    "no object": JSONResponse([1]),
}


def always(response: Response) -> Answer:
    async def answer(_: Request) -> Response:
        return response

    return answer


@pytest.mark.parametrize("name", NO_VECTORS)
def test_what_is_no_vector_is_never_given_or_kept(caller: Caller, engine: FakeEngine, name: str) -> None:
    engine.answer = always(NO_VECTORS[name])
    document = of_words(words(), words())
    for _ in range(2):
        told = caller.ask(document)
        assert (told.status, told.error["code"]) == (502, "engine_error")
    assert len(engine.documents) == 2


def test_parts_of_different_lengths_are_no_answer(caller: Caller, engine: FakeEngine) -> None:
    async def growing(request: Request) -> Response:
        return vectors([packed(*[1.0] * len(engine.documents))] * len((await request.json())["input"]))

    engine.answer = growing
    assert caller.ask(of_words(*(words() for _ in range(PLACES + 1)))).status == 502


def failing(status: int, message: str) -> Answer:
    return always(JSONResponse({"error": {"message": message, "type": "X", "param": "input_text", "code": status}}, status))


FAILURES: dict[str, tuple[Answer, int, str]] = {
    "its queue is full": (failing(503, "queue overflow"), 503, "model_unavailable"),
    "it fails": (failing(500, "no"), 502, "engine_error"),
    "the text is too long": (failing(400, "This model's maximum context length is 77 tokens."), 400, "context_length_exceeded"),
    "it finds another fault": (failing(400, "no"), 400, "invalid_value"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_an_engine_s_failure_is_told_as_that_of_a_chat(caller: Caller, engine: FakeEngine, failure: str) -> None:
    engine.answer, status, code = FAILURES[failure]
    told = caller.ask(of_words())
    assert (told.status, told.error["code"]) == (status, code)
    assert told.error["param"] == ("input" if status == 400 else None)


def test_a_damaged_image_is_told_where_the_engine_fails_on_it(caller: Caller, engine: FakeEngine) -> None:
    engine.answer = failing(500, "no")
    whole = base64.b64decode(new_picture().partition(",")[2])
    url = "data:image/png;base64," + base64.b64encode(whole[: len(whole) // 2]).decode()
    told = caller.ask(of_image(url))
    assert (told.status, told.error["code"]) == (400, "invalid_image")
    assert told.error["param"] == "messages[0].content[0].image_url.url"


def test_embeddings_are_counted(caller: Caller, gateway: RunningGateway) -> None:
    counted = partial(gateway.counted, model="clip", status="200", path=PATH)
    before = counted()
    caller.ask(of_words())
    assert eventually(lambda: counted() == before + 1)
