"""Questions about one image meet one replica, by the counters of the replicas themselves: a stack of its own has two."""

import asyncio
import pathlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import loadtest
from loadtest.affinity import IMAGES, QUESTIONS, Asker, Counted, picture, question, replicas, session, total
from loadtest.path import Way, direct
from tests.conftest import free_port
from tests.e2e.conftest import end_stack, start_stack

CATALOG = pathlib.Path(loadtest.__file__).parent / "two_replicas.yaml"
CONCURRENCY = 16
SIDE_PX = 224
"""Of an image that becomes 64 tokens, which are two blocks of the cache."""


@pytest.fixture(scope="module")
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gateway of a stack with two replicas."""
    there = request.config.getoption("--stack")
    if there:
        if len(replicas(there, "small")) < 2:
            pytest.skip(f"--stack names a stack without two replicas of small: fovea up {CATALOG}")
        yield there
        return
    running = start_stack(tmp_path_factory.mktemp("two-replicas"), free_port(), CATALOG)
    yield running.url
    ended = end_stack(running, signal.SIGTERM)
    assert (ended.status, ended.left) == (0, []), ended.output


@dataclass(frozen=True)
class Workload:
    """What came of the questions on every image, image by image and replica by replica."""

    by_image: list[list[Counted]]

    @property
    def known(self) -> float:
        """The share of all prompts' tokens that the prefix cache of whoever got them knew."""
        return total(one for counted in self.by_image for one in counted).known


def asked(way: Way, addresses: list[str], seed: str) -> Workload:
    """Asks every question on every image; no two calls ask about the same images."""

    async def ask(image: str) -> None:
        async with session() as connections:
            await Asker(way, connections).ask_all(image)

    def counted(image: str) -> list[Counted]:
        before = [Counted.at(address) for address in addresses]
        asyncio.run(ask(image))
        return [Counted.at(address) - then for address, then in zip(addresses, before, strict=True)]

    return Workload([counted(picture(f"{seed} {number}", SIDE_PX)) for number in range(IMAGES)])


@pytest.fixture(scope="module")
def gateway(url: str) -> Way:
    return Way("the gateway", url, "small", None)


@pytest.fixture(scope="module")
def through_the_gateway(url: str, gateway: Way) -> Workload:
    return asked(gateway, replicas(url, "small"), "gateway")


def test_every_question_on_an_image_meets_the_same_replica(through_the_gateway: Workload) -> None:
    answered = [sorted(replica.answered for replica in counted) for counted in through_the_gateway.by_image]
    assert answered == [[0, QUESTIONS]] * IMAGES


def test_images_are_spread_over_the_replicas(through_the_gateway: Workload) -> None:
    of_each = [total(counted).answered for counted in zip(*through_the_gateway.by_image, strict=True)]
    assert min(of_each) > QUESTIONS * IMAGES / 5


def test_the_prefix_cache_knows_more_of_them_than_with_plain_balancing(url: str, through_the_gateway: Workload) -> None:
    plainly = asked(direct(url, "small"), replicas(url, "small"), "plain")
    assert total(one for counted in plainly.by_image for one in counted).answered == QUESTIONS * IMAGES
    assert through_the_gateway.known > plainly.known + 0.05


def test_one_hot_image_leaves_no_replica_without_requests(url: str, gateway: Way) -> None:
    addresses, image = replicas(url, "small"), picture("hot", SIDE_PX)

    async def ask_at_once() -> None:
        async with session() as connections:
            asker = Asker(gateway, connections)
            await asyncio.gather(*(asker.ask(question("small", image, n, tokens=32)) for n in range(4 * CONCURRENCY)))

    before = [Counted.at(address) for address in addresses]
    asyncio.run(ask_at_once())
    answered = [(Counted.at(address) - then).answered for address, then in zip(addresses, before, strict=True)]
    assert sum(answered) == 4 * CONCURRENCY, "and nobody was refused"
    assert min(answered) >= CONCURRENCY / 2
