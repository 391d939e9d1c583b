"""Machined parts as shapes: an outline, the holes that belong in it, and where on it there is room for a defect.

A shape has a frame of its own: its middle is 0, 0, x goes to the right, y down, and one unit is about half its length.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
Disc: TypeAlias = tuple[float, float, float]
"""Middle and radius."""
Colour: TypeAlias = tuple[int, int, int]

FINISHES: dict[tuple[str, str], Colour] = {
    ("steel", "grey"): (128, 134, 142),
    ("aluminium", "silver"): (186, 192, 198),
    ("brass", "gold"): (196, 164, 70),
    ("copper", "orange"): (198, 112, 64),
    ("plastic", "black"): (52, 54, 58),
    ("plastic", "white"): (232, 232, 228),
    ("painted", "red"): (178, 46, 44),
    ("painted", "green"): (46, 128, 74),
    ("painted", "blue"): (48, 84, 168),
}
"""What parts are made of and the colour they have, and how that looks."""

BRUSHED = frozenset({"steel", "aluminium", "brass", "copper"})
"""Materials whose surface shows the lines of a brush."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of part. `spots` are the places for defects: the middle of each, and how far there is room around it."""

    outline: Sequence[Point]
    holes: Sequence[Disc]
    spots: Sequence[Disc]
    may_lack: Sequence[int]
    """The holes by whose pattern it shows that one is missing."""

    @property
    def reach(self) -> float:
        """From its middle to its farthest corner."""
        return max(math.hypot(x, y) for x, y in self.outline)


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a thing lies on the canvas, how large, and how it is turned; lengths in pixels of the canvas."""

    x: float
    y: float
    size: float
    """How long a unit of its frame is."""
    angle: float

    @classmethod
    def thrown(cls, dice: random.Random, reach: float, side: float) -> "Pose":
        """Any that leaves all of the part on a canvas of `side` by `side`."""
        radius = side * dice.uniform(0.38, 0.47)
        slack = 0.8 * (side / 2 - radius)
        x, y = (side / 2 + dice.uniform(-slack, slack) for _ in range(2))
        return cls(x, y, radius / reach, dice.uniform(0, 2 * math.pi))

    def at(self, x: float, y: float) -> Point:
        """The place on the canvas of a point of the thing's frame."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return self.x + self.size * (x * cos - y * sin), self.y + self.size * (x * sin + y * cos)

    def all_at(self, points: Sequence[Point]) -> list[Point]:
        return [self.at(x, y) for x, y in points]


def bracket() -> Shape:
    """An L with three holes."""
    outline = [(-0.85, -0.95), (-0.25, -0.95), (-0.25, 0.3), (0.95, 0.3), (0.95, 0.9), (-0.85, 0.9)]
    holes = [(-0.55, -0.7, 0.14), (-0.55, 0.6, 0.14), (0.68, 0.6, 0.14)]
    return Shape(outline, holes, [(-0.55, -0.05, 0.28), (0.08, 0.6, 0.28)], range(3))


def plate() -> Shape:
    """A rectangle with a hole in each corner."""
    holes = [(x, y, 0.13) for x in (-0.7, 0.7) for y in (-0.45, 0.45)]
    spots = [(-0.35, 0.0, 0.35), (0.35, 0.0, 0.35), (0.0, -0.35, 0.3), (0.0, 0.35, 0.3)]
    return Shape(_rectangle(0.95, 0.7), holes, spots, range(4))


def flange() -> Shape:
    """A disc with a bore and six holes around it."""
    around = [(0.7 * x, 0.7 * y, 0.11) for x, y in _around(6)]
    spots = [(0.62 * x, 0.62 * y, 0.22) for x, y in _around(6, turned=0.5)]
    return Shape(_disc(0.95), [(0, 0, 0.3), *around], spots, range(1, 7))


def gear() -> Shape:
    """A wheel of twelve teeth with a bore."""
    shifts = ((-0.34, 0.78), (-0.2, 0.97), (0.2, 0.97), (0.34, 0.78))
    teeth = [(r * math.cos(a), r * math.sin(a)) for k in range(12) for s, r in shifts for a in [2 * math.pi * (k + s) / 12]]
    return Shape(teeth, [(0, 0, 0.22)], [(0.48 * x, 0.48 * y, 0.26) for x, y in _around(4, turned=0.25)], ())


def washer() -> Shape:
    """A ring."""
    return Shape(_disc(0.95), [(0, 0, 0.42)], [(0.68 * x, 0.68 * y, 0.22) for x, y in _around(8)], ())


def rail() -> Shape:
    """A long rectangle with three holes in a row."""
    holes = [(-0.76, 0, 0.13), (0, 0, 0.13), (0.76, 0, 0.13)]
    return Shape(_rectangle(0.98, 0.36), holes, [(-0.38, 0, 0.3), (0.38, 0, 0.3)], range(3))


SHAPES: dict[str, Callable[[], Shape]] = {one.__name__: one for one in (bracket, plate, flange, gear, washer, rail)}


def _rectangle(half_width: float, half_height: float) -> list[Point]:
    w, h = half_width, half_height
    return [(-w, -h), (w, -h), (w, h), (-w, h)]


def _disc(radius: float) -> list[Point]:
    return [(radius * x, radius * y) for x, y in _around(60)]


def _around(count: int, turned: float = 0) -> list[Point]:
    """Points on the unit circle, evenly, the first turned by that share of a step."""
    return [(math.cos(a), math.sin(a)) for a in (2 * math.pi * (k + turned) / count for k in range(count))]
