"""The gateway as a process: how it starts, and how it ends."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.conftest import CATALOG, PATIENCE_S, running_gateway
from tests.fake_engine import FakeEngine, stream
from tests.watching import eventually


def start(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway"], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_an_answer_that_runs_is_finished_before_the_process_ends(fake_engine: FakeEngine, tmp_path: pathlib.Path) -> None:
    async def answer(_: Request) -> Response:
        return stream([str(number) for number in range(20)], gap_s=0.05)

    fake_engine.reset()
    fake_engine.answer = answer
    request = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with (
        running_gateway(tmp_path, fake_engine.url) as gateway,
        httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=request, timeout=PATIENCE_S) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        gateway.process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["delta"]["content"] == "19"
        assert gateway.process.wait(PATIENCE_S) == 0


def test_on_sigterm_it_says_that_it_is_not_ready_and_serves_on(fake_engine: FakeEngine, tmp_path: pathlib.Path) -> None:
    fake_engine.reset()
    request = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    with running_gateway(tmp_path, fake_engine.url, FOVEA_DRAIN_DELAY_S="60") as gateway:

        def ready() -> httpx.Response:
            return httpx.get(f"{gateway.url}/readyz", timeout=PATIENCE_S)

        gateway.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: ready().status_code == 503)
        assert ready().text == "draining"
        assert httpx.get(f"{gateway.url}/healthz", timeout=PATIENCE_S).status_code == 200
        assert httpx.post(f"{gateway.url}/v1/chat/completions", json=request, timeout=PATIENCE_S).status_code == 200
        assert gateway.process.poll() is None


def test_after_its_delay_it_ends_by_itself(fake_engine: FakeEngine, tmp_path: pathlib.Path) -> None:
    with running_gateway(tmp_path, fake_engine.url, FOVEA_DRAIN_DELAY_S="0.5") as gateway:
        told_s = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(PATIENCE_S) == 0
        assert time.monotonic() - told_s > 0.5


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "redis://:pa/ss@host",
        "redis://:secret@host:notaport",
        "redis://:secret@host?decode_responses=true",
        "redis://:secret@host?db=x",
        "rediss://:secret@host?ssl_cert_reqs=bogus",
        "rediss://:secret@host?ssl_ca_certs=/nowhere",
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_url_of_no_redis_is_refused_at_the_start_without_its_password(tmp_path: pathlib.Path, url: str, workers: str) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG)
    done = start({"FOVEA_CATALOG": str(path), "FOVEA_REDIS_URL": url, "FOVEA_WORKERS": workers})
    assert done.returncode == 2
    assert done.stderr.startswith("FOVEA_REDIS_URL")
    assert "secret" not in done.stderr
    assert "'pa'" not in done.stderr, "urlsplit would say it"
    assert "Traceback" not in done.stderr


def test_room_for_less_than_one_body_is_refused_at_the_start(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG.replace("body_mib: 1", "body_mib: 8"))
    done = start({"FOVEA_CATALOG": str(path), "FOVEA_BODY_MIB_IN_FLIGHT": "4"})
    assert done.returncode == 2
    assert "FOVEA_BODY_MIB_IN_FLIGHT is 4, and limits.body_mib of the catalog is 8" in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_host_that_cannot_be_is_refused_at_the_start(tmp_path: pathlib.Path, workers: str) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG)
    done = start({"FOVEA_CATALOG": str(path), "FOVEA_IMAGE_URL_HOSTS": "http://minio", "FOVEA_WORKERS": workers})
    assert done.returncode == 2
    assert "FOVEA_IMAGE_URL_HOSTS" in done.stderr


def test_without_keys_it_listens_on_this_machine_only(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG)
    done = start({"FOVEA_CATALOG": str(path), "FOVEA_HOST": "0.0.0.0"})
    assert done.returncode == 2
    assert "FOVEA_HOST 0.0.0.0 can be reached by others: set FOVEA_API_KEYS_FILE, or FOVEA_ALLOW_ANONYMOUS=true" in done.stderr


def test_without_keys_it_warns(fake_engine: FakeEngine, tmp_path: pathlib.Path) -> None:
    with running_gateway(tmp_path, fake_engine.url) as gateway:
        assert "no_api_keys" in gateway.log.read_text()


def test_a_port_that_is_taken_is_said(fake_engine: FakeEngine, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG)
    port = fake_engine.url.rsplit(":", 1)[1]
    done = start({"FOVEA_CATALOG": str(path), "FOVEA_PORT": port})
    assert done.returncode != 0
    assert "address already in use" in done.stderr


def test_a_missing_setting_is_a_message_and_status_2() -> None:
    done = start({})
    assert (done.returncode, done.stderr) == (2, "FOVEA_CATALOG: is required\n")


def test_a_mistake_in_the_catalog_is_a_message_and_status_2(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG.replace("tier: edge", "teir: edge"))
    done = start({"FOVEA_CATALOG": str(path)})
    assert done.returncode == 2
    assert f"{path}:8: models.tiny.teir: unknown key, did you mean tier?" in done.stderr


def test_the_gateway_imports_no_engine() -> None:
    engines = ("ray", "vllm", "torch", "transformers", "xgrammar")
    code = f"import gateway.__main__, sys; print([name for name in {engines} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
