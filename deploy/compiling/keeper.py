"""`python -m deploy.compiling.keeper`: forks a worker for each question, and kills it when it takes too long or too much.

A worker is this process once more, with everything loaded: it is there in milliseconds, where importing xgrammar takes seconds.
For that this process stays a simple one. It has one thread, it compiles nothing itself, and no vocabulary is touched in it.
"""

import argparse
import gc
import os
import pathlib
import resource
import selectors
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

import orjson
import psutil

from deploy.compiling.compiler import Compiler, Refused, slowest_step_s
from deploy.compiling.question import READY, Question, Verdict, WorkLimits, answer_line, read_question
from deploy.compiling.vllm_checks import vllm_checks
from deploy.compiling.vocabularies import load_vocabularies
from deploy.processes import end_with_parent
from gateway.catalog.read import load_catalog
from gateway.telemetry.logs import configure_logs

_LOOK_EVERY_S = 0.02
_TRY_OUT_S = 1.0
"""How long the walk after compiling may take. By itself it ends in half of that."""
_BUSY_SHARE = 0.5
"""A worker that ran out of time and had less of a core than this was waiting for one: that says nothing of its constraint."""
_WHEN_BUSY = 1.5
"""How many times its time a worker is given to get that share."""
_SLACK_BYTES = 256 * 1024**2
"""What the system lets a worker have beyond its limit, for stacks of threads and what grows between two looks."""
_READ_BYTES = 1024**2
_MIB = 1024**2

Work = Callable[[Question, Callable[[], None]], str | None]
"""Compiles a constraint, calls back once it has, and tries it out; why it is refused, or None."""


@dataclass(slots=True)
class _Run:
    """One worker at its question."""

    number: int
    process: psutil.Process
    pipe: int
    bytes_before: int
    started_s: float
    compiled_s: float | None = None
    said: bytearray = field(default_factory=bytearray)


