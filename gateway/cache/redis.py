"""Answers that all gateways share, in Redis. What goes wrong there is counted, and seen by nobody else."""

import asyncio
import enum
import random
import re
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.cache.breaker import Breaker, Budget
from gateway.cache.connections import Command, Connections
from gateway.cache.record import Unreadable, pack, unpack
from gateway.cache.results import Address, Claim, Stored, StoreUnavailable
from gateway.cache.scripts import ALONE, CLAIM, FOLLOWING, LEADING, RELEASE, RENEW, SETTLE, Script

_Reply = TypeVar("_Reply")

_CLAIMS = {LEADING: Claim.LEADING, FOLLOWING: Claim.FOLLOWING, ALONE: Claim.ALONE}
_ALONE_FOR_S = 2.0
"""How long those who follow are told that the leader's answer was not to be kept: they ask several times in it."""
_SHORTEST_TTL = 0.9
"""Of what was asked for. What was stored in one minute is not forgotten in one."""
_PROBE_BUDGET_S = 1.0
_PAGE_BUDGET_S = 2.0
_FLUSH_BUDGET_S = 60.0
_PAGE_KEYS = 1000


class Failure(enum.StrEnum):
    """Why Redis did not do as it was told."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    REFUSED = "refused"
    """It said no: it is full, for one."""
    GARBAGE = "garbage"
    """What it said cannot be understood, or is not the answer that was asked for."""


class RedisResults:
    """The answers in the Redis at `url`, for as long as the block lasts.

    Each step may take Redis `budget_s`; an answer of more than `answer_limit_bytes` is not stored. `failed` is told of the
    operation and a `Failure` whenever there was one, and `opened`, whenever that changes, of whether Redis is left alone.
    `clock` gives seconds since 1970, `chance` numbers from 0 up to 1. Raises ValueError: the URL is none of Redis's;
    OSError: a file of certificates that it names cannot be read.
    """

    def __init__(
        self,
        url: str,
        budget_s: float,
        answer_limit_bytes: int,
        failed: Callable[[str, str], None],
        *,
        opened: Callable[[bool], object] = bool,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._connections = Connections(url)
        self._breaker = Breaker(opened)
        self._budget_s = budget_s
        self._answer_limit_bytes = answer_limit_bytes
        self._failed = failed
        self._clock = clock
        self._chance = chance

    async def __aenter__(self) -> Self:
        self._watch = asyncio.ensure_future(self._breaker.watch(self._is_well))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self._connections.close()

    @property
    def is_open(self) -> bool:
        """Whether the circuit breaker is open: Redis is left alone, and nothing is found or stored."""
        return self._breaker.is_open

    def at_hand(self, address: Address) -> Stored | None:  # noqa: ARG002  # Redis has to be asked
        """Nothing."""
        return None

    async def get(self, address: Address) -> Stored | None:
        """The answer, if it is there and Redis says so in time."""
        try:
            return await self._ask("get", (b"GET", _answer_key(address)), lambda reply: self._found(address, reply))
        except (StoreUnavailable, Unreadable):
            return None

    async def claim(self, address: Address, token: str, lease_s: float) -> Stored | Claim:
        """The answer, or else who computes it, in one round trip."""
        keys = (_answer_key(address), _flight_key(address))
        for passes_over in (0, 1):
            try:
                command = _call(CLAIM, keys, token, _ms(lease_s), passes_over)
                return await self._ask("claim", command, lambda reply: self._claimed(address, reply))
            except Unreadable:
                # Once more, as if nothing were stored: who computes it now stores what can be read.
                continue
            except StoreUnavailable:
                break
        return Claim.ALONE

    async def renew(self, address: Address, token: str, lease_s: float) -> None:
        """Goes on leading for `lease_s` from now, where `token` still leads."""
        await self._tell("renew", _call(RENEW, (_flight_key(address),), token, _ms(lease_s)))

    async def put(self, address: Address, stored: Stored, ttl_s: float) -> None:
        """Keeps the answer, for nine tenths of `ttl_s` up to all of it."""
        if len(stored.answer) <= self._answer_limit_bytes:
            record, ttl_ms = self._record(address, stored, ttl_s)
            await self._tell("put", (b"SET", _answer_key(address), record, b"PX", ttl_ms))

    async def settle(self, address: Address, token: str, stored: Stored | None, ttl_s: float) -> None:
        """Keeps the answer as `put` does, and lets go of the claim where `token` still leads, in one round trip."""
        record, ttl_ms = b"", 0
        if stored is not None and len(stored.answer) <= self._answer_limit_bytes:
            record, ttl_ms = self._record(address, stored, ttl_s)
        keys = (_answer_key(address), _flight_key(address))
        await self._tell("settle", _call(SETTLE, keys, token, record, ttl_ms, _ms(_ALONE_FOR_S)))

    async def release(self, address: Address, token: str) -> None:
        """Lets go of the claim where `token` still leads."""
        await self._tell("release", _call(RELEASE, (_flight_key(address),), token))

    async def flush(self, tenant: str | None, model: str | None) -> int:
        """Forgets the answers of this tenant and model, None being any, and says how many.

        Raises StoreUnavailable: not all of them are forgotten.
        """
        names = ("*" if name is None else _escaped(name) for name in (tenant, model))
        pattern = f"fovea:answer:{':'.join(names)}:*"
        deleted, cursor = 0, b"0"
        try:
            async with asyncio.timeout(_FLUSH_BUDGET_S):
                while True:
                    scan = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _PAGE_KEYS)
                    cursor, keys = await self._ask("flush", scan, _page, _PAGE_BUDGET_S)
                    if keys:
                        deleted += await self._ask("flush", (b"UNLINK", *keys), _number, _PAGE_BUDGET_S)
                    if cursor == b"0":
                        return deleted
        except TimeoutError as error:
            raise StoreUnavailable(f"Redis has more answers than can be forgotten in {_FLUSH_BUDGET_S:.0f} s") from error

    def _record(self, address: Address, stored: Stored, ttl_s: float) -> tuple[bytes, int]:
        """The bytes of an answer, and for how many milliseconds they are kept: no longer than it says itself."""
        left_s = min(ttl_s * (_SHORTEST_TTL + (1 - _SHORTEST_TTL) * self._chance()), stored.expires_at_s - self._clock())
        ttl_ms = _ms(left_s)
        expiring = Stored(stored.answer, stored.stored_at_s, self._clock() + ttl_ms / 1000)
        return pack(address, expiring), ttl_ms

    def _found(self, address: Address, reply: object) -> Stored | None:
        if reply is None:
            return None
        return self._unpacked(address, reply)

    def _claimed(self, address: Address, reply: object) -> Stored | Claim:
        if isinstance(reply, int) and reply in _CLAIMS:
            return _CLAIMS[reply]
        return self._unpacked(address, reply)

    def _unpacked(self, address: Address, reply: object) -> Stored:
        if not isinstance(reply, bytes):
            raise TypeError(f"{type(reply).__name__} is no answer")
        return unpack(address, reply, self._answer_limit_bytes)

    async def _tell(self, operation: str, command: Command) -> None:
        try:
            await self._ask(operation, command, _done)
        except StoreUnavailable:
            return

    async def _ask(
        self, operation: str, command: Command, read: Callable[[object], _Reply], budget_s: float | None = None
    ) -> _Reply:
        """What `read` makes of the reply.

        Raises Unreadable, where `read` does, and StoreUnavailable.
        """
        if self._breaker.is_open:
            raise StoreUnavailable("Redis is left alone for a moment")
        try:
            async with Budget(self._budget_s if budget_s is None else budget_s):
                reply = await self._once_known(command, read)
        except Unreadable:
            # Redis is well: it has this from somebody else.
            self._breaker.worked()
            self._failed(operation, Failure.GARBAGE)
            raise
        except Exception as error:  # noqa: BLE001  # of garbage, redis-py's parsers raise what comes
            failure = _failure(error)
            self._breaker.worked() if failure is Failure.REFUSED else self._breaker.failed(failure)
            self._failed(operation, failure)
            # Not from it: what Redis sent may be in there.
            raise StoreUnavailable(f"Redis: {failure}") from None
        self._breaker.worked()
        return reply

    async def _once_known(self, command: Command, read: Callable[[object], _Reply]) -> _Reply:
        """Sends a script's source where Redis does not know it by name: at first, and when it has been started again."""
        try:
            return await self._connections.ask(command, read)
        except NoScriptError:
            source = next(script.source for script in (CLAIM, RENEW, RELEASE, SETTLE) if script.name == command[1])
            return await self._connections.ask((b"EVAL", source, *command[2:]), read)

    async def _is_well(self) -> bool:
        """Whether Redis answers, to a write too; that it refuses one, as when it is full, is an answer.

        While a failover is prepared, Redis answers to a PING and lets writes wait.
        """
        # They may lead to one that is gone, and from which nobody will ever hear so.
        await self._connections.close_idle()
        try:
            async with Budget(_PROBE_BUDGET_S):
                await self._connections.ask((b"PING",), _pong)
                await self._connections.ask((b"SET", b"fovea:probe", b"", b"PX", 1000), _done)
        except ResponseError:
            return True
        except Exception:  # noqa: BLE001  # as in _ask
            return False
        return True


