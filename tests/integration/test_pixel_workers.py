"""What goes wrong with the pixels of one image is the matter of its caller alone."""

import asyncio
import base64
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psutil
import pytest
import uvloop
from PIL import Image

from gateway.images.encoded import RawImage
from gateway.images.header import ImageFormat, ImageHeader, read_header
from gateway.images.normalise import Damaged, Recipe, Undecodable, decoding, recipe
from gateway.images.pixel_protocol import REQUEST
from gateway.images.pixels import identify
from gateway.images.workers import CannotStart, PixelWorkers
from tests.processes import pixel_processes
from tests.scenes import decoded, encoded, scene
from tests.watching import SOON_S

Test = Callable[[PixelWorkers], Awaitable[object]]
Run = Callable[..., None]

SIZE = (320, 240)
TARGET = (160, 120)
SMALL = base64.b64encode(encoded(scene(2, SIZE), "JPEG"))


def prepared(size: tuple[int, int] = SIZE) -> Recipe:
    made = recipe(ImageHeader(ImageFormat.JPEG, *size, orientation=1, frames=1, has_alpha=False), TARGET)
    assert made is not None
    return made


def large(size: tuple[int, int]) -> bytes:
    return base64.b64encode(encoded(Image.new("RGB", size), "PNG", compress_level=1))


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test with workers, on either event loop, and sees to it that they are gone afterwards."""

    def run_test(test: Test, *, processes: int = 1, memory_mib: int = 512, timeout_s: float = 60.0) -> None:
        async def main() -> None:
            files = open_files()
            async with PixelWorkers(
                processes=processes, memory_mib=memory_mib, timeout_s=timeout_s, max_pixels=50_000_000
            ) as workers:
                await test(workers)
            assert open_files() == files
            assert not pixel_processes()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run_test


def open_files() -> int:
    """But for /dev/null, which uvloop opens once for all processes, and for TCP: other tests' engine is a thread here."""
    connections = {connection.fd for connection in psutil.Process().net_connections("inet")}
    files = {int(entry.name): str(entry.readlink()) for entry in pathlib.Path("/proc/self/fd").iterdir() if entry.exists()}
    return len([fd for fd, file in files.items() if file != os.devnull and fd not in connections])


async def is_served(workers: PixelWorkers) -> None:
    made = await workers.apply(SMALL, prepared())
    assert decoded(base64.b64decode(made)).size == TARGET


@asynccontextmanager
async def a_call_that_hangs(workers: PixelWorkers) -> AsyncIterator[tuple[psutil.Process, asyncio.Future[bytes]]]:
    """In the only worker there is: the process, and what it will answer."""
    (process,) = pixel_processes()
    process.suspend()
    call = asyncio.ensure_future(workers.apply(SMALL, prepared()))
    for _ in range(10):  # in which the worker is asked; not seconds, of which the call may have few
        await asyncio.sleep(0)
    assert not call.done()
    yield process, call
    assert call.done()


