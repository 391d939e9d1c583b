import os
import pathlib
import subprocess
import sys

CPU_TORCH = pathlib.Path(__file__).parents[2] / "deploy" / "cpu_torch"
WAIT = """
import os, time
from vllm.distributed.device_communicators import shm_broadcast

def forbidden():
    raise AssertionError("a core is asked for again and again")

os.sched_yield = forbidden
condition = object.__new__(shm_broadcast.SpinCondition)
condition.is_reader, condition.last_read, condition.busy_loop_s = True, time.monotonic(), 60
used = time.process_time()
for _ in range(1000):
    condition.wait()
print(time.monotonic() - condition.last_read, time.process_time() - used)
"""
"""What a process of vLLM does until another has written: as between two steps, when the last was just now."""


def run(code: str, *paths: pathlib.Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(path) for path in paths)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_vllm_and_ray_serve_llm_import_in_a_fresh_process() -> None:
    done = run("import ray.serve.llm, torchvision.transforms.v2, torchaudio, vllm.engine.arg_utils", CPU_TORCH)
    assert done.returncode == 0, done.stderr


def test_nothing_is_imported_for_its_sake() -> None:
    done = run("import sys; print([name for name in ('torch', 'torchvision') if name in sys.modules])", CPU_TORCH)
    assert done.stdout.strip() == "[]"


def test_a_sitecustomize_that_it_hides_still_runs(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('mine too')")
    done = run("pass", CPU_TORCH, tmp_path)
    assert done.stdout.strip() == "mine too"


def test_a_failure_of_another_kind_is_not_hidden(tmp_path: pathlib.Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('something else')")
    done = run("import torchvision", CPU_TORCH, tmp_path)
    assert "something else" in done.stderr
    assert done.returncode != 0


def test_vllm_s_processes_do_not_keep_a_core_from_others_while_they_wait() -> None:
    waited = run(WAIT, CPU_TORCH)
    assert waited.returncode == 0, waited.stderr
    took_s, used_s = map(float, waited.stdout.splitlines()[-1].split())
    assert used_s < took_s / 2


def test_vllm_waits_as_it_does_by_itself_where_nothing_is_changed() -> None:
    """Else the test above would hold whatever is done."""
    assert "a core is asked for again and again" in run(WAIT, CPU_TORCH.parents[1]).stderr