def _failure(error: Exception) -> Failure:
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return Failure.TIMEOUT
    if isinstance(error, RedisConnectionError | OSError):
        return Failure.CONNECTION
    return Failure.REFUSED if isinstance(error, ResponseError) else Failure.GARBAGE


def _answer_key(address: Address) -> str:
    return f"fovea:answer:{address.tenant}:{address.model}:{address.key.hex()}"


def _flight_key(address: Address) -> str:
    return f"fovea:flight:{address.tenant}:{address.model}:{address.key.hex()}"


def _call(script: Script, keys: tuple[str, ...], *arguments: bytes | str | int) -> Command:
    return (b"EVALSHA", script.name, len(keys), *keys, *arguments)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _escaped(name: str) -> str:
    """A name that stands for itself in a pattern of Redis's."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", name)


def _pong(reply: object) -> None:
    if reply != b"PONG":
        raise ValueError("that is no answer to PING")


def _done(reply: object) -> None:
    """What a write and a script reply."""
    if reply != b"OK" and not isinstance(reply, int):
        raise TypeError(f"{type(reply).__name__} is no answer to a write")


def _number(reply: object) -> int:
    if not isinstance(reply, int):
        raise TypeError(f"{type(reply).__name__} is no number")
    return reply


def _page(reply: object) -> tuple[bytes, list[bytes]]:
    """SCAN's: where to go on, and the keys so far."""
    match reply:
        case [bytes(cursor), list(keys)]:
            return cursor, list(_only_bytes(keys))
    raise TypeError("that is no page of keys")


def _only_bytes(keys: list[object]) -> Iterator[bytes]:
    for key in keys:
        if not isinstance(key, bytes):
            raise TypeError(f"{type(key).__name__} is no key")
        yield key
