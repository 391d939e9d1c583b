"""Which models can answer, as far as their engines tell: asked every few seconds, beside the requests."""

import asyncio
import enum
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

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


class ModelHealth:
    """The state of one model, and how long an outage of it lasts.

    `clock` gives seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = State.UNKNOWN
        self._clock = clock
        self._down_since_s: float | None = None
        self._expected_outage_s = EXPECTED_OUTAGE_S
        self._silences = 0

    def answered(self) -> None:
        """An engine answered its health check."""
        if self._down_since_s is not None:
            self._expected_outage_s = max(self._clock() - self._down_since_s, _SOON_S)
        self._down_since_s = None
        self.state = State.AVAILABLE

        self._silences = 0

    def failed(self) -> None:
        """An engine said that it is not well, or there was none to ask."""
        if self._down_since_s is None:
            self._down_since_s = self._clock()
        self.state = State.UNAVAILABLE

    def sent_something(self) -> None:
        """Bytes of an answer came: whoever is late with a health check, and sends, is busy."""
        self._silences = 0

    def was_silent(self) -> None:
        """No engine answered in time. A busy one may be late, so only several silences with nothing between mean it is gone."""
        self._silences += 1
        if self._silences >= _SILENCES:
            self.failed()

    @property
    def retry_after_s(self) -> int:
        """When it makes sense to try again: what is left of an outage as long as the last one, and soon once that is over."""
        since_s = 0.0 if self._down_since_s is None else self._clock() - self._down_since_s
        return max(_SOON_S, math.ceil(self._expected_outage_s - since_s))


class HealthProbe:
    """Asks each model's engines at `urls` for their health, for as long as it runs."""

    def __init__(self, urls: Mapping[str, str], api_key: str | None) -> None:
        self._urls = urls
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client: httpx.AsyncClient | None = None
        self.models = {name: ModelHealth() for name in urls}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Probes until the end of the block."""
        async with httpx.AsyncClient(timeout=PROBE_TIMEOUT_S, headers=self._headers, trust_env=False) as client:
            self._client = client
            probes = [asyncio.ensure_future(self._go_on_probing(name)) for name in self._urls]
            try:
                yield
            finally:
                for probe in probes:
                    probe.cancel()
                await asyncio.gather(*probes, return_exceptions=True)

    async def probe(self, name: str) -> State:
        """Asks the model's engines now."""
        assert self._client is not None, "used while it does not run"
        model = self.models[name]
        before = model.state
        try:
            # vLLM's own: 200 while its engine core lives. It takes no place in any queue of generations.
            response = await self._client.get(f"{self._urls[name].rstrip('/')}/health")
        except httpx.TimeoutException:
            model.was_silent()
        except httpx.HTTPError:
            model.failed()
        else:
            model.answered() if response.status_code == httpx.codes.OK else model.failed()
        if model.state != before:
            log_event("model_state", model=name, state=model.state)
        return model.state

    async def _go_on_probing(self, name: str) -> None:
        while True:
            await self.probe(name)
            await asyncio.sleep(PROBE_EVERY_S)
