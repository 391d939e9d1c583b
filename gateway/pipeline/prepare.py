"""From a body's bytes to a request that is understood, and from that to what the engine gets: no waiting in between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.body import DataUrl, cut, parse_document, splice, stand_ins
from gateway.catalog.models import Catalog, Model
from gateway.errors import GatewayError, ImageOverLimit, InvalidField, ModelNotFound, UnsupportedField, shortened
from gateway.images.encoded import Base64Image
from gateway.images.sized import Detail, Image, ImageLimits, measured
from gateway.images.source import RemoteImage, image_of_data_url, image_of_url
from gateway.wire.chat import ChatCompletionRequest, EngineImage, parse_chat

MODEL_HEADER = "x-fovea-model"
LEFT_OUT_HEADER = "x-fovea-left-out"


@dataclass(frozen=True, slots=True)
class AskedImage:
    """An image of a request, at `param`; one that came in the body is measured already."""

    param: str
    detail: Detail | None
    url: str
    """As the request has it: a stand-in, where it was cut out of the body."""
    image: Image | RemoteImage


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose every field was checked, and whose images were as far as they are here."""

    request: ChatCompletionRequest
    model: Model
    images: tuple[AskedImage, ...]
    urls: Mapping[str, DataUrl]
    """What the stand-ins stand for."""
    left_out: tuple[str, ...]

    @property
    def stream(self) -> bool:
        return bool(self.request.stream)

    @property
    def headers(self) -> dict[str, str]:
        """What the response says about how the request was taken."""
        headers = {MODEL_HEADER: self.request.model}
        if self.left_out:
            headers[LEFT_OUT_HEADER] = ", ".join(self.left_out)
        return headers


def understood(body: bytes | bytearray, catalog: Catalog, limits: ImageLimits) -> Asked:
    """The request in `body`, checked.

    Raises RequestError, naming the field.
    """
    cut_body = cut(body)
    if cut_body.urls:
        try:
            return _understood(cut_body.rest, cut_body.urls, catalog, limits)
        except ImageOverLimit:
            raise  # in words that do not quote the request, and cheap: nothing of a large body was parsed
        except (GatewayError, _NotAllImages):
            # Rare, and told on the whole document: in the caller's own words, where a stand-in would say nothing.
            pass
    return _understood(body, {}, catalog, limits)


class _NotAllImages(Exception):
    """A URL that was cut out of the body is not where an image is: within a tool's schema, say, or under a repeated key."""


def _understood(document: bytes | bytearray, urls: Mapping[str, DataUrl], catalog: Catalog, limits: ImageLimits) -> Asked:
    request, left_out = parse_chat(parse_document(document))
    model = catalog.models.get(request.model)
    if model is None:
        raise unknown_model(request.model, catalog)
    _check_n(request, model)
    images = _images(request, model, urls, limits)
    _check_tools(request, model)
    return Asked(request, model, images, urls, left_out)


def unknown_model(name: str, catalog: Catalog) -> ModelNotFound:
    """The error for a model that the catalog does not have."""
    return ModelNotFound(f"The model '{shortened(name)}' does not exist. Models: {', '.join(catalog.models)}.", param="model")


def _check_n(request: ChatCompletionRequest, model: Model) -> None:
    """vLLM counts `n` answers as `n` requests, and would for ever call its queue full."""
    places = model.concurrency + model.queue_depth
    if request.n is not None and request.n > places:
        message = f"n is {request.n}; concurrency and queue_depth of '{request.model}' have room for {places}."
        raise InvalidField(message, param="n")


def _images(
    request: ChatCompletionRequest, model: Model, urls: Mapping[str, DataUrl], limits: ImageLimits
) -> tuple[AskedImage, ...]:
    images = request.images()
    check_image_count(len(images), request.model, model)
    if [image.url for _, image in images if image.url in urls] != list(urls):
        raise _NotAllImages
    return tuple(
        AskedImage(param, image.detail, image.url, _looked_at(image.url, urls, limits, param)) for param, image in images
    )


def check_image_count(number: int, name: str, model: Model) -> None:
    """Passes a number of images that the model named `name` takes in one request.

    Raises InvalidField.
    """
    if number > model.images_per_request:
        message = f"The request has {number} images; images_per_request of '{name}' is {model.images_per_request}."
        raise InvalidField(message, param="messages", reason="too_many_images")


def _looked_at(url: str, urls: Mapping[str, DataUrl], limits: ImageLimits, param: str) -> Image | RemoteImage:
    source: Base64Image | RemoteImage = image_of_data_url(urls[url], param) if url in urls else image_of_url(url, param)
    return source if isinstance(source, RemoteImage) else measured(source, limits, param)


def _check_tools(request: ChatCompletionRequest, model: Model) -> None:
    if request.may_call_tools and model.effective_tool_parser is None:
        raise UnsupportedField(f"The model '{request.model}' cannot call tools.", param="tools")


Pieces = Sequence[bytes | memoryview]
"""A data: URL in parts, which nobody joins."""


def rendered(
    asked: Asked,
    replaced: Sequence[Pieces | None],
    uuids: Sequence[str | None],
    cache_salt: str | None,
    *,
    with_usage: bool = False,
) -> tuple[bytes | memoryview, ...]:
    """The document for the engine, in parts: words of ours, and images, as views of the body they came in.

    `replaced` has for each image the URL that takes the place of its own, None where it stays; `uuids` its name in the engine's
    caches, None where the engine is to find one. `with_usage` has the engine tell its count of tokens at the end of a stream.
    """
    if not asked.images:
        return (_written(asked.request.for_engine([], cache_salt, with_usage=with_usage)),)
    urls: list[str] = []
    pieces: dict[str, Pieces] = {}
    for image, name, other in zip(asked.images, stand_ins(len(asked.images)), replaced, strict=True):
        if other is None and image.url not in asked.urls:
            urls.append(image.url)  # so short that it was parsed with the rest
        else:
            urls.append(name)
            pieces[name] = [asked.urls[image.url].text] if other is None else other
    images = [EngineImage(url, uuid) for url, uuid in zip(urls, uuids, strict=True)]
    return splice(_written(asked.request.for_engine(images, cache_salt, with_usage=with_usage)), pieces)


def _written(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        # orjson reads JSON four times as deep as it writes it; no schema that an engine takes comes near either.
        raise InvalidField("The request is nested too deeply: at most 254 levels.", param=None) from error
