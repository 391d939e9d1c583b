"""Inspection scenes, drawn from a seed: machined parts, what is wrong with them, and what there is to say about that.

    scene = draw_scene(7)      the same wherever the same versions of NumPy and Pillow draw it
    scene.picture              a PIL image of 224x224
    scene.result               its ProductInspectionResult, of the worst defect
    scene.questions            questions in words, each with its answer

`draw_scene(7, scale=3)` is the same scene with three times the pixels a side. Boxes are in pixels of the picture
that was drawn.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from PIL import Image, ImageChops, ImageDraw
from pydantic import BaseModel, Field

from deploy.demo.defects import DARK, DRAWERS, GRADES, HOLE, MARGIN, Box, DefectType, Grade, Mark, Severity, ends
from deploy.demo.parts import BRUSHED, FINISHES, SHAPES, Colour, Disc, Point, Pose, Shape

SIDE = 224
"""Of a scene, in its own units; a picture of scale 1 has as many pixels."""

QUESTION = "Is there a defect on this part?"
"""Which `result` answers, with or without the box."""
SYSTEM = "You inspect machined parts."
"""A system message that models may be told, or not."""

BACKGROUNDS = ("plain", "grid", "planks", "speckle")
NEW_BACKGROUNDS = ("checks", "rings")
"""Those that nothing is trained on."""

_FINE = 2
"""Drawn with so many times the pixels a side and then made smaller, for smooth edges."""

_TONES: Sequence[Colour] = (
    *((214, 218, 222), (170, 158, 140), (92, 98, 106)),
    *((236, 234, 228), (128, 140, 150), (60, 66, 72)),
)
_HOLE_COLOUR = (30, 32, 36)
_SHADOW = (0, 0, 0, 70)
_VISIBLE = 10
"""How much lighter or darker a pixel must have become, of 255."""
_THROWS = 20
"""Places and angles that are tried for a defect before it is made smaller."""
_FLAWLESS = 0.3
_A_SECOND_DEFECT = 0.12
_GRADE_WEIGHTS = (1, 3, 3, 3)
_ORDER: Sequence[Severity] = ("minor", "major", "critical")


class ProductInspectionResult(BaseModel):
    """What an inspection of a part found: its worst defect. The lengths keep a model from talking for ever."""

    defect_detected: bool
    defect_type: Literal["none", "scratch", "dent", "crack", "stain", "missing_hole"]
    defect_location: str = Field(max_length=40)
    severity: Literal["none", "minor", "major", "critical"]
    confidence: float = Field(ge=0, le=1)
    notes: str = Field(max_length=80)


class LocatedInspectionResult(ProductInspectionResult):
    """And where the defect is: left, top, right, bottom in thousandths of the picture's sides, or null where there is none."""

    bbox: Annotated[list[Annotated[int, Field(ge=0, le=1000)]], Field(min_length=4, max_length=4)] | None


@dataclass(frozen=True, slots=True)
class Defect:
    """Something that is wrong with a part; `box` and `length` in pixels of the picture."""

    kind: DefectType
    grade: Grade
    length: float
    """From one end to the other, in whatever direction; the box has a margin beside."""
    box: Box


