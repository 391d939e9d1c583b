import asyncio
import contextlib
import gc
import weakref

import pytest

from gateway.images.shared_work import SharedWork


class Work:
    """Work that ends when it is told to, and counts how often it was begun and ended before its time."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.may_end = asyncio.Event()

    async def do(self) -> str:
        self.begun += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            await asyncio.sleep(0)  # as a process takes its time to end
            raise
        return f"done {self.begun}"


async def begun(shared: SharedWork[str, str], work: Work, *keys: str) -> list[asyncio.Future[str]]:
    callers: list[asyncio.Future[str]] = [asyncio.ensure_future(shared.join(key, work.do)) for key in keys]
    await asyncio.sleep(0.01)
    return callers


def test_who_asks_for_the_same_meanwhile_gets_the_same() -> None:
    async def test() -> None:
        shared: SharedWork[str, str] = SharedWork()
        work = Work()
        callers = await begun(shared, work, "a", "a", "b", "a")
        work.may_end.set()
        assert await asyncio.gather(*callers) == ["done 2"] * 4
        assert work.begun == 2, "once for each key"

    asyncio.run(test())


def test_who_asks_once_it_is_done_has_it_done_again() -> None:
    async def test() -> None:
        shared: SharedWork[str, str] = SharedWork()
        work = Work()
        work.may_end.set()
        assert [await shared.join("a", work.do), await shared.join("a", work.do)] == ["done 1", "done 2"]

    asyncio.run(test())


@pytest.mark.parametrize("leaving", [0, 1])
def test_who_leaves_takes_nothing_from_who_stays(leaving: int) -> None:
    async def test() -> None:
        shared: SharedWork[str, str] = SharedWork()
        work = Work()
        callers = await begun(shared, work, "a", "a")
        callers[leaving].cancel()
        with pytest.raises(asyncio.CancelledError):
            await callers[leaving]
        late = (await begun(shared, work, "a"))[0]
        work.may_end.set()
        assert [await callers[1 - leaving], await late] == ["done 1"] * 2
        assert (work.begun, work.cancelled) == (1, 0)

    asyncio.run(test())


def test_the_last_who_leaves_ends_it_and_has_seen_it_end() -> None:
    async def test() -> None:
        shared: SharedWork[str, str] = SharedWork()
        work = Work()
        callers = await begun(shared, work, "a", "a")
        for caller in callers:
            caller.cancel()
        late = asyncio.ensure_future(shared.join("a", work.do))
        await asyncio.wait(callers)
        assert work.cancelled == 1
        work.may_end.set()
        assert await late == "done 2", "what is being ended is not joined"
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(test())


async def fail() -> str:
    await asyncio.sleep(0)
    raise ValueError("broken")


def test_a_failure_is_everybody_s_and_is_not_kept() -> None:
    async def test() -> None:
        shared: SharedWork[str, str] = SharedWork()
        failures = await asyncio.gather(*(shared.join("a", fail) for _ in range(3)), return_exceptions=True)
        assert [str(failure) for failure in failures] == ["broken"] * 3
        work = Work()
        work.may_end.set()
        assert await shared.join("a", work.do) == "done 1"

    asyncio.run(test())


class Body:
    """What a request holds."""


def test_a_failure_leaves_nothing_for_the_garbage_collector() -> None:
    async def request(shared: SharedWork[str, str]) -> weakref.ref[Body]:
        body = Body()
        held = weakref.ref(body)
        with contextlib.suppress(ValueError):
            await shared.join("a", fail)
        del body
        await asyncio.sleep(0)
        return held

    async def test() -> None:
        shared: SharedWork[str, str] = SharedWork()
        assert [held() for held in await asyncio.gather(*(request(shared) for _ in range(3)))] == [None] * 3

    gc.disable()
    try:
        asyncio.run(test())
    finally:
        gc.enable()
