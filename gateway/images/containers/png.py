"""PNG: IHDR, and what the chunks around the pixels say (PNG 3rd edition §5, §11)."""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.images.containers.contract import ImageBytes, ImageFormat, ImageHeader, UnreadableHeader
from gateway.images.containers.exif import orientation
from gateway.images.containers.reader import METADATA_AT_MOST_BYTES, Pieces, Reader
from gateway.images.encoded import RawImage

CHUNKS_AT_MOST = 1024
"""A run of IDATs of one size, which is how encoders write them, counts as one. Whoever has more before the pixels is refused;
what comes after more than that is not looked at, and the picture is taken to be upright."""
_SIDE_AT_MOST = 2**31 - 1
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits by colour type, §11.2.1."""
_WITH_ALPHA = (4, 6)
_NAME = re.compile(rb"\w{4}")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_KEYWORD_AT_MOST_BYTES = 79
_EXIF_PROFILE = b"Raw profile type exif"
_XMP = b"XML:com.adobe.xmp"
_TRIP_DECODERS = frozenset({b"transparency", b"bbox", b"interlace"})
"""Pillow keeps texts by their keyword among what it has found out itself. Under these names it trips over its own texts."""


@dataclass(slots=True)
class _Found:
    has_pixels: bool = False
    frames: int | None = None
    starts_with_frame: bool = False
    has_transparency: bool = False
    exif: tuple[int, int] | None = None
    profile: tuple[bytes, int, int] | None = None
    xmp: tuple[bytes, int, int] | None = None


def read_png(reader: Reader) -> ImageHeader:
    """Raises UnreadableHeader.

    Behind the pixels only metadata is looked for, by leaps over runs of IDATs: in a file that was made so that a leap lands on
    what looks like one more of the run, an orientation that is hidden in between is missed.
    """
    width, height, colour = _ihdr(reader)
    found = _around_the_pixels(reader)
    frames = 1
    if found.frames is not None:
        # Pixels that belong to no frame are shown where animation is not.
        frames = found.frames + (0 if found.starts_with_frame else 1)
    upright = orientation(_exif(reader, found), lambda: b"" if found.xmp is None else _text(reader, found.xmp))
    return ImageHeader(
        ImageFormat.PNG, width, height, upright, frames, has_alpha=colour in _WITH_ALPHA or found.has_transparency
    )


def _ihdr(reader: Reader) -> tuple[int, int, int]:
    head = reader.all_at(8, 25)
    size, kind, width, height, depth, colour, _, filtering, _, checksum = struct.unpack(">L4sLLBBBBBL", head)
    if (size, kind) != (13, b"IHDR"):
        raise UnreadableHeader("The PNG does not begin with its header (IHDR).")
    if checksum != zlib.crc32(head[4:21]):
        raise UnreadableHeader("The PNG's header (IHDR) does not match its checksum.")
    if not width or not height or max(width, height) > _SIDE_AT_MOST:
        raise UnreadableHeader(f"The PNG says it is {width}x{height} pixels.")
    if depth not in _DEPTHS.get(colour, ()):
        raise UnreadableHeader(f"The PNG has colour type {colour} with {depth} bits, which the format does not know.")
    if filtering:
        raise UnreadableHeader(f"The PNG has filter method {filtering}, which the format does not know.")
    return width, height, colour


def _around_the_pixels(reader: Reader) -> _Found:
    found = _Found()
    for kind, start, size in _chunks(reader):
        if kind == b"IEND" or (kind == b"fcTL" and found.has_pixels and (found.frames or 0) > 1):
            break  # behind the second frame Pillow looks for metadata no more
        if not _NAME.fullmatch(kind):
            if found.has_pixels:
                break
            raise UnreadableHeader("The PNG has a chunk without a name before its pixels.")
        _take(found, reader, kind, start, size)
    if not found.has_pixels:
        raise UnreadableHeader(f"The PNG has no pixels (IDAT) within its first {CHUNKS_AT_MOST} chunks.")
    return found


def _chunks(reader: Reader) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of what is in each after IHDR; a run of IDATs of one size is one."""
    position = 33
    for _ in range(CHUNKS_AT_MOST):
        head = reader.at(position, 8)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">L4s", head)
        yield kind, position + 8, size
        stride = 12 + size
        position += stride * (_run(reader, position, stride, head) if kind == b"IDAT" else 1)


