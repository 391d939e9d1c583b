"""vLLM's own server over a small model."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import httpx

from deploy.cpu_torch import with_cpu_torch
from tests.engine.tiny_models import CONTEXT_TOKENS, EMBEDDERS, MAKERS


class VllmServer:
    """A server of one family's model, which it knows as `tiny`, starting from when it is made; `client` asks it."""

    def __init__(self, family: str, folder: pathlib.Path, **arguments: object) -> None:
        self.model, self._log = folder / "model", folder / "log"
        (MAKERS | EMBEDDERS)[family](self.model)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                _command(self.model, port, arguments), stdout=output, stderr=output, env=os.environ | _environment()
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False)

    def wait(self) -> None:
        """Returns once it answers."""
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self._log.read_text()[-4000:]
            with contextlib.suppress(httpx.TransportError):
                if self.client.get("/health").status_code == 200:
                    return
            time.sleep(0.25)
        raise AssertionError(f"not up within 400 s: {self._log.read_text()[-4000:]}")

    def end(self) -> None:
        self.client.close()
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _command(model: pathlib.Path, port: int, arguments: dict[str, object]) -> list[str]:
    named = {
        "model": model,
        "served_model_name": "tiny",
        "host": "127.0.0.1",
        "port": port,
        "load_format": "dummy",
        "dtype": "bfloat16",
        "max_model_len": CONTEXT_TOKENS,
        "max_num_seqs": 1,
        "kv_cache_memory_bytes": 1024**3,
        "enforce_eager": True,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
    } | arguments
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    return command + [word for name, value in named.items() for word in _words(name.replace("_", "-"), value)]


def _words(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]


def _environment() -> dict[str, str]:
    return {
        "PYTHONPATH": with_cpu_torch(os.environ.get("PYTHONPATH")),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
