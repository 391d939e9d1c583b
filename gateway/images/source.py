"""Where an image comes from, and whether that can be taken."""

import binascii
import re

import pybase64

from gateway.body import DataUrl
from gateway.errors import InvalidImage, shortened

_DATA_URL = re.compile(r"(?i:data):([^,;]*)((?:;[^,;]*)*);base64,")
_UNTYPED = frozenset({"", "application/octet-stream"})
_MEDIA_TYPES = frozenset({"image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif"}) | _UNTYPED
_ACCEPTED = "PNG, JPEG, WebP and GIF"
_SIGNATURE_CHARACTERS = 16
"""The base64 of the twelve bytes by which a WebP is known."""


def check_image_url(url: str, param: str) -> None:
    """Passes a data: URL with whole base64 of bytes that begin as a PNG, JPEG, WebP or GIF file.

    Raises InvalidImage, naming `param`.
    """
    if url[:5].lower() != "data:":
        scheme = url.split(":", 1)[0] if ":" in url[:16] else "none"
        raise InvalidImage(
            f"Images are taken as data: URLs, got one with scheme '{scheme}'. Send the bytes: data:image/png;base64,...",
            param=param,
        )
    header = _DATA_URL.match(url)
    if header is None:
        raise InvalidImage("A data: URL must have the form data:image/png;base64,...", param=param)
    _check_image(header[1], _decoded(url[header.end() :], param), param)


def check_data_url(url: DataUrl, param: str) -> None:
    """Passes a URL that was cut out of a body, as `check_image_url` would pass the same words.

    Raises InvalidImage, naming `param`.
    """
    _check_image(url.media_type, pybase64.b64decode(url.payload[:_SIGNATURE_CHARACTERS]), param)


def _check_image(media_type: str, data: bytes, param: str) -> None:
    if media_type.lower() not in _MEDIA_TYPES:
        raise InvalidImage(f"Media type '{shortened(media_type)}' is not supported: {_ACCEPTED} are.", param=param)
    if not _has_accepted_signature(data):
        raise InvalidImage(f"The bytes are not an image in a supported format: {_ACCEPTED} are.", param=param)


def _decoded(payload: str, param: str) -> bytes:
    try:
        return pybase64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidImage("The data: URL does not hold valid base64, padded and without line breaks.", param=param) from error


def _has_accepted_signature(data: bytes) -> bool:
    """PNG 1.2 §3.1; JPEG ITU T.81 B.1.1.3 (SOI and the marker after it); WebP container; GIF89a §17."""
    return data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")) or (
        data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    )
