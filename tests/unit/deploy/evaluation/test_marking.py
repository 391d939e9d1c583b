"""A row and its answer -> its marks."""

import json
from typing import Any

import pytest

from deploy.evaluation.answers import Answer, Refusal
from deploy.evaluation.dataset import Row
from deploy.evaluation.marking import Boxes, marks
from tests.conftest import picture


def row(answer: Any, **fields: Any) -> Row:
    return Row.model_validate_json(json.dumps({"id": "1", "image": picture(), "question": "?", "answer": answer} | fields))


def marked(truth: Any, said: Any, boxes: Boxes = "sent", **answer: Any) -> dict[str, float]:
    given = Answer(id="1", digest="", text=json.dumps(said), **answer)
    return {mark.metric: mark.value for mark in marks(row(truth), given, boxes)}


TRUTH = {"found": True, "type": "dent", "bbox": [10, 10, 20, 20]}


def test_each_field_of_the_truth_is_marked_and_no_other() -> None:
    said = {"found": True, "type": "crack", "bbox": [10, 10, 20, 15], "notes": "!"}
    expected = {"found": 1, "type": 0, "all fields": 0, "bbox IoU": 0.5, "bbox IoU ≥ 0.5": 1}
    assert marked(TRUTH, said) == expected
    assert marked(TRUTH, TRUTH) == dict.fromkeys(expected, 1)


def test_a_field_that_is_not_said_is_wrong_even_where_the_truth_is_null() -> None:
    assert marked({"a": None, "bbox": None}, {}) == {"a": 0, "bbox null": 0}
    assert marked({"a": None, "bbox": None}, {"a": None, "bbox": None}) == {"a": 1, "bbox null": 1}


def test_a_box_where_there_is_none_is_wrong_and_none_where_there_is_one() -> None:
    assert marked({"bbox": None}, {"bbox": [1, 2, 3, 4]}) == {"bbox null": 0}
    assert marked({"bbox": [1, 2, 3, 4]}, {"bbox": None}) == {"bbox IoU": 0, "bbox IoU ≥ 0.5": 0}


@pytest.mark.parametrize("text", ["", "no", "[1]", "```json\n{}\n```", "[" * 100_000])
def test_what_is_no_object_has_every_field_wrong(text: str) -> None:
    assert {mark.value for mark in marks(row(TRUTH), Answer(id="1", digest="", text=text))} == {0}


def test_boxes_are_scaled_back_from_the_image_that_was_sent() -> None:
    said = {"bbox": [5, 20, 10, 40]}
    truth = {"bbox": [10, 10, 20, 20]}
    assert marked(truth, said, size=(100, 50), sent_size=(50, 100))["bbox IoU"] == 1
    assert marked(truth, {"bbox": truth["bbox"]}, size=(100, 50))["bbox IoU"] == 1


def test_boxes_may_be_thousandths_of_the_sides() -> None:
    said = {"bbox": [100, 200, 200, 400]}
    assert marked({"bbox": [10, 10, 20, 20]}, said, "thousandths", size=(100, 50), sent_size=(10, 5))["bbox IoU"] == 1


def test_a_box_of_an_image_without_a_size_is_compared_with_nothing_that_it_does_not_count() -> None:
    truth = {"bbox": [100, 200, 200, 400]}
    assert marked(truth, truth, "thousandths") == {"bbox IoU": 0, "bbox IoU ≥ 0.5": 0}
    assert marked(truth, truth, sent_size=(10, 5))["bbox IoU"] == 0
    assert marked(truth, truth)["bbox IoU"] == 1, "in the pixels in which the truth is"


@pytest.mark.parametrize(
    ("truth", "text", "expected"),
    [
        (row(["hello", "x"]), "hallo", ("ANLS", 0.8, False)),
        (row("hello", metric="anls"), "hallo", ("ANLS", 0.8, False)),
        (row(14.0), "14.5", ("relaxed accuracy", 1, True)),
        (row("45%"), "45", ("relaxed accuracy", 0, True)),
        (row("B", options=["one", "two"]), "(B)", ("multiple choice", 1, True)),
    ],
)
def test_other_truths_have_one_mark(truth: Row, text: str, expected: tuple[str, float, bool]) -> None:
    (mark,) = marks(truth, Answer(id="1", digest="", text=text))
    assert (mark.metric, mark.is_share) == (expected[0], expected[2])
    assert mark.value == pytest.approx(expected[1])
    refused = Answer(id="1", digest="", error=Refusal(code="x", message="y"))
    assert marks(truth, refused) == ((expected[0], 0, expected[2]),)