class Keeper:
    """Reads questions from `questions` until it ends, and writes answers to `answers`, both file descriptors."""

    def __init__(self, work: Work, limits: WorkLimits, questions: int, answers: int) -> None:
        self._work = work
        self._limits = limits
        self._questions = questions
        self._answers = answers
        self._unread = bytearray()
        self._runs: dict[int, _Run] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(questions, selectors.EVENT_READ)

    def serve(self) -> None:
        """Returns when there are no more questions, with no worker left."""
        try:
            while self._has_looked():
                pass
        finally:
            for run in list(self._runs.values()):
                self._kill(run)

    def _has_looked(self) -> bool:
        """Takes what has come, and looks after the workers; whether there may be more questions."""
        for key, _ in self._selector.select(_LOOK_EVERY_S if self._runs else None):
            if key.fd == self._questions:
                if not self._take_questions():
                    return False
            elif key.fd in self._runs:
                self._listen(self._runs[key.fd])
        for run in list(self._runs.values()):
            self._look_after(run)
        return True

    def _take_questions(self) -> bool:
        some = os.read(self._questions, _READ_BYTES)
        self._unread += some
        *lines, rest = self._unread.split(b"\n")
        self._unread = rest
        for line in lines:
            self._start(*read_question(bytes(line)))
        return bool(some)

    def _start(self, number: int, question: Question) -> None:
        pipe, workers_end = os.pipe()
        keeper = os.getpid()
        bytes_before = _own_bytes(psutil.Process())
        pid = os.fork()
        if pid == 0:
            _be_a_worker(keeper, question, self._work, self._limits, workers_end)
        os.close(workers_end)
        self._runs[pipe] = _Run(number, psutil.Process(pid), pipe, bytes_before, time.monotonic())
        self._selector.register(pipe, selectors.EVENT_READ)

    def _listen(self, run: _Run) -> None:
        some = os.read(run.pipe, _READ_BYTES)
        run.said += some
        if run.compiled_s is None and b"\n" in run.said:
            run.compiled_s = time.monotonic()
        if not some:
            self._answer(run, self._told(run, self._reaped(run)))

    def _told(self, run: _Run, status: int) -> Verdict | str:
        """What a worker that has ended said, or what its end says."""
        seconds = (run.compiled_s or time.monotonic()) - run.started_s
        lines = run.said.splitlines()
        if status == 0 and lines:
            reason: str | None = orjson.loads(lines[-1])
            return Verdict(accepted=reason is None, reason=reason, seconds=seconds)
        if status in {-signal.SIGKILL, -signal.SIGTERM}:
            return "the worker was killed by somebody else"
        return Verdict(accepted=False, reason="crashed the compiler", seconds=seconds)

    def _look_after(self, run: _Run) -> None:
        """Kills a worker that is beyond a limit, and says which."""
        now_s = time.monotonic()
        verdict: Verdict | str | None = None
        try:
            if _own_bytes(run.process) - run.bytes_before > self._limits.memory_mib * _MIB:
                verdict = self._refused(run, _too_large(self._limits))
            elif run.compiled_s is not None and now_s - run.compiled_s > _TRY_OUT_S:
                verdict = self._unless_busy(run, _TRY_OUT_S, now_s - run.compiled_s, _too_slow(self._limits))
            elif run.compiled_s is None and now_s - run.started_s > self._limits.seconds:
                reason = f"took more than {self._limits.seconds:g} s"
                verdict = self._unless_busy(run, self._limits.seconds, now_s - run.started_s, reason)
        except psutil.Error:
            return  # it has just ended, which its pipe says next
        if verdict is not None:
            self._kill(run)
            self._answer(run, verdict)

    def _unless_busy(self, run: _Run, allowed_s: float, took_s: float, reason: str) -> Verdict | str | None:
        """What to say of a worker that took longer than is allowed; None while it may still have been waiting for a core."""
        times = run.process.cpu_times()
        if times.user + times.system >= allowed_s * _BUSY_SHARE:
            return self._refused(run, reason)
        return None if took_s < allowed_s * _WHEN_BUSY else "the machine was too busy to tell"

    def _refused(self, run: _Run, reason: str) -> Verdict:
        return Verdict(accepted=False, reason=reason, seconds=time.monotonic() - run.started_s)

    def _kill(self, run: _Run) -> None:
        os.kill(run.process.pid, signal.SIGKILL)
        self._reaped(run)

    def _reaped(self, run: _Run) -> int:
        """Forgets a worker that is ending; its exit status, or the negative number of the signal that ended it."""
        self._selector.unregister(run.pipe)
        os.close(run.pipe)
        del self._runs[run.pipe]
        _, status = os.waitpid(run.process.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _answer(self, run: _Run, answer: Verdict | str) -> None:
        _write(self._answers, answer_line(run.number, answer))


def _be_a_worker(keeper: int, question: Question, work: Work, limits: WorkLimits, pipe: int) -> NoReturn:
    status = 1
    try:
        end_with_parent(keeper)
        _take_little(limits)
        reason = work(question, lambda: _write(pipe, b'"compiled"\n'))
        _write(pipe, orjson.dumps(reason) + b"\n")
        status = 0
    except MemoryError:
        _write(pipe, orjson.dumps(_too_large(limits)) + b"\n")
        status = 0
    finally:
        os._exit(status)  # whatever it was, this process is not to go on as a second keeper


def _take_little(limits: WorkLimits) -> None:
    """The system's own limits, for what grows faster than the keeper looks. Where memory is short, this one goes."""
    held = psutil.Process().memory_info().data
    most = held + limits.memory_mib * _MIB + _SLACK_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pathlib.Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # xgrammar writes of each keyword that it ignores
        os.dup2(nowhere, stream)


def _own_bytes(process: psutil.Process) -> int:
    """What is its own, without the libraries' files, of which a worker touches more and more."""
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


def _too_large(limits: WorkLimits) -> str:
    return f"took more than {limits.memory_mib} MiB"


def _too_slow(limits: WorkLimits) -> str:
    return f"would take an engine more than {limits.mask_ms:g} ms for each token"


def _write(file: int, line: bytes) -> None:
    while line:
        line = line[os.write(file, line) :]


def compiling(catalog: pathlib.Path, limits: WorkLimits) -> Work:
    """The work for the models of a catalog, whose vocabularies are loaded here, once."""
    checks = vllm_checks()
    vocabularies = load_vocabularies(load_catalog(catalog))

    def work(question: Question, has_compiled: Callable[[], None]) -> str | None:
        vocabulary = vocabularies[question.model]
        try:
            grammar = Compiler(vocabulary, checks).compiled(question)
        except Refused as refused:
            return str(refused)
        has_compiled()
        return _too_slow(limits) if slowest_step_s(grammar, vocabulary) * 1000 > limits.mask_ms else None

    return work


def main() -> None:
    """Parses the command line, and serves on stdin and stdout until stdin ends."""
    parser = argparse.ArgumentParser(prog="python -m deploy.compiling.keeper")
    parser.add_argument("catalog", type=pathlib.Path)
    for name, kind in (("seconds", float), ("memory_mib", int), ("mask_ms", float)):
        parser.add_argument(name, type=kind)
    arguments = parser.parse_args()
    # Libraries print to stdout as they please; the answers keep it for themselves.
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    configure_logs("warning")
    limits = WorkLimits(arguments.seconds, arguments.memory_mib, arguments.mask_ms)
    work = compiling(arguments.catalog, limits)
    gc.collect()
    gc.freeze()  # a collection in a worker would touch, and so copy, all that it shares with this process
    _write(answers, READY)
    Keeper(work, limits, sys.stdin.fileno(), answers).serve()


if __name__ == "__main__":
    main()
