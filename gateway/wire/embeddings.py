"""The request for embeddings, and its answer: vectors of words or of an image, of any model's engine in one form.

OpenAI's fields, and those of vLLM 0.32 (entrypoints/pooling/embed/protocol.py), are in one of the three places that those of a
chat have (chat.py). Engines are always asked for base64 of 32-bit floats, little endian: a third of the size of decimals, and
nothing of a number is lost. So that is what is kept, and a caller gets it in the encoding that he asks for.
"""

import binascii
import math
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

import orjson
import pybase64
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Tag, ValidationError, model_validator

from gateway.errors import UnsupportedField
from gateway.wire.chat import ImagePart, ImageUrl
from gateway.wire.invalid import disagreement, first_finding, tagged_by_form, unknown_field

MAX_INPUTS = 2048

LEFT_OUT: Final[dict[str, str]] = {
    "user": "nothing is recorded by end user",
    "padding": "words are padded as the model was trained",
    "mm_processor_kwargs": "images are sized by the gateway",
    "media_io_kwargs": "images are read by the gateway",
    "chat_template": "an image needs none",
    "chat_template_kwargs": "an image needs none",
    "add_generation_prompt": "nothing is generated",
    "continue_final_message": "nothing is generated",
    "priority": "requests of one class are served in order",
    "request_id": "the gateway gives every request its id, in x-request-id",
    "cache_salt": "engines keep nothing of it",
}

REFUSED: Final[dict[str, str]] = {
    "dimensions": "Leave it out: vectors of these models have one length.",
    "add_special_tokens": "Leave it out: they are added to words as the model was trained.",
    "embed_dtype": "Leave it out: base64 is of 32-bit floats.",
    "endianness": "Leave it out: base64 is little endian.",
    "normalize": "Use 'use_activation'.",
    # vLLM 0.32 then cuts off the marker at that end as well, and no model was trained on what is left.
    "truncation_side": "Leave it out: words are cut off at their end.",
}

_NO_OPS: Final[dict[str, tuple[Any, ...]]] = {
    "add_special_tokens": (True,),
    "embed_dtype": ("float32",),
    "endianness": ("little", "native"),
    "truncation_side": ("right",),
}
"""Values of refused fields that ask for what happens anyway. Null does so too."""

_LEFT_OUT_OF_IMAGES: Final = ("detail",)
_LEFT_OUT_OF_PARTS: Final = ("uuid", "cache_control")

_ALL_THERE_IS_ROOM_FOR = -1
_MARKERS = 2
"""Where a text begins and where it ends; fewer tokens than these are more than a tokenizer can cut to."""

_FLOAT_BYTES = 4


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ImageMessage(_Wire):
    """An image in vLLM's form: the one part of the one message."""

    role: Literal["user"]
    content: Annotated[list[ImagePart], Field(min_length=1, max_length=1)]


def _leaves_words(tokens: int) -> int:
    if tokens != _ALL_THERE_IS_ROOM_FOR and tokens <= _MARKERS:
        raise ValueError(f"it is {tokens}, of which {_MARKERS} are markers; -1 stands for as many as there is room for.")
    return tokens


_Words = Annotated[str, Field(min_length=1)]
_Input = Annotated[
    Annotated[_Words, Tag("<string>")]
    | Annotated[list[_Words], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True), Tag("<array>")],
    tagged_by_form("a string or an array of strings"),
]


