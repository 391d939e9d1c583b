"""Redis dies, stands still, is full, comes back empty or talks nonsense, and no request fails for it.

Before two gateways that keep nothing in their own memory, so that every hit comes from Redis, and with the usual 30 ms for each
question to it. Each test tells what was in flight, and prints what came of it.
"""

import asyncio
import contextlib
import hashlib
import itertools
import pathlib
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import redis

from tests.cache_clients import Caller, asked_together, question, running_gateways, waiting, words
from tests.conftest import PATIENCE_S, RunningGateway, free_port
from tests.fake_engine import FakeEngine, Gate, Speech, running_fake_engine
from tests.redis_server import RedisServer, running_redis
from tests.watching import AwakeClock, eventually, in_flight

CALLERS = 4
QUESTIONS = 12
ONE_IN_IS_NEW = 4
PHASE_S = 1.0
SLOWEST_S = 5.0

Gateways = tuple[RunningGateway, ...]


@pytest.fixture(scope="module")
def port() -> int:
    """Redis's, at which there is none but in the tests."""
    return free_port()


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[FakeEngine]:
    with running_fake_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def gateways(shared_engine: FakeEngine, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    settings = {"FOVEA_REDIS_URL": f"redis://127.0.0.1:{port}/0", "FOVEA_CACHE_MIB": "0"}
    with running_gateways(2, tmp_path_factory.mktemp("gateways"), shared_engine.url, **settings) as running:
        yield running


@pytest.fixture
def engine(shared_engine: FakeEngine) -> FakeEngine:
    """One whose answers are a function of the question."""
    shared_engine.reset()
    shared_engine.answer = Speech(shared_engine, right_tokens)
    return shared_engine


@pytest.fixture(scope="module")
def http_client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def callers(gateways: Gateways, http_client: httpx.Client, engine: FakeEngine) -> list[Caller]:
    return [Caller(http_client, gateway) for gateway in gateways]


@pytest.fixture
def server(port: int, callers: list[Caller], tmp_path: pathlib.Path) -> Iterator[RedisServer]:
    """A Redis that both gateways have found."""
    with running_redis(tmp_path, port=port) as running:
        assert works_again(callers)
        yield running


def right_tokens(document: dict[str, Any]) -> list[str]:
    digest = hashlib.sha256(words(document).encode()).hexdigest()
    return [digest[:20], digest[20:]]


def works_again(callers: list[Caller]) -> bool:
    """Whether the gateways come to use Redis by themselves: what one has asked the other knows, and no breaker is open."""

    def works() -> bool:
        document = question()
        found = [caller.ask(document).cache for caller in callers]
        return found[1:] == ["hit"] * (len(callers) - 1) and breakers_open(callers) == 0

    return eventually(works)


def breakers_open(callers: list[Caller]) -> float:
    return sum(caller.gateway.metric("fovea_cache_breaker_open") for caller in callers)


def failures(callers: list[Caller]) -> float:
    """Questions to Redis that failed so far."""
    rows = (
        row for caller in callers for row in httpx.get(f"{caller.gateway.url}/metrics", timeout=PATIENCE_S).text.splitlines()
    )
    return sum(float(row.split()[-1]) for row in rows if row.startswith("fovea_cache_store_failures_total{"))


# ---------------------------------------------------------------------------------------------------------------------
# Load


@dataclass
class Load:
    """Callers who ask without a pause, three of four times something that was asked before; what came of it in each phase."""

    callers: list[Caller]
    phase: str = "before"
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    clock: AwakeClock = field(default_factory=AwakeClock)
    has_ended: threading.Event = field(default_factory=threading.Event)

    def ask_on(self, seed: int, known: list[dict[str, Any]]) -> None:
        dice = random.Random(seed)
        for number in itertools.count():
            if self.has_ended.is_set():
                return
            document = question() if number % ONE_IN_IS_NEW == 0 else dice.choice(known)
            self._ask(dice.choice(self.callers), document | {"stream": dice.random() < 0.5})

    def _ask(self, caller: Caller, document: dict[str, Any]) -> None:
        phase, started_s = self.phase, self.clock.now_s
        outcome = "failed"
        try:
            said = caller.ask(document)
            outcome = said.cache if said.status == 200 else f"failed {said.status}"
            if said.status != 200 or said.text != "".join(right_tokens(document)) or not said.is_done:
                self.wrong.append(f"{phase}: {outcome}: {said.error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed request
            self.wrong.append(f"{phase}: {error!r}")
        self.slowest_s = max(self.slowest_s, self.clock.now_s - started_s)
        self.outcomes.setdefault(phase, Counter())[outcome] += 1

    def hits(self, phase: str) -> int:
        return self.outcomes.get(phase, Counter())["hit"]

    def goes_on(self, phase: str, seconds: float = PHASE_S, until: Callable[[], bool] = lambda: True) -> None:
        """A machine may stand still for all of `seconds`, in which nobody asks anything: what has to be seen is waited for."""
        self.begins(phase)
        time.sleep(seconds)
        assert eventually(until)

    def begins(self, phase: str) -> None:
        """The next phase, once somebody has asked in the one before."""
        if phase != self.phase:
            self.ends()
            self.phase = phase

    def ends(self) -> None:
        """Returns once more have been answered who asked in this phase than may have been asking when it began."""
        assert eventually(lambda: self.outcomes.get(self.phase, Counter()).total() > CALLERS)


@contextlib.contextmanager
def under_load(callers: list[Caller]) -> Iterator[Load]:
    """Load until the end of the block, after which answers are found again; none has failed, was wrong, or took for ever."""
    load = Load(callers)
    known = [question() for _ in range(QUESTIONS)]
    with load.clock, ThreadPoolExecutor(CALLERS) as threads:
        try:
            for seed in range(CALLERS):
                threads.submit(load.ask_on, seed, known)
            load.goes_on("before", until=lambda: load.hits("before") > 0)
            yield load
            load.goes_on("after", until=lambda: load.hits("after") > 0)
            load.ends()
        finally:
            load.has_ended.set()
    print({phase: dict(counts) for phase, counts in load.outcomes.items()}, f"slowest {load.slowest_s:.2f} s")
    assert load.wrong == []
    assert load.slowest_s < SLOWEST_S


def test_redis_is_killed(server: RedisServer, callers: list[Caller], port: int, tmp_path: pathlib.Path) -> None:
    """In flight: four requests at any time, half of them streams, most of them about to be found in Redis."""
    failed = failures(callers)
    with contextlib.ExitStack() as later, under_load(callers) as load:
        server.process.kill()
        load.goes_on("without")
        assert eventually(lambda: breakers_open(callers) == len(callers))
        assert failures(callers) > failed
        load.begins("again")
        later.enter_context(running_redis(tmp_path, port=port))
        assert works_again(callers)
    assert load.outcomes["without"]["miss"] > 0


def test_redis_stands_still(server: RedisServer, callers: list[Caller]) -> None:
    """In flight: as above. Connections stay open, and nobody answers on them: each question takes its 30 ms and no more."""
    with under_load(callers) as load:
        server.process.send_signal(signal.SIGSTOP)
        load.goes_on("paused")
        assert eventually(lambda: breakers_open(callers) == len(callers))
        load.goes_on("paused")
        load.begins("again")
        server.process.send_signal(signal.SIGCONT)
        assert works_again(callers)
    assert load.outcomes["paused"]["miss"] > 0


def test_redis_stutters(server: RedisServer, callers: list[Caller]) -> None:
    """In flight: as above. Whatever was asked is answered too late, when nobody waits for it any more, or just in time."""
    with under_load(callers) as load:
        for pause_s in (0.02, 0.03, 0.04, 0.06) * 10:
            server.process.send_signal(signal.SIGSTOP)
            load.goes_on("stutters", pause_s)
            server.process.send_signal(signal.SIGCONT)
            load.goes_on("stutters", 0.03)
        load.begins("again")
        assert works_again(callers)


def test_redis_is_full(server: RedisServer, callers: list[Caller]) -> None:
    """In flight: as above. Nothing can be written, to the end of the fault."""
    with redis.Redis(port=server.port) as admin, under_load(callers) as load:
        load.begins("full")
        fill(admin)
        load.goes_on("full")
        document = question()
        assert {callers[0].ask(document).status for _ in range(3)} == {200}
        load.begins("again")
        admin.config_set("maxmemory", 0)
        assert works_again(callers)
    assert load.outcomes["full"]["miss"] > 0


def fill(admin: redis.Redis) -> None:
    """Leaves no room, and lets nothing go."""
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("maxmemory", int(admin.info("memory")["used_memory"]) + 1_000_000)
    for size in (50_000, 0):
        with contextlib.suppress(redis.OutOfMemoryError):
            for number in itertools.count():
                admin.set(f"{size}:{number}", bytes(size))


def test_redis_comes_back_empty(
    server: RedisServer, callers: list[Caller], port: int, engine: FakeEngine, tmp_path: pathlib.Path
) -> None:
    """In flight: as above, over connections that are cut; what had been known is asked of an engine again."""
    document = question()
    callers[0].ask(document)
    with contextlib.ExitStack() as later, under_load(callers) as load:
        load.begins("without")
        server.process.kill()
        server.process.wait()
        later.enter_context(running_redis(tmp_path, port=port))
        assert works_again(callers)
        assert callers[0].ask(document).cache == "miss"
        # Not always at once: what a busy Redis did not take in its 30 ms is asked for again.
        assert eventually(lambda: callers[1].ask(document).cache == "hit")
    assert engine.calls(words(document)) >= 2


# ---------------------------------------------------------------------------------------------------------------------
# Nonsense


def of_noise(asked: bytes) -> bytes:
    return random.Random(len(asked)).randbytes(300)


NONSENSE: dict[str, Callable[[bytes], bytes]] = {
    "noise": of_noise,
    "another protocol": lambda _: b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
    "a promise that is not kept": lambda _: b"$536870912\r\n",
    "one word for everything": lambda asked: b"+OK\r\n" * max(1, asked.count(b"*")),
    "numbers": lambda asked: b":1\r\n" * max(1, asked.count(b"*")),
    "nothing at all": lambda _: b"",
    "too much": lambda _: b"$5\r\nhello\r\n" * 1000,
    "deep nests": lambda _: b"*1\r\n" * 5000,
}


@contextlib.contextmanager
def impostor(port: int, answer: Callable[[bytes], bytes]) -> Iterator[None]:
    """Sits where Redis was, and answers as it likes; who gets nothing has the connection closed."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while asked := connection.recv(65536):
                said = answer(asked)
                if not said:
                    return
                connection.sendall(said)

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", port)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield
        server.shutdown(socket.SHUT_RDWR)


def test_redis_talks_nonsense(server: RedisServer, callers: list[Caller], port: int, tmp_path: pathlib.Path) -> None:
    """In flight: as above, through eight kinds of nonsense one after another, on old and on new connections."""
    with contextlib.ExitStack() as later, under_load(callers) as load:
        server.process.kill()
        server.process.wait()
        for kind, answer in NONSENSE.items():
            with impostor(port, answer):
                load.goes_on(kind, 0.7)
        load.begins("again")
        later.enter_context(running_redis(tmp_path, port=port))
        assert works_again(callers)
    assert load.outcomes.keys() >= NONSENSE.keys()
    assert not any(load.outcomes[kind]["hit"] for kind in NONSENSE)


def cut_short(value: bytes) -> bytes:
    return value[: len(value) // 2]


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "noise": of_noise,
    "half of it": cut_short,
    "more than it": lambda value: value + value,
    "without its first byte": lambda value: value[1:],
    "other JSON": lambda _: b"[1, 2]",
    "null": lambda _: b"null",
    "a number": lambda _: b"17",
}


def until_settled(admin: "redis.Redis") -> None:
    """Waits until Redis has what was answered: its caller has it a moment earlier."""
    assert eventually(lambda: not admin.keys("fovea:flight:*"))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_what_is_no_answer_of_ours_is_not_given(
    server: RedisServer, callers: list[Caller], engine: FakeEngine, spoil: Callable[[bytes], bytes], *, stream: bool
) -> None:
    """In flight: one request, for which Redis has something that the gateway did not put there."""
    document = question(stream=stream)
    right = callers[0].ask(document)
    with redis.Redis(port=server.port) as admin:
        until_settled(admin)
        for key in admin.keys("fovea:answer:*"):
            admin.set(key, spoil(admin.get(key) or b""), keepttl=True)
    assert [caller.ask(document).substance for caller in callers] == [right.substance] * 2
    assert engine.calls(words(document)) >= 2


def test_what_is_of_another_type_is_not_given(server: RedisServer, callers: list[Caller], engine: FakeEngine) -> None:
    """In flight: as above; the key holds a list."""
    document = question()
    right = callers[0].ask(document)
    with redis.Redis(port=server.port) as admin:
        until_settled(admin)
        for key in admin.keys("fovea:answer:*"):
            admin.delete(key)
            admin.rpush(key, "a", "b")
    assert [caller.ask(document).substance for caller in callers] == [right.substance] * 2
    assert engine.calls(words(document)) >= 2


def test_another_question_s_answer_is_not_given(server: RedisServer, callers: list[Caller], engine: FakeEngine) -> None:
    """In flight: as above; two answers have changed places."""
    documents = [question() for _ in range(2)]
    right = [callers[0].ask(document).substance for document in documents]
    with redis.Redis(port=server.port) as admin:
        until_settled(admin)
        one, other, *_ = sorted(admin.keys("fovea:answer:*"), key=admin.ttl, reverse=True)
        admin.delete(*(key for key in admin.keys("fovea:answer:*") if key not in {one, other}))
        first, second = admin.get(one), admin.get(other)
        assert first is not None
        assert second is not None
        admin.mset({one: second, other: first})
    for caller in callers:
        assert [caller.ask(document).substance for document in documents] == right


# ---------------------------------------------------------------------------------------------------------------------
# While somebody waits


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "paused"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_those_who_wait_for_another_gateway_are_answered_without_redis(
    server: RedisServer,
    callers: list[Caller],
    gateways: Gateways,
    engine: FakeEngine,
    fault: signal.Signals,
    *,
    stream: bool,
) -> None:
    """In flight: twenty that wait for one answer, ten of them for a gateway that cannot tell them any more."""
    gate = Gate()
    engine.answer = Speech(engine, right_tokens, gate=gate)
    document = question(stream=stream)
    with ThreadPoolExecutor(1) as beside:
        try:
            asking = beside.submit(lambda: asyncio.run(asked_together(gateways, [document] * 20)))
            assert eventually(lambda: sum(map(in_flight, gateways)) == 20)
            server.process.send_signal(fault)
            time.sleep(0.5)
        finally:
            gate.open()
        answers = asking.result(PATIENCE_S)
    print(Counter(answer.cache for answer in answers))
    assert {(answer.status, answer.text) for answer in answers} == {(200, "".join(right_tokens(document)))}
    assert engine.calls(words(document)) <= 2


def test_what_redis_hears_too_late_holds_up_nobody(server: RedisServer, callers: list[Caller], engine: FakeEngine) -> None:
    """In flight: nothing any more. What the first gateway had said and given up on, Redis reads once it goes on."""
    engine.answer = Speech(engine, right_tokens, ["length"])
    document = question()
    server.process.send_signal(signal.SIGSTOP)
    assert callers[0].ask(document).status == 200
    server.process.send_signal(signal.SIGCONT)
    engine.answer = Speech(engine, right_tokens)
    assert works_again(callers)
    said = callers[1].ask(document, x_request_timeout_seconds="8")
    assert (said.status, said.error) == (200, None)


def test_who_leaves_without_redis_leaves_nothing(
    server: RedisServer, callers: list[Caller], gateways: Gateways, engine: FakeEngine
) -> None:
    """In flight: one request at each gateway, whose callers go away while Redis stands still."""
    gate = Gate()
    engine.answer = Speech(engine, right_tokens, gate=gate)
    document = question()
    with contextlib.ExitStack() as stack:
        for gateway in gateways:
            stack.enter_context(waiting(gateway, document))
        assert eventually(lambda: sum(map(in_flight, gateways)) == len(gateways))
        server.process.send_signal(signal.SIGSTOP)
    try:
        assert eventually(lambda: sum(map(in_flight, gateways)) == 0)
        assert eventually(lambda: engine.running == 0)
    finally:
        gate.open()
        server.process.send_signal(signal.SIGCONT)
    assert works_again(callers)


# ---------------------------------------------------------------------------------------------------------------------
# Without Redis from the start


def test_gateways_that_find_no_redis_answer_and_find_it_once_it_is_there(
    callers: list[Caller], port: int, tmp_path: pathlib.Path
) -> None:
    """In flight: four at any time, before there is a Redis, and after."""
    assert {caller.ask(question()).cache for caller in callers * 3} == {"miss"}
    with running_redis(tmp_path, port=port):
        assert works_again(callers)


def test_a_redis_that_lets_nobody_in_is_as_none(callers: list[Caller], port: int, tmp_path: pathlib.Path) -> None:
    """In flight: one at a time, to each of which Redis says that it wants a password."""
    before = failures(callers)
    with running_redis(tmp_path, "--requirepass", "secret", port=port):
        document = question()
        assert {caller.ask(document).status for caller in callers * 5} == {200}
    assert failures(callers) > before


def test_a_flush_that_does_not_reach_redis_says_so(callers: list[Caller]) -> None:
    """In flight: the flush."""
    answer = callers[0].flush()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "cache_unavailable")
