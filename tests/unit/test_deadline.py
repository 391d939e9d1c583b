"""What ends a block early, and with which error."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable

import pytest

from gateway.deadline import Patience


class Late(Exception):
    pass


class Gone(Exception):
    pass


def run(block: Callable[[Patience], Awaitable[object]], within_s: float = 5.0) -> None:
    """Runs `block` under a patience that ends with Late after `within_s`."""

    async def main() -> None:
        async with Patience(asyncio.get_running_loop().time() + within_s, Late()) as patience:
            await block(patience)

    asyncio.run(main())


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_a_block_that_ends_in_time_is_left_alone() -> None:
    run(lambda _: asyncio.sleep(0))


def test_the_deadline_ends_it() -> None:
    with pytest.raises(Late):
        run(lambda _: asyncio.sleep(1), within_s=0.01)


def test_another_deadline_takes_its_place() -> None:
    async def block(patience: Patience) -> None:
        patience.until(now_s() + 0.01, Gone())
        await asyncio.sleep(1)

    with pytest.raises(Gone):
        run(block)


def test_no_further_deadline_keeps_a_block_going_that_ends() -> None:
    """A client that leaves as one model fails is gone for the next one, too."""

    async def block(patience: Patience) -> None:
        patience.end(Gone())
        patience.until(now_s() + 60, Late())
        await asyncio.sleep(60)

    with pytest.raises(Gone):
        run(block)


def test_the_first_reason_is_told() -> None:
    async def block(patience: Patience) -> None:
        asyncio.get_running_loop().call_soon(patience.end, Gone())
        asyncio.get_running_loop().call_soon(patience.end, Late())
        await asyncio.sleep(1)

    with pytest.raises(Gone):
        run(block)


def test_a_reason_after_the_end_changes_nothing() -> None:
    async def main() -> str:
        async with Patience(now_s() + 5, Late()) as patience:
            pass
        patience.end(Gone())
        await asyncio.sleep(0.01)
        return "went on"

    assert asyncio.run(main()) == "went on"


def test_a_timeout_within_it_is_not_taken_for_its_own() -> None:
    async def block(_: Patience) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(1)

    with pytest.raises(TimeoutError):
        run(block)


def test_whoever_cancels_the_task_is_heard() -> None:
    async def block() -> None:
        async with Patience(now_s() + 5, Late()):
            await asyncio.sleep(5)

    async def main() -> None:
        task = asyncio.ensure_future(block())
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())


class Body:
    """Stands for the megabytes of a request."""


def test_what_ends_a_block_keeps_nothing_of_it() -> None:
    """Collections are rare: what waited for one would be megabytes for each client that hung up."""

    async def late() -> weakref.ref[Body]:
        body = Body()
        kept = weakref.ref(body)
        try:
            async with Patience(now_s() + 0.01, Late()):
                await asyncio.sleep(1)
        except Late:
            return kept
        raise AssertionError

    async def main() -> Body | None:
        return (await asyncio.ensure_future(late()))()

    gc.disable()
    try:
        assert asyncio.run(main()) is None
    finally:
        gc.enable()
