"""The file of rows: what it may say, and how its mistakes are named."""

import json
import pathlib
from typing import Any

import pytest

from deploy.evaluation.dataset import DatasetError, Row, read_dataset
from tests.conftest import picture

ROW = {"id": "1", "image": picture(), "question": "What is it?", "answer": "a part"}


def written(folder: pathlib.Path, *rows: dict[str, Any] | str) -> pathlib.Path:
    path = folder / "set.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def problems(folder: pathlib.Path, *rows: dict[str, Any] | str) -> list[str]:
    path = written(folder, *rows)
    with pytest.raises(DatasetError) as error:
        read_dataset(path)
    return str(error.value).replace(f"{path}:", "").splitlines()


@pytest.mark.parametrize(
    ("fields", "metric"),
    [
        ({"answer": {"a": 1}}, "fields"),
        ({"answer": {"bbox": None}}, "fields"),
        ({"answer": {"bbox": [1, 2, 3.5, 4]}}, "fields"),
        ({"answer": ["12", "twelve"]}, "anls"),
        ({"answer": "twelve", "metric": "anls"}, "anls"),
        ({"answer": 12}, "relaxed"),
        ({"answer": "12%"}, "relaxed"),
        ({"answer": "B", "options": ["one", "two"]}, "choice"),
    ],
)
def test_the_truth_says_how_it_is_scored(fields: dict[str, Any], metric: str) -> None:
    assert Row.model_validate_json(json.dumps(ROW | fields)).scored_by == metric


def test_paths_start_from_the_file_and_blank_lines_are_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    several = {"id": "2", "images": ["a.png", picture()], "question": "?", "answer": 3, "tags": {"size": "small"}}
    dataset = read_dataset(written(tmp_path, ROW, "", several))
    assert [row.id for row in dataset.rows] == ["1", "2"]
    assert dataset.rows[1].pictures == ("a.png", picture())
    assert dataset.folder == tmp_path
    assert len(read_dataset(tmp_path / "set.jsonl", limit=1).rows) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": ""}, "1: id: string should have at least 1 character, got ''"),
        ({"id": "x" * 201}, "1: id: string should have at most 200 characters, got '" + "x" * 96 + "..."),
        ({"id": 7}, "1: id: input should be a valid string, got 7"),
        ({"tags": {"size": 3}}, "1: tags.size: input should be a valid string, got 3"),
        ({"tags": {"": "x"}}, "1: tags..[key]: string should have at least 1 character, got ''"),
        ({"imgae": "a"}, "1: imgae: unknown field; there are id, image, images, question, answer, options, metric, tags"),
        ({"metric": "best"}, "1: metric: input should be 'fields', 'anls', 'relaxed' or 'choice', got 'best'"),
        ({"image": "none.png"}, "1: image: there is no file FOLDER/none.png"),
        ({"image": "iVBORw0K" * 100}, "1: image: there is no file FOLDER/" + "iVBORw0K" * 12 + "i..."),
        ({"image": "a\0b.png"}, "1: image: there is no file FOLDER/a\0b.png"),
        ({"image": "https://x.org/a.png"}, "1: image: must be a path or a data: URL, got 'https://x.org/a.png'"),
        (
            {"image": "data:text/plain,hello"},
            "1: image: a data: URL must begin with data:image/...;base64, got 'data:text/plain,hello'",
        ),
        ({"images": ["a.png"]}, "1: image: say image, or images with at least one"),
        ({"image": None}, "1: image: say image, or images with at least one"),
        ({"answer": True}, "1: answer: for the metric relaxed must be a number or a text, got True"),
        ({"answer": None}, "1: answer: for the metric relaxed must be a number or a text, got None"),
        ({"answer": []}, "1: answer: for the metric anls must be a text, or a list of at least one, got []"),
        ({"answer": ["1", 2]}, "1: answer: for the metric anls must be a text, or a list of at least one, got ['1', 2]"),
        ({"answer": {}}, "1: answer: for the metric fields must be an object with at least one field, got {}"),
        (
            {"answer": {"bbox": [1, 2, 3]}},
            "1: answer: has in bbox neither null nor a box of four numbers [left, top, right, bottom], got {'bbox': [1, 2, 3]}",
        ),
        (
            {"answer": "C", "options": ["one", "two"]},
            "1: answer: must be the letter of an option, one of AB, got 'C'",
        ),
        (
            {"answer": "A", "options": ["one"], "metric": "anls"},
            "1: options: are for the metric choice, and it needs them; this row's is anls",
        ),
        (
            {"answer": "A", "metric": "choice"},
            "1: options: are for the metric choice, and it needs them; this row's is choice",
        ),
    ],
)
def test_a_mistake_is_named_with_line_field_limit_and_value(tmp_path: pathlib.Path, fields: dict[str, Any], said: str) -> None:
    assert problems(tmp_path, ROW | fields) == [said.replace("FOLDER", str(tmp_path))]


def test_all_mistakes_are_named_at_once(tmp_path: pathlib.Path) -> None:
    said = problems(tmp_path, ROW, '{"id": "2', {"id": "3"}, ROW)
    assert said[0].startswith("2: is not JSON: ")
    assert said[1:] == ["3: question: is required", "3: answer: is required", "4: id: is in line 1 too, got '1'"]


def test_of_many_mistakes_twenty_are_told(tmp_path: pathlib.Path) -> None:
    said = problems(tmp_path, *[ROW | {"id": str(number), "answer": True} for number in range(30)])
    assert (len(said), said[-1]) == (21, "... and 10 more")


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff"], ids=["missing", "empty", "blank", "not UTF-8"])
def test_a_file_without_rows_is_refused(tmp_path: pathlib.Path, content: bytes | None) -> None:
    path = tmp_path / "set.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"set\.jsonl: (has no rows|cannot be read)"):
        read_dataset(path)
