"""Shared by all tests: pictures, and a gateway in a process of its own."""

import base64
import contextlib
import io
import os
import pathlib
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from hypothesis import settings as hypothesis_settings
from PIL import Image

from gateway.catalog.models import Catalog
from gateway.images.sized import ImageLimits
from gateway.pipeline.prepare import Asked, understood

PATIENCE_S = 40
"""How long a caller waits for each byte, where no test is about that: machines have stood still for eleven seconds."""

# How long an example takes is the machine's affair, which may stand still.
hypothesis_settings.register_profile("patient", deadline=None)
hypothesis_settings.load_profile("patient")


STARTS_S = 120
"""How long a gateway or a Redis may take to start: a second, of the time in which the machine runs and has room."""

CATALOG = """
hardware: {kind: cpu}
limits: {body_mib: 1}
models:
  tiny:
    source: nowhere
    family: qwen2_vl
    tier: edge
    parameters_b: 0.1
    kv_cache: {layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}
    context_tokens: 4096
    images_per_request: 2
    concurrency: 4
    queue_depth: 8
    longest_answer_s: 60
    tool_parser: hermes
  mute:
    source: nowhere
    family: llava_next
    tier: server
    parameters_b: 0.1
    kv_cache: {layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}
    context_tokens: 4096
    concurrency: 4
    queue_depth: 8
    longest_answer_s: 60
"""


def picture(form: str = "PNG", size: tuple[int, int] = (64, 48), colour: str = "#7788aa") -> str:
    """A picture of one colour as a data: URL."""
    return as_data_url(Image.new("RGB", size, colour), form)


def noise(size: tuple[int, int], seed: int = 0) -> str:
    """A picture that does not compress, three bytes for each pixel, as a data: URL."""
    pixels = random.Random(seed).randbytes(size[0] * size[1] * 3)
    return as_data_url(Image.frombytes("RGB", size, pixels), "PNG", compress_level=0)


def as_data_url(image: Image.Image, form: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def asked_of(body: bytes | bytearray, catalog: Catalog, limits: ImageLimits) -> Asked:
    """The request in `body`, as the model that it names is asked it."""
    request = understood(body, limits)
    name = request.request.model
    request.check(name, catalog.models[name])
    return request.of(name, catalog.models[name])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class RunningGateway:
    url: str
    process: subprocess.Popen[bytes]
    log: pathlib.Path

    def counted(self, *, model: str, status: str, path: str = "/v1/chat/completions") -> float:
        """Requests that have ended so, by the gateway's own metric."""
        return self.metric(f'fovea_requests_total{{model="{model}",path="{path}",status="{status}"}}')

    def metric(self, name: str) -> float:
        """The value of a metric, named with its labels; 0 where nothing has been counted yet."""
        rows = httpx.get(f"{self.url}/metrics", timeout=PATIENCE_S).text.splitlines()
        return sum(float(row.split()[-1]) for row in rows if row.startswith(f"{name} "))


@contextlib.contextmanager
def running_gateway(
    folder: pathlib.Path, engines_url: str, catalog: str = CATALOG, **settings: str
) -> Iterator[RunningGateway]:
    """`python -m gateway` in front of `engines_url`, with further variables, until the end of the block."""
    (folder / "catalog.yaml").write_text(catalog)
    port = free_port()
    environment = {
        "FOVEA_CATALOG": str(folder / "catalog.yaml"),
        "FOVEA_ENGINES_URL": engines_url,
        "FOVEA_PORT": str(port),
        "FOVEA_DRAIN_DELAY_S": "0",
    }
    log = folder / "gateway.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-m", "gateway"], env=os.environ | environment | settings, stderr=stderr)
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", process, log)
        yield RunningGateway(f"http://127.0.0.1:{port}", process, log)
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    deadline = time.monotonic() + STARTS_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the gateway did not start:\n{log.read_text()}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=PATIENCE_S).status_code == 200:
                return
        time.sleep(0.05)
    pytest.fail("the gateway did not become ready")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stack", metavar="URL", help="run the end-to-end tests against a stack that is already up")
