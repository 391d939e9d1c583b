"""Marks -> scores, the table, the JSON, the picture."""

import importlib.util
import json
import pathlib

import pytest
from rich.console import Console

from deploy.evaluation.answers import Answer, Refusal
from deploy.evaluation.dataset import Row
from deploy.evaluation.marking import Mark
from deploy.evaluation.plot import NoMatplotlib, plot
from deploy.evaluation.report import Marked, as_document, failure_table, failures, score_table, scores, write_json
from tests.conftest import picture


def marked(number: int, *, right: bool, size: str, overlap: float) -> Marked:
    fields = {"id": f"row {number}", "image": picture(), "question": "?", "answer": {"a": 1}, "tags": {"[size]": size}}
    answer = Answer(
        id=f"row {number}", digest="", text="{}", latency_s=number, cache="miss", prompt_tokens=5, completion_tokens=2
    )
    marks = (Mark("type", float(right)), Mark("bbox IoU", overlap, is_share=False))
    return Marked(Row.model_validate_json(json.dumps(fields)), answer, marks)


ROWS = [
    marked(1, right=True, size="large", overlap=0.9),
    marked(2, right=True, size="small", overlap=0.4),
    marked(3, right=False, size="large", overlap=0.8),
    marked(4, right=True, size="large", overlap=0.7),
]


def test_metrics_are_means_over_all_rows_and_over_those_of_each_tag() -> None:
    found = {(score.tag, score.of, score.metric): (score.value, score.rows) for score in scores(ROWS)}
    assert found == {
        ("", "", "type"): (0.75, 4),
        ("", "", "bbox IoU"): (pytest.approx(0.7), 4),
        ("[size]", "large", "type"): (pytest.approx(2 / 3), 3),
        ("[size]", "large", "bbox IoU"): (pytest.approx(0.8), 3),
        ("[size]", "small", "type"): (1, 1),
        ("[size]", "small", "bbox IoU"): (0.4, 1),
    }
    assert all(score.low <= score.value <= score.high for score in scores(ROWS))
    assert {score.metric: score.interval for score in scores(ROWS)} == {"type": "wilson", "bbox IoU": "bootstrap"}


def test_metrics_have_one_order_in_all_sections() -> None:
    first = ROWS[0]
    second = Marked(ROWS[1].row, ROWS[1].answer, (Mark("bbox null", 1), *ROWS[1].marks[::-1]))
    found = scores([first, second])
    assert [(score.of, score.metric) for score in found] == [
        ("", "type"),
        ("", "bbox IoU"),
        ("", "bbox null"),
        ("large", "type"),
        ("large", "bbox IoU"),
        ("small", "type"),
        ("small", "bbox IoU"),
        ("small", "bbox null"),
    ]


def test_the_same_seed_gives_the_same_scores() -> None:
    assert scores(ROWS, seed=3) == scores(ROWS, seed=3)


def printed(table: object) -> list[list[str]]:
    console = Console(width=140, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return [line.split() for line in captured.get().splitlines() if line.strip()]


def test_the_table_has_a_section_for_each_tag() -> None:
    assert printed(score_table(scores(ROWS))) == [
        ["ROWS", "WITH", "METRIC", "VALUE", "95", "%", "ROWS"],
        ["all", "type", "75.0", "%", "30.1", "%", "to", "95.4", "%", "4"],
        ["bbox", "IoU", "0.700", "0.475", "to", "0.850", "4"],
        ["[size]:", "large", "type", "66.7", "%", "20.8", "%", "to", "93.9", "%", "3"],
        ["bbox", "IoU", "0.800", "0.700", "to", "0.900", "3"],
        ["[size]:", "small", "type", "100.0", "%", "20.7", "%", "to", "100.0", "%", "1"],
        ["bbox", "IoU", "0.400", "0.400", "to", "0.400", "1"],
    ]


def refused(number: int) -> Marked:
    error = Refusal(status=400, code="bad", message="[/no] tags in here")
    return Marked(
        ROWS[0].row.model_copy(update={"id": f"{number}"}), Answer(id=f"{number}", digest="", error=error), ROWS[0].marks
    )


def test_rows_without_an_answer_are_named_and_of_many_the_first() -> None:
    lines = printed(failure_table(failures([*ROWS, *map(refused, range(12))])))
    assert lines[1] == ["0", "400", "bad", "[/no]", "tags", "in", "here"]
    assert lines[-1] == ["...", "and", "2", "more"]
    assert len(lines) == 12


def test_the_json_has_all_that_was_measured(tmp_path: pathlib.Path) -> None:
    rows = [*ROWS, refused(9)]
    write_json(as_document(rows, scores(rows), {"model": "small"}), tmp_path / "scores.json")
    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["scores"][0].keys() == {"metric", "tag", "of", "value", "low", "high", "rows", "interval"}
    del document["scores"]
    assert document == {
        "model": "small",
        "rows": 5,
        "failed": [{"id": "9", "status": 400, "code": "bad", "message": "[/no] tags in here"}],
        "latency_s": {"median": 2.5, "p95": 4},
        "tokens": {"prompt": 20, "completion": 8},
        "finish_reasons": {"unknown": 4},
        "models": {"unknown": 4},
        "cache": {"miss": 4},
    }
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_the_picture_is_drawn_or_what_it_takes_is_said(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "scores.png"
    if importlib.util.find_spec("matplotlib"):
        plot(scores(ROWS), "a set, small", file)
        assert file.read_bytes().startswith(b"\x89PNG")
    else:
        with pytest.raises(NoMatplotlib, match=r'pip install "fovea\[evaluate\]"'):
            plot(scores(ROWS), "a set, small", file)
