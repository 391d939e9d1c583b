"""The engine behind a name: one of ours, or a provider."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from gateway.upstream.engine import Engine, EngineAnswer


@dataclass(frozen=True, slots=True, eq=False)
class Dispatch:
    """Every model's engine: `theirs` for those named in `providers`, `ours` for all others."""

    ours: Engine
    theirs: Engine
    providers: Collection[str]

    def complete(
        self, model: str, body: Sequence[bytes | memoryview], headers: Mapping[str, str], session: str | None = None
    ) -> AbstractAsyncContextManager[EngineAnswer]:
        """See `Engine.complete`."""
        engine = self.theirs if model in self.providers else self.ours
        return engine.complete(model, body, headers, session)
