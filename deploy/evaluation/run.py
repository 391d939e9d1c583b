"""A dataset through a gateway, from its file to its scores."""

import asyncio
import pathlib
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.evaluation import report
from deploy.evaluation.answers import Answer, AnswerFile
from deploy.evaluation.asking import Asker, Question
from deploy.evaluation.dataset import Dataset, Row, read_dataset
from deploy.evaluation.marking import Boxes, marks
from deploy.evaluation.plot import NoMatplotlib, plot
from deploy.evaluation.report import Marked

_UNFIT = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `fovea evaluate` was told."""

    dataset: pathlib.Path
    question: Question
    url: str
    api_key: str | None = None
    out: pathlib.Path | None = None
    limit: int | None = None
    concurrency: int = 16
    boxes: Boxes = "sent"
    seed: int = 0

    @property
    def folder(self) -> pathlib.Path:
        """Where answers and scores are: `out`, or one that is named after dataset and model."""
        return self.out or pathlib.Path("evaluations") / _UNFIT.sub("_", f"{self.dataset.stem}-{self.question.model}")


def evaluate(told: Evaluation, console: Console) -> int:
    """Asks what is not answered yet, prints the scores, writes them, and tells how many rows have no answer.

    Raises DatasetError, AnswersError, NobodyThere, and OSError where the scores cannot be written. Whatever ends it, what was
    answered stays answered.
    """
    dataset = read_dataset(told.dataset, told.limit)
    with AnswerFile(told.folder / "answers.jsonl") as answers:
        marked = asyncio.run(_marked(told, dataset, answers, console))
    failed = report.failures(marked)
    scores = report.scores(marked, told.seed)
    console.print(report.score_table(scores))
    if report.no_box_is_met(scores):
        console.print(
            f"\nNo box touches its truth: does the model count in another way than --boxes {told.boxes}?", markup=False
        )
    if failed:
        console.print(f"\n{len(failed)} of {len(marked)} rows have no answer, and count as wrong:", style="bold")
        console.print(report.failure_table(failed))
    report.write_json(report.as_document(marked, scores, _asked(told)), told.folder / "scores.json")
    try:
        plot(scores, f"{told.dataset.stem}, {told.question.model}", told.folder / "scores.png")
    except NoMatplotlib as error:
        console.print(str(error), markup=False)
    console.print(f"written to {told.folder}", markup=False)
    return len(failed)


def _asked(told: Evaluation) -> Mapping[str, Any]:
    question = asdict(told.question)
    return {"dataset": str(told.dataset), **question, "url": told.url, "boxes": told.boxes, "seed": told.seed}


async def _marked(told: Evaluation, dataset: Dataset, answers: AnswerFile, console: Console) -> list[Marked]:
    headers = {"authorization": f"Bearer {told.api_key}"} if told.api_key else {}
    limits = httpx.Limits(max_connections=told.concurrency)
    async with httpx.AsyncClient(base_url=told.url, headers=headers, limits=limits) as client:
        asker = Asker(client, told.question, told.concurrency)
        by_id: dict[str, Marked] = {}
        with _progress(console) as progress:
            advance = _advancing(progress, len(dataset.rows))

            def tell(row: Row, answer: Answer) -> None:
                by_id[row.id] = Marked(row, answer, marks(row, answer, told.boxes))
                advance(by_id[row.id])

            await asker.ask_all(dataset, answers, tell)
    return [by_id[row.id] for row in dataset.rows]


def _progress(console: Console) -> Progress:
    score = TextColumn("score {task.fields[score]:.3f}, failed {task.fields[failed]}")
    return Progress(BarColumn(), MofNCompleteColumn(), score, TimeRemainingColumn(), console=console)


def _advancing(progress: Progress, rows: int) -> Callable[[Marked], None]:
    """What moves the bar on; the score is the mean of the rows' own means."""
    task = progress.add_task("", total=rows, score=0.0, failed=0)
    done, right, failed = 0, 0.0, 0

    def advance(one: Marked) -> None:
        nonlocal done, right, failed
        done, right, failed = done + 1, right + one.mean, failed + bool(one.answer.error)
        progress.update(task, advance=1, score=right / done, failed=failed)

    return advance
