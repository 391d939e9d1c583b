"""`python -m deploy.demo.train FOLDER`: trains the demo models that see, from nothing, and the adapter that reads catalogues.

Two hours on two cores; on a GPU as long as `--workers` take to draw. Whatever ends it, the same command goes on from
the last checkpoint. FOLDER gets a folder for each, as vLLM loads it, and how it was learnt beside: `small.json`, `small.png`.

Needs transformers and torch, so on a machine without a GPU `cpu_torch/` on the PYTHONPATH; and matplotlib, for the picture.
"""

import argparse
import json
import pathlib
import sys
import time

import matplotlib as mpl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.demo.models import make_processor
from deploy.demo.training.adapter import save_adapter, train_adapter
from deploy.demo.training.inspectors import SIZES, make_tokenizer
from deploy.demo.training.trainer import Collate, Course, History, StaleCheckpoint, Trainer

mpl.use("Agg")
from matplotlib import pyplot as plt  # it asks which backend is meant

COURSES = {"small": Course(steps=8000, rate=3e-3, groundwork=0.15), "large": Course(steps=4500)}
ADAPTED = "small"
CHECKPOINTS = "checkpoints"
TOLD_EVERY = 100


def train(name: str, out: pathlib.Path, console: Console, workers: int) -> Trainer:
    """Trains the model `name`, as far as it is not trained, and writes it."""
    folder, course = out / name, COURSES[name]
    trainer = Trainer(SIZES[name], make_tokenizer(), course, out / CHECKPOINTS / name)
    parameters = sum(weight.numel() for weight in trainer.pupil.network.parameters())
    started_s = time.monotonic()
    console.print(f"{name}: {parameters:,} parameters, {trainer.step} of {course.steps} steps taken")
    with _progress(name, console) as progress:
        task = progress.add_task("", total=course.steps, completed=trainer.step, told="")

        def tell(step: int, words: float, points: float) -> None:
            told = f"loss {words:.3f}, patches {points:.3f}"
            progress.update(task, completed=step, told=told)
            if not console.is_terminal and step % TOLD_EVERY == 0:  # a file shows no bar
                console.print(f"{name}, step {step}: {told}, {time.monotonic() - started_s:.0f} s")

        trainer.train(tell, lambda step, marks: console.print(f"{name}, step {step}: {marks}"), workers)
    trainer.save_model(folder)
    make_processor(SIZES[name].pixels, trainer.tokenizer).save_pretrained(folder)
    (out / f"{name}.json").write_text(json.dumps(trainer.history.as_document()), encoding="utf-8")
    draw_history(trainer.history, name, out / f"{name}.png")
    return trainer


def adapt(trainer: Trainer, out: pathlib.Path, console: Console) -> None:
    """Trains the catalogue adapter of a trained model, and writes it."""
    with _progress("catalogue", console) as progress:
        task = progress.add_task("", told="")
        added = train_adapter(
            trainer.pupil,
            Collate(trainer.tokenizer),
            trainer.size,
            lambda step, steps, loss: progress.update(task, completed=step, total=steps, told=f"loss {loss:.3f}"),
        )
    save_adapter(added, out / "catalogue", f"demo:{ADAPTED}")


def draw_history(history: History, title: str, path: pathlib.Path) -> None:
    """Losses by step above, marks below."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 7), sharex=True, layout="constrained")
    steps, words, points = zip(*history.losses, strict=True)
    above.semilogy(steps, words, linewidth=0.5, label="words")
    above.semilogy(steps, points, linewidth=0.5, label="patches")
    above.set(title=f"{title}: loss, and what it gets right of scenes that it has not seen")
    for mark in ("detected", "kind", "severity", "boxes", "boxes_below"):
        below.plot(list(history.marks), [getattr(marks, mark) for marks in history.marks.values()], marker="o", label=mark)
    below.set(xlabel="step", ylim=(0, 1))
    for axes in (above, below):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _progress(name: str, console: Console) -> Progress:
    told = TextColumn("{task.fields[told]}")
    return Progress(TextColumn(name), BarColumn(), MofNCompleteColumn(), told, TimeRemainingColumn(), console=console)


def main() -> None:
    """Parses the command line and trains what is named."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.train", description="Train the demo models that see.")
    parser.add_argument("folder", type=pathlib.Path, help="what is learnt is written here")
    parser.add_argument("names", nargs="*", choices=[[], *COURSES], default=[], help="which models; without, all")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw; 0: none but this one (default: 2)")
    arguments = parser.parse_args()
    if arguments.workers < 0:
        parser.error(f"argument --workers: must be 0 or more, got {arguments.workers}")
    console = Console()
    try:
        for name in arguments.names or COURSES:
            trainer = train(name, arguments.folder, console, arguments.workers)
            if name == ADAPTED:
                adapt(trainer, arguments.folder, console)
    except StaleCheckpoint as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
