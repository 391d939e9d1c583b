"""From a body's bytes to a request that is understood, and from that to what the engine gets: no waiting in between."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from gateway.body import DataUrl, cut, parse_document, splice, stand_ins
from gateway.catalog.entry import Answerer
from gateway.catalog.models import served_name
from gateway.catalog.providers import Provider
from gateway.errors import GatewayError, ImageOverLimit, InvalidField, InvalidVideo, UnsupportedField
from gateway.images.encoded import Base64Image
from gateway.images.sized import Detail, Image, ImageLimits, measured
from gateway.images.source import RemoteImage, image_of_data_url, image_of_url
from gateway.images.videos import Video, video_of_data_url, video_of_url
from gateway.wire.chat import ChatCompletionRequest, EngineImage, EngineVideo, ImageUrl, VideoUrl, parse_chat

MODEL_HEADER = "x-fovea-model"
LEFT_OUT_HEADER = "x-fovea-left-out"

Urls = Mapping[str, DataUrl]
"""What was cut out of a body, by what stands in its place."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class AskedImage:
    """An image of a request, at `param`; one that came in the body is measured already."""

    param: str
    detail: Detail | None
    url: str
    """As the request has it: a stand-in, where it was cut out of the body."""
    image: Image | RemoteImage


@dataclass(frozen=True, slots=True)
class Understood:
    """A request whose every field was checked, and whose images were as far as they are here. Which model answers is open."""

    request: ChatCompletionRequest
    images: tuple[AskedImage, ...]
    videos: tuple[Video, ...]
    urls: Urls
    left_out: tuple[str, ...]

    def check(self, name: str, model: Answerer) -> None:
        """Passes what the model named `name` can be asked, as far as it is known before its images are measured.

        Raises InvalidField, UnsupportedField.
        """
        _check_n(self.request, name, model)
        self.check_counts(name, model)
        _check_tools(self.request, name, model)
        if isinstance(model, Provider):
            _check_for_provider(self.request, name, model)

    def check_counts(self, name: str, model: Answerer) -> None:
        """Passes numbers of images and of videos that the model named `name` takes. Raises InvalidField."""
        check_image_count(len(self.images), name, model)
        _check_video_count(len(self.videos), name, model)

    def of(self, name: str, model: Answerer, adapter: str | None = None) -> "Asked":
        """The request to the model named `name`, with its `adapter` if that is said."""
        return Asked(self.request, name, model, adapter, self.images, self.videos, self.urls, self.left_out)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to one model: `name` is the catalog's. What the request names itself may be a tier, an alias or `auto`."""

    request: ChatCompletionRequest
    name: str
    model: Answerer
    adapter: str | None
    images: tuple[AskedImage, ...]
    videos: tuple[Video, ...]
    urls: Urls
    left_out: tuple[str, ...]

    @property
    def served(self) -> str:
        """What engines call the model, with its adapter if there is one."""
        return served_name(self.name, self.adapter)

    @property
    def stream(self) -> bool:
        return bool(self.request.stream)

    @property
    def headers(self) -> dict[str, str]:
        """What the response says about how the request was taken."""
        headers = {MODEL_HEADER: self.served}
        if self.left_out:
            headers[LEFT_OUT_HEADER] = ", ".join(self.left_out)
        return headers


def understood(body: bytes | bytearray, limits: ImageLimits) -> Understood:
    """The request in `body`, checked.

    Raises RequestError, naming the field.
    """
    return read_cut(body, lambda document, urls: _understood(document, urls, limits))


def _understood(document: dict[str, Any], urls: Urls, limits: ImageLimits) -> Understood:
    request, left_out = parse_chat(document)
    media = request.media()
    _check_all_are_media([medium.url for _, medium in media], urls)
    images = _asked_images([(param, image) for param, image in media if isinstance(image, ImageUrl)], urls, limits)
    videos = tuple(_video(video.url, urls, param) for param, video in media if isinstance(video, VideoUrl))
    return Understood(request, images, videos, urls, left_out)


