"""What an image is known by: its bytes as they were encoded, whatever they came in."""

import pybase64
from blake3 import blake3

_BLOCK_CHARACTERS = 64 * 1024
"""Base64 is decoded by blocks that stay in a core's cache; a multiple of four."""


def source_digest(payload: bytes | memoryview) -> bytes:
    """BLAKE3, 32 bytes, of what the valid base64 in `payload` stands for, which is nowhere decoded as a whole."""
    digest = blake3()
    for at in range(0, len(payload), _BLOCK_CHARACTERS):
        digest.update(pybase64.b64decode(payload[at : at + _BLOCK_CHARACTERS]))
    return digest.digest()