@dataclass(frozen=True, slots=True)
class Part:
    """What lies there; `holes` are those that can be seen."""

    kind: str
    material: str
    colour: str
    holes: int

    def __str__(self) -> str:
        return f"{self.material} {self.kind}"


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture of a part, and the truth about it."""

    seed: int
    picture: Image.Image
    part: Part
    defects: tuple[Defect, ...]

    @property
    def worst(self) -> Defect | None:
        """The defect that an inspection is to name."""
        return max(self.defects, key=lambda one: (_ORDER.index(one.grade.severity), one.length), default=None)

    @property
    def bbox(self) -> tuple[int, int, int, int] | None:
        """The box of the worst defect, in whole pixels of the picture."""
        if self.worst is None:
            return None
        left, top, right, bottom = (round(edge) for edge in self.worst.box)
        return max(0, left), max(0, top), min(self.picture.width, right), min(self.picture.height, bottom)

    @property
    def location(self) -> str:
        """Where in the picture the worst defect is, in words; `none` without one."""
        if self.worst is None:
            return "none"
        left, top, right, bottom = (edge / self.picture.width for edge in self.worst.box)
        row = _third((top + bottom) / 2, "top", "bottom")
        column = _third((left + right) / 2, "left", "right")
        return f"{row} {column}".strip() or "center"

    @property
    def result(self) -> ProductInspectionResult:
        """What a perfect inspection answers."""
        worst = self.worst
        return ProductInspectionResult(
            defect_detected=worst is not None,
            defect_type=worst.kind if worst else "none",
            defect_location=self.location,
            severity=worst.grade.severity if worst else "none",
            confidence=worst.grade.confidence if worst else 0.9,
            notes=f"{_told(worst)} on {_one(self.part)}" if worst else f"{_one(self.part)} without defects",
        )

    @property
    def located_result(self) -> LocatedInspectionResult:
        """The result with its box."""
        box = None if self.worst is None else [round(1000 * edge / self.picture.width) for edge in self.worst.box]
        return LocatedInspectionResult(**self.result.model_dump(), bbox=box)

    @property
    def questions(self) -> dict[str, str]:
        """Questions that can be asked about it in words, and their answers."""
        part, worst = self.part, self.worst
        holes = f"{part.holes} hole" if part.holes == 1 else f"{part.holes} holes"
        flaw = f"{_told(worst)} at the {self.location}" if worst else "no defect"
        return {
            "What part is this?": f"It is {_one(part)}.",
            "What colour is it?": f"It is {part.colour}.",
            "How many holes does it have?": f"It has {holes}.",
            "Where is the defect?": f"There is {flaw}.",
            "What do you see?": f"{_one(f'{part.colour} {part}')} with {holes} and {flaw}.".capitalize(),
        }


def _third(share: float, low: str, high: str) -> str:
    return low if share < 0.4 else high if share > 0.6 else ""


def _one(thing: object) -> str:
    """With its article."""
    words = str(thing)
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _told(defect: Defect) -> str:
    return f"a {defect.grade.severity} {defect.kind.replace('_', ' ')}"


def draw_scene(seed: int, scale: float = 1, backgrounds: Sequence[str] = BACKGROUNDS, *, is_flawless: bool = False) -> Scene:
    """The scene of a seed, `scale` times 224 pixels a side, on one of the `backgrounds`; or as it was before any harm."""
    dice, harm, ground = (random.Random(f"{what} {seed}") for what in ("part", "harm", "ground"))  # noqa: S311  # no secrets
    noise = np.random.default_rng(seed)
    side = round(SIDE * scale) * _FINE
    kind = dice.choice(list(SHAPES))
    shape = SHAPES[kind]()
    (material, colour), typical = dice.choice(list(FINISHES.items()))
    piece = _Piece(shape, Pose.thrown(dice, shape.reach, side), _varied(typical, dice), side / SIDE)
    wanted = [] if is_flawless else _wanted(shape, harm)
    missing = harm.choice(shape.may_lack) if any(defect == "missing_hole" for defect, _ in wanted) else None
    canvas = _background(ground.choice(backgrounds), _tone(piece.base, ground), side, ground)
    surface = _surface(piece.base, side, dice, noise if material in BRUSHED else None)
    mask = piece.material(side, missing)
    defects = tuple(_harmed(surface, mask, piece, wanted, harm)) if missing is None else (_lacking(piece, missing),)
    piece.draw_edges(surface, missing)
    ImageDraw.Draw(canvas, "RGBA").polygon(piece.outline(3, 4), fill=_SHADOW)
    canvas.paste(surface, (0, 0), piece.silhouette(side))
    picture = _photographed(canvas.resize((side // _FINE,) * 2, Image.Resampling.BOX), dice, noise)
    return Scene(seed, picture, Part(kind, material, colour, len(shape.holes) - (missing is not None)), defects)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part that lies on the canvas; `zoom` is how many pixels a unit of the scene has there."""

    shape: Shape
    pose: Pose
    base: Colour
    zoom: float

    def outline(self, x: float = 0, y: float = 0) -> list[Point]:
        """Its corners on the canvas, moved by so many units."""
        placed = (self.pose.at(*corner) for corner in self.shape.outline)
        return [(left + x * self.zoom, top + y * self.zoom) for left, top in placed]

    def hole(self, number: int, margin: float = 0) -> Box:
        """The box of a hole on the canvas, and so many units more on each side."""
        x, y, radius = self.shape.holes[number]
        (left, top), reach = self.pose.at(x, y), radius * self.pose.size + margin * self.zoom
        return left - reach, top - reach, left + reach, top + reach

    def silhouette(self, side: int) -> Image.Image:
        """White where the part is, holes and all."""
        mask = Image.new("L", (side, side), 0)
        ImageDraw.Draw(mask).polygon(self.outline(), fill=255)
        return mask

    def material(self, side: int, missing: int | None) -> Image.Image:
        """White where there is surface to be seen, which edges are not."""
        mask, corners = self.silhouette(side), self.outline()
        draw = ImageDraw.Draw(mask)
        draw.line([*corners, corners[0]], fill=0, width=self.edge)
        for number in range(len(self.shape.holes)):
            if number != missing:
                draw.ellipse(self.hole(number, 1), fill=0)
        return mask

    @property
    def edge(self) -> int:
        """How wide the line along the outline is."""
        return round(2 * self.zoom)

    def has_surface(self, point: Point) -> bool:
        """Whether a place on the canvas is inside the outline, and in no hole."""
        holes = ((self.pose.at(x, y), radius * self.pose.size) for x, y, radius in self.shape.holes)
        if any(math.dist(point, middle) < radius for middle, radius in holes):
            return False
        corners, (x, y) = self.outline(), point
        crossed = 0
        for (left, top), (right, bottom) in pairwise([*corners, corners[0]]):
            crossed += (top > y) != (bottom > y) and x < left + (y - top) * (right - left) / (bottom - top)
        return crossed % 2 == 1

    def mark(self, grade: Grade, spot: Disc, dice: random.Random) -> Mark:
        """A defect of this grade somewhere about a spot, at any angle."""
        x, y, room = spot
        middle = self.pose.at(x + dice.uniform(-0.3, 0.3) * room, y + dice.uniform(-0.3, 0.3) * room)
        length = dice.uniform(grade.shortest, grade.longest) * self.zoom
        return Mark(middle, length, dice.uniform(0, math.pi), self.zoom, self.base)

    def draw_edges(self, surface: Image.Image, missing: int | None) -> None:
        """Draws the outline, and the holes but the one that is missing."""
        draw, corners = ImageDraw.Draw(surface), self.outline()
        edge = _shaded(self.base, 0.6 if sum(self.base) > DARK else 1.7)
        draw.line([*corners, corners[0]], fill=edge, width=self.edge)
        for number in range(len(self.shape.holes)):
            if number != missing:
                draw.ellipse(self.hole(number, 1), fill=edge)
                draw.ellipse(self.hole(number), fill=_HOLE_COLOUR)