def read_cut(body: bytes | bytearray, read: Callable[[dict[str, Any], Urls], _T]) -> _T:
    """What `read` makes of the document in `body`, without its images and videos where they can be cut out.

    Raises what `read` raises, and MalformedJson.
    """
    cut_body = cut(body)
    if cut_body.urls:
        try:
            return read(parse_document(cut_body.rest), cut_body.urls)
        except (ImageOverLimit, InvalidVideo):
            raise  # in words that do not quote the request, and cheap: nothing of a large body was parsed
        except (GatewayError, _NotAllMedia):
            # Rare, and told on the whole document: in the caller's own words, where a stand-in would say nothing.
            pass
    return read(parse_document(body), {})


class _NotAllMedia(Exception):
    """A URL that was cut out of a body is not where an image or a video is: in a tool's schema, say, or by a repeated key."""


def _check_n(request: ChatCompletionRequest, name: str, model: Answerer) -> None:
    most = model.most_choices
    if request.n is not None and most is not None and request.n > most:
        message = f"n is {request.n}; concurrency and queue_depth of '{name}' have room for {most}."
        raise InvalidField(message, param="n")


def asked_images(images: Sequence[tuple[str, ImageUrl]], urls: Urls, limits: ImageLimits) -> tuple[AskedImage, ...]:
    """The images at these places of a request.

    Raises InvalidImage, naming the place.
    """
    _check_all_are_media([image.url for _, image in images], urls)
    return _asked_images(images, urls, limits)


def _check_all_are_media(found: Sequence[str], urls: Urls) -> None:
    if [url for url in found if url in urls] != list(urls):
        raise _NotAllMedia


