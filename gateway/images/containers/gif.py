"""GIF: the logical screen, and the blocks before the first picture (GIF89a §15 to §26). It has no place for an orientation."""

import re
import struct

from gateway.images.containers.contract import ImageFormat, ImageHeader, UnreadableHeader
from gateway.images.containers.exif import UPRIGHT
from gateway.images.containers.reader import Reader

BLOCKS_AT_MOST = 2048
"""Before the first picture, with their sub-blocks of up to 255 bytes: half a megabyte of XMP or colour profile passes."""
_INTRODUCER = re.compile(rb"[!,;]")
_GRAPHIC_CONTROL, _COMMENT, _APPLICATION = 0xF9, 0xFE, 0xFF
_LOOP = b"NETSCAPE2.0"


def read_gif(reader: Reader) -> ImageHeader:
    """The size is the logical screen's, enlarged to hold the first picture where that reaches beyond it: Pillow's.

    Raises UnreadableHeader.
    """
    width, height, flags = struct.unpack("<6xHHBxx", reader.all_at(0, 13))
    blocks = _Blocks(reader, 13 + _palette_bytes(flags))
    has_alpha = False
    while (introducer := blocks.introducer()) == b"!":
        has_alpha |= blocks.skip_extension()
    if introducer != b",":
        raise UnreadableHeader("The GIF ends before its first picture.")
    left, top, wide, high, flags = struct.unpack("<HHHHB", reader.all_at(blocks.position, 9))
    reader.all_at(blocks.position + 9 + _palette_bytes(flags), 1)
    width, height = max(width, left + wide), max(height, top + high)
    if not width or not height:
        raise UnreadableHeader(f"The GIF says it is {width}x{height} pixels.")
    return ImageHeader(ImageFormat.GIF, width, height, UPRIGHT, frames=None, has_alpha=has_alpha)


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


class _Blocks:
    """Goes from block to block; each step raises UnreadableHeader at the end of the file, and after `BLOCKS_AT_MOST`."""

    def __init__(self, reader: Reader, position: int) -> None:
        self._reader = reader
        self._left = BLOCKS_AT_MOST
        self.position = position

    def introducer(self) -> bytes:
        """Of an extension `!`, a picture `,` or the end `;`: what is between blocks is passed over, as Pillow does."""
        while True:
            self._count()
            junk = self._reader.some_at(self.position)
            if not junk:
                return b";"
            found = _INTRODUCER.search(junk)
            self.position += found.end() if found else len(junk)
            if found:
                return found[0]

    def skip_extension(self) -> bool:
        """Whether it is a graphic control that makes one colour transparent."""
        label = self._reader.all_at(self.position, 1)[0]
        self.position += 1
        first = self.position
        # An extension ends at its first empty block. But Pillow takes a block for granted: in all but comments the first, and
        # behind the name of the loop extension a second.
        if self._skip_block() or label != _COMMENT:
            if label == _APPLICATION and self._reader.at(first, 1 + len(_LOOP))[1:] == _LOOP:
                self._skip_block()
            while self._skip_block():
                pass
        return label == _GRAPHIC_CONTROL and self._is_transparent(first)

    def _is_transparent(self, block: int) -> bool:
        size, flags = self._reader.all_at(block, 2)
        if not size or not flags & 1:
            return False
        if size < 4:
            raise UnreadableHeader("The GIF has a graphic control extension that is too short.")
        return True

    def _skip_block(self) -> int:
        self._count()
        size = self._reader.all_at(self.position, 1)[0]
        self.position += 1 + size
        return size

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise UnreadableHeader(f"The GIF has more than {BLOCKS_AT_MOST} blocks before its first picture.")
