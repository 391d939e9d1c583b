"""A row and its answer -> its marks."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from deploy.evaluation import scores
from deploy.evaluation.answers import Answer
from deploy.evaluation.dataset import Row, is_box_field
from deploy.evaluation.scores import Box

Boxes: TypeAlias = Literal["sent", "thousandths"]
"""What the numbers of a box in an answer count: pixels of the image as it was sent, or thousandths of its sides."""

ENOUGH_IOU = 0.5


class Mark(NamedTuple):
    """How right one answer is by one metric; `is_share` where that is 0 or 1 and nothing between."""

    metric: str
    value: float
    is_share: bool = True


def marks(row: Row, answer: Answer, boxes: Boxes = "sent") -> tuple[Mark, ...]:
    """The marks of an answer. A row that was refused, or whose answer cannot be read, has 0 in all that it could have had."""
    text = answer.text if answer.error is None else None
    match row.scored_by:
        case "fields":
            return tuple(_of_fields(_object(row.answer), _parsed(text), answer, boxes))
        case "anls":
            return (Mark("ANLS", 0.0 if text is None else scores.anls(text, row.acceptable), is_share=False),)
        case "relaxed":
            return (Mark("relaxed accuracy", 0.0 if text is None else scores.relaxed_accuracy(text, row.acceptable[0])),)
        case "choice":
            right = 0.0 if text is None else scores.multiple_choice(text, row.options, row.acceptable[0])
            return (Mark("multiple choice", right),)


def _object(value: Any) -> Mapping[str, Any]:
    assert isinstance(value, dict), "the row was checked when it was read"
    return value


def _parsed(text: str | None) -> Mapping[str, Any] | None:
    """The answer's object; None of what is none."""
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


_MISSING = object()


def _of_fields(truth: Mapping[str, Any], said: Mapping[str, Any] | None, answer: Answer, boxes: Boxes) -> Iterator[Mark]:
    said = {} if said is None else said
    plain = [name for name in truth if not is_box_field(name)]
    right = {name: scores.exact_field(said.get(name, _MISSING), truth[name]) for name in plain}
    yield from (Mark(name, value) for name, value in right.items())
    if len(plain) > 1:
        yield Mark("all fields", float(all(right.values())))
    for name in truth:
        if is_box_field(name):
            yield from _of_box(name, scores.as_box(truth[name]), said.get(name, _MISSING), answer, boxes)


def _of_box(name: str, truth: Box | None, said: Any, answer: Answer, boxes: Boxes) -> Iterator[Mark]:
    """Where there is a box, how well it is met; where there is none, whether the answer says so: two questions, two metrics."""
    if truth is None:
        yield Mark(f"{name} null", float(said is None))
        return
    box = scores.as_box(said)
    original = box and _in_original_pixels(box, answer, boxes)
    met = scores.iou(original, truth) if original else 0.0
    yield Mark(f"{name} IoU", met, is_share=False)
    yield Mark(f"{name} IoU ≥ {ENOUGH_IOU}", float(met >= ENOUGH_IOU))


def _in_original_pixels(box: Box, answer: Answer, boxes: Boxes) -> Box | None:
    """None where that cannot be told: the box counts something else, and the image's size could not be read."""
    size = answer.size
    counted = (1000, 1000) if boxes == "thousandths" else answer.sent_size
    if counted is None or 0 in counted:
        return box
    if size is None:
        return None
    across, down = size[0] / counted[0], size[1] / counted[1]
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down