def _asked_images(images: Sequence[tuple[str, ImageUrl]], urls: Urls, limits: ImageLimits) -> tuple[AskedImage, ...]:
    return tuple(
        AskedImage(param, image.detail, image.url, _looked_at(image.url, urls, limits, param)) for param, image in images
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def check_image_count(number: int, name: str, model: Answerer) -> None:
    """Passes a number of images that the model named `name` takes in one request.

    Raises InvalidField.
    """
    if number > model.images_per_request:
        message = f"The request has {_counted(number, 'image')}; images_per_request of '{name}' is {model.images_per_request}."
        raise InvalidField(message, param="messages", reason="too_many_images")


def _check_video_count(number: int, name: str, model: Answerer) -> None:
    if number > model.videos_per_request:
        message = f"The request has {_counted(number, 'video')}; videos_per_request of '{name}' is {model.videos_per_request}."
        raise InvalidField(message, param="messages", reason="too_many_videos")


def _video(url: str, urls: Urls, param: str) -> Video:
    return video_of_data_url(urls[url], param) if url in urls else video_of_url(url, param)


def _looked_at(url: str, urls: Urls, limits: ImageLimits, param: str) -> Image | RemoteImage:
    source: Base64Image | RemoteImage = image_of_data_url(urls[url], param) if url in urls else image_of_url(url, param)
    return source if isinstance(source, RemoteImage) else measured(source, limits, param)


def _check_tools(request: ChatCompletionRequest, name: str, model: Answerer) -> None:
    if request.may_call_tools and not model.takes_tools:
        raise UnsupportedField(f"The model '{name}' cannot call tools.", param="tools")


def _check_for_provider(request: ChatCompletionRequest, name: str, provider: Provider) -> None:
    only_vllm_s = request.only_vllm_s
    if only_vllm_s:
        message = f"The model '{name}' is a provider's, and OpenAI's API has no {', '.join(only_vllm_s)}."
        raise UnsupportedField(message, param=only_vllm_s[0])
    if request.wants_json and not provider.json_schema:
        param = "response_format" if request.structured_outputs is None else "structured_outputs"
        raise UnsupportedField(f"The model '{name}' does not keep to JSON.", param=param)


Pieces = Sequence[bytes | memoryview]
"""A data: URL in parts, which nobody joins."""


def rendered(
    asked: Asked,
    replaced: Sequence[Pieces | None],
    uuids: Sequence[str | None],
    cache_salt: str | None,
    *,
    video_uuids: Sequence[str | None] = (),
    with_usage: bool = False,
) -> tuple[bytes | memoryview, ...]:
    """The document for the engine, in parts: words of ours, and images and videos, as views of the body they came in.

    `replaced` has for each image the URL that takes the place of its own, None where it stays; `uuids` its name in the engine's
    caches, None where the engine is to find one, and `video_uuids` that of each video. `with_usage` has the engine tell its
    count of tokens at the end of a stream. A provider gets neither names nor salt, nor videos.
    """
    urls, pieces = image_urls(asked.images, asked.urls, replaced)
    video_urls = stand_ins(len(asked.videos))
    if isinstance(asked.model, Provider):
        document = asked.request.for_provider(asked.model.model, urls, with_usage=with_usage)
    else:
        images = [EngineImage(url, uuid) for url, uuid in zip(urls, uuids, strict=True)]
        videos = [EngineVideo(url, uuid) for url, uuid in zip(video_urls, video_uuids, strict=True)]
        document = asked.request.for_engine(images, cache_salt, videos=videos, with_usage=with_usage)
        document["model"] = asked.served
    if video_urls:
        pieces = _with_videos(asked, urls, pieces, video_urls)
    return splice(written(document), pieces) if pieces else (written(document),)


def _with_videos(
    asked: Asked, urls: Sequence[str], pieces: Mapping[str, Pieces], video_urls: Sequence[str]
) -> dict[str, Pieces]:
    """What is to take the place of stand-ins for images and for videos, in the order of the request.

    The header of a video's URL is ours: vLLM 0.32 goes by it, and the bytes are what was looked at.
    """
    videos = {
        url: (f"data:{video.media_type};base64,".encode(), video.encoded.payload)
        for url, video in zip(video_urls, asked.videos, strict=True)
    }
    found: dict[type, Iterator[str]] = {ImageUrl: iter(urls), VideoUrl: iter(video_urls)}
    in_order = [next(found[type(medium)]) for _, medium in asked.request.media()]
    every = {**pieces, **videos}
    return {url: every[url] for url in in_order if url in every}


def image_urls(
    images: Sequence[AskedImage], cut_out: Urls, replaced: Sequence[Pieces | None]
) -> tuple[list[str], dict[str, Pieces]]:
    """The URLs of images in a document for the engine, and what is to take the place of those that are stand-ins.

    `replaced` is as for `rendered`.
    """
    urls: list[str] = []
    pieces: dict[str, Pieces] = {}
    for image, name, other in zip(images, stand_ins(len(images)), replaced, strict=True):
        if other is None and image.url not in cut_out:
            urls.append(image.url)  # so short that it was parsed with the rest
        else:
            urls.append(name)
            pieces[name] = [cut_out[image.url].text] if other is None else other
    return urls, pieces


def check_body_size(body: Sequence[bytes | memoryview], limit_bytes: int) -> None:
    """Passes a body that an engine takes: what was fetched or shrunk may be larger than what came.

    Raises ImageOverLimit.
    """
    size = sum(map(len, body))
    if size > limit_bytes:
        message = f"With its images made ready the request has {size} bytes; limits.body_mib allows {limit_bytes}."
        raise ImageOverLimit(message, param="messages")


def written(document: dict[str, Any]) -> bytes:
    """The document as JSON.

    Raises InvalidField: it is nested too deeply.
    """
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        # orjson reads JSON four times as deep as it writes it; no schema that an engine takes comes near either.
        raise InvalidField("The request is nested too deeply: at most 254 levels.", param=None) from error
