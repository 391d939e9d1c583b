"""An image's header: what its first bytes say, read without decoding and without most of the file."""

from collections.abc import Callable

from gateway.images.containers.contract import ImageBytes, ImageFormat, ImageHeader, UnreadableHeader
from gateway.images.containers.gif import read_gif
from gateway.images.containers.jpeg import read_jpeg
from gateway.images.containers.png import read_png
from gateway.images.containers.reader import Reader
from gateway.images.containers.refused import name_of
from gateway.images.containers.webp import read_webp

__all__ = ["ImageBytes", "ImageFormat", "ImageHeader", "UnreadableHeader", "read_header"]

_TAKEN = "PNG, JPEG, WebP and GIF are taken"
_HEAD_BYTES = 256


def read_header(image: ImageBytes) -> ImageHeader:
    """Format, size, orientation, frames and alpha, in at most 2,048 reads of 1 KiB and two of 256 KiB, whatever the file says.

    The format is that of the first bytes, whatever follows; size and orientation are those that Pillow 13 gives, with which
    engines decode. Raises UnreadableHeader: another format, by its name; a header that is broken, or that no decoder takes.
    What `image` raises itself passes through.
    """
    reader = Reader(image)
    head = reader.at(0, min(_HEAD_BYTES, image.size)) if image.size else b""
    read = _reader_of(head)
    if read is not None:
        return read(reader)
    if not head:
        raise UnreadableHeader(f"The image is empty; {_TAKEN}.")
    name = name_of(head)
    raise UnreadableHeader(f"The image is {name}; {_TAKEN}." if name else f"The bytes are no image that is known; {_TAKEN}.")


def _reader_of(head: bytes) -> Callable[[Reader], ImageHeader] | None:
    """PNG §5.2; JPEG ITU T.81 B.1.1.3, SOI and the marker after it; RFC 9649 §2.4; GIF89a §17."""
    if head.startswith(b"\xff\xd8\xff"):
        return read_jpeg
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return read_png
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return read_webp
    return read_gif if head.startswith((b"GIF87a", b"GIF89a")) else None