def _wanted(shape: Shape, dice: random.Random) -> list[tuple[DefectType, Grade]]:
    """What is to be wrong with the part: nothing, one thing, or a large one and a small one."""
    if dice.random() < _FLAWLESS:
        return []
    kinds: list[DefectType] = [*DRAWERS, "missing_hole"] if shape.may_lack else [*DRAWERS]
    first, grade = dice.choice(kinds), dice.choices(list(GRADES), _GRADE_WEIGHTS)[0]
    if first == "missing_hole":
        return [(first, HOLE)]
    if grade in {"medium", "large"} and dice.random() < _A_SECOND_DEFECT:
        return [(first, GRADES[grade]), (dice.choice(list(DRAWERS)), GRADES[dice.choice(("tiny", "small"))])]
    return [(first, GRADES[grade])]


def _varied(colour: Colour, dice: random.Random) -> Colour:
    red, green, blue = (max(0, min(255, channel + dice.randint(-10, 10))) for channel in colour)
    return red, green, blue


def _tone(base: Colour, dice: random.Random) -> Colour:
    """A colour for the background, from which the part can be told."""
    tone = dice.choice(_TONES)
    while sum(abs(one - other) for one, other in zip(tone, base, strict=True)) < 90:
        tone = (dice.randint(40, 240), dice.randint(40, 240), dice.randint(40, 240))
    return tone


def _background(style: str, tone: Colour, side: int, dice: random.Random) -> Image.Image:
    canvas = Image.new("RGB", (side, side), tone)
    _BACKGROUND_DRAWERS[style](ImageDraw.Draw(canvas), tone, side, dice)
    return canvas


def _plain(draw: ImageDraw.ImageDraw, tone: Colour, side: int, dice: random.Random) -> None:
    """Nothing but the tone."""


def _grid(draw: ImageDraw.ImageDraw, tone: Colour, side: int, dice: random.Random) -> None:
    unit, darker = side / SIDE, _shaded(tone, 0.9)
    for at in range(0, side, round(dice.randint(14, 26) * unit)):
        draw.line((at, 0, at, side), fill=darker, width=math.ceil(unit))
        draw.line((0, at, side, at), fill=darker, width=math.ceil(unit))


def _planks(draw: ImageDraw.ImageDraw, tone: Colour, side: int, dice: random.Random) -> None:
    top = 0.0
    while top < side:
        height = dice.randint(18, 40) * side / SIDE
        draw.rectangle((0, top, side, top + height), fill=_shaded(tone, dice.uniform(0.88, 1.06)))
        top += height


