"""What the gateway makes of the process that compiles constraints, however that behaves."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.structured.grammar_client import Constraint, GrammarClient
from tests.conftest import free_port

NAME = Constraint("json_schema", '{"type": "string"}')
NUMBER = Constraint("json_schema", '{"type": "number"}')


def answer(document: object, status: str = "200 OK") -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


ACCEPTED = answer({"accepted": True, "reason": None, "seconds": 0.01})
REFUSED = answer({"accepted": False, "reason": "took more than 2 s", "seconds": 2.0})


class FakeProcess:
    """Answers every question with `said`, after `delay_s`; `asked` are the questions."""

    def __init__(self, said: bytes, delay_s: float = 0.0) -> None:
        self.said = said
        self.delay_s = delay_s
        self.asked: list[dict[str, str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                assert head.startswith("post /v1/grammars http/1.1")
                self.asked.append(json.loads(await reader.readexactly(length)))
                await asyncio.sleep(self.delay_s)
                writer.write(self.said)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Shelf:
    """A store of verdicts; `kept` is what it gives back."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, bytes], bytes] = {}

    async def get(self, model: str, digest: bytes) -> bytes | None:
        return self.kept.get((model, digest))

    async def put(self, model: str, digest: bytes, verdict: bytes) -> None:
        self.kept[model, digest] = verdict


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Asking:
    """A client of a fake process, and all that it is told and tells."""

    def __init__(self, fake: FakeProcess, port: int, at_most_s: float = 3.0) -> None:
        self.fake = fake
        self.shelf = Shelf()
        self.counted: Counter[str] = Counter()
        self.clock = Clock()
        self._url = f"http://127.0.0.1:{port}"
        self._at_most_s = at_most_s

    def client(self, keep: int = 100) -> GrammarClient:
        return GrammarClient(self._url, self.shelf, self._count, at_most_s=self._at_most_s, keep=keep, clock=self.clock)

    def _count(self, result: str) -> None:
        self.counted[result] += 1


@asynccontextmanager
async def asking(fake: FakeProcess, at_most_s: float = 3.0) -> AsyncIterator[Asking]:
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    async with server:
        yield Asking(fake, server.sockets[0].getsockname()[1], at_most_s)


def test_what_compiles_is_accepted_and_asked_about_once() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(ACCEPTED)) as at, at.client() as client:
            assert [await client.verdict("small", NAME) for _ in range(5)] == [None] * 5
            assert at.fake.asked == [{"model": "small", "kind": "json_schema", "text": NAME.text}]
            assert at.counted == {"accepted": 1}

    asyncio.run(ask())


def test_what_does_not_compile_is_refused_with_the_reason_every_time() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(REFUSED)) as at, at.client() as client:
            assert [await client.verdict("small", NAME) for _ in range(3)] == ["took more than 2 s"] * 3
            assert at.counted == {"refused": 1}

    asyncio.run(ask())


def test_another_text_kind_or_model_is_another_question() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(ACCEPTED)) as at, at.client() as client:
            await client.verdict("small", NAME)
            await client.verdict("small", NUMBER)
            await client.verdict("small", Constraint("grammar", NAME.text))
            await client.verdict("large", NAME)
            assert len(at.fake.asked) == 4

    asyncio.run(ask())


def test_a_hundred_who_ask_at_once_are_one_question() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(REFUSED, delay_s=0.1)) as at, at.client() as client:
            verdicts = await asyncio.gather(*(client.verdict("small", NAME) for _ in range(100)))
            assert set(verdicts) == {"took more than 2 s"}
            assert len(at.fake.asked) == 1
            assert at.counted == {"refused": 1}

    asyncio.run(ask())


def test_one_who_leaves_takes_the_verdict_from_nobody() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(REFUSED, delay_s=0.1)) as at, at.client() as client:
            leaving = asyncio.ensure_future(client.verdict("small", NAME))
            staying = asyncio.ensure_future(client.verdict("small", NAME))
            await asyncio.sleep(0.02)
            leaving.cancel()
            assert await staying == "took more than 2 s"
            assert len(at.fake.asked) == 1

    asyncio.run(ask())


def test_without_an_address_nobody_is_asked_and_nothing_counted() -> None:
    async def ask() -> None:
        counted: Counter[str] = Counter()
        async with GrammarClient(None, Shelf(), lambda result: counted.update([result])) as client:
            assert await client.verdict("small", NAME) is None
        assert not counted

    asyncio.run(ask())


def test_a_process_that_is_away_lets_everything_pass_and_is_counted_each_time() -> None:
    async def ask() -> None:
        at = Asking(FakeProcess(ACCEPTED), free_port())
        async with at.client() as client:
            assert [await client.verdict("small", NAME) for _ in range(3)] == [None] * 3
        assert at.counted == {"unavailable": 3}
        assert not at.shelf.kept

    asyncio.run(ask())


