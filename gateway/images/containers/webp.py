"""WebP: the first chunk has the size; EXIF and XMP come behind the pixels (RFC 9649)."""

import struct
from collections.abc import Iterator

from gateway.images.containers.contract import ImageFormat, ImageHeader, UnreadableHeader
from gateway.images.containers.exif import UPRIGHT, orientation
from gateway.images.containers.reader import METADATA_AT_MOST_BYTES, Pieces, Reader

CHUNKS_AT_MOST = 1024
"""Then EXIF and XMP are not looked for any further, and the picture is taken to be upright. That takes an animation of a
thousand frames: still pictures have a handful of chunks."""
_ALPHA, _EXIF, _XMP, _ANIMATION = 0x10, 0x08, 0x04, 0x02
_CANVAS_PIXELS_BELOW = 1 << 32
_STILL = (b"VP8 ", b"VP8L", b"ALPH")


def read_webp(reader: Reader) -> ImageHeader:
    """Raises UnreadableHeader."""
    riff_bytes, kind, size = struct.unpack("<4xL4x4sL", reader.all_at(0, 20))
    end = 8 + riff_bytes
    if end > reader.size:
        raise UnreadableHeader("The WebP is shorter than it says: it is cut off.")
    if kind == b"VP8 ":
        return ImageHeader(ImageFormat.WEBP, *_lossy_size(reader.all_at(20, 10)), UPRIGHT, frames=1, has_alpha=False)
    if kind == b"VP8L":
        width, height, has_alpha = _lossless(reader.all_at(20, 5))
        return ImageHeader(ImageFormat.WEBP, width, height, UPRIGHT, frames=1, has_alpha=has_alpha)
    if kind == b"VP8X":
        return _extended(reader, 20 + size + size % 2, end)
    raise UnreadableHeader("The WebP has no picture in its first chunk.")


def _lossy_size(head: bytes) -> tuple[int, int]:
    """RFC 6386 §9.1: a key frame that is shown."""
    tag, signature, width, height = struct.unpack("<B2x3sHH", head)
    if tag & 1 or not tag & 0x10 or signature != b"\x9d\x01\x2a":
        raise UnreadableHeader("The WebP does not begin with a whole picture (VP8 key frame).")
    width, height = width & 0x3FFF, height & 0x3FFF
    if not width or not height:
        raise UnreadableHeader(f"The WebP says it is {width}x{height} pixels.")
    return width, height


def _lossless(head: bytes) -> tuple[int, int, bool]:
    """RFC 9649 §3.4."""
    signature, bits = struct.unpack("<BL", head)
    if signature != 0x2F or bits >> 29:
        raise UnreadableHeader("The WebP does not begin with a lossless picture that can be read (VP8L).")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)


def _extended(reader: Reader, start: int, end: int) -> ImageHeader:
    head = reader.all_at(20, 10)
    flags = head[0]
    width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (4, 7))
    if width * height >= _CANVAS_PIXELS_BELOW:
        raise UnreadableHeader(f"The WebP says it is {width}x{height} pixels; its format ends at {_CANVAS_PIXELS_BELOW}.")
    found = _wanted(reader, start, end, flags)
    has_alpha = bool(flags & _ALPHA)
    if not flags & _ANIMATION:
        has_alpha |= _still_has_alpha(reader, found)
    exif, xmp = found.get(b"EXIF"), found.get(b"XMP ", (0, 0))
    upright = orientation(
        Pieces(reader, [exif]) if exif else None,
        lambda: reader.at(xmp[0], min(xmp[1], METADATA_AT_MOST_BYTES)) if xmp[1] else b"",
    )
    frames = None if flags & _ANIMATION else 1
    return ImageHeader(ImageFormat.WEBP, width, height, upright, frames, has_alpha)


def _wanted(reader: Reader, start: int, end: int, flags: int) -> dict[bytes, tuple[int, int]]:
    """Where EXIF, XMP and a still picture's pixels are, as far as the flags say that they are there: libwebp believes them."""
    wanted = set() if flags & _ANIMATION else {b"still"}
    wanted |= {kind for flag, kind in ((_EXIF, b"EXIF"), (_XMP, b"XMP ")) if flags & flag}
    found: dict[bytes, tuple[int, int]] = {}
    chunks = _chunks(reader, start, end)
    while wanted and (chunk := next(chunks, None)):
        kind, *place = chunk
        name = b"still" if kind in _STILL else kind
        if name in wanted:
            wanted.remove(name)
            found[kind] = (place[0], place[1])
    return found


def _still_has_alpha(reader: Reader, found: dict[bytes, tuple[int, int]]) -> bool:
    if b"VP8L" in found:
        return _lossless(reader.all_at(found[b"VP8L"][0], 5))[2]
    if b"ALPH" not in found and b"VP8 " not in found:
        raise UnreadableHeader(f"The WebP has no picture within its first {CHUNKS_AT_MOST} chunks.")
    return b"ALPH" in found


def _chunks(reader: Reader, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of each."""
    for _ in range(CHUNKS_AT_MOST):
        head = reader.at(start, 8)
        if len(head) < 8 or start + 8 > end:
            return
        kind, size = struct.unpack("<4sL", head)
        yield kind, start + 8, size
        start += 8 + size + size % 2
