"""The names under which engines keep images in their caches, and the salt of what else they keep: ours, never a caller's."""

import hashlib
import hmac
import struct

_LENGTH = struct.Struct("!Q")
_HEX_CHARACTERS = 32
"""128 bits: nobody meets another's by chance, and nobody who lacks the secret on purpose."""


class EngineIds:
    """Names that are a tenant's own, and that say nothing of what they name to who does not know `secret`.

    vLLM takes the name of an image for what it is, and does not look at the bytes any more once it knows the name. So a name
    stands for everything that decides what the model gets: which image it is, and what was done to it.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def uuid(self, tenant: str, identity: bytes, recipe: str) -> str:
        """An image's: `identity` is its digest, `recipe` the text of what is done to it, its version included."""
        return self._name(b"media uuid", tenant.encode(), identity, recipe.encode())

    def salt(self, tenant: str) -> str:
        """A tenant's, for the cache of prompts."""
        return self._name(b"cache salt", tenant.encode())

    def _name(self, *parts: bytes) -> str:
        # Each part with its length before it: no two lists of parts are the same bytes.
        message = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:_HEX_CHARACTERS]
