"""How right one answer is, as the benchmarks define it. Pure functions; every score is between 0 and 1."""

import math
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_ANLS_THRESHOLD = 0.5
_TOLERANCE = 0.05
_PUNCTUATION = (",", ".", "!", "?", ";", ":", "'")
_SHORT_TOKENS = 5
"""MMMU looks for an option's text within longer responses only."""
_SCIENCE_QA = re.compile(r"The answer is ([A-Z])\b")


def edit_distance(one: str, other: str) -> int:
    """The fewest characters to insert, delete or replace that make `other` of `one` (Levenshtein, 1966)."""
    row = list(range(len(other) + 1))
    for here, character in enumerate(one, 1):
        before, row[0] = row[0], here
        for there, another in enumerate(other, 1):
            before, row[there] = row[there], min(row[there] + 1, row[there - 1] + 1, before + (character != another))
    return row[-1]


def anls(answer: str, truths: Sequence[str]) -> float:
    """Normalized Levenshtein similarity to the nearest of `truths`; below the threshold of 0.5 nothing counts.

    Biten et al., "Scene Text Visual Question Answering" (ICCV 2019), equation 1, which Mathew et al., "DocVQA" (WACV 2021),
    take over: 1 - NL where NL < 0.5, else 0; the mean over all questions is their ANLS. As in the script of the challenge
    (rrc.cvc.uab.es) case does not count, nor do blanks around the text, or how many there are between words. That script
    keeps an NL of exactly 0.5, against the paper's equation; here it is 0.
    """
    return max(_similarity(_plain(answer), _plain(truth)) for truth in truths)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(one: str, other: str) -> float:
    longest = max(len(one), len(other))
    if not longest:
        return 1.0
    # The distance is at least the difference in length, and a model that goes on and on is not worth a look at all of it.
    if abs(len(one) - len(other)) / longest >= _ANLS_THRESHOLD:
        return 0.0
    distance = edit_distance(one, other) / longest
    return 1 - distance if distance < _ANLS_THRESHOLD else 0.0


def relaxed_accuracy(answer: str, truth: str) -> float:
    """1 where a number is within 5 % of the true one, or a text is the true one; else 0.

    Masry et al., "ChartQA" (ACL Findings 2022), section 5.1, after Methani et al., "PlotQA" (WACV 2020), as the evaluation of
    Pix2Struct does it (`relaxed_correctness`), which others took over: what ends in a percent sign is divided by 100, so that
    `45%` is 0.45 and not 45; a true 0 has no per cent, and is compared as text; texts are compared without regard to case.
    Blanks around either do not count.
    """
    answer, truth = answer.strip(), truth.strip()
    said, expected = _number(answer), _number(truth)
    if said is not None and expected:
        return float(abs(said - expected) / abs(expected) <= _TOLERANCE)
    return float(answer.lower() == truth.lower())


def _number(text: str) -> float | None:
    try:
        number = float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def chosen_letter(response: str, options: Sequence[str]) -> str | None:
    """The letter of the one of `options` that `response` decides for, A for the first; None where it decides for none.

    As the evaluator of MMMU does (Yue et al., CVPR 2024; `parse_multi_choice_response` in eval/eval_utils.py): blanks and
    punctuation around the response off; a letter in parentheses; else a letter by itself; else, in responses of more than
    five words, an option's text; of several the one that comes last. Where that finds nothing MMMU guesses at random. Here
    nothing is left to chance: `The answer is B.`, once, is taken, as ScienceQA does (Lu et al., NeurIPS 2022,
    models/run_gpt3.py), then a response that is an option's text and no more, and everything else is wrong.
    """
    response = f" {_without_punctuation(response.strip())} "
    by_letter = {chr(ord("A") + number): option for number, option in enumerate(options)}
    return (
        _last({letter: response.rfind(f"({letter})") for letter in by_letter})
        or _last({letter: response.rfind(f" {letter} ") for letter in by_letter})
        or _named(response, by_letter)
        or _science_qa(response, by_letter)
        or _verbatim(response, by_letter)
    )


def _without_punctuation(text: str) -> str:
    for character in _PUNCTUATION:
        text = text.strip(character)
    return text


def _last(places: dict[str, int]) -> str | None:
    """The letter found farthest to the end."""
    letter = max(places, key=places.__getitem__)
    return letter if places[letter] >= 0 else None


def _named(response: str, by_letter: dict[str, str]) -> str | None:
    if len(response.split()) <= _SHORT_TOKENS:
        return None
    return _last({letter: response.lower().rfind(option.lower()) for letter, option in by_letter.items()})


def _science_qa(response: str, by_letter: dict[str, str]) -> str | None:
    said = _SCIENCE_QA.findall(response)
    return said[0] if len(said) == 1 and said[0] in by_letter else None


def _verbatim(response: str, by_letter: dict[str, str]) -> str | None:
    said = response.strip().lower()
    same = [letter for letter, option in by_letter.items() if _without_punctuation(option.strip()).lower() == said]
    return same[0] if len(same) == 1 else None


def multiple_choice(response: str, options: Sequence[str], letter: str) -> float:
    """1 where `response` decides for `letter`, else 0."""
    return float(chosen_letter(response, options) == letter)


def exact_field(said: Any, truth: Any) -> float:
    """1 where two JSON values are equal, else 0: `1` is `1.0` and is not `true`, the order of keys does not count."""
    return float(_equal(said, truth))


def _equal(one: Any, other: Any) -> bool:
    match one, other:
        case bool() | None, _:
            return one is other
        case _, bool():
            return False
        case list(), list():
            return len(one) == len(other) and all(map(_equal, one, other))
        case dict(), dict():
            return one.keys() == other.keys() and all(_equal(value, other[key]) for key, value in one.items())
        case _:
            return bool(one == other)


def as_box(value: Any) -> Box | None:
    """Four finite numbers [left, top, right, bottom] as a box, its sides put in order; None of anything else."""
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)):
        return None
    left, top, right, bottom = map(float, value)
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that one can count with: finite, and of no more than twelve digits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def iou(one: Box, other: Box) -> float:
    """The area that two boxes share, as a part of what they cover together (PASCAL VOC; Everingham et al., IJCV 2010).

    Edges are places between pixels, as in COCO: [0, 0, 2, 2] covers four. Boxes without an area are the same box or share none.
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    together = _area(one) + _area(other) - shared
    return min(1.0, shared / together) if together > 0 else float(one == other)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
