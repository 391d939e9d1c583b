"""Keeping hold of every process that the stack starts, however it detaches itself, so that nothing outlives it.

`python -m deploy.processes PARENT MODULE ...` is a guardian: it runs a module as `python -m` does, passes SIGTERM on to it, and
ends whatever the module leaves behind. It is told by the kernel when PARENT, who started it, dies. A process of its own,
because a driver of Ray's cannot be one: Ray ends it on the spot once its raylet is gone.

Ray starts its daemons in sessions of their own, vLLM its workers below those, and HAProxy belongs to nobody once its actor
is gone. On Linux a process may declare itself the one to whom orphaned descendants return (prctl(2),
PR_SET_CHILD_SUBREAPER); whoever has done so can find all of them below itself, and end them.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_AT_MOST_S = 10.0


class UnkillableError(Exception):
    """Processes are left that SIGKILL does not end; the message has their ids."""


def adopt_orphans() -> None:
    """Makes this process the parent of its orphaned descendants. Elsewhere than on Linux it does nothing."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(parent: int) -> None:
    """Has the kernel send this process SIGTERM when the process `parent`, its parent, dies, even by SIGKILL. On Linux only.

    Raises SystemExit: it has died already.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if sys.platform == "linux" and os.getppid() != parent:
        raise SystemExit(1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def stop_descendants(grace_s: float) -> None:
    """Ends every process below this one: SIGTERM first, SIGKILL after `grace_s`, again for those that come up meanwhile.

    Raises UnkillableError: some are still there 10 s after that, held by the kernel (a wedged driver, say).
    """
    _signal_descendants(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while _alive_descendants() and time.monotonic() < deadline:
        time.sleep(0.05)
    deadline = time.monotonic() + _KILL_AT_MOST_S
    while alive := _alive_descendants():
        if time.monotonic() > deadline:
            raise UnkillableError(f"these processes cannot be ended: {', '.join(str(child.pid) for child in alive)}")
        _signal_descendants(signal.SIGKILL)
        time.sleep(0.05)
    _reap()


def _alive_descendants() -> list[psutil.Process]:
    _reap()
    return [child for child in psutil.Process().children(recursive=True) if _is_alive(child)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _signal_descendants(number: signal.Signals) -> None:
    for child in _alive_descendants():
        with contextlib.suppress(psutil.Error):
            child.send_signal(number)


def _reap() -> None:
    """Takes the exit status of every child that has ended, those that were adopted included."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def guard(module: str, arguments: list[str]) -> int:
    """Runs the module to its end, and ends what it left; its exit status, or 128 and the signal's number if one killed it."""
    child: subprocess.Popen[bytes] | None = None

    def pass_on(*_: object) -> None:
        if child is None:
            raise SystemExit(128 + signal.SIGTERM)
        if child.returncode is None:
            # Not `terminate`, which would take the exit status that `_wait_and_reap` waits for.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    child = subprocess.Popen([sys.executable, "-m", module, *arguments])
    status = _wait_and_reap(child)
    stop_descendants(grace_s=3)
    return status if status >= 0 else 128 - status


def _wait_and_reap(child: "subprocess.Popen[bytes]") -> int:
    """Waits for the end of `child`, and meanwhile takes the exit status of every orphan that ends: nobody else would."""
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode


def main() -> None:
    """Guards the module that the command line names."""
    parent, module, *arguments = sys.argv[1:]
    adopt_orphans()
    end_with_parent(int(parent))
    sys.exit(guard(module, arguments))


if __name__ == "__main__":
    main()
