"""What an image is known by: its bytes as they were encoded, whatever they came in."""

from blake3 import blake3

from gateway.body import decoded_blocks


def source_digest(payload: bytes | memoryview) -> bytes:
    """BLAKE3, 32 bytes, of what the valid base64 in `payload` stands for, which is nowhere decoded as a whole."""
    digest = blake3()
    for block in decoded_blocks(payload):
        digest.update(block)
    return digest.digest()
