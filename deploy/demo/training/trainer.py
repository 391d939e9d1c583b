"""The loop that teaches a network: lessons by their numbers, steps, checkpoints, and the way back from one."""

import copy
import hashlib
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Qwen2Tokenizer

from deploy.demo import seeds
from deploy.demo.training.exam import Marks, sit
from deploy.demo.training.inspectors import Size, make_network
from deploy.demo.training.lessons import Lesson, draw_lesson
from deploy.demo.training.network import NOT_ASKED, Pupil

TAUGHT_BY = (
    *("models.py", "seeds.py", "parts.py", "defects.py", "inspection.py", "tailoring.py", "garments.py"),
    *("training/lessons.py", "training/network.py", "training/inspectors.py", "training/trainer.py"),
)
"""The files, from `deploy/demo` on, that decide what is learnt, the chat template of models.py among it; exams only ask."""


class StaleCheckpoint(Exception):
    """What a checkpoint has learnt is not what would be taught now."""


@dataclass(frozen=True, slots=True)
class Course:
    """How long and how fast is learnt."""

    steps: int
    batch: int = 48
    rate: float = 1.5e-3
    warmup: int = 200
    decay: float = 0.05
    points: float = 0.5
    """How much what is in each patch counts beside the words."""
    groundwork: float = 0
    """The share of lessons that lay the ground for an adapter."""
    exam_every: int = 500
    exam_scenes: int = 256


@dataclass(slots=True)
class History:
    """Steps with their losses, and marks by step."""

    losses: list[tuple[int, float, float]] = field(default_factory=list)
    marks: dict[int, Marks] = field(default_factory=dict)

    def as_document(self) -> dict[str, Any]:
        return {"losses": self.losses, "marks": {step: asdict(marks) for step, marks in self.marks.items()}}

    @classmethod
    def of(cls, document: dict[str, Any]) -> "History":
        return cls(
            [(step, words, points) for step, words, points in document["losses"]],
            {int(step): Marks(**marks) for step, marks in document["marks"].items()},
        )


class Lessons(Dataset[Lesson]):  # type: ignore[misc]  # torch is not there where types are checked
    """All lessons, by number; drawn when they are asked for."""

    def __init__(self, view: int, groundwork: float) -> None:
        self._view, self._groundwork = view, groundwork

    def __getitem__(self, number: int) -> Lesson:
        return draw_lesson(seeds.LESSONS[number], self._view, self._groundwork)


