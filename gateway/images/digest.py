"""What an image is known by: its bytes as they were encoded, whatever they came in, or what an engine would see of it."""

from collections import OrderedDict

from blake3 import blake3

from gateway.body import decoded_blocks

Key = tuple[bytes, str]
"""An image's source digest, and what is done to it, as text."""


def source_digest(payload: bytes | memoryview) -> bytes:
    """BLAKE3, 32 bytes, of what the valid base64 in `payload` stands for, which is nowhere decoded as a whole."""
    digest = blake3()
    for block in decoded_blocks(payload):
        digest.update(block)
    return digest.digest()


class PixelDigests:
    """Keeps the digests of what engines see of images, up to `limit` of them, so that bytes that come again are not decoded.

    One takes some 400 bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Key, bytes] = OrderedDict()

    def get(self, key: Key) -> bytes | None:
        """The digest, if it is still kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Key, digest: bytes) -> None:
        """Keeps a digest; the one that was not asked for the longest makes room."""
        self._kept[key] = digest
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
