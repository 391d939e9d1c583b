"""`fovea up` from start to end: what it says, where it listens, and what it leaves behind."""

import pathlib
import subprocess
import sys
import time

import psutil
import pytest

from deploy.processes import adopt_orphans
from tests.conftest import CATALOG, free_port
from tests.e2e.conftest import Ended, OwnStack, Stack, left_behind

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def fovea(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments], capture_output=True, text=True, check=False, timeout=300
    )


def test_ctrl_c_ends_everything_and_leaves_no_process(ended_by_ctrl_c: Ended) -> None:
    assert ended_by_ctrl_c.left == []
    assert ended_by_ctrl_c.status == 0
    assert "no process is left" in ended_by_ctrl_c.output


def test_a_second_start_right_after_works(ended_by_ctrl_c: Ended, stack: OwnStack) -> None:
    assert "Ready." in stack.output.read_text()


def test_every_stage_is_told_with_its_time(stack: Stack) -> None:
    if not isinstance(stack, OwnStack):
        pytest.skip("--stack does not tell where its output is")
    said = stack.output.read_text()
    stages = ("Ray is up", "small is up", "large is up", "small is warm", "large is warm", "constraints are compiled first")
    for stage in (*stages, "the gateway answers at"):
        line = next(line for line in said.splitlines() if stage in line)
        assert line.split()[1] == "s"
    assert f"curl {stack.url}/v1/chat/completions" in said


def test_nothing_listens_beyond_this_machine(stack: Stack) -> None:
    listening = [
        (process.name(), connection.laddr)
        for process in stack.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 11, "Ray, HAProxy, replicas, what compiles constraints and the gateway were looked at"
    assert [(name, address) for name, address in listening if address.ip not in LOOPBACK] == []


def test_a_port_that_is_taken_is_said_before_anything_starts(stack: Stack) -> None:
    port = stack.url.rsplit(":", 1)[1]
    done = fovea("up", "--port", port)
    assert done.returncode == 1
    assert f"127.0.0.1:{port} cannot be listened on: Address already in use" in done.stderr


def test_a_catalog_with_a_mistake_is_said_before_anything_starts(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG.replace("tier: edge", "teir: edge"))
    done = fovea("up", str(path))
    assert done.returncode == 1
    assert "unknown key, did you mean tier?" in done.stderr


def test_a_model_that_cannot_start_is_said_with_its_reason_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "catalog.yaml"
    (tmp_path / "empty").mkdir()
    lines = CATALOG[: CATALOG.index("  mute:")].replace("source: nowhere", f"source: {tmp_path / 'empty'}")
    path.write_text(lines)
    done = fovea("up", str(path), "--port", str(free_port()))
    assert done.returncode == 1
    assert "the model tiny did not start" in done.stderr
    assert left_behind() == []


def test_not_even_sigkill_leaves_anything() -> None:
    adopt_orphans()
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "up", "--port", str(free_port())], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "Ray is up" in line)
        assert len(psutil.Process(process.pid).children(recursive=True)) > 5
        process.kill()
    deadline = time.monotonic() + 30
    while left_behind() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left_behind() == []
