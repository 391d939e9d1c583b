"""Defects, drawn onto the surface of a part; each drawer is told how long the defect is to be."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from deploy.demo.parts import Colour, Point

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom."""
DefectType = Literal["scratch", "dent", "crack", "stain", "missing_hole"]
Severity = Literal["minor", "major", "critical"]

DARK = 240
"""The sum of a colour's channels, below which it is too dark for dark marks to show."""


@dataclass(frozen=True, slots=True)
class Grade:
    """How large a defect is: its longer side in units of the scene, what that makes of it, and how sure one can be of it."""

    shortest: float
    longest: float
    severity: Severity
    confidence: float


GRADES = {
    "tiny": Grade(9, 17, "minor", 0.7),
    "small": Grade(20, 27, "minor", 0.85),
    "medium": Grade(34, 44, "major", 0.95),
    "large": Grade(54, 76, "critical", 0.99),
}
"""There is a gap between two of them, so that nobody argues about severity."""

LARGE_ENOUGH = 20
"""Units of the scene, from which on a defect is easy to see."""

MARGIN = 3
"""Units of the scene that a box has around what can be seen, as people draw them: a box of one pixel's height is nobody's."""

HOLE = Grade(0, 0, "critical", 0.97)
"""A hole that is missing makes a part useless, whatever its size."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What is to be drawn: its middle, its length, the angle that a line has, and how many pixels a unit of the scene has."""

    middle: Point
    length: float
    angle: float
    zoom: float
    base: Colour
    """The colour of the part."""


def scratch(surface: Image.Image, mark: Mark, dice: random.Random) -> None:
    """A thin line, bright on what is dark."""
    x, y = math.cos(mark.angle) * mark.length / 2, math.sin(mark.angle) * mark.length / 2
    bend = dice.uniform(-0.12, 0.12)
    points = [(-x, -y), (-y * bend, x * bend), (x, y)]
    width = max(2, round(dice.uniform(1.2, 2.0) * mark.zoom))
    fill = _brighter(mark.base) if sum(mark.base) < 520 else _darker(mark.base)
    placed = _placed(points, mark.middle)
    ImageDraw.Draw(surface).line(placed, fill=fill, width=width, joint="curve")


def crack(surface: Image.Image, mark: Mark, dice: random.Random) -> None:
    """A black zigzag with twigs."""
    steps = max(4, round(mark.length / (5 * mark.zoom)))
    sway = min(4 * mark.zoom, mark.length * 0.16)
    along = [(k / steps - 0.5) * mark.length for k in range(steps + 1)]
    beside = [dice.choice((-1, 1)) * dice.uniform(0.4, 1) * sway * (0 < k < steps) for k in range(steps + 1)]
    cos, sin = math.cos(mark.angle), math.sin(mark.angle)
    line = _placed([(cos * a - sin * b, sin * a + cos * b) for a, b in zip(along, beside, strict=True)], mark.middle)
    twigs = [_twig(at, mark.angle + dice.choice((-1, 1)) * dice.uniform(0.6, 1.1), mark.length * 0.14) for at in line[1:-1:2]]
    width = max(2, round(1.3 * mark.zoom))
    fill = (14, 14, 16) if sum(mark.base) > DARK else (4, 4, 5)
    draw = ImageDraw.Draw(surface)
    draw.line(line, fill=fill, width=width)
    for twig in twigs:
        draw.line(twig, fill=fill, width=width)


def _twig(start: Point, angle: float, length: float) -> tuple[Point, Point]:
    return start, (start[0] + math.cos(angle) * length, start[1] + math.sin(angle) * length)


def dent(surface: Image.Image, mark: Mark, dice: random.Random) -> None:
    """A hollow, lit from the upper left: dark where it falls off, bright where it rises."""
    halves = (mark.length / 2, mark.length / 2 * dice.uniform(0.7, 1))
    a, b = halves if dice.random() < 0.5 else halves[::-1]
    (x, y), side = mark.middle, surface.size[0]
    left, top = max(0, int(x - a) - 2), max(0, int(y - b) - 2)
    right, bottom = min(side, int(x + a) + 3), min(side, int(y + b) + 3)
    patch = np.asarray(surface.crop((left, top, right, bottom))).astype(np.float32)
    ys, xs = np.mgrid[top:bottom, left:right].astype(np.float32)
    u, v = (xs - x) / a, (ys - y) / b
    depth = np.sqrt(u * u + v * v)
    light = (u + v) / 1.5 * np.clip((1 - depth) * 4, 0, 1) * 85
    hollow = np.where((depth < 1)[..., None], patch * 0.86 + light[..., None], patch)
    surface.paste(Image.fromarray(hollow.clip(0, 255).astype(np.uint8)), (left, top))


def stain(surface: Image.Image, mark: Mark, dice: random.Random) -> None:
    """A spot of something brown with soft edges."""
    corners = 14
    points = [(math.cos(2 * math.pi * k / corners), math.sin(2 * math.pi * k / corners)) for k in range(corners)]
    radii = [mark.length / 2 * dice.uniform(0.72, 1) for _ in points]
    blot = _placed([(r * x, r * y) for r, (x, y) in zip(radii, points, strict=True)], mark.middle)
    box = _bounds(blot)
    margin = round(4 * mark.zoom)
    around = (int(box[0]) - margin, int(box[1]) - margin, int(box[2]) + margin + 1, int(box[3]) + margin + 1)
    shape = Image.new("L", (around[2] - around[0], around[3] - around[1]), 0)
    ImageDraw.Draw(shape).polygon([(x - around[0], y - around[1]) for x, y in blot], fill=175)
    tones = ((92, 58, 22), (70, 60, 20), (110, 70, 40)) if sum(mark.base) > DARK else ((150, 110, 70),)
    soft = shape.filter(ImageFilter.GaussianBlur(0.8 * mark.zoom))
    surface.paste(Image.new("RGB", soft.size, dice.choice(tones)), around[:2], soft)


DRAWERS: dict[DefectType, Callable[[Image.Image, Mark, random.Random], None]] = {
    "scratch": scratch,
    "dent": dent,
    "crack": crack,
    "stain": stain,
}


_LINES: frozenset[DefectType] = frozenset({"scratch", "crack"})
_NEARLY_ALL = 0.85
"""So much of a large defect is still longer than any medium one."""


def ends(kind: DefectType, mark: Mark) -> list[Point]:
    """The places between which nearly all of a defect's length is, each way that it has one."""
    angles = (mark.angle,) if kind in _LINES else (0, math.pi / 2)
    half = _NEARLY_ALL * mark.length / 2
    tips = [(half * math.cos(angle), half * math.sin(angle)) for angle in angles]
    return _placed([*tips, *((-x, -y) for x, y in tips)], mark.middle)


def _darker(base: Colour) -> Colour:
    red, green, blue = (int(0.35 * channel) for channel in base)
    return red, green, blue


def _brighter(base: Colour) -> Colour:
    red, green, blue = (int(channel + 0.65 * (255 - channel)) for channel in base)
    return red, green, blue


def _placed(points: Sequence[Point], middle: Point) -> list[Point]:
    return [(middle[0] + x, middle[1] + y) for x, y in points]


def _bounds(points: Sequence[Point]) -> Box:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
