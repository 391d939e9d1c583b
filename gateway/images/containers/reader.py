"""Random access that is counted, so that no file can make the reading long."""

from collections.abc import Sequence

from gateway.images.containers.contract import ImageBytes, UnreadableHeader

READS_AT_MOST = 2048
"""Each hop from one segment to another is a read, or none where both are in one block. The most that honest files need: 255
segments of ICC profile (ICC.1 Annex B.4), and as many again of depth maps and provenance, 64 KB each, in a phone's JPEG."""
METADATA_AT_MOST_BYTES = 256 * 1024
"""What is read of one XMP packet or EXIF profile. What fills more is histories of edits, and pictures within pictures."""
_BLOCK_BYTES = 1024
"""Read at once: the tables of a JPEG, its size and the start of its scan are often within it."""


class Reader:
    """Reads an image, and remembers the last block. After `READS_AT_MOST` reads every further one raises UnreadableHeader."""

    __slots__ = ("_block", "_block_start", "_image", "_reads", "size")

    def __init__(self, image: ImageBytes) -> None:
        self._image = image
        self._reads = 0
        self._block = b""
        self._block_start = 0
        self.size = image.size

    def at(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`, fewer where the image ends."""
        within = start - self._block_start
        if within < 0 or within + size > len(self._block):
            if start >= self.size:
                return b""
            self._reads += 1
            if self._reads > READS_AT_MOST:
                raise UnreadableHeader(f"The image's header is in more than {READS_AT_MOST} pieces.")
            self._block = self._image.read(start, max(size, _BLOCK_BYTES))
            self._block_start = start
            within = 0
        return self._block[within : within + size]

    def all_at(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`. Raises UnreadableHeader where there are fewer."""
        found = self.at(start, size)
        if len(found) < size:
            raise UnreadableHeader("The image is cut off within its header.")
        return found

    def some_at(self, start: int) -> bytes:
        """What is at hand from `start` on: two bytes and more, fewer where the image ends."""
        self.at(start, 2)
        return self._block[start - self._block_start :] if start < self.size else b""


class Pieces:
    """Parts of an image, each a start and a size in bytes, read as one: an ImageBytes of its own."""

    __slots__ = ("_pieces", "_reader", "size")

    def __init__(self, reader: Reader, pieces: Sequence[tuple[int, int]]) -> None:
        self._reader = reader
        self._pieces = pieces
        self.size = sum(size for _, size in pieces)

    def read(self, start: int, size: int) -> bytes:
        found = b""
        for piece_start, piece_size in self._pieces:
            wanted = min(size - len(found), piece_size - start)
            if wanted > 0:
                found += self._reader.at(piece_start + start, wanted)
            start = max(0, start - piece_size)
        return found
