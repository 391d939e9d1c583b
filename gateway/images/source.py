"""Where an image or a video comes from, and whether that can be taken."""

import binascii
import re
from dataclasses import dataclass

import pybase64

from gateway.body import DataUrl
from gateway.errors import InvalidImage, RequestError, shortened
from gateway.images.encoded import Base64Image

_DATA_URL = re.compile(r"(?i:data):([^,;]*)((?:;[^,;]*)*);base64,")
_HEADER_AT_MOST_CHARACTERS = 256
"""A pattern that repeats a group takes memory for every turn: whole images of semicolons are not given to it."""
_UNTYPED = frozenset({"", "application/octet-stream"})
_MEDIA_TYPES = frozenset({"image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif"}) | _UNTYPED
_REMOTE_SCHEMES = ("https", "http")


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """An image that is still to be fetched."""

    url: str


def image_of_url(url: str, param: str) -> Base64Image | RemoteImage:
    """The image that `url` holds, with its base64 known to be whole, or where to fetch it.

    Raises InvalidImage, naming `param`.
    """
    if url[:5].lower() != "data:":
        scheme = url.split(":", 1)[0].lower() if ":" in url[:16] else "none"
        if scheme in _REMOTE_SCHEMES:
            return RemoteImage(url)
        raise InvalidImage(
            f"Images are taken as data: URLs and from https: addresses, got scheme '{shortened(scheme)}'. "
            "Send the bytes: data:image/png;base64,...",
            param=param,
        )
    found = split_data_url(url)
    if found is None:
        raise InvalidImage("A data: URL must have the form data:image/png;base64,...", param=param)
    media_type, payload = found
    _check_media_type(media_type, param)
    return Base64Image(whole_base64(payload, param, InvalidImage))


def split_data_url(url: str) -> tuple[str, str] | None:
    """The media type and the base64 of a data: URL; None where it has another form."""
    header = _DATA_URL.match(url[:_HEADER_AT_MOST_CHARACTERS])
    return None if header is None else (header[1], url[header.end() :])


def image_of_data_url(url: DataUrl, param: str) -> Base64Image:
    """The image of a URL that was cut out of a body, as `image_of_url` would give it for the same words.

    Raises InvalidImage, naming `param`.
    """
    _check_media_type(url.media_type, param)
    return Base64Image(url.payload)


def _check_media_type(media_type: str, param: str) -> None:
    if media_type.lower() not in _MEDIA_TYPES:
        raise InvalidImage(f"Media type '{shortened(media_type)}' is not supported: PNG, JPEG, WebP and GIF are.", param=param)


def whole_base64(payload: str, param: str, kind: type[RequestError]) -> bytes:
    """The base64 as bytes, known to be valid. Raises an error of that `kind`, naming `param`."""
    try:
        pybase64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise kind("The data: URL does not hold valid base64, padded and without line breaks.", param=param) from error
    return payload.encode()
