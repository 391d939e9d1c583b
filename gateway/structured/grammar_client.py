"""Asks the process that compiles as the engines do (`python -m deploy.grammar`) whether a constraint may go to one.

What it says is kept, so that it is asked once for each constraint. While it is away nobody waits for it, and what the gateway
itself knows of a constraint decides alone.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Final, Protocol, Self

import httpx
import orjson
from blake3 import blake3

PATH: Final = "/v1/grammars"

_AT_MOST_S = 12.0
"""What one question may take: the process gives a constraint 8 s, and one more to be tried out, after 2.5 in its queue."""
_LEFT_ALONE_S = 1.0
_KEPT = 4096
_KEPT_S = 3600.0
"""A verdict here outlives the engines it was about, at most by so much."""
_CONNECTIONS = 16
_ANSWER_BYTES = 16 * 1024
_REASON_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer is to be: `kind` is `json_schema`, `regex`, `grammar` or `choice`, and `text` as an engine gets it."""

    kind: str
    text: str

    @property
    def digest(self) -> bytes:
        """32 bytes that name it."""
        # No kind has a NUL, so no two constraints are the same bytes.
        return blake3(f"{self.kind}\0{self.text}".encode("utf-8", "surrogatepass")).digest()


class Asked(StrEnum):
    """What came of a question."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


class VerdictStore(Protocol):
    """Where gateways share what they were told. It may forget, and what it gives back may be anything."""

    async def get(self, model: str, digest: bytes) -> bytes | None:
        """What was put there, if it is still kept."""
        ...

    async def put(self, model: str, digest: bytes, verdict: bytes) -> None:
        """Keeps it, if that is possible."""
        ...


@dataclass(frozen=True, slots=True)
class _Verdict:
    """`refusal` is why the constraint is not accepted; None where it is."""

    refusal: str | None


class _Unavailable(Exception):
    """Nothing was said of the constraint."""


class GrammarClient:
    """Asks at `url`, and nobody where that is None; an async context manager.

    `count` is told of what came of each question, as `Asked` names it. One may take `at_most_s`, and `keep` verdicts are kept.
    `clock` gives seconds that only grow.
    """

    def __init__(
        self,
        url: str | None,
        store: VerdictStore,
        count: Callable[[str], object],
        *,
        at_most_s: float = _AT_MOST_S,
        keep: int = _KEPT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = None if url is None else url.rstrip("/") + PATH
        self._store = store
        self._count = count
        self._at_most_s = at_most_s
        self._keep_at_most = keep
        self._clock = clock
        self._left_alone_until_s = 0.0
        self._kept: OrderedDict[tuple[str, bytes], tuple[_Verdict, float]] = OrderedDict()
        self._under_way: dict[tuple[str, bytes], asyncio.Task[_Verdict | None]] = {}

    async def __aenter__(self) -> Self:
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        self._client = httpx.AsyncClient(limits=limits, timeout=self._at_most_s, trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asking = list(self._under_way.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await self._client.aclose()

    async def verdict(self, model: str, constraint: Constraint) -> str | None:
        """Why the constraint may not go to an engine of `model`; None where it may, or nobody could be asked."""
        if self._url is None:
            return None
        key = (model, constraint.digest)
        found = self._at_hand(key)
        if found is None:
            task = self._under_way.get(key)
            if task is None:
                task = self._under_way[key] = asyncio.ensure_future(self._find(key, self._url, constraint))
                task.add_done_callback(lambda _: self._under_way.pop(key))
            # Who leaves takes nothing from the others, or from the next: it is over within seconds.
            found = await asyncio.shield(task)
        return None if found is None else found.refusal

    def _at_hand(self, key: tuple[str, bytes]) -> _Verdict | None:
        verdict, until_s = self._kept.get(key, (None, 0.0))
        if verdict is None or until_s <= self._clock():
            return None
        self._kept.move_to_end(key)
        return verdict

    def _keep(self, key: tuple[str, bytes], verdict: _Verdict) -> None:
        self._kept[key] = (verdict, self._clock() + _KEPT_S)
        self._kept.move_to_end(key)
        if len(self._kept) > self._keep_at_most:
            self._kept.popitem(last=False)

    async def _find(self, key: tuple[str, bytes], url: str, constraint: Constraint) -> _Verdict | None:
        model, digest = key
        stored = await self._store.get(model, digest)
        verdict = None if stored is None else _read(stored)
        if verdict is None:
            verdict = await self._asked(url, model, constraint)
            if verdict is None:
                return None
            await self._store.put(model, digest, _written(verdict))
        self._keep(key, verdict)
        return verdict

    async def _asked(self, url: str, model: str, constraint: Constraint) -> _Verdict | None:
        """What the process says, counted; None where it says nothing of use."""
        try:
            if self._clock() < self._left_alone_until_s:
                raise _Unavailable
            verdict = await self._told(url, model, constraint)
        except _Unavailable:
            self._count(Asked.UNAVAILABLE)
            return None
        self._count(Asked.ACCEPTED if verdict.refusal is None else Asked.REFUSED)
        return verdict

    async def _told(self, url: str, model: str, constraint: Constraint) -> _Verdict:
        try:
            body = orjson.dumps({"model": model, "kind": constraint.kind, "text": constraint.text})
            async with asyncio.timeout(self._at_most_s):
                verdict = _read(await self._answer(url, body))
        except (httpx.HTTPError, TimeoutError, TypeError, ValueError) as error:
            verdict = None
            cause: Exception | None = error
        else:
            cause = None
        if verdict is None:
            self._left_alone_until_s = self._clock() + _LEFT_ALONE_S
            raise _Unavailable from cause
        return verdict

    async def _answer(self, url: str, body: bytes) -> bytes:
        """The body of an answer of status 200.

        Raises httpx.HTTPError, ValueError; _Unavailable: it is well, and cannot say anything of this one.
        """
        async with self._client.stream("POST", url, content=body, headers={"content-type": "application/json"}) as response:
            if response.is_client_error:
                raise _Unavailable
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"status {response.status_code}")
            answer = bytearray()
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > _ANSWER_BYTES:
                    raise ValueError("too long for a verdict")
            return bytes(answer)


def _written(verdict: _Verdict) -> bytes:
    return orjson.dumps({"accepted": verdict.refusal is None, "reason": verdict.refusal})


def _read(document: bytes) -> _Verdict | None:
    """The verdict in a document; None where there is none."""
    try:
        said = orjson.loads(document)
    except orjson.JSONDecodeError:
        return None
    match said:
        case {"accepted": True}:
            return _Verdict(None)
        case {"accepted": False, "reason": str(reason)} if reason:
            return _Verdict(reason[:_REASON_CHARACTERS])
        case _:
            return None
