"""Work that is done once for all who want the same at the same moment."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Generic, TypeVar

_K = TypeVar("_K")
_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class _Begun(Generic[_T]):
    work: asyncio.Future[_T]
    waiting: int = 0


class SharedWork(Generic[_K, _T]):
    """What is under way, by its key; nothing of it is kept once it is done."""

    def __init__(self) -> None:
        self._begun: dict[_K, _Begun[_T]] = {}

    async def join(self, key: _K, begin: Callable[[], Coroutine[None, None, _T]]) -> _T:
        """What the work under `key` gives, or raises; it is begun unless somebody else has.

        It goes on while one is left who waits for it. The last who leaves ends it, and has seen it end.
        """
        begun = self._begun.get(key)
        if begun is None:
            begun = self._begun[key] = _Begun(asyncio.ensure_future(begin()))
        begun.waiting += 1
        try:
            return await asyncio.shield(begun.work)
        finally:
            begun.waiting -= 1
            if not begun.waiting:
                del self._begun[key]
                if not begun.work.done():
                    begun.work.cancel()
                    await asyncio.wait([begun.work])
            # What failed has passed this frame. Did the frame hold the work in turn, which holds its error, both would stay,
            # and bodies in other frames with them, until the garbage collector runs.
            del begun