def _run(reader: Reader, start: int, stride: int, head: bytes) -> int:
    """How many chunks from `start` on begin with `head`, in steps that double and then halve."""
    step = 1
    while reader.at(start + step * stride, 8) == head:
        step *= 2
    last = step // 2
    while step > 1:
        step //= 2
        if reader.at(start + (last + step) * stride, 8) == head:
            last += step
    return last + 1


def _take(found: _Found, reader: Reader, kind: bytes, start: int, size: int) -> None:
    if kind == b"IDAT":
        found.has_pixels = True
    elif kind == b"IHDR":
        raise UnreadableHeader("The PNG has two headers (IHDR).")
    elif kind == b"tRNS":
        found.has_transparency = True
    elif kind == b"eXIf":
        found.exif = (start, size)
    elif kind in _TEXTS:
        _take_text(found, reader, kind, start, size)
    elif not found.has_pixels:
        _take_animation(found, reader, kind, start)


def _take_animation(found: _Found, reader: Reader, kind: bytes, start: int) -> None:
    if kind == b"acTL":
        count = int.from_bytes(reader.all_at(start, 4))
        # Two of them, none and more than there can be: no animation, says Pillow.
        found.frames = count if found.frames is None and 0 < count <= _SIDE_AT_MOST + 1 else None
    elif kind == b"fcTL":
        found.starts_with_frame = True


def _take_text(found: _Found, reader: Reader, kind: bytes, start: int, size: int) -> None:
    keyword, separator, _ = reader.at(start, min(size, _KEYWORD_AT_MOST_BYTES + 1)).partition(b"\0")
    behind = start + len(keyword) + len(separator)
    rest = size - len(keyword) - len(separator)
    if keyword in _TRIP_DECODERS:
        raise UnreadableHeader(f"The PNG has a text by the name of '{keyword.decode()}', over which decoders trip.")
    if keyword == _EXIF_PROFILE:
        found.profile = (kind, behind, rest)
    elif keyword == _XMP:
        found.xmp = (kind, behind, rest)
    elif (keyword, kind) == (b"exif", b"tEXt"):
        found.exif = (behind, rest)


def _exif(reader: Reader, found: _Found) -> ImageBytes | None:
    """In a chunk of its own, or as ImageMagick writes it: hexadecimal, in a text whose first lines are its name and length."""
    if found.exif is not None:
        return Pieces(reader, [found.exif])
    if found.profile is None:
        return None
    digits = b"".join(_text(reader, found.profile).split(b"\n")[3:])
    try:
        return RawImage(bytes.fromhex(digits.decode("latin-1")))
    except ValueError:
        return RawImage(b"?")  # broken, which is not the same as none


def _text(reader: Reader, place: tuple[bytes, int, int]) -> bytes:
    """What a text chunk says, up to 256 KiB packed and unpacked; nothing where its form is broken."""
    kind, start, size = place
    data = reader.at(start, min(size, METADATA_AT_MOST_BYTES)) if size else b""
    if kind == b"tEXt":
        return data
    if kind == b"zTXt":
        return b"" if data[:1] != b"\0" else _unpacked(data[1:])
    flags, _, rest = data[:2], data[2:], data[2:].split(b"\0", 2)
    if len(flags) < 2 or len(rest) < 3:
        return b""
    if not flags[0]:
        return rest[2]
    return b"" if flags[1] else _unpacked(rest[2])


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, METADATA_AT_MOST_BYTES)
    except zlib.error:
        return b""
