"""The request for embeddings, field by field, and vectors as bytes."""

import math
import struct
from typing import Any

import orjson
import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.wire.embeddings import LEFT_OUT, REFUSED, EmbeddingRequest, NoVectors, Vectors, of_image, of_words, parse_embedding

WORDS = {"model": "clip", "input": ["a", "b"]}
IMAGE_URL = "data:image/png;base64,AAAA"
IMAGE = {"model": "clip", "messages": of_image(IMAGE_URL)["messages"]}


def test_every_field_has_one_place() -> None:
    places = [set(EmbeddingRequest.model_fields), LEFT_OUT.keys(), REFUSED.keys()]
    assert sum(map(len, places)) == len(set().union(*places))


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_told(name: str) -> None:
    request, left_out = parse_embedding(WORDS | {name: "something"})
    assert left_out == (name,)
    assert request.for_engine("clip", of_words(request.texts, padded=False)).keys() == {
        *("model", "input", "encoding_format", "embed_dtype", "endianness"),
    }


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_to_do(name: str) -> None:
    with pytest.raises(GatewayError) as error:
        parse_embedding(WORDS | {name: "something"})
    assert (error.value.error_code, error.value.param) == ("unsupported_parameter", name)
    assert error.value.message == f"'{name}' is not supported. {REFUSED[name]}"
    assert parse_embedding(WORDS | {name: None})[1] == ()


@pytest.mark.parametrize(
    "field",
    [
        {"embed_dtype": "float32"},
        {"endianness": "native"},
        {"endianness": "little"},
        {"truncation_side": "right"},
        {"add_special_tokens": True},
    ],
)
def test_who_asks_for_what_happens_anyway_is_not_refused(field: dict[str, Any]) -> None:
    parse_embedding(WORDS | field)


def test_an_engine_is_asked_for_the_image_and_nothing_else_of_the_message() -> None:
    request, _ = parse_embedding(IMAGE)
    assert (request.texts, request.vectors) == ([], 1)
    assert request.images()[0][0] == "messages[0].content[0].image_url.url"
    assert request.for_engine("clip", of_image("other"))["messages"] == of_image("other")["messages"]


NO_CONTENT: tuple[Any, ...] = (None, 7, [], [7], [{}], {})
HOSTILE: list[Any] = [None, 7, "a", True, [], [None], {}, [[]], [{}], {"role": "user"}, [{"role": "user"}]]
HOSTILE += [[{"role": role, "content": content}] for role in ("user", "tool", 7) for content in NO_CONTENT]
HOSTILE += [[{"role": "user", "content": [{"type": "image_url", "image_url": url}]}] for url in (None, 7, "a", {}, {"url": 7})]


@pytest.mark.parametrize("messages", HOSTILE, ids=str)
def test_what_is_no_message_with_an_image_is_refused_by_name(messages: Any) -> None:
    with pytest.raises(GatewayError) as error:
        parse_embedding({"model": "clip", "messages": messages})
    assert error.value.status == 400
    assert (error.value.param or "").startswith("messages") or messages is None


def packed(*numbers: float) -> str:
    return pybase64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def said(*vectors: Any, tokens: int = 5, **fields: Any) -> bytes:
    data = [{"index": index, "object": "embedding", "embedding": vector} for index, vector in enumerate(vectors)]
    return orjson.dumps({"object": "list", "data": data, "usage": {"prompt_tokens": tokens}} | fields)


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1))
def test_numbers_are_the_same_to_the_last_bit_in_either_encoding(numbers: list[list[float]]) -> None:
    made = Vectors.of_engine(said(*(packed(*vector) for vector in numbers)), len(numbers))
    kept = Vectors.of_stored(made.stored)
    assert kept == made
    written = orjson.loads(kept.written("clip", "float"))
    assert [each["embedding"] for each in written["data"]] == numbers
    encoded = orjson.loads(kept.written("clip", "base64"))
    assert [each["embedding"] for each in encoded["data"]] == [packed(*vector) for vector in numbers]
    assert written["usage"] == encoded["usage"] == {"prompt_tokens": 5, "total_tokens": 5}


WRONG: dict[str, bytes] = {
    "fewer": said(packed(1.0)),
    "in another order": said(packed(1.0), packed(2.0), data=[{"index": i, "embedding": packed(1.0)} for i in (1, 0)]),
    "the largest twice are still finite, and one that is not makes no sum": said(packed(3e38, 3e38, math.inf), packed(1, 1, 1)),
    "not a number": said(packed(1.0), packed(math.nan)),
    "without usage": said(packed(1.0), packed(1.0), usage=None),
    "without data": said(data=None),
    "another object": said(packed(1.0), packed(1.0), object="error"),
    "nothing": b"",
    "a list": b"[]",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_the_vectors_is_none(name: str) -> None:
    with pytest.raises(NoVectors):
        Vectors.of_engine(WRONG[name], 2)


def test_the_largest_numbers_are_numbers() -> None:
    largest = struct.unpack("<f", bytes.fromhex("ffff7f7f"))[0]
    assert Vectors.of_engine(said(packed(*[largest] * 4096)), 1).prompt_tokens == 5


def test_parts_are_put_together_in_their_order() -> None:
    parts = [Vectors((packed(1.0),), 2), Vectors((packed(2.0), packed(3.0)), 4)]
    assert Vectors.together(parts) == Vectors((packed(1.0), packed(2.0), packed(3.0)), 6)
    with pytest.raises(NoVectors):
        Vectors.together([*parts, Vectors((packed(1.0, 2.0),), 1)])
