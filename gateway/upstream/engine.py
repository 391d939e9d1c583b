"""What the pipeline needs of an engine."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import GatewayError


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """An engine's answer, of status 200: its media type and its bytes as they come.

    Reading `chunks` raises EngineFailed where the engine breaks off. `failure` gives the error that a document in the answer
    stands for, where that is one after all.
    """

    content_type: str
    chunks: AsyncIterator[bytes]
    failure: Callable[[bytes], GatewayError]


class Engine(Protocol):
    """The engines of every model that answers."""

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


class EmbeddingEngine(Protocol):
    """The engines of every model that makes embeddings."""

    def embed(
        self, model: str, body: Sequence[bytes | memoryview], headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[EngineAnswer]:
        """Sends a request for embeddings to an engine of `model`, the one with least to do; else as `Engine.complete`."""
        ...