def _speckle(draw: ImageDraw.ImageDraw, tone: Colour, side: int, dice: random.Random) -> None:
    darker = _shaded(tone, 0.9)
    for _ in range(150):
        x, y, radius = dice.uniform(0, side), dice.uniform(0, side), dice.uniform(0.5, 1.4) * side / SIDE
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=darker)


def _checks(draw: ImageDraw.ImageDraw, tone: Colour, side: int, dice: random.Random) -> None:
    step, darker = round(dice.randint(16, 30) * side / SIDE), _shaded(tone, 0.9)
    for left in range(0, side, step):
        for top in range(left // step % 2 * step, side, 2 * step):
            draw.rectangle((left, top, left + step, top + step), fill=darker)


def _rings(draw: ImageDraw.ImageDraw, tone: Colour, side: int, dice: random.Random) -> None:
    unit, darker = side / SIDE, _shaded(tone, 0.9)
    x, y = dice.uniform(0, side), dice.uniform(0, side)
    for radius in range(0, 2 * side, round(dice.randint(10, 20) * unit)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=darker, width=math.ceil(2 * unit))


_BACKGROUND_DRAWERS: dict[str, Callable[[ImageDraw.ImageDraw, Colour, int, random.Random], None]] = {
    "plain": _plain,
    "grid": _grid,
    "planks": _planks,
    "speckle": _speckle,
    "checks": _checks,
    "rings": _rings,
}


def _shaded(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


def _surface(base: Colour, side: int, dice: random.Random, brush: np.random.Generator | None) -> Image.Image:
    """The material, lit from one side; with a brush, in lines."""
    rough = side // _FINE
    ys, xs = np.mgrid[0:rough, 0:rough].astype(np.float32) / rough - 0.5
    angle = dice.uniform(0, 2 * math.pi)
    light = 1 + 0.22 * (xs * math.cos(angle) + ys * math.sin(angle))
    pixels = np.asarray(base, np.float32) * light[..., None]
    if brush is not None:
        pixels += brush.normal(0, 5, (rough, 1, 1)).astype(np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)


def _lacking(piece: _Piece, hole: int) -> Defect:
    left, top, right, bottom = (edge / _FINE for edge in piece.hole(hole))
    return Defect("missing_hole", HOLE, right - left, (left, top, right, bottom))


def _harmed(
    surface: Image.Image, mask: Image.Image, piece: _Piece, wanted: Sequence[tuple[DefectType, Grade]], dice: random.Random
) -> Iterator[Defect]:
    """Draws defects, each as grave as is wanted or, where the part has no room for that, as it has room for."""
    spots = dice.sample(piece.shape.spots, len(piece.shape.spots))
    for (kind, grade), spot in zip(wanted, spots, strict=False):
        found = _fitting(piece, kind, grade, spot, dice)
        if found is None:
            continue
        fitting, mark = found
        before = surface.copy()
        DRAWERS[kind](surface, mark, dice)
        if box := _seen(before, surface, mask, MARGIN * piece.zoom):
            left, top, right, bottom = (edge / _FINE for edge in box)
            yield Defect(kind, fitting, mark.length / _FINE, (left, top, right, bottom))


def _fitting(piece: _Piece, kind: DefectType, wanted: Grade, spot: Disc, dice: random.Random) -> tuple[Grade, Mark] | None:
    """Where a defect lies that does not hang over an edge, for then less would be seen of it than it is graded by."""
    grades = list(GRADES.values())
    for grade in grades[grades.index(wanted) :: -1]:
        for _ in range(_THROWS):
            mark = piece.mark(grade, spot, dice)
            if all(map(piece.has_surface, ends(kind, mark))):
                return grade, mark
    return None


def _seen(before: Image.Image, after: Image.Image, mask: Image.Image, margin: float) -> Box | None:
    """The box around what has changed where there is material: what hangs over an edge or a hole is not to be seen."""
    change = ImageChops.difference(before, after).convert("L").point(lambda value: 255 * (value >= _VISIBLE))
    box = ImageChops.multiply(change, mask).getbbox()
    if box is None:
        return None
    width, height = after.size
    left, top, right, bottom = box
    return max(0, left - margin), max(0, top - margin), min(width, right + margin), min(height, bottom + margin)


def _photographed(picture: Image.Image, dice: random.Random, noise: np.random.Generator) -> Image.Image:
    """As a camera sees it: a bit too bright or too dark, and with noise."""
    pixels = np.asarray(picture).astype(np.float32) * dice.uniform(0.85, 1.12)
    pixels += noise.standard_normal(pixels.shape, np.float32) * dice.uniform(0, 5)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
