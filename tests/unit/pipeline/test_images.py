import asyncio
import contextlib
import gc
import weakref

import pytest

from gateway.pipeline.images import _all


class Body:
    """What a request holds."""


async def fail(body: Body, log: list[str]) -> None:
    try:
        await asyncio.sleep(0)
        raise ValueError(f"{type(body).__name__} is broken")
    finally:
        log.append("failed")


async def go_on(log: list[str]) -> None:
    try:
        await asyncio.sleep(10)
    finally:
        log.append("ended")


def test_the_first_failure_is_raised_and_ends_the_others() -> None:
    log: list[str] = []
    with pytest.raises(ValueError, match="Body is broken"):
        asyncio.run(_all([go_on(log), fail(Body(), log), None]))
    assert log == ["failed", "ended"]


def test_what_is_there_already_keeps_its_place() -> None:
    async def later(value: str) -> str:
        await asyncio.sleep(0)
        return value

    async def both() -> list[str]:
        return await _all(["a", later("b"), "c", later("d")])

    assert asyncio.run(both()) == ["a", "b", "c", "d"]


def test_a_failure_leaves_nothing_for_the_garbage_collector() -> None:
    async def request() -> weakref.ref[Body]:
        body = Body()
        held = weakref.ref(body)
        with contextlib.suppress(ValueError):
            await _all([fail(body, []), None])
        del body
        await asyncio.sleep(0)
        return held

    gc.disable()
    try:
        assert asyncio.run(request())() is None
    finally:
        gc.enable()
