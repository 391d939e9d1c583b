"""`fovea evaluate` against a server of OpenAI's API, on a real socket."""

import json
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deploy.cli import main
from tests.conftest import PATIENCE_S, STARTS_S, free_port, picture
from tests.fake_engine import FakeEngine, completion, running_fake_engine

TRUTHS = ["scratch", "dent", "crack", "dent"]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeEngine]:
    with running_fake_engine() as server:
        yield server


@pytest.fixture
def engine(server: FakeEngine) -> FakeEngine:
    server.reset()
    return server


@pytest.fixture
def dataset(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "parts.jsonl"
    with path.open("w") as file:
        for number, truth in enumerate(TRUTHS):
            row = {"id": f"part-{number}", "image": picture(), "question": f"{number}?", "answer": {"type": truth}}
            file.write(json.dumps(row | {"tags": {"half": "first" if number < 2 else "second"}}) + "\n")
    return path


def arguments(engine: FakeEngine, dataset: pathlib.Path, *more: str) -> list[str]:
    out = str(dataset.parent / "out")
    return ["evaluate", str(dataset), "--model", "small", "--url", f"{engine.url}/small", "--out", out, *more]


def run(engine: FakeEngine, dataset: pathlib.Path, *more: str) -> Result:
    return CliRunner().invoke(main, arguments(engine, dataset, *more), catch_exceptions=False)


def written(dataset: pathlib.Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((dataset.parent / "out" / "scores.json").read_text())
    return document


def values(dataset: pathlib.Path) -> dict[str, float]:
    return {score["of"]: score["value"] for score in written(dataset)["scores"]}


def words(document: dict[str, Any]) -> str:
    text: str = document["messages"][-1]["content"][-1]["text"]
    return text


async def dents(_: Request) -> Response:
    return completion('{"type": "dent"}')


def test_all_rows_are_asked_scored_and_written(engine: FakeEngine, dataset: pathlib.Path) -> None:
    engine.answer = dents
    schema = "deploy.demo.inspection:ProductInspectionResult"
    done = run(engine, dataset, "--schema", schema, "--api-key", "k", "--detail", "low")
    assert done.exit_code == 0, done.output
    assert "50.0 %" in done.output
    assert values(dataset) == {"": 0.5, "first": 0.5, "second": 0.5}
    assert (written(dataset)["rows"], written(dataset)["failed"], written(dataset)["model"]) == (4, [], "small")
    assert sorted(map(words, engine.documents)) == ["0?", "1?", "2?", "3?"]
    assert {document["response_format"]["json_schema"]["name"] for document in engine.documents} == {"ProductInspectionResult"}
    assert {headers["authorization"] for headers in engine.headers} == {"Bearer k"}


def test_boxes_that_are_all_elsewhere_are_asked_about(engine: FakeEngine, tmp_path: pathlib.Path) -> None:
    async def thousandths(_: Request) -> Response:
        return completion('{"bbox": [500, 500, 750, 750]}')

    path, truth = tmp_path / "boxes.jsonl", {"bbox": [32, 32, 48, 48]}
    path.write_text(json.dumps({"id": "1", "image": picture(size=(64, 64)), "question": "where?", "answer": truth}) + "\n")
    engine.answer = thousandths
    hint = "does the model count in another way than --boxes sent?"
    assert hint in " ".join(run(engine, path).output.split())
    as_counted = run(engine, path, "--boxes", "thousandths")
    assert "1.000" in as_counted.output
    assert "No box touches" not in as_counted.output


def test_the_same_command_goes_on_where_it_stopped(engine: FakeEngine, dataset: pathlib.Path) -> None:
    engine.answer = dents
    assert run(engine, dataset, "--limit", "3").exit_code == 0
    assert written(dataset)["rows"] == 3
    engine.documents.clear()
    assert run(engine, dataset).exit_code == 0
    assert list(map(words, engine.documents)) == ["3?"]
    assert written(dataset)["rows"] == 4


def test_a_row_that_is_refused_counts_as_wrong_and_is_named(engine: FakeEngine, dataset: pathlib.Path) -> None:
    async def one_not(request: Request) -> Response:
        if words(await request.json()) == "1?":
            return JSONResponse({"error": {"code": "image_refused", "message": "it is [bold]"}}, 400)
        return completion('{"type": "dent"}')

    engine.answer = one_not
    done = run(engine, dataset)
    assert done.exit_code == 1
    assert "1 of 4 rows have no answer" in done.output
    assert "image_refused  it is [bold]" in done.output
    assert written(dataset)["failed"] == [{"id": "part-1", "status": 400, "code": "image_refused", "message": "it is [bold]"}]
    assert values(dataset) == {"": 0.25, "first": 0, "second": 0.5}


def test_ctrl_c_keeps_what_was_answered(engine: FakeEngine, dataset: pathlib.Path) -> None:
    async def one_hangs(request: Request) -> Response:
        if words(await request.json()) == "2?":
            await request.receive()
        return completion('{"type": "dent"}')

    engine.answer = one_hangs
    command = [sys.executable, "-m", "deploy.cli", *arguments(engine, dataset, "--concurrency", "1")]
    # A shell has what it starts in the background ignore Ctrl-C, and that is inherited.
    heeding = ["env", "--default-signal=INT", *command]
    with subprocess.Popen(heeding, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + STARTS_S
            while not engine.calls("2?") and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, errors) == (
        130,
        "stopped; what was answered is kept, and the same command goes on from there\n",
    )
    assert "Traceback" not in output
    engine.reset()
    engine.answer = dents
    assert run(engine, dataset).exit_code == 0
    assert sorted(map(words, engine.documents)) == ["2?", "3?"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--schema", "nothing.json"], "--schema: nothing.json cannot be read"),
        (["--url", f"http://127.0.0.1:{free_port()}"], "does not answer"),
        (["--out", "/dev/null/x"], "cannot be opened"),
    ],
)
def test_what_cannot_begin_is_a_sentence(engine: FakeEngine, dataset: pathlib.Path, change: list[str], said: str) -> None:
    done = run(engine, dataset, *change)
    assert done.exit_code == 1
    assert said in done.output
    assert engine.documents == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--url", "http://127.0.0.1:port"], "Invalid value for '--url': Invalid port: 'port', got 'http://127.0.0.1:port'"),
        (
            ["--url", "127.0.0.1:8000"],
            "Invalid value for '--url': must be http:// or https:// and a host, got '127.0.0.1:8000'",
        ),
        (["--api-key", "ключ"], "Invalid value for '--api-key': a key is of visible ASCII characters"),
    ],
)
def test_a_server_that_cannot_be_is_named_by_its_option(
    engine: FakeEngine, dataset: pathlib.Path, change: list[str], said: str
) -> None:
    done = run(engine, dataset, *change)
    assert (done.exit_code, engine.documents) == (2, [])
    assert said in done.output


def test_a_wrong_dataset_is_refused_before_anything_is_asked(engine: FakeEngine, dataset: pathlib.Path) -> None:
    with dataset.open("a") as file:
        file.write('{"id": "x"}\n')
    done = run(engine, dataset)
    assert (done.exit_code, engine.documents) == (1, [])
    assert f"{dataset}:5: question: is required" in done.output
    assert not (dataset.parent / "out").exists()


def test_results_go_to_a_folder_named_after_dataset_and_model(
    engine: FakeEngine, dataset: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.answer = dents
    monkeypatch.chdir(dataset.parent)
    command = ["evaluate", "parts.jsonl", "--model", "org/small:noise", "--url", f"{engine.url}/small"]
    assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
    assert (dataset.parent / "evaluations" / "parts-org_small_noise" / "scores.json").exists()