def test_a_slow_process_is_waited_for_once_and_then_left_alone_for_a_second() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(ACCEPTED, delay_s=30), at_most_s=0.2) as at, at.client() as client:
            started_s = time.monotonic()
            assert await client.verdict("small", NAME) is None
            assert [await client.verdict("small", NUMBER) for _ in range(20)] == [None] * 20
            assert 0.2 <= time.monotonic() - started_s < 2
            assert len(at.fake.asked) == 1
            assert at.counted == {"unavailable": 21}

    asyncio.run(ask())


def test_a_process_that_is_back_is_asked_again() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(answer({}, "503 Service Unavailable"))) as at, at.client() as client:
            assert await client.verdict("small", NAME) is None
            at.fake.said = REFUSED
            assert await client.verdict("small", NAME) is None, "it is left alone"
            at.clock.now_s += 1.5
            assert await client.verdict("small", NAME) == "took more than 2 s"
            assert at.counted == {"unavailable": 2, "refused": 1}

    asyncio.run(ask())


def test_a_question_that_it_does_not_take_is_no_reason_to_leave_it_alone() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(answer({"error": "no such model"}, "400 Bad Request"))) as at, at.client() as client:
            assert await client.verdict("small", NAME) is None
            at.fake.said = REFUSED
            assert await client.verdict("small", NUMBER) == "took more than 2 s"

    asyncio.run(ask())


@pytest.mark.parametrize(
    "said",
    [
        answer(b"\xff\xfe{"),
        answer([]),
        answer({}),
        answer({"accepted": "yes"}),
        answer({"accepted": 1}),
        answer({"accepted": False}),
        answer({"accepted": False, "reason": ""}),
        answer({"accepted": False, "reason": 5}),
        answer({"accepted": True, "more": "x" * 1_000_000}),
        answer({"accepted": True}, "201 Created"),
        answer({"accepted": True}, "302 Found"),
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\ncontent-encoding: gzip\r\n\r\nshort",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"",
    ],
    ids=lambda said: repr(said[-24:]),
)
def test_garbage_is_no_verdict(said: bytes) -> None:
    async def ask() -> None:
        async with asking(FakeProcess(said), at_most_s=0.3) as at, at.client() as client:
            assert await client.verdict("small", NAME) is None
            assert at.counted == {"unavailable": 1}
            assert not at.shelf.kept

    asyncio.run(ask())


def test_a_long_reason_is_cut() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(answer({"accepted": False, "reason": "x" * 10_000}))) as at, at.client() as client:
            assert len(await client.verdict("small", NAME) or "") == 400

    asyncio.run(ask())


def test_a_constraint_that_is_no_unicode_is_nobody_s_failure() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(ACCEPTED)) as at, at.client() as client:
            assert await client.verdict("small", Constraint("regex", "\ud800")) is None
            assert at.counted == {"unavailable": 1}

    asyncio.run(ask())


def test_gateways_share_what_one_was_told() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(REFUSED)) as at:
            async with at.client() as client:
                await client.verdict("small", NAME)
            async with at.client() as another:
                assert await another.verdict("small", NAME) == "took more than 2 s"
            assert len(at.fake.asked) == 1

    asyncio.run(ask())


def test_a_store_that_garbles_costs_a_question_and_no_more() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(REFUSED)) as at:
            at.shelf.kept["small", NAME.digest] = b'{"accepted": "perhaps"}'
            async with at.client() as client:
                assert await client.verdict("small", NAME) == "took more than 2 s"
            assert len(at.fake.asked) == 1
            assert b"took more than 2 s" in at.shelf.kept["small", NAME.digest]

    asyncio.run(ask())


def test_a_verdict_is_forgotten_after_an_hour_and_asked_for_anew() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(REFUSED)) as at, at.client() as client:
            await client.verdict("small", NAME)
            at.shelf.kept.clear()
            at.fake.said = ACCEPTED
            at.clock.now_s += 3601
            assert await client.verdict("small", NAME) is None
            assert at.counted == {"refused": 1, "accepted": 1}

    asyncio.run(ask())


def test_those_asked_for_last_are_the_ones_that_are_kept() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(ACCEPTED)) as at, at.client(keep=3) as client:
            for text in ("a", "b", "c", "a", "d"):
                await client.verdict("small", Constraint("regex", text))
            at.shelf.kept.clear()
            for text in ("a", "c", "d"):
                await client.verdict("small", Constraint("regex", text))
            assert at.counted == {"accepted": 4}
            await client.verdict("small", Constraint("regex", "b"))
            assert at.counted == {"accepted": 5}

    asyncio.run(ask())


def test_the_end_does_not_wait_for_a_question() -> None:
    async def ask() -> None:
        async with asking(FakeProcess(ACCEPTED, delay_s=30), at_most_s=30) as at:
            started_s = time.monotonic()
            async with at.client() as client:
                waiting = asyncio.ensure_future(client.verdict("small", NAME))
                await asyncio.sleep(0.05)
            assert time.monotonic() - started_s < 2
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(ask())
