"""Which models can answer, as far as their engines tell: asked every few seconds, beside the requests."""

import asyncio
import enum
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from gateway.telemetry.logs import log_event

PROBE_EVERY_S = 2.0
PROBE_TIMEOUT_S = 5.0
EXPECTED_OUTAGE_S = 60.0
"""How long an engine takes to come back, until one has been seen to. Small models take this long, large ones more."""

_SOON_S = 5
_SILENCES = 3


class State(enum.StrEnum):
    """What is known of a model's engines."""

    UNKNOWN = "unknown"
    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"


class EngineHealth:
    """The state of what answers for a model at `url`, an engine or a proxy before several, and how long an outage of it lasts.

    `clock` gives seconds that only grow.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url.rstrip("/")
        self.state = State.UNKNOWN
        self._clock = clock
        self._down_since_s: float | None = None
        self._expected_outage_s = EXPECTED_OUTAGE_S
        self._silences = 0
        self._broke_off_s = -math.inf
        self._waiting: set[asyncio.Timeout] = set()

    def while_somebody_is_there(self) -> AbstractAsyncContextManager[None]:
        """Ends the block with TimeoutError once nobody answers there any more: it would wait for a replica's start."""
        return _Waiting(self._waiting)

    def answered(self) -> None:
        """An engine answered its health check."""
        if self._down_since_s is not None and self._clock() - self._down_since_s > _SOON_S:
            self._expected_outage_s = self._clock() - self._down_since_s
        self._down_since_s = None
        self.state = State.AVAILABLE
        self._silences = 0

    def failed(self) -> None:
        """An engine said that it is not well, or there was none to ask.

        Whoever waits goes on: of several replicas it may have been another, and an engine that dies tells its own callers.
        """
        if self._down_since_s is None:
            self._down_since_s = self._clock()
        self.state = State.UNAVAILABLE

    def sent_something(self) -> None:
        """Bytes of an answer came: whoever is late with a health check, and sends, is busy."""
        self._silences = 0

    def broke_off(self) -> None:
        """An answer broke off: whoever is silent from now on is not late but gone."""
        self._silences = _SILENCES - 1
        self._broke_off_s = self._clock()

    def was_silent(self, asked_s: float) -> None:
        """No engine answered what was asked at `asked_s`, or not in time.

        A busy one may be late: only several silences in a row mean that nobody is there.
        """
        if asked_s < self._broke_off_s:
            return
        self._silences += 1
        if self._silences >= _SILENCES:
            self.failed()
            while self._waiting:
                self._waiting.pop().reschedule(asyncio.get_running_loop().time())

    @property
    def now_s(self) -> float:
        """The time by this engine's clock."""
        return self._clock()

    @property
    def retry_after_s(self) -> int:
        """When it makes sense to try again: what is left of an outage as long as the last one, and soon once that is over."""
        since_s = 0.0 if self._down_since_s is None else self._clock() - self._down_since_s
        return max(_SOON_S, math.ceil(self._expected_outage_s - since_s))


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """The state of one model: available while one of its engines is."""

    engines: tuple[EngineHealth, ...]

    @property
    def state(self) -> State:
        if len(self.engines) == 1:  # as most have, and each choice asks
            return self.engines[0].state
        states = {engine.state for engine in self.engines}
        return next((state for state in (State.AVAILABLE, State.UNKNOWN) if state in states), State.UNAVAILABLE)

    @property
    def retry_after_s(self) -> int:
        """When it makes sense to try again: soon, if there is another engine for that."""
        if len(self.engines) > 1 and self.state != State.UNAVAILABLE:
            return _SOON_S
        return min(engine.retry_after_s for engine in self.engines)


class _Waiting:
    """A block that can be ended, for as long as it runs, by whoever finds its timeout among those that wait."""

    def __init__(self, all_that_wait: set[asyncio.Timeout]) -> None:
        self._all = all_that_wait
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._all.add(self._timeout)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._all.discard(self._timeout)
        await self._timeout.__aexit__(kind, error, traceback)


class HealthProbe:
    """Asks each model's engines, at each of its `urls`, for their health, for as long as it runs."""

    def __init__(self, urls: Mapping[str, Sequence[str]], api_key: str | None) -> None:
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client: httpx.AsyncClient | None = None
        self._asking: dict[EngineHealth, asyncio.Future[State]] = {}
        self.models = {name: ModelHealth(tuple(EngineHealth(url) for url in of_model)) for name, of_model in urls.items()}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Probes until the end of the block."""
        async with httpx.AsyncClient(timeout=PROBE_TIMEOUT_S, headers=self._headers, trust_env=False) as client:
            self._client = client
            probes = [
                asyncio.ensure_future(self._go_on_probing(name, engine))
                for name, model in self.models.items()
                for engine in model.engines
            ]
            try:
                yield
            finally:
                tasks: list[asyncio.Future[Any]] = [*probes, *self._asking.values()]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def probe(self, name: str, engine: EngineHealth) -> State:
        """Asks an engine of the model now; who comes while somebody asks shares the answer."""
        asking = self._asking.get(engine)
        if asking is None:
            asking = self._asking[engine] = asyncio.ensure_future(self._ask(name, engine))
            asking.add_done_callback(lambda _: self._asking.pop(engine))
        return await asyncio.shield(asking)

    async def _ask(self, name: str, engine: EngineHealth) -> State:
        assert self._client is not None, "used while it does not run"
        model = self.models[name]
        before, engine_before, asked_s = model.state, engine.state, engine.now_s
        try:
            # vLLM's own: 200 while its engine core lives. It takes no place in any queue of generations.
            response = await self._client.get(f"{engine.url}/health")
        except httpx.ConnectError:
            engine.failed()
        except httpx.HTTPError:
            # Late, or on a connection of a HAProxy that is being replaced.
            engine.was_silent(asked_s)
        else:
            engine.answered() if _is_well(response) else engine.failed()
        if len(model.engines) > 1 and engine.state != engine_before:
            log_event("engine_state", model=name, engine=_without_password(engine.url), state=engine.state)
        if model.state != before:
            log_event("model_state", model=name, state=model.state)
        return engine.state

    async def _go_on_probing(self, name: str, engine: EngineHealth) -> None:
        while True:
            await self.probe(name, engine)
            await asyncio.sleep(PROBE_EVERY_S)


def _without_password(url: str) -> str:
    return str(httpx.URL(url).copy_with(username="", password=""))


def _is_well(response: httpx.Response) -> bool:
    """Whether an engine lives. vLLM says that it does not with an empty 503; one with words is Serve's, whose queue is full."""
    is_busy = response.status_code == httpx.codes.SERVICE_UNAVAILABLE and bool(response.content)
    return is_busy or response.status_code == httpx.codes.OK
