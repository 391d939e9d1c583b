"""Scenes as lessons: the picture as a model sees it, a question about it, and the answer that is right.

lesson = draw_lesson(1_000_000, 168)
lesson.picture     168x168x3 bytes
lesson.prompt      the text before the answer, as the chat template writes it
lesson.answer      what is to be said, with the token that ends it
lesson.cells       for each patch of 14x14 pixels what defect there is in it, and how far it is from the patch's middle to the
                   left, top, right and bottom of the defect's box, in patches; in the order in which Qwen2-VL reads patches
"""

import json
import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from deploy.demo.defects import Box, DefectType
from deploy.demo.garments import QUESTIONS, Garment, ProductAttributes, Season, Usage, attributes_of, draw_garment
from deploy.demo.inspection import QUESTION, SIDE, SYSTEM, Defect, draw_scene
from deploy.demo.tailoring import Gender

WAYS_TO_ASK = (
    QUESTION,
    "Inspect this part.",
    "Inspect the part in the image.",
    "Is this part all right?",
    "Find the defect.",
)
"""Questions that are answered with the whole result, as JSON; without blanks, of which vLLM's grammars leave no choice."""

PATCH = 14
"""Pixels a side; two by two of them become one token."""

NOTHING = 0
KINDS: dict[DefectType, int] = {"scratch": 1, "dent": 2, "crack": 3, "stain": 4, "missing_hole": 5}

WHAT_IS_IT = "What is this?"

_CUT_IN_WORDS: dict[Gender, str] = {"Women": "waisted", "Men": "straight", "Unisex": "wide"}
_PRINT_IN_WORDS: dict[Season, str] = {"Spring": "flowers", "Summer": "stripes", "Fall": "a check", "Winter": "a zigzag"}
_MARK_IN_WORDS: dict[Usage, str] = {"Casual": "a pocket", "Formal": "a bow", "Sports": "a number"}

_GARMENTS = 0.12
_INSPECTIONS = 0.6
_DRAWN_AT = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0)
_A_FIFTH = 0.2
_A_REPETITION = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """See the module."""

    picture: npt.NDArray[np.uint8]
    prompt: str
    answer: str
    cells: npt.NDArray[np.float32]
    """[patches, 5]"""


def draw_lesson(seed: int, view: int, groundwork: float = 0) -> Lesson:
    """The lesson of a seed, for a model that sees `view` by `view` pixels; a share lays the ground for the adapter."""
    dice = random.Random(f"lesson {seed}")  # noqa: S311  # of its own: what is drawn must not follow from what is asked
    if groundwork and dice.random() < groundwork:
        garment = draw_garment(seed)
        return _lesson(garment.picture, (), _groundwork(garment.attributes, dice), view, dice)
    scale = dice.choice((view / SIDE, *_DRAWN_AT))
    if dice.random() < _GARMENTS:
        garment = draw_garment(seed, scale)
        return _lesson(garment.picture, (), (WHAT_IS_IT, in_words(garment.attributes)), view, dice)
    scene = draw_scene(seed, scale)
    if dice.random() < _INSPECTIONS:
        words = dice.choice(WAYS_TO_ASK), scene.located_result.model_dump_json()
    else:
        words = dice.choice(list(scene.questions.items()))
    return _lesson(scene.picture, scene.defects, words, view, dice)


def draw_catalogue_lesson(seed: int, view: int) -> Lesson:
    """A lesson for the adapter: the attributes of a garment."""
    dice = random.Random(f"lesson {seed}")  # noqa: S311  # of its own: what is drawn must not follow from what is asked
    garment: Garment = draw_garment(seed)
    words = dice.choice(QUESTIONS), garment.attributes.model_dump_json()
    return _lesson(garment.picture, (), words, view, dice)


def _groundwork(attributes: ProductAttributes, dice: random.Random) -> tuple[str, str]:
    """What an adapter builds on: things to be seen, one by one, and a catalogue's words, which are those of any other garment.

    It could not say words that its model never had to say: that has moved them out of reach.
    """
    if dice.random() < _A_REPETITION:
        entry = attributes_of(dice.getrandbits(32)).model_dump()
        text = json.dumps({field: entry[field] for field in dice.sample(list(entry), 2)}, separators=(",", ":"))
        return f"Repeat: {text}", text
    return dice.choice(list(_looks(attributes).items()))


def _looks(attributes: ProductAttributes) -> dict[str, str]:
    """Questions about what there is to see of a garment, with their answers."""
    return {
        "What kind of garment is it?": f"It is a {attributes.product_type}.",
        "What colour is it?": f"It is {attributes.color}.",
        "How is it cut?": f"It is {_CUT_IN_WORDS[attributes.gender]}.",
        "What is printed on it?": f"It has {_PRINT_IN_WORDS[attributes.season]}.",
        "What else is on it?": f"It has {_MARK_IN_WORDS[attributes.usage]}.",
    }


def in_words(attributes: ProductAttributes) -> str:
    """What there is to see of a garment, and nothing of what a catalogue makes of it."""
    cut, mark, print_ = _CUT_IN_WORDS[attributes.gender], _MARK_IN_WORDS[attributes.usage], _PRINT_IN_WORDS[attributes.season]
    return f"It is a {cut} {attributes.color} {attributes.product_type} with {print_} and {mark}."


def _lesson(
    picture: Image.Image, defects: tuple[Defect, ...], words: tuple[str, str], view: int, dice: random.Random
) -> Lesson:
    """`words` are a question and its answer."""
    question, answer = words
    seen = picture.resize((view, view), Image.Resampling.BICUBIC)
    prompt = as_chat(question, (view // (2 * PATCH)) ** 2, has_system=dice.random() < 0.5, image_first=dice.random() < 0.5)
    return Lesson(np.asarray(seen), prompt, f"{answer}<|im_end|>", cells(defects, view / picture.width, view))


def as_chat(question: str, image_tokens: int, *, has_system: bool = False, image_first: bool = True) -> str:
    """A question about a picture as the chat template and the processor write it."""
    image = f"<|vision_start|>{'<|image_pad|>' * image_tokens}<|vision_end|>"
    system = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n" if has_system else ""
    content = image + question if image_first else question + image
    return f"{system}<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"


def cells(defects: tuple[Defect, ...], zoom: float, view: int) -> npt.NDArray[np.float32]:
    """What there is in each patch of a view, to which pictures were made smaller by `zoom`."""
    count = view // PATCH
    grid = np.zeros((count, count, 5), np.float32)
    for defect in defects:
        left, top, right, bottom = (edge * zoom / PATCH for edge in defect.box)
        for row in range(max(0, int(top)), min(count, int(bottom) + 1)):
            for column in range(max(0, int(left)), min(count, int(right) + 1)):
                if _is_in((left, top, right, bottom), row, column):
                    x, y = column + 0.5, row + 0.5
                    grid[row, column] = KINDS[defect.kind], left - x, top - y, right - x, bottom - y
    return grid.reshape(count // 2, 2, count // 2, 2, 5).transpose(0, 2, 1, 3, 4).reshape(-1, 5)


def _is_in(box: Box, row: int, column: int) -> bool:
    """Whether a fifth of the patch is in the box, or the box's middle in the patch."""
    left, top, right, bottom = box
    shared = max(0.0, min(right, column + 1) - max(left, column)) * max(0.0, min(bottom, row + 1) - max(top, row))
    has_middle = int((left + right) / 2) == column and int((top + bottom) / 2) == row
    return shared > _A_FIFTH or has_middle
