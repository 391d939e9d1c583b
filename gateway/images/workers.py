"""The processes in which images are decoded: what crashes, hangs or swells there costs one request."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from types import TracebackType
from typing import Self

from gateway.images.header import ImageHeader
from gateway.images.normalise import Damaged, Recipe, Undecodable, decoding
from gateway.images.pixel_protocol import ANSWER, READY, REQUEST, Outcome, Task, written_recipe

_PROGRAM = "gateway.images.pixels"
_START_AT_MOST_S = 20.0
"""A tenth of a second on an idle machine."""

_READ_AHEAD_BYTES = 1024**2

_BYTES_PER_PIXEL_AT_MOST = 8
"""Of the base64 of an image without metadata; what would be longer is no image. Three samples make four characters, and noise
can take a JPEG somewhat more than a byte for each sample."""

_METADATA_AT_MOST_BYTES = 64 * 1024
_DIGEST_BYTES = 32


class CannotStart(Exception):
    """A process for images could not be started: Pillow is missing, say, or memory. Nothing is wrong with any image."""


class PixelWorkers:
    """`processes` workers that apply recipes and digest pixels, each in `memory_mib` of memory; an async context manager.

    One call may take `timeout_s` once its turn has come, and decode `max_pixels`. A worker whose caller goes away, or whose
    call fails for another reason than a damaged file, is killed, and another is started when it is needed.

    Libraries for this were tried. A ProcessPoolExecutor fails all of its calls when one process dies. anyio.to_process answers
    calls with the images of others once a worker has received a Ctrl-C, imports the program's main module into each worker,
    unpickles what they say, and hands them the environment with all its keys.
    """

    def __init__(self, *, processes: int, memory_mib: int, timeout_s: float, max_pixels: int) -> None:
        self._turns = asyncio.Semaphore(processes)
        self._processes = processes
        self._memory_mib = memory_mib
        self._timeout_s = timeout_s
        self._max_pixels = max_pixels
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._is_closed = False

    async def __aenter__(self) -> Self:
        """Starts all of them, so that no caller waits for that. Raises CannotStart."""
        try:
            for _ in range(self._processes):
                self._idle.append(await self._started())
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Kills them, with what they are at, and returns when they are gone."""
        self._is_closed = True
        self._idle.clear()
        for worker in list(self._all):
            await self._end(worker)

    async def apply(self, payload: bytes | bytearray | memoryview, recipe: Recipe) -> bytes:
        """The base64 of the image that `recipe` makes of the file of which `payload` is the base64.

        Raises Undecodable, with a message for the caller. CannotStart.
        """
        at_most_bytes = recipe.width * recipe.height * _BYTES_PER_PIXEL_AT_MOST + _METADATA_AT_MOST_BYTES
        return await self._ask(Task.APPLY, payload, recipe, at_most_bytes)

    async def identify(self, payload: bytes | bytearray | memoryview, header: ImageHeader) -> bytes:
        """The digest, 32 bytes, of what an engine would see of the file of which `payload` is the base64.

        Raises as `apply` does.
        """
        return await self._ask(Task.IDENTIFY, payload, decoding(header), _DIGEST_BYTES)

    async def _ask(self, task: Task, payload: bytes | bytearray | memoryview, recipe: Recipe, at_most_bytes: int) -> bytes:
        async with self._turns:
            worker = await self._taken()
            try:
                async with asyncio.timeout(self._timeout_s):
                    outcome, made = await worker.ask(task, payload, recipe, at_most_bytes)
            except TimeoutError as error:
                await self._end(worker)
                raise Undecodable(
                    f"The image took longer than {self._timeout_s:g} s to decode (FOVEA_IMAGE_DECODE_S)."
                ) from error
            except (EOFError, OSError, ValueError) as error:
                await self._end(worker)
                raise Undecodable("The image cannot be decoded: the process that tried has crashed.") from error
            except BaseException:
                await self._end(worker)
                raise
            if outcome is Outcome.OUT_OF_MEMORY:
                await self._end(worker)
                raise Undecodable(
                    f"The image needs more memory than {self._memory_mib} MiB to decode (FOVEA_IMAGE_MEMORY_MIB)."
                )
            self._idle.append(worker)
        if outcome is Outcome.BROKEN:
            raise Damaged("The image cannot be decoded: the file is damaged, or is not what its header says.")
        return made

    async def _taken(self) -> "_Worker":
        """The worker that has been idle for the shortest time and still lives, or a new one."""
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive:
                return worker
            await self._end(worker)
        return await self._started()

    async def _started(self) -> "_Worker":
        if self._is_closed:
            raise CannotStart("The processes for images have been ended.")
        limits = (self._memory_mib, self._max_pixels, self._timeout_s)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                _PROGRAM,
                *(str(limit) for limit in limits),
                stdin=PIPE,
                stdout=PIPE,
                limit=_READ_AHEAD_BYTES,
                # Neither the keys that the gateway has in its environment nor the terminal's Ctrl-C are for them.
                env={"PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder)},
                start_new_session=True,
            )
        except OSError as error:
            raise CannotStart(f"No process for images could be started: {error.strerror}") from error
        worker = _Worker(process)
        self._all.add(worker)
        try:
            async with asyncio.timeout(_START_AT_MOST_S):
                await worker.until_ready()
        except (TimeoutError, EOFError) as error:
            await self._end(worker)
            raise CannotStart(
                f"A process for images did not start; `python -m {_PROGRAM} {self._memory_mib} 1 1` says why."
            ) from error
        except BaseException:
            await self._end(worker)
            raise
        return worker

    async def _end(self, worker: "_Worker") -> None:
        await worker.end()
        self._all.discard(worker)


class _Worker:
    """One process, which answers one request at a time."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None, "a pipe"
        assert process.stdout is not None, "a pipe"
        self._process = process
        self._requests = process.stdin
        self._answers = process.stdout

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def until_ready(self) -> None:
        """Raises IncompleteReadError: it has ended."""
        await self._answers.readexactly(len(READY))

    async def ask(
        self, task: Task, payload: bytes | bytearray | memoryview, recipe: Recipe, at_most_bytes: int
    ) -> tuple[Outcome, bytes]:
        """Raises EOFError, ValueError: it has ended, or said what no worker says."""
        written = written_recipe(recipe)
        # One that ends before it has read all, for lack of memory, may still have said why.
        with suppress(ConnectionError):
            self._requests.write(REQUEST.pack(task, len(written), len(payload)) + written)
            self._requests.write(payload)
            await self._requests.drain()
        outcome, size = ANSWER.unpack(await self._answers.readexactly(ANSWER.size))
        if size > at_most_bytes:
            raise ValueError
        return Outcome(outcome), await self._answers.readexactly(size)

    async def end(self) -> None:
        """Kills it, and returns when its memory is free again."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._requests.close()
        with suppress(OSError):
            await self._requests.wait_closed()
