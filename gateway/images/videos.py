"""Which files are passed on as videos. None is looked into: an engine decodes what an owner lets pass.

What a file is, its first bytes say. FFmpeg, with which engines read it, goes by them too, and would open what a playlist points
to: so nothing passes that does not begin as one of these.
"""

from dataclasses import dataclass

from gateway.body import DataUrl
from gateway.errors import InvalidVideo, shortened
from gateway.images.containers.refused import is_picture
from gateway.images.encoded import Base64Image
from gateway.images.source import split_data_url, whole_base64

_TAKEN = "MP4, QuickTime, WebM, Matroska and AVI files are taken"
_HEAD_BYTES = 64
_UNTYPED = frozenset({"", "application/octet-stream"})
_MEDIA_TYPES = _UNTYPED | {
    *("video/mp4", "video/quicktime", "video/webm", "video/x-matroska", "video/matroska"),
    *("video/x-msvideo", "video/vnd.avi", "video/msvideo", "video/avi"),
}
"""`video/jpeg` is none of them: it stands for images in a row in vLLM, and they would pass every limit of images."""


@dataclass(frozen=True, slots=True)
class Video:
    """The video at `param`, as it came: a file that begins as those of `media_type` do, in base64 that is known to be valid."""

    param: str
    media_type: str
    encoded: Base64Image


def video_of_url(url: str, param: str) -> Video:
    """The video that `url` holds.

    Raises InvalidVideo, naming `param`: it is elsewhere, is not valid base64, or no video that is taken.
    """
    if url[:5].lower() != "data:":
        scheme = url.split(":", 1)[0].lower() if ":" in url[:16] else "none"
        raise InvalidVideo(
            f"Videos are taken as data: URLs only, got scheme '{shortened(scheme)}'. Send the bytes: data:video/mp4;base64,...",
            param=param,
        )
    found = split_data_url(url)
    if found is None:
        raise InvalidVideo("A data: URL must have the form data:video/mp4;base64,...", param=param)
    media_type, payload = found
    _check_media_type(media_type, param)
    return _video(Base64Image(whole_base64(payload, param, InvalidVideo)), param)


def video_of_data_url(url: DataUrl, param: str) -> Video:
    """The video of a URL that was cut out of a body, as `video_of_url` would give it for the same words.

    Raises InvalidVideo, naming `param`.
    """
    _check_media_type(url.media_type, param)
    return _video(Base64Image(url.payload), param)


def _check_media_type(media_type: str, param: str) -> None:
    if media_type.lower() not in _MEDIA_TYPES:
        raise InvalidVideo(f"Media type '{shortened(media_type)}' is not supported: {_TAKEN}.", param=param)


def _video(encoded: Base64Image, param: str) -> Video:
    media_type = _media_type(encoded.read(0, _HEAD_BYTES))
    if media_type is None:
        raise InvalidVideo(f"The bytes do not begin as those of a video do: {_TAKEN}.", param=param)
    return Video(param, media_type, encoded)


def _media_type(head: bytes) -> str | None:
    """ISO/IEC 14496-12 4.3 (a file begins with its type and its brand); RFC 8794 8.1; RFC 2361 has AVI's names."""
    if head[4:8] == b"ftyp" and not is_picture(head):
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in head else "video/x-matroska"
    return "video/x-msvideo" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else None
