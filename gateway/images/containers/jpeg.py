"""JPEG: from segment to segment up to the first scan (ITU T.81 Annex B). Behind it are no more words, only pixels."""

import re
import struct
from dataclasses import dataclass, field

from gateway.images.containers.contract import ImageFormat, ImageHeader, UnreadableHeader
from gateway.images.containers.exif import orientation
from gateway.images.containers.reader import Pieces, Reader

SEGMENTS_AT_MOST = 1024
"""Before the scan: see `READS_AT_MOST`."""
_SIDE_AT_MOST = 65_500
"""libjpeg's own, JPEG_MAX_DIMENSION."""
_COMPONENTS = (1, 3, 4)

_SOS, _APP1 = 0xDA, 0xE1
_DECODED = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA})
"""The frames that libjpeg-turbo 3 decodes: Huffman baseline, extended, progressive and lossless; arithmetic sequential and
progressive."""
_NOT_DECODED = {
    0xC5: "differential sequential",
    0xC6: "differential progressive",
    0xC7: "differential lossless",
    0xCB: "lossless arithmetic",
    0xCD: "differential sequential arithmetic",
    0xCE: "differential progressive arithmetic",
    0xCF: "differential lossless arithmetic",
    0xDE: "hierarchical",
}
_SEGMENTS = _DECODED | _NOT_DECODED.keys() | {0xC4, 0xCC, _SOS, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
"""Frames, scans, tables, APPn and comments: what libjpeg goes on after, and a name for what it does not."""
_ALONE = frozenset(range(0xD0, 0xD8))
"""Restarts, which have no segment."""
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_JUNK_READS = 64
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(slots=True)
class _Found:
    size: tuple[int, int] | None = None
    exif: list[tuple[int, int]] = field(default_factory=list)
    xmp: tuple[int, int] | None = None


def read_jpeg(reader: Reader) -> ImageHeader:
    """Raises UnreadableHeader for what libjpeg-turbo would not decode either, as far as the header tells.

    Of an MPO, which holds further pictures, it is the first one's: engines show that one.
    """
    found = _up_to_the_scan(reader)
    if found.size is None:
        raise UnreadableHeader("The JPEG has no frame header (SOF) before its pixels.")
    xmp = found.xmp
    upright = orientation(
        Pieces(reader, found.exif) if found.exif else None,
        lambda: b"" if xmp is None else reader.at(*xmp),
    )
    return ImageHeader(ImageFormat.JPEG, *found.size, upright, frames=1, has_alpha=False)


def _up_to_the_scan(reader: Reader) -> _Found:
    found = _Found()
    position = 2
    for _ in range(SEGMENTS_AT_MOST):
        marker, start = _next_marker(reader, position)
        if marker in _ALONE:
            position = start
            continue
        if marker not in _SEGMENTS:
            raise UnreadableHeader(f"The JPEG has a marker before its pixels that does not belong there (FF{marker:02X}).")
        # The length counts its own two bytes; one that does not is taken for none, as decoders do.
        size = max(2, int.from_bytes(reader.all_at(start, 2)))
        position = start + size
        if position > reader.size:
            raise UnreadableHeader("The JPEG is cut off before its pixels.")
        if marker == _SOS:
            return found
        _take(found, reader, marker, start + 2, size - 2)
    raise UnreadableHeader(f"The JPEG has more than {SEGMENTS_AT_MOST} segments before its pixels.")


def _next_marker(reader: Reader, position: int) -> tuple[int, int]:
    """The next marker and where what belongs to it begins. Between segments may be fill bytes, and is junk at times."""
    at_once = reader.at(position, 2)
    if _MARKER.match(at_once):
        return at_once[1], position + 2
    for _ in range(_JUNK_READS):
        junk = reader.some_at(position)
        found = _MARKER.search(junk)
        if found:
            return found[1][0], position + found.end()
        if len(junk) < 2:
            raise UnreadableHeader("The JPEG ends before its pixels.")
        position += len(junk) - 1  # the last byte may be the first of a marker
    raise UnreadableHeader("The JPEG has junk where a segment should begin.")


def _take(found: _Found, reader: Reader, marker: int, start: int, size: int) -> None:
    if marker == _APP1:
        name = reader.at(start, min(size, len(_XMP)))
        if name.startswith(_EXIF):
            # What is over 64 KB comes in parts, of which the first only has its name counted in.
            name_bytes = len(_EXIF) if found.exif else 0
            found.exif.append((start + name_bytes, size - name_bytes))
        elif name == _XMP:
            found.xmp = (start + len(_XMP), size - len(_XMP))
    elif marker in _DECODED:
        if found.size is not None:
            raise UnreadableHeader("The JPEG has two frame headers (SOF).")
        found.size = _frame(reader.all_at(start, 6), size)
    elif marker in _NOT_DECODED:
        raise UnreadableHeader(f"The JPEG is {_NOT_DECODED[marker]}, which is not taken.")


def _frame(head: bytes, size: int) -> tuple[int, int]:
    bits, height, width, components = struct.unpack(">BHHB", head)
    if bits != 8:
        raise UnreadableHeader(f"The JPEG has {bits} bits per sample; 8 are taken.")
    if components not in _COMPONENTS:
        raise UnreadableHeader(f"The JPEG has {components} components; 1, 3 or 4 are taken.")
    if size != 6 + 3 * components:
        raise UnreadableHeader("The JPEG's frame header (SOF) has the wrong length.")
    if not width or not height:
        raise UnreadableHeader(f"The JPEG says it is {width}x{height} pixels.")
    if max(width, height) > _SIDE_AT_MOST:
        raise UnreadableHeader(f"The JPEG says it is {width}x{height} pixels; decoders take {_SIDE_AT_MOST} a side.")
    return width, height
