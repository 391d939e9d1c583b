"""What the pipeline needs of an engine."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """An engine's answer, of status 200: its media type and its bytes as they come.

    Reading `chunks` raises EngineFailed where the engine breaks off.
    """

    content_type: str
    chunks: AsyncIterator[bytes]


class Engine(Protocol):
    """The engines of every model."""

    def complete(
        self, model: str, body: Sequence[bytes | memoryview], headers: Mapping[str, str], session: str | None = None
    ) -> AbstractAsyncContextManager[EngineAnswer]:
        """Sends a chat completion request to an engine of `model`; leaving the context ends the request there.

        `body` is its parts in order. `headers` are all that the engine gets of the gateway's own: the request's id, and the
        trace it belongs to. Requests of one `session`, some printable ASCII, meet the same engine where that can be; one
        without goes where there is least to do.

        Raises EngineRefused, EngineUnavailable, EngineFailed.
        """
        ...