def test_images_are_shrunk_as_many_at_once_as_there_are_processes(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        await asyncio.gather(*(is_served(workers) for _ in range(12)))
        assert len(pixel_processes()) == 3

    run(test, processes=3)


def test_any_view_of_bytes_will_do(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        expected = await workers.apply(SMALL, prepared())
        assert await workers.apply(memoryview(bytearray(SMALL)), prepared()) == expected
        assert await workers.apply(bytearray(SMALL), prepared()) == expected

    run(test)


def test_a_damaged_file_is_refused_and_costs_no_process(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        before = pixel_processes()
        for payload in (b"", b"no base64!", SMALL[: len(SMALL) // 8 * 4]):
            with pytest.raises(
                Undecodable, match=r"^The image cannot be decoded: the file is damaged, or is not what its header"
            ):
                await workers.apply(payload, prepared())
        await is_served(workers)
        assert pixel_processes() == before

    run(test)


def test_what_an_engine_would_see_is_digested_there_as_it_would_be_here(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        picture = scene(2, SIZE)
        files = [encoded(picture, "PNG", compress_level=level) for level in (1, 9)] + [encoded(picture, "JPEG")]
        headers = [read_header(RawImage(file)) for file in files]
        payloads = [base64.b64encode(file) for file in files]
        digests = [await workers.identify(*each) for each in zip(payloads, headers, strict=True)]
        assert digests == [identify(each, decoding(header)) for each, header in zip(payloads, headers, strict=True)]
        assert [len(digest) for digest in digests] == [32] * 3
        assert digests[0] == digests[1] != digests[2]
        await is_served(workers)

    run(test)


def test_a_file_that_cannot_be_decoded_has_no_digest_and_costs_no_process(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        before = pixel_processes()
        header = read_header(RawImage(base64.b64decode(SMALL)))
        for payload, wrong in (
            (SMALL[: len(SMALL) // 8 * 4], header),
            (SMALL, dataclasses.replace(header, width=header.width + 1)),
            (b"", header),
        ):
            with pytest.raises(Damaged, match=r"^The image cannot be decoded: the file is damaged, or is not what its header"):
                await workers.identify(payload, wrong)
        await is_served(workers)
        assert pixel_processes() == before

    run(test)


def test_pixels_that_need_too_much_memory_or_time_are_not_digested(run: Run) -> None:
    size = (6000, 4000)
    header = ImageHeader(ImageFormat.PNG, *size, orientation=1, frames=1, has_alpha=False)

    async def refused(workers: PixelWorkers, said: str) -> None:
        with pytest.raises(Undecodable, match=said):
            await workers.identify(large(size), header)

    run(lambda workers: refused(workers, "more memory than 64 MiB"), memory_mib=64)
    run(lambda workers: refused(workers, r"longer than 0\.05 s"), timeout_s=0.05)


def test_a_worker_that_is_killed_during_a_call_costs_that_call(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        async with a_call_that_hangs(workers) as (process, call):
            process.kill()
            with pytest.raises(Undecodable, match="crashed"):
                await call
        await is_served(workers)

    run(test)


def test_a_worker_that_is_killed_between_calls_costs_nothing(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        (process,) = pixel_processes()
        process.kill()
        while any(worker.is_alive for worker in workers._all):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        await is_served(workers)

    run(test)


def test_a_worker_that_hangs_is_ended_when_its_time_is_over(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        async with a_call_that_hangs(workers) as (process, call):
            with pytest.raises(Undecodable, match=r"longer than 0\.5 s to decode \(FOVEA_IMAGE_DECODE_S\)"):
                await call
            assert not process.is_running()
        await is_served(workers)

    run(test, timeout_s=0.5)


def test_a_file_that_takes_too_long_to_decode_is_refused(run: Run) -> None:
    size = (6000, 4000)

    async def test(workers: PixelWorkers) -> None:
        with pytest.raises(Undecodable, match=r"longer than 0\.05 s"):
            await workers.apply(large(size), prepared(size))

    run(test, timeout_s=0.05)


def test_a_file_that_needs_too_much_memory_is_refused(run: Run) -> None:
    size = (6000, 4000)

    async def test(workers: PixelWorkers) -> None:
        with pytest.raises(Undecodable, match=r"more memory than 64 MiB to decode \(FOVEA_IMAGE_MEMORY_MIB\)"):
            await workers.apply(large(size), prepared(size))
        await is_served(workers)

    run(test, memory_mib=64)


def test_a_payload_that_is_more_than_the_memory_is_refused_though_it_is_not_read_to_its_end(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        with pytest.raises(Undecodable, match="more memory than 64 MiB"):
            await workers.apply(bytes(80 * 1024**2), prepared())
        await is_served(workers)

    run(test, memory_mib=64)


def test_more_pixels_than_are_allowed_are_refused(run: Run) -> None:
    size = (10_000, 5001)

    async def test(workers: PixelWorkers) -> None:
        with pytest.raises(Undecodable, match="damaged"):
            await workers.apply(large(size), prepared(size))

    run(test)


def test_a_caller_that_goes_away_frees_its_turn_at_once(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        async with a_call_that_hangs(workers) as (process, call):
            waiting = asyncio.ensure_future(is_served(workers))
            call.cancel()
            await waiting
            with pytest.raises(asyncio.CancelledError):
                await call
            assert not process.is_running()

    run(test)


def test_a_caller_that_goes_away_while_it_waits_for_its_turn_takes_none(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        async with a_call_that_hangs(workers) as (process, call):
            waiting = asyncio.ensure_future(is_served(workers))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            process.resume()
            assert decoded(base64.b64decode(await call)).size == TARGET
        assert pixel_processes() == [process]

    run(test)


def test_what_befalls_one_worker_does_not_disturb_the_others(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        one, other = pixel_processes()
        one.suspend()
        other.suspend()
        calls = [asyncio.ensure_future(workers.apply(SMALL, prepared())) for _ in range(2)]
        await asyncio.sleep(0.1)
        one.kill()
        other.resume()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Undecodable", "bytes"]

    run(test, processes=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_is_not_ended_by_what_ends_the_gateway_in_good_order(run: Run, number: signal.Signals) -> None:
    async def test(workers: PixelWorkers) -> None:
        (process,) = pixel_processes()
        process.send_signal(number)
        for _ in range(3):
            await is_served(workers)
        assert pixel_processes() == [process]

    run(test)


def test_a_worker_has_no_secrets_and_writes_no_files(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEA_ENGINES_API_KEY", "a secret")

    async def test(workers: PixelWorkers) -> None:
        (process,) = pixel_processes()
        await is_served(workers)
        assert set(process.environ()) <= {"PYTHONPATH", "LC_CTYPE"}
        assert process.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert process.rlimit(psutil.RLIMIT_AS) == (512 * 1024**2,) * 2
        assert os.getpgid(process.pid) != os.getpgid(0)

    run(test)


@pytest.mark.parametrize("python", ["/bin/false", "/nowhere/python"])
def test_workers_that_cannot_start_are_known_at_once(python: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(CannotStart):
        run(is_served)
    assert not pixel_processes()


def test_nothing_is_started_once_they_are_closed(run: Run) -> None:
    async def test(workers: PixelWorkers) -> None:
        await workers.aclose()
        with pytest.raises(CannotStart):
            await is_served(workers)

    run(test)


PARENT = """
import asyncio, sys
from gateway.images.pixel_protocol import REQUEST
from gateway.images.workers import PixelWorkers
from tests.integration.test_pixel_workers import large, prepared

async def main():
    async with PixelWorkers(processes=2, memory_mib=512, timeout_s=60, max_pixels=50_000_000) as workers:
        call = asyncio.ensure_future(workers.apply(large((6000, 4000)), prepared((6000, 4000))))
        await asyncio.sleep(0.05)
        print("busy", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_no_worker_outlives_a_gateway_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent, parent.stdout:
        assert parent.stdout.readline() == b"busy\n"
        workers = psutil.Process(parent.pid).children()
        assert len(workers) == 2
        parent.kill()
    deadline = time.monotonic() + SOON_S
    while any(worker.is_running() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_that_hangs_without_a_gateway_is_ended_by_the_system() -> None:
    command = [sys.executable, "-m", "gateway.images.pixels", "512", "50000000", "0.1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        worker.stdin.write(REQUEST.pack(0, 1, 1))
        worker.stdin.flush()
        assert worker.wait(SOON_S) == -signal.SIGALRM
