"""What a header is, what it is read from, and what is raised where it cannot be."""

import enum
from dataclasses import dataclass
from typing import Protocol

_SWAPS_SIDES = frozenset({5, 6, 7, 8})


class ImageFormat(enum.StrEnum):
    """The formats that are taken."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    GIF = "gif"


class ImageBytes(Protocol):
    """Random access to an encoded image, so that of megabytes of base64 a few KB are decoded only."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`, fewer where the image ends."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says of its picture. `width` and `height` are pixels as stored, before `orientation` (EXIF's 1 to 8).

    `frames` is None where only the end of the file would tell: GIF, and WebP that moves. With `has_alpha` a pixel may be
    see-through.
    """

    format: ImageFormat
    width: int
    height: int
    orientation: int
    frames: int | None
    has_alpha: bool

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as seen, pixels."""
        return (self.height, self.width) if self.orientation in _SWAPS_SIDES else (self.width, self.height)


class UnreadableHeader(Exception):
    """The bytes are no image that is taken; the message, for the caller, says what is wrong with them."""