class EmbeddingRequest(_Wire):
    """What a vector is asked of: words (`input`), or an image (`messages`)."""

    model: str
    input: _Input | None = None
    messages: Annotated[list[ImageMessage], Field(min_length=1, max_length=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    truncate_prompt_tokens: Annotated[int, AfterValidator(_leaves_words)] | None = None
    use_activation: bool | None = None

    @model_validator(mode="after")
    def _has_one_thing_to_embed(self) -> Self:
        if (self.input is None) == (self.messages is None):
            raise disagreement("input", "One of 'input' (words) and 'messages' (an image) must be given.")
        if self.truncate_prompt_tokens is not None and self.input is None:
            raise disagreement("truncate_prompt_tokens", "'truncate_prompt_tokens' is only allowed with 'input'.")
        return self

    @property
    def texts(self) -> list[str]:
        """The words, one text for each vector; none where it is an image."""
        return [self.input] if isinstance(self.input, str) else list(self.input or ())

    @property
    def vectors(self) -> int:
        """How many it asks for."""
        return len(self.texts) or 1

    def images(self) -> list[tuple[str, ImageUrl]]:
        """The image, with its place, if there is one."""
        return [
            (f"messages[{turn}].content[{place}].image_url.url", part.image_url)
            for turn, message in enumerate(self.messages or ())
            for place, part in enumerate(message.content)
        ]

    def for_engine(self, model: str, about: dict[str, Any]) -> dict[str, Any]:
        """The document that asks an engine what it knows as `model` for the vectors of `about`, its words or its image."""
        asked = self.model_dump(
            exclude={"model", "input", "messages", "encoding_format"}, exclude_unset=True, exclude_none=True, warnings=False
        )
        form = {"encoding_format": "base64", "embed_dtype": "float32", "endianness": "little"}
        return {"model": model} | about | asked | form


def of_words(texts: Sequence[str], *, padded: bool) -> dict[str, Any]:
    """What `EmbeddingRequest.for_engine` asks about words; `padded` fills them up to the model's context."""
    return {"input": list(texts)} | ({"padding": "max_length"} if padded else {})


def of_image(url: str) -> dict[str, Any]:
    """What `EmbeddingRequest.for_engine` asks about an image."""
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def parse_embedding(document: dict[str, Any]) -> tuple[EmbeddingRequest, tuple[str, ...]]:
    """The request that `document` is, and the paths of the fields that were left out of it.

    Raises InvalidField, UnknownField, UnsupportedField, each naming the field.
    """
    kept = {name: value for name, value in document.items() if name not in LEFT_OUT and not _asks_for_nothing(name, value)}
    left_out = [name for name in document if name in LEFT_OUT]
    for name in kept:
        if name in REFUSED:
            raise UnsupportedField(f"'{name}' is not supported. {REFUSED[name]}", param=name)
        if name not in EmbeddingRequest.model_fields:
            raise unknown_field(name)
    _refuse_token_ids(kept.get("input"))
    left_out += _clean_message(kept.get("messages"))
    try:
        return EmbeddingRequest.model_validate(kept), tuple(left_out)
    except ValidationError as error:
        raise first_finding(error) from error


def _asks_for_nothing(name: str, value: Any) -> bool:
    return name in REFUSED and (value is None or any(value is known or value == known for known in _NO_OPS.get(name, ())))


def _refuse_token_ids(value: Any) -> None:
    if isinstance(value, list) and value and isinstance(value[0], int | list) and not isinstance(value[0], bool):
        raise UnsupportedField("Token ids in 'input' are not supported: send the words themselves.", param="input")


def _clean_message(messages: Any) -> list[str]:
    """Takes out of the message what is left out of it, and gives back its paths.

    Raises UnsupportedField: it has words.
    """
    message = messages[0] if isinstance(messages, list) and messages else None
    content = message.get("content") if isinstance(message, dict) else None
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    if isinstance(content, str) or any(part.get("type") == "text" for part in parts):
        raise UnsupportedField(
            "Words in 'messages' are not supported: these models embed words or an image, not both. Send words as 'input'.",
            param="messages[0].content",
        )
    left_out: set[str] = set()
    for part in parts:
        image = part.get("image_url")
        left_out |= {f"messages[].content[].{name}" for name in _taken(part, _LEFT_OUT_OF_PARTS)}
        if isinstance(image, dict):
            left_out |= {f"messages[].content[].image_url.{name}" for name in _taken(image, _LEFT_OUT_OF_IMAGES)}
    return sorted(left_out)


def _taken(of: dict[str, Any], names: Sequence[str]) -> list[str]:
    return [name for name in names if of.pop(name, None) is not None]


class NoVectors(ValueError):
    """What an engine sent is not the vectors that it was asked for."""


class _Engines(BaseModel):
    # Whatever else a newer engine tells is not passed on.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Vector(_Engines):
    index: int
    embedding: str


class _Usage(_Engines):
    prompt_tokens: Annotated[int, Field(ge=0)]


class _EngineAnswer(_Engines):
    object: Literal["list"]
    data: list[_Vector]
    usage: _Usage


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    vectors: list[str]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of one length, each in base64 of 32-bit floats, little endian, and how many tokens they were made of."""

    encoded: tuple[str, ...]
    prompt_tokens: int

    @classmethod
    def of_engine(cls, body: bytes, number: int) -> Self:
        """Those of an engine's answer to a request for so many.

        Raises NoVectors: there are others, some are of another length, or what is in them is no number.
        """
        try:
            answer = _EngineAnswer.model_validate(orjson.loads(body))
        except ValueError as error:
            raise NoVectors("not in the form of embeddings") from error
        if [vector.index for vector in answer.data] != list(range(number)):
            raise NoVectors(f"{len(answer.data)} vectors where {number} were asked for")
        made = cls(tuple(vector.embedding for vector in answer.data), answer.usage.prompt_tokens)
        made.check()
        return made

    @classmethod
    def together(cls, parts: Sequence["Vectors"]) -> Self:
        """The vectors of all parts, in their order.

        Raises NoVectors: they differ in their length.
        """
        if len({len(vector) for part in parts for vector in part.encoded}) > 1:
            raise NoVectors("vectors of different lengths")
        return cls(tuple(vector for part in parts for vector in part.encoded), sum(part.prompt_tokens for part in parts))

    @classmethod
    def of_stored(cls, stored: bytes) -> Self:
        """What `stored` has made bytes of."""
        kept = _Stored.model_validate_json(stored)
        return cls(tuple(kept.vectors), kept.prompt_tokens)

    @property
    def stored(self) -> bytes:
        """All that is kept of them."""
        return orjson.dumps({"vectors": self.encoded, "prompt_tokens": self.prompt_tokens})

    def check(self) -> None:
        """Passes vectors of one length, of at least one number, and all of them finite.

        Raises NoVectors.
        """
        if len({len(vector) for vector in self.encoded}) > 1:
            raise NoVectors("vectors of different lengths")
        for vector in self.encoded:
            # A sum of so many 32-bit floats stays far below the largest of 64 bits: it is finite where each of them is.
            if not math.isfinite(sum(_floats(vector))):
                raise NoVectors("numbers that are not finite")

    def written(self, model: str, encoding_format: str) -> bytes:
        """OpenAI's answer, under the model's name."""
        as_base64 = encoding_format == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": vector if as_base64 else _floats(vector).tolist()}
            for index, vector in enumerate(self.encoded)
        ]
        usage = {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens}
        return orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage})


def _floats(encoded: str) -> "array[float]":
    try:
        raw = pybase64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoVectors("no base64") from error
    if not raw or len(raw) % _FLOAT_BYTES:
        raise NoVectors(f"a vector of {len(raw)} bytes")
    floats = array("f", raw)
    if sys.byteorder == "big":
        floats.byteswap()
    return floats
