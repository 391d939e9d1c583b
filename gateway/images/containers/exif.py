"""The orientation, as Pillow finds it in EXIF and XMP (`Image.getexif`, `ImageOps.exif_transpose`): engines apply that one.

Where files are sound any reader finds the same. Where they are not, what counts is what Pillow makes of them, and that is what
is done here. The knowing differences: of a directory the first 1,024 entries are looked at (cameras write under a hundred), of
an XMP packet the first 256 KiB; and a PNG's EXIF may begin with its name twice, though it needs none.
"""

import re
import struct
from collections.abc import Callable

from gateway.images.containers.contract import ImageBytes

UPRIGHT = 1
_ORIENTATIONS = range(1, 9)
_TAG = 0x0112
_ENTRIES = 1024
_PREFIX = b"Exif\0\0"
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">", b"II\0*": "<", b"MM*\0": ">", b"MM\0+": ">"}
"""TIFF 6.0 §2; two that swap the bytes of the 42, and BigTIFF's other number, which Pillow takes for the same."""
_NUMBERS = {3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 11: "f", 12: "d", 13: "L", 16: "Q"}
_RATIONALS = {5: "LL", 10: "ll"}
_UNIT_BYTES = {1: 1, 2: 1, 7: 1} | {kind: struct.calcsize(f"={form}") for kind, form in (_NUMBERS | _RATIONALS).items()}
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


class _BrokenExif(Exception):
    """Pillow gives up on such a one, and asks no XMP either."""


def orientation(exif: ImageBytes | None, xmp: Callable[[], bytes]) -> int:
    """1 to 8; 1 where neither says, or what they say means nothing. `xmp` is asked only where EXIF has no such tag."""
    try:
        value = None if exif is None else _in_exif(exif)
    except _BrokenExif:
        return UPRIGHT
    if value is None:
        found = _XMP.search(xmp())
        value = int(found[1]) if found else UPRIGHT
    return int(value) if value in _ORIENTATIONS else UPRIGHT


def _in_exif(exif: ImageBytes) -> float | None:
    start = 0
    while start < 2 * len(_PREFIX) and exif.read(start, len(_PREFIX)) == _PREFIX:
        start += len(_PREFIX)
    if start == exif.size:
        return None
    head = exif.read(start, 8)
    order = _BYTE_ORDERS.get(head[:4])
    if order is None or len(head) < 8:
        raise _BrokenExif
    (directory,) = struct.unpack(f"{order}4xL", head)
    return _in_directory(exif, order, start, directory)


def _in_directory(exif: ImageBytes, order: str, start: int, directory: int) -> float | None:
    """The value of the tag; None where it is not there, or behind a value that is beyond the end: there Pillow stops."""
    size = exif.size - start
    claimed = 0
    seen = set()
    for tag, kind, count, inline in _entries(exif, order, start + directory):
        value_bytes = count * _UNIT_BYTES.get(kind, 0)
        if tag in seen or not value_bytes:
            continue
        at = None
        if value_bytes > len(inline):
            claimed += value_bytes
            if claimed > size:
                continue
            (at,) = struct.unpack(f"{order}L", inline)
            if at + value_bytes > size:
                return None
        if tag == _TAG:
            return _number(order, kind, inline if at is None else exif.read(start + at, _UNIT_BYTES[kind]))
        seen.add(tag)
    return None


def _entries(exif: ImageBytes, order: str, start: int) -> list[tuple[int, int, int, bytes]]:
    count = exif.read(start, 2)
    if len(count) < 2:
        return []
    table = exif.read(start + 2, 12 * min(_ENTRIES, *struct.unpack(f"{order}H", count)))
    return list(struct.iter_unpack(f"{order}HHL4s", table[: len(table) // 12 * 12]))


def _number(order: str, kind: int, data: bytes) -> float:
    """The first of the values; 0 for what is no number, and then none of the eight."""
    unit = data[: _UNIT_BYTES[kind]]
    if kind in _NUMBERS:
        number: float = struct.unpack(order + _NUMBERS[kind], unit)[0]
        return number
    if kind in _RATIONALS:
        numerator, denominator = struct.unpack(order + _RATIONALS[kind], unit)
        return float(numerator / denominator) if denominator else 0
    return 0
