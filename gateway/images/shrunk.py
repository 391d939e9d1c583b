"""Images that were shrunk lately: the next question about the same page shrinks nothing."""

from collections import OrderedDict

from gateway.images.digest import Key


class ShrunkImages:
    """Keeps results by their keys, up to `limit_bytes` of them."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._kept: OrderedDict[Key, bytes] = OrderedDict()

    def get(self, key: Key) -> bytes | None:
        """The result, if it is still kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Key, shrunk: bytes) -> None:
        """Keeps a result; the ones that were not asked for the longest make room."""
        if key in self._kept or len(shrunk) > self._limit_bytes:
            return
        self._kept[key] = shrunk
        self._held_bytes += len(shrunk)
        while self._held_bytes > self._limit_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._held_bytes -= len(oldest)
