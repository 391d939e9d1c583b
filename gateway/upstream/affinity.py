"""What questions about one image are routed by: where the image is, what the engine made of it is, until too many want it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_IDS_PER_SHARE = 8
"""How many further ids the next share of requests is spread over. A ring gives each id a replica by chance: with one id for as
many requests as half a replica works on, two such chances in a row would fill it."""


class HotImages:
    """The sessions that have requests in flight in this process, and the id that the next one of each is sent with.

    `concurrency` is how many requests one replica of a model works on at once. Half of that, k (at least 1), is what one
    session may keep busy of its own replica: while fewer than k of its requests are in flight, its id is the session itself.
    Beyond them the image is hot, and worth computing in several places: the id is `session#i`, where i grows by 8 for every k
    requests more. At 4 x concurrency that is 56 ids beside the session, which by chance alone leave no replica of a few out.
    The same i comes again whenever as many are in flight, so that the further replicas soon know the image too.
    """

    def __init__(self, concurrency: Mapping[str, int]) -> None:
        self._shares = {model: max(1, replica // 2) for model, replica in concurrency.items()}
        self._in_flight: dict[tuple[str, str], int] = {}

    @contextmanager
    def session_id(self, model: str, session: str) -> Iterator[str]:
        """The id for a request that is in flight until the end of the block."""
        key = (model, session)
        before = self._in_flight.get(key, 0)
        self._in_flight[key] = before + 1
        try:
            yield session if before < self._shares[model] else f"{session}#{self._further(before, self._shares[model])}"
        finally:
            left = self._in_flight[key] - 1
            if left:
                self._in_flight[key] = left
            else:
                del self._in_flight[key]

    @staticmethod
    def _further(in_flight: int, share: int) -> int:
        return 1 + (in_flight - share) * _IDS_PER_SHARE // share

    @property
    def counted(self) -> int:
        """How many sessions have requests in flight."""
        return len(self._in_flight)
