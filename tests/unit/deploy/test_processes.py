import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans return to their adopter on Linux only")

# A daemon as Ray starts them: in a session of its own, its parent gone, deaf to SIGTERM.
_SCENE = """
    import subprocess, sys, time
    from deploy.processes import adopt_orphans, stop_descendants
    adopt_orphans()
    daemon = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    starter = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {daemon!r}], start_new_session=True)"
    process = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\\n"
    process.wait()
    import psutil
    (orphan,) = psutil.Process().children()
    print(orphan.pid, flush=True)
    stop_descendants(grace_s=0.3)
    print(psutil.Process().children())
"""


def test_a_daemon_that_detached_itself_is_found_and_ended() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_SCENE)], capture_output=True, text=True, timeout=30, check=True
    )
    pid, left = done.stdout.split("\n")[:2]
    assert left == "[]"
    assert not psutil.pid_exists(int(pid))


# A module that leaves an orphan which ends at once, tells when, and goes on.
_LEAVES_AN_ORPHAN = """
    import subprocess, sys, time
    starter = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '']).pid)"
    print(subprocess.run([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True).stdout.strip(), flush=True)
    time.sleep(60)
"""


def test_a_guardian_takes_the_exit_status_of_orphans_and_ends_in_good_order(tmp_path: pathlib.Path) -> None:
    (tmp_path / "leaves_an_orphan.py").write_text(textwrap.dedent(_LEAVES_AN_ORPHAN))
    guardian = subprocess.Popen(
        [sys.executable, "-m", "deploy.processes", str(os.getpid()), "leaves_an_orphan"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert guardian.stdout is not None
    with guardian.stdout:
        orphan = int(guardian.stdout.readline())
        deadline = time.monotonic() + 20
        while psutil.pid_exists(orphan):
            assert time.monotonic() < deadline, "it is left as a zombie"
            time.sleep(0.05)
        guardian.terminate()
        assert guardian.wait(20) == 128 + signal.SIGTERM
