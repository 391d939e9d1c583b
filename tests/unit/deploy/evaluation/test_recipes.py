"""The recipes of docs/evaluation.md, run on files as the benchmarks' owners make them, and the rows that it shows."""

import json
import pathlib
import re
from typing import Any

from deploy.evaluation.dataset import Row, read_dataset

DOCUMENT = (pathlib.Path(__file__).parents[4] / "docs" / "evaluation.md").read_text()


def recipe(name: str) -> Any:
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL) if f"def {name}(" in code]
    names: dict[str, Any] = {}
    exec(code, names)
    return names[name]


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    return [row.model_dump(exclude_defaults=True) for row in read_dataset(path).rows]


def test_the_rows_that_are_shown_are_rows() -> None:
    (shown,) = [block for block in re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL) if '"question"' in block]
    kinds = [Row.model_validate_json(line).scored_by for line in shown.splitlines()]
    assert kinds == ["fields", "anls", "relaxed", "choice"]


def test_docvqa_becomes_rows(tmp_path: pathlib.Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "xnbl0037_1.png").write_bytes(b"")
    # As the challenge describes it: https://rrc.cvc.uab.es/?ch=17&com=tasks
    one = {
        "questionId": 49153,
        "question": "What is the date?",
        "question_types": ["form", "layout"],
        "image": "documents/xnbl0037_1.png",
        "docId": 14465,
        "ucsf_document_id": "xnbl0037",
        "ucsf_document_page_no": "1",
        "answers": ["1/8/93", "8 January"],
        "data_split": "val",
    }
    file = {"dataset_name": "SP-DocVQA", "dataset_version": "1.0", "dataset_split": "val", "data": [one]}
    (tmp_path / "val.json").write_text(json.dumps(file))
    recipe("docvqa")(tmp_path / "val.json", tmp_path / "docvqa.jsonl")
    assert read(tmp_path / "docvqa.jsonl") == [
        {
            "id": "49153",
            "image": "documents/xnbl0037_1.png",
            "question": "What is the date?",
            "answer": ["1/8/93", "8 January"],
            "tags": {"type": "form"},
        }
    ]


def test_chartqa_becomes_rows(tmp_path: pathlib.Path) -> None:
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "41699051005347.png").write_bytes(b"")
    for kind, label in (("human", "14"), ("augmented", "57.6")):
        one = {"imgname": "41699051005347.png", "query": "How many?", "label": label}
        (tmp_path / f"test_{kind}.json").write_text(json.dumps([one]))
    recipe("chartqa")(tmp_path, tmp_path / "chartqa.jsonl")
    rows = read(tmp_path / "chartqa.jsonl")
    assert [(row["id"], row["answer"], row["tags"]) for row in rows] == [
        ("human-0", "14", {"questions": "human"}),
        ("augmented-0", "57.6", {"questions": "augmented"}),
    ]


def test_mmmu_s_multiple_choices_become_rows(tmp_path: pathlib.Path) -> None:
    one = {f"image_{number}": None for number in range(1, 8)} | {
        "id": "validation_Basic_Medical_Science_12",
        "question": "<image 1> Which is it?",
        "options": "['Not <image 2>', \"it's B\"]",
        "answer": "B",
        "question_type": "multiple-choice",
        "image_1": {"bytes": b"1", "path": "a.png"},
        "image_2": {"bytes": b"2", "path": "b.png"},
    }
    numeric = one | {"id": "validation_Math_1", "question_type": "open", "options": "[]", "answer": "7"}
    recipe("mmmu")([one, numeric], tmp_path / "mmmu.jsonl")
    assert read(tmp_path / "mmmu.jsonl") == [
        {
            "id": "validation_Basic_Medical_Science_12",
            "images": ("validation_Basic_Medical_Science_12-1.png", "validation_Basic_Medical_Science_12-2.png"),
            "question": "<image 1> Which is it?",
            "options": ("Not <image 2>", "it's B"),
            "answer": "B",
            "tags": {"subject": "Basic_Medical_Science"},
        }
    ]
    assert (tmp_path / "validation_Basic_Medical_Science_12-2.png").read_bytes() == b"2"


def test_scienceqa_s_questions_about_images_become_rows(tmp_path: pathlib.Path) -> None:
    one = {
        "image": {"bytes": b"1", "path": "image.png"},
        "question": "Which is farthest north?",
        "choices": ["West Virginia", "Louisiana"],
        "answer": 0,
        "hint": "Look at the map.",
        "subject": "social science",
    }
    recipe("scienceqa")([one | {"image": None}, one, one | {"hint": "", "answer": 1}], tmp_path / "scienceqa.jsonl")
    rows = read(tmp_path / "scienceqa.jsonl")
    assert [(row["id"], row["question"], row["answer"]) for row in rows] == [
        ("scienceqa-1", "Look at the map.\nWhich is farthest north?", "A"),
        ("scienceqa-2", "Which is farthest north?", "B"),
    ]