@dataclass(frozen=True, slots=True)
class Collate:
    """Lessons as one batch: tokens, the tokens that are wanted, pictures and cells."""

    tokenizer: Qwen2Tokenizer

    def __call__(self, drawn: Sequence[Lesson]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        prompts, answers = (
            [self.tokenizer(text)["input_ids"] for text in texts]
            for texts in ([one.prompt for one in drawn], [one.answer for one in drawn])
        )
        length = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
        tokens = torch.full((len(drawn), length), self.tokenizer.pad_token_id)
        wanted = torch.full((len(drawn), length), NOT_ASKED)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            tokens[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            wanted[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
        pictures = torch.from_numpy(np.stack([one.picture for one in drawn]))
        return tokens, wanted, pictures, torch.from_numpy(np.concatenate([one.cells for one in drawn]))


class Trainer:
    """Teaches one network; what it has reached is in `folder`, and another process may go on from there.

    Raises StaleCheckpoint: what is in `folder` was taught otherwise.
    """

    def __init__(self, size: Size, tokenizer: Qwen2Tokenizer, course: Course, folder: pathlib.Path) -> None:
        self.size, self.tokenizer, self.course = size, tokenizer, course
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pupil = Pupil(make_network(size, tokenizer), size.view).to(self.device)
        self.history = History()
        self.step = 0
        self._optimizers = _optimizers(self.pupil, course)
        folder.mkdir(parents=True, exist_ok=True)
        self._checkpoint, self._recipe = folder / "checkpoint.pt", _recipe(size, tokenizer, course)
        if self._checkpoint.exists():
            self._go_on()

    def train(self, tell: Callable[[int, float, float], None], examined: Callable[[int, Marks], None], workers: int) -> None:
        """Takes the steps that are left; `tell` hears of each, `examined` of each exam."""
        self.pupil.train()
        self.pupil.compile_layers()
        for batch in self._batches(workers):
            words, points = self._take(batch)
            self.history.losses.append((self.step, words, points))
            self.step += 1
            tell(self.step, words, points)
            if self.step % self.course.exam_every == 0 or self.step == self.course.steps:
                examined(self.step, self._examine())
                self._save()

    def save_model(self, folder: pathlib.Path) -> None:
        """Writes the network as vLLM loads it, in bfloat16."""
        copy.deepcopy(self.pupil.network).bfloat16().save_pretrained(folder)

    def _batches(self, workers: int) -> Iterator[tuple[Tensor, ...]]:
        course = self.course
        numbers = (range(step * course.batch, (step + 1) * course.batch) for step in range(self.step, course.steps))
        loader = DataLoader(
            Lessons(self.size.view, course.groundwork),
            batch_sampler=list(numbers),
            collate_fn=Collate(self.tokenizer),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
        )
        yield from loader

    def _take(self, batch: tuple[Tensor, ...]) -> tuple[float, float]:
        """One step; the losses of words and of patches."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * _pace(self.step, self.course)
            optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16):
            words, points = self.pupil(*(part.to(self.device) for part in batch))
        (words + self.course.points * points).backward()
        nn.utils.clip_grad_norm_(self.pupil.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        return float(words.detach()), float(points.detach())

    def _examine(self) -> Marks:
        self.pupil.eval()
        with torch.compiler.set_stance("force_eager"):
            marks = sit(self.pupil.network, self.tokenizer, self.size, self.course.exam_scenes)
        self.history.marks[self.step] = marks
        self.pupil.train()
        return marks

    def _save(self) -> None:
        """Whole or not at all: a checkpoint that was being written when the machine went is not the only one."""
        unfinished = self._checkpoint.with_suffix(".new")
        torch.save(
            {
                "recipe": self._recipe,
                "step": self.step,
                "pupil": self.pupil.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
                "history": json.dumps(self.history.as_document()),
            },
            unfinished,
        )
        unfinished.replace(self._checkpoint)

    def _go_on(self) -> None:
        state = torch.load(self._checkpoint, map_location=self.device, weights_only=True)
        if state["recipe"] != self._recipe:
            raise StaleCheckpoint(f"{self._checkpoint} was taught otherwise than is taught now; remove it to begin anew")
        self.step = state["step"]
        self.pupil.load_state_dict(state["pupil"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.history = History.of(json.loads(state["history"]))


def _recipe(size: Size, tokenizer: Qwen2Tokenizer, course: Course) -> str:
    """The digest of all that decides what is learnt."""
    demo = pathlib.Path(__file__).parents[1]
    sources = b"".join((demo / name).read_bytes() for name in TAUGHT_BY)
    told = f"{size} {course} {tokenizer.backend_tokenizer.to_str()}"
    return hashlib.sha256(sources + told.encode()).hexdigest()


def _optimizers(pupil: Pupil, course: Course) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between layers, AdamW for what comes in, goes out, or is no matrix."""
    ends = {id(part.weight) for part in (pupil.network.get_input_embeddings(), pupil.pointer[1])}
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    plain: list[Tensor] = []
    for weight in pupil.parameters():
        if weight.ndim == 2 and id(weight) not in ends:
            matrices.append(weight)
        else:
            (others if weight.ndim > 1 else plain).append(weight)
    adam = torch.optim.AdamW(
        [{"params": others, "weight_decay": course.decay}, {"params": plain, "weight_decay": 0.0}],
        lr=course.rate,
        betas=(0.9, 0.98),
    )
    muon = torch.optim.Muon(matrices, lr=course.rate, weight_decay=course.decay, adjust_lr_fn="match_rms_adamw")
    optimizers: list[torch.optim.Optimizer] = [adam, muon]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = course.rate
    return optimizers


def _pace(step: int, course: Course) -> float:
    """The share of the learning rate: up in a line, down along a cosine to nothing."""
    if step < course.warmup:
        return (step + 1) / course.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - course.warmup) / max(1, course.steps - course.warmup)))
