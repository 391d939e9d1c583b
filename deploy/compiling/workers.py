"""Asks a keeper (`keeper.py`) for verdicts, and keeps one running. It imports neither torch nor xgrammar, and stays small."""

import asyncio
import logging
import os
import pathlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from deploy.compiling.question import READY, Question, Verdict, WorkLimits, question_line, read_answer
from deploy.cpu_torch import with_cpu_torch
from gateway.telemetry.logs import log_event

_AGAIN_AFTER_S = 1.0
_TURN_WITHIN_S = 2.5
"""Who has waited so long for a worker is told that there is none: the gateway that asked gives up soon anyway."""
_TRY_OUT_AT_MOST_S = 2.0
_GRACE_S = 5.0
"""How long after its time the keeper has to say so, on a machine that is busy."""
_LINE_BYTES = 64 * 1024

_ONE_THREAD = {
    # The keeper forks, and a thread that its libraries start would be missing in each worker.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # It computes nothing, on no GPU.
    "CUDA_VISIBLE_DEVICES": "",
}


class NoVerdict(Exception):
    """Nothing can be said of the constraint now; the message says why."""


class CompilingWorkers:
    """Workers that say whether a constraint compiles, `at_once` of them; an async context manager.

    `waiting` more questions wait for their turn. What a worker is killed for is a verdict like any other; if the keeper itself
    ends, the questions that it has are lost, and a new one is started.
    """

    def __init__(
        self,
        catalog: pathlib.Path,
        limits: WorkLimits,
        environment: Mapping[str, str],
        *,
        at_once: int,
        waiting: int,
    ) -> None:
        self._command = (str(catalog), str(limits.seconds), str(limits.memory_mib), str(limits.mask_ms))
        self._answer_within_s = limits.seconds + _TRY_OUT_AT_MOST_S + _GRACE_S
        self._environment = environment
        self._turns = asyncio.Semaphore(at_once)
        self._waiting_at_most = waiting
        self._waiting = 0
        self._asked: dict[int, asyncio.Future[Verdict]] = {}
        self._number = 0
        self._keeper: Process | None = None
        self.is_ready = False

    async def __aenter__(self) -> Self:
        self._keeping = asyncio.ensure_future(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)

    async def ask(self, question: Question) -> Verdict:
        """Whether the constraint may go to an engine.

        Raises NoVerdict.
        """
        if not self.is_ready:
            raise NoVerdict("the vocabularies are being loaded")
        if self._waiting >= self._waiting_at_most:
            raise NoVerdict("too many questions are waiting")
        await self._turn()
        try:
            return await self._answer(question)
        finally:
            self._turns.release()

    async def _turn(self) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout(_TURN_WITHIN_S):
                await self._turns.acquire()
        except TimeoutError as error:
            raise NoVerdict("all workers are busy") from error
        finally:
            self._waiting -= 1

    async def _answer(self, question: Question) -> Verdict:
        if not self.is_ready or self._keeper is None or self._keeper.stdin is None:
            raise NoVerdict("the vocabularies are being loaded")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            async with asyncio.timeout(self._answer_within_s):
                self._keeper.stdin.write(question_line(number, question))
                await self._keeper.stdin.drain()
                return await answer
        except TimeoutError as error:
            # It would have killed its worker by now: it is not well itself.
            _kill(self._keeper)
            raise NoVerdict("the workers' keeper does not answer") from error
        except OSError as error:
            raise NoVerdict("the workers' keeper has ended") from error
        finally:
            del self._asked[number]

    async def _keep(self) -> None:
        while True:
            await self._run_a_keeper()
            log_event("compiling_keeper_ended", logging.WARNING, again_after_s=_AGAIN_AFTER_S)
            await asyncio.sleep(_AGAIN_AFTER_S)

    async def _run_a_keeper(self) -> None:
        """Starts a keeper, and passes its answers on until it ends."""
        try:
            keeper = self._keeper = await self._started()
        except OSError as error:
            log_event("compiling_keeper_not_started", logging.ERROR, reason=str(error))
            return
        assert keeper.stdout is not None, "a pipe"
        try:
            self.is_ready = await keeper.stdout.readline() == READY
            if self.is_ready:
                log_event("compiling_keeper_ready", pid=keeper.pid)
            while line := await keeper.stdout.readline():
                self._pass_on(*read_answer(line))
        except ValueError:
            log_event("compiling_keeper_garbled", logging.ERROR)
        finally:
            self.is_ready = False
            _kill(keeper)
            self._lose_all()
            await keeper.wait()

    async def _started(self) -> Process:
        paths = os.pathsep.join(folder for folder in sys.path if folder)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "deploy.compiling.keeper",
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            limit=_LINE_BYTES,
            env={**self._environment, **_ONE_THREAD, "PYTHONPATH": with_cpu_torch(paths)},
        )

    def _pass_on(self, number: int, answer: Verdict | str) -> None:
        waiting = self._asked.get(number)
        if waiting is None or waiting.done():
            return
        if isinstance(answer, Verdict):
            waiting.set_result(answer)
        else:
            waiting.set_exception(NoVerdict(answer))

    def _lose_all(self) -> None:
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(NoVerdict("the workers' keeper has ended"))


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
