"""How right a running stack is about drawn pictures, as `fovea evaluate` finds it out, and whether two ways to ask differ."""

import io
import json
import math
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from deploy.evaluation.answers import Answer
from deploy.evaluation.asking import Question
from deploy.evaluation.dataset import read_dataset
from deploy.evaluation.marking import marks
from deploy.evaluation.run import Evaluation, evaluate
from deploy.evaluation.schemas import response_format

SCENE_SCHEMA = "deploy.demo.inspection:LocatedInspectionResult"
GARMENT_SCHEMA = "deploy.demo.garments:ProductAttributes"

SURELY = 0.01
"""A difference that would come by chance less often than so is none of chance."""


@dataclass(frozen=True)
class Asked:
    """What a model was asked and what it said, by row."""

    scores: tuple[Mapping[str, Any], ...]
    answers: Mapping[str, Mapping[str, Any]]
    """As `answers.jsonl` has them."""
    marks: Mapping[str, Mapping[str, float]]
    """By metric, of each row those that it has."""

    def share(self, metric: str, tag: str = "", of: str = "") -> float:
        """Of the rows, or of those whose tag has this value, that are right."""
        found = [one for one in self.scores if (one["metric"], one["tag"], one["of"]) == (metric, tag, of)]
        return float(found[0]["value"])

    @property
    def texts(self) -> Mapping[str, str]:
        """What was said, letter by letter."""
        return {row: answer["text"] for row, answer in self.answers.items()}

    def surely_differs_from(self, other: "Asked", metric: str) -> bool:
        """By McNemar's exact test: of rows that one gets right and the other does not, as many should be either's."""
        pairs = [(marks[metric], other.marks[row][metric]) for row, marks in self.marks.items() if metric in marks]
        mine, theirs = pairs.count((1, 0)), pairs.count((0, 1))
        either = mine + theirs
        tail = sum(math.comb(either, k) for k in range(min(mine, theirs) + 1))
        return bool(2 * tail < SURELY * 2**either)


@dataclass(frozen=True)
class Asker:
    """Asks the models of one gateway about one dataset."""

    url: str
    dataset: pathlib.Path
    schema: str = SCENE_SCHEMA

    def ask(self, model: str, out: pathlib.Path, detail: str | None = None, concurrency: int = 16) -> Asked:
        """Raises AssertionError: a row has no answer."""
        question = Question(model, response_format(self.schema), detail=detail)
        told = Evaluation(self.dataset, question, self.url, out=out, boxes="thousandths", concurrency=concurrency)
        said = io.StringIO()
        assert evaluate(told, Console(file=said)) == 0, said.getvalue()
        answers = {answer["id"]: answer for answer in _rows(out / "answers.jsonl")}
        rows = read_dataset(self.dataset).rows
        by_row = {row.id: marks(row, Answer.model_validate(answers[row.id]), "thousandths") for row in rows}
        values = {row: {mark.metric: mark.value for mark in marked} for row, marked in by_row.items()}
        return Asked(tuple(json.loads((out / "scores.json").read_text())["scores"]), answers, values)


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
