"""An encoded image as what came: plain bytes, or base64 of which only what is asked for is decoded."""

import binascii

import pybase64

from gateway.images.digest import source_digest

_QUAD_CHARACTERS, _QUAD_BYTES = 4, 3


class BrokenBase64(ValueError):
    """Not base64: padded, without line breaks, in the alphabet of RFC 4648 §4."""


class RawImage:
    """An ImageBytes over bytes."""

    __slots__ = ("_data", "size")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = data
        self.size = len(data)

    def read(self, start: int, size: int) -> bytes:
        return bytes(self._data[start : start + size])


class Base64Image:
    """An ImageBytes over base64. Raises BrokenBase64 where its length cannot be, and then where what is read is broken."""

    __slots__ = ("_digest", "payload", "size")

    def __init__(self, payload: bytes | bytearray | memoryview) -> None:
        if len(payload) % _QUAD_CHARACTERS:
            raise BrokenBase64(f"{len(payload)} characters are not base64 with its padding.")
        self.payload = memoryview(payload)
        self._digest: bytes | None = None
        end = bytes(self.payload[-2:])
        self.size = len(payload) // _QUAD_CHARACTERS * _QUAD_BYTES - (2 if end == b"==" else end.count(b"=", 1))

    @property
    def digest(self) -> bytes:
        """Its source digest, 32 bytes; made when it is first asked for, of base64 that is known to be valid."""
        if self._digest is None:
            self._digest = source_digest(self.payload)
        return self._digest

    def read(self, start: int, size: int) -> bytes:
        first = start // _QUAD_BYTES
        end = min(-(-(start + size) // _QUAD_BYTES), len(self.payload) // _QUAD_CHARACTERS)
        if first >= end:
            return b""
        decoded = self._decoded(first, end)
        return decoded[start - first * _QUAD_BYTES :][:size]

    def _decoded(self, first: int, end: int) -> bytes:
        try:
            decoded = pybase64.b64decode(self.payload[first * _QUAD_CHARACTERS : end * _QUAD_CHARACTERS], validate=True)
        except (binascii.Error, ValueError) as error:
            raise BrokenBase64("The base64 is broken.") from error
        if len(decoded) != min(end * _QUAD_BYTES, self.size) - first * _QUAD_BYTES:
            raise BrokenBase64("The base64 has padding before its end.")
        return decoded
