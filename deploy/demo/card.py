"""`python -m deploy.demo.card FOLDER`: how right the models that see are, through the whole stack, written into their card.

Half an hour on two cores, while `fovea up deploy/catalogs/cpu-demo.yaml` stays up. FOLDER gets pictures, answers and scores;
what is there of the same weights is not asked again.
"""

import argparse
import hashlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from deploy.demo.dataset import LARGE, SMALL, VARIATIONS, write_garments, write_scenes
from deploy.evaluation.answers import AnswersError
from deploy.evaluation.asking import NobodyThere, Question
from deploy.evaluation.run import Evaluation, evaluate
from deploy.evaluation.schemas import response_format

CARD = pathlib.Path(__file__).parent / "weights" / "MODEL_CARD.md"
BEGIN, END = "<!-- measured -->", "<!-- end -->"

SCENES = 1000
GARMENTS = 300
MODELS = ("small", "large")
ADAPTER = "small:catalogue"

Scores = Mapping[tuple[str, str, str], Mapping[str, Any]]
"""By metric, tag and the tag's value, as `scores.json` has them."""

_SCENE_SCHEMA = "deploy.demo.inspection:LocatedInspectionResult"
_GARMENT_SCHEMA = "deploy.demo.garments:ProductAttributes"
_HALF = "bbox IoU ≥ 0.5"
_LARGE, _SMALL = ("longest_px", LARGE), ("longest_px", SMALL)
_ALL = ("", "")
_DETECTED = ("`defect_detected`", "defect_detected", _ALL)
_TYPE = ("`defect_type`", "defect_type", _ALL)
_SEVERITY = ("`severity`", "severity", _ALL)
_BOX = ("box, IoU ≥ 0.5, of defects of 20 px and more", _HALF, _LARGE)
_OF_SCENES = (
    _DETECTED,
    ("… of defects of 20 px and more", "defect_detected", _LARGE),
    ("… of defects under 20 px", "defect_detected", _SMALL),
    ("… where there is no defect", "defect_detected", ("longest_px", "none")),
    _TYPE,
    ("… of defects of 20 px and more", "defect_type", _LARGE),
    ("… of defects under 20 px", "defect_type", _SMALL),
    _SEVERITY,
    ("… of defects of 20 px and more", "severity", _LARGE),
    ("… of defects under 20 px", "severity", _SMALL),
    ("`defect_location`", "defect_location", _ALL),
    _BOX,
    ("box, IoU ≥ 0.5, of defects under 20 px", _HALF, _SMALL),
)
"""What the card tells: its words, the metric, and of which rows."""
_OF_VARIATIONS = (_DETECTED, _TYPE, _SEVERITY, _BOX)
_OF_GARMENTS = ("product_type", "color", "gender", "season", "usage", "product_name", "all fields")


@dataclass(frozen=True, slots=True)
class Examiner:
    """Asks one gateway, and keeps what comes of it in `folder`."""

    url: str
    folder: pathlib.Path
    console: Console

    def scores(self, dataset: pathlib.Path, model: str, schema: str) -> Scores:
        """Raises SystemExit: a row has no answer. Raises NobodyThere, AnswersError."""
        out = dataset.parent / f"{model.replace(':', '-')}-{_weights_digest()}"
        told = Evaluation(dataset, Question(model, response_format(schema)), self.url, out=out, boxes="thousandths")
        self.console.rule(f"{dataset.parent.name}, {model}")
        if evaluate(told, self.console):
            raise SystemExit("rows without an answer: nothing is written into the card; the same command asks them again")
        found = json.loads((out / "scores.json").read_text())["scores"]
        return {(score["metric"], score["tag"], score["of"]): score for score in found}

    def tables(self) -> Iterator[str]:
        """All of the card's tables, each with a heading."""
        by_variation = {variation: self._of_scenes(variation) for variation in VARIATIONS}
        yield f"### {SCENES:,} scenes as in training\n"
        yield from _table(("", *MODELS), _of_scenes(by_variation["as-trained"]))
        for model in MODELS:
            yield f"\n### `{model}` on scenes that differ\n"
            yield from _table(("", *VARIATIONS), _of_variations({name: of[model] for name, of in by_variation.items()}))
        yield f"\n### The adapter, on {GARMENTS} garments\n"
        garments = write_garments(self.folder / "garments", GARMENTS)
        asked = [self.scores(garments, model, _GARMENT_SCHEMA) for model in (ADAPTER, "small")]
        yield from _table(("", f"`{ADAPTER}`", "`small`"), _of_garments(asked))

    def _of_scenes(self, variation: str) -> Mapping[str, Scores]:
        dataset = write_scenes(self.folder / variation, SCENES, 1, variation)
        return {model: self.scores(dataset, model, _SCENE_SCHEMA) for model in MODELS}


def _weights_digest() -> str:
    """Of all the weights that are shipped: answers of others are none of the card's."""
    found = sorted(CARD.parent.glob("*/*.safetensors"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in found)).hexdigest()[:12]


def _of_scenes(by_model: Mapping[str, Scores]) -> Iterator[Sequence[str]]:
    for words, metric, group in _OF_SCENES:
        of_models = [by_model[model][metric, *group] for model in MODELS]
        yield (f"{words} ({of_models[0]['rows']} scenes)", *map(_with_interval, of_models))


def _of_variations(by_variation: Mapping[str, Scores]) -> Iterator[Sequence[str]]:
    for words, metric, group in _OF_VARIATIONS:
        yield (words, *(_percent(scores[metric, *group]["value"]) for scores in by_variation.values()))


def _of_garments(asked: Sequence[Scores]) -> Iterator[Sequence[str]]:
    for field in _OF_GARMENTS:
        yield (field if field == "all fields" else f"`{field}`", *(_with_interval(one[field, "", ""]) for one in asked))


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|---|{'--:|' * (len(heads) - 1)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _with_interval(score: Mapping[str, Any]) -> str:
    return f"{_percent(score['value'])} ({100 * score['low']:.1f} to {100 * score['high']:.1f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def rewrite(card: str, tables: Callable[[], Iterator[str]]) -> str:
    """The card with what was measured in the place that is marked for it."""
    before, rest = card.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return "\n".join((f"{before}{BEGIN}", "", *tables(), "", f"{END}{after}"))


def main() -> None:
    """Parses the command line, asks, and writes the card."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.card", description="Write what the demo models get right.")
    parser.add_argument("folder", type=pathlib.Path, help="pictures, answers and scores are written here")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the gateway (default: %(default)s)")
    arguments = parser.parse_args()
    examiner = Examiner(arguments.url, arguments.folder, Console())
    try:
        CARD.write_text(rewrite(CARD.read_text(encoding="utf-8"), examiner.tables), encoding="utf-8")
    except (AnswersError, NobodyThere, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
