"""Garments as shapes: the outline of each type in each cut, what is sewn onto it, and where marks belong.

A garment has a frame of its own: its middle is 0, 0, x goes to the right, y down, and all of it lies within 1 of the
middle, in x and in y. It is the same on the left as on the right.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from deploy.demo.parts import Point

ProductType = Literal["t-shirt", "shirt", "sweater", "jacket", "dress", "skirt", "trousers", "shorts"]
Gender = Literal["Women", "Men", "Unisex"]

_BULGES: dict[Gender, float] = {"Women": -0.38, "Men": 0, "Unisex": 0.36}
"""By what share of its width a garment, or a leg, is wider in the middle than its ends let one expect."""

_STEPS = 10
"""Of which a curved side is made."""


@dataclass(frozen=True, slots=True)
class Detail:
    """Something sewn onto a garment: an area, or with a width a line. A tone of 0 is the fabric's, of 1 its contrast."""

    points: Sequence[Point]
    tone: float
    width: float = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """One type of garment in one cut."""

    outline: Sequence[Point]
    side: Sequence[Point]
    """Its right edge from above to the hem, along which a stripe can run."""
    details: Sequence[Detail]
    front: Point
    """Where there is room for a number."""
    pocket: Point
    bow: Point
    buttons: Sequence[Point]
    is_worn_below: bool = False
    """Whether it hangs by its waistband."""


def t_shirt(gender: Gender) -> Cut:
    """Short sleeves and a round neck."""
    side = _side(gender, (0.48, -0.34), (0.48, 0.86))
    neck = [(0.0, -0.6), (0.1, -0.63), (0.18, -0.72), (0.21, -0.86)]
    outline = _mirrored([*neck, (0.56, -0.76), (0.98, -0.3), (0.74, -0.06), *side])
    details = [
        Detail(_mirrored(neck[::-1]), 0.4, 0.06),
        *_both(Detail([(0.56, -0.76), side[0]], 0.3, 0.02)),
        *_both(Detail([(0.93, -0.33), (0.69, -0.1)], 0.4, 0.025)),
    ]
    return Cut(outline, side, details, (0, -0.24), (0.2, -0.26), (0, -0.5), _column(-0.22))


def shirt(gender: Gender) -> Cut:
    """Long sleeves, a collar with two points, and a strip down its front."""
    side = _side(gender, (0.44, -0.34), (0.44, 0.78))
    outline = _mirrored([(0, -0.68), (0.2, -0.92), (0.34, -0.86), (0.56, -0.76), *_SLEEVE, *side, (0.2, 0.92), (0, 0.92)])
    collar = [(0.0, -0.62), (0.2, -0.92), (0.36, -0.85), (0.23, -0.46)]
    details = [
        *_both(Detail([(0.56, -0.76), side[0]], 0.3, 0.02)),
        *_both(Detail([(0.055, -0.66), (0.055, 0.92)], 0.5, 0.025)),
        *_both(Detail(_CUFF, 0.3)),
        *_both(Detail(collar, 0.25)),
        *_both(Detail([*collar, collar[0]], 0.7, 0.03)),
    ]
    return Cut(outline, side, details, (0, -0.18), (0.21, -0.18), (0, -0.5), _column(-0.22))


def sweater(gender: Gender) -> Cut:
    """Long sleeves, a roll neck, and ribs at all its ends."""
    side = _side(gender, (0.44, -0.34), (0.44, 0.84))
    outline = _mirrored([(0, -0.97), (0.21, -0.97), (0.24, -0.82), (0.54, -0.76), (0.64, -0.66), *_SLEEVE, *side])
    details = [
        *_both(Detail([(0.56, -0.74), side[0]], 0.3, 0.02)),
        *_ribbed([(-0.21, -0.97), (0.21, -0.97), (0.25, -0.76), (-0.25, -0.76)], 7),
        *_ribbed([(-0.46, 0.7), (0.46, 0.7), (0.44, 0.84), (-0.44, 0.84)], 11),
        *(sewn for rib in _ribbed([_CUFF[3], _CUFF[2], _CUFF[1], _CUFF[0]], 4) for sewn in _both(rib)),
    ]
    return Cut(outline, side, details, (0, -0.26), (0.21, -0.28), (0, -0.62), _column(-0.34))


def jacket(gender: Gender) -> Cut:
    """Long sleeves, and a front that is open above, with lapels, and has a zip below."""
    side = _side(gender, (0.46, -0.34), (0.46, 0.76))
    outline = _mirrored([(0, -0.84), (0.16, -0.92), (0.56, -0.78), (0.66, -0.68), *_SLEEVE, *side])
    lapel = [(0.16, -0.92), (0.38, -0.84), (0.4, -0.5), (0.29, -0.47), (0.32, -0.38), (0.0, -0.04)]
    details = [
        *_both(Detail([(0.58, -0.76), side[0]], 0.3, 0.02)),
        Detail(_mirrored([(0, -0.84), (0.16, -0.92), (0, -0.04)]), 0.6),
        *_both(Detail(lapel, 0.22)),
        *_both(Detail([*lapel, lapel[0]], 0.7, 0.03)),
        Detail([(0, -0.04), (0, 0.76)], 0.7, 0.05),
        Detail(_mirrored([(0, 0.68), (side[-1][0], 0.68), side[-1], (0, 0.76)]), 0.25),
        *_both(Detail(_CUFF, 0.25)),
    ]
    return Cut(outline, side, details, (0, -0.1), (0.24, 0.0), (0, -0.6), _column(-0.3))


def dress(gender: Gender) -> Cut:
    """Straps, a round neck, and a long skirt."""
    side = _side(gender, (0.38, -0.5), (0.68, 0.92), middle=0.38)
    neck = [(0.0, -0.56), (0.12, -0.6), (0.18, -0.72), (0.2, -0.97)]
    outline = _mirrored([*neck, (0.31, -0.97), (0.32, -0.7), *side, (0.35, 0.97), (0, 0.99)])
    details = [Detail(_mirrored(neck[::-1]), 0.4, 0.05), *_folds(0.97, 0.3)]
    return Cut(outline, side, details, (0, 0.3), (0.16, 0.44), (0, -0.44), _column(-0.16))


def skirt(gender: Gender) -> Cut:
    """A waistband, and folds that widen from there."""
    side = _side(gender, (0.42, -0.5), (0.86, 0.66))
    outline = _mirrored([(0, -0.68), (0.42, -0.68), *side, (0.45, 0.73), (0, 0.75)])
    details = [Detail(_mirrored([(0, -0.68), (0.42, -0.68), (0.42, -0.5), (0, -0.5)]), 0.35), *_folds(0.75, 0.15)]
    return Cut(outline, side, details, (0, 0.22), (0.14, 0.22), (0, -0.56), _column(-0.3), is_worn_below=True)


def trousers(gender: Gender) -> Cut:
    """A waistband and two long legs."""
    return _legged(gender, waist=(0.42, -0.97), legs_from=-0.2, hem=0.97, leg=(0.34, 0.27))


def shorts(gender: Gender) -> Cut:
    """A waistband and two short legs."""
    return _legged(gender, waist=(0.5, -0.66), legs_from=0.06, hem=0.62, leg=(0.38, 0.29))


CUTS: dict[ProductType, Callable[[Gender], Cut]] = {
    "t-shirt": t_shirt,
    "shirt": shirt,
    "sweater": sweater,
    "jacket": jacket,
    "dress": dress,
    "skirt": skirt,
    "trousers": trousers,
    "shorts": shorts,
}

_SLEEVE: Sequence[Point] = ((0.99, 0.42), (0.79, 0.5))
"""Where a long one ends, outside and inside."""
_CUFF: Sequence[Point] = ((0.99, 0.42), (0.79, 0.5), (0.74, 0.38), (0.94, 0.29))


def _legged(gender: Gender, waist: Point, legs_from: float, hem: float, leg: Point) -> Cut:
    """With two legs; the middle of the right one and half its width are `leg`."""
    (wide, top), (middle, half) = waist, leg
    outer = _side(gender, (half, legs_from), (half, hem))
    side = [(wide, top + 0.15), *((middle + x, y) for x, y in outer)]
    inner = [(max(0.02, middle - x), y) for x, y in reversed(outer)]
    outline = _mirrored([(0, top), (wide, top), *side, *inner, (0, legs_from - 0.03)])
    details = [
        Detail([(0, top), (0, legs_from)], 0.5, 0.025),
        Detail(_mirrored([(0, top), (wide, top), (wide, top + 0.15), (0, top + 0.15)]), 0.35),
        *_both(Detail([(middle + half, hem - 0.06), (middle - half, hem - 0.06)], 0.4, 0.025)),
    ]
    front, buttons = (0, top + 0.44), _column(top + 0.31, step=0.17)
    return Cut(outline, side, details, front, (0.26, top + 0.46), (0, top + 0.1), buttons, is_worn_below=True)


def _side(gender: Gender, top: Point, hem: Point, middle: float = 0.5) -> list[Point]:
    """The right edge between two points, drawn in or out the most at that share of its height."""
    bend = math.log(0.5) / math.log(middle)
    shares = [step / _STEPS for step in range(_STEPS + 1)]
    widths = [1 + _BULGES[gender] * math.sin(math.pi * share**bend) for share in shares]
    return [
        ((top[0] + (hem[0] - top[0]) * share) * width, top[1] + (hem[1] - top[1]) * share)
        for share, width in zip(shares, widths, strict=True)
    ]


def _column(first: float, step: float = 0.24) -> list[Point]:
    return [(0, first + step * number) for number in range(3)]


def _folds(hem: float, height: float) -> list[Detail]:
    return [
        Detail([(x, hem - 0.03), (x * 0.85, hem - height * (1.3 - abs(x)))], 0.35, 0.025) for x in (-0.5, -0.25, 0, 0.25, 0.5)
    ]


def _ribbed(corners: Sequence[Point], count: int) -> list[Detail]:
    """An area with ribs from its first edge to the one across from it."""
    upper_left, upper_right, lower_right, lower_left = corners
    shares = [(number + 0.5) / count for number in range(count)]
    ribs = [[_between(upper_left, upper_right, share), _between(lower_left, lower_right, share)] for share in shares]
    return [Detail(corners, 0.2), *(Detail(rib, 0.55, 0.022) for rib in ribs)]


def _between(one: Point, other: Point, share: float) -> Point:
    return one[0] + (other[0] - one[0]) * share, one[1] + (other[1] - one[1]) * share


def _both(detail: Detail) -> tuple[Detail, Detail]:
    """It, and the same on the left."""
    return detail, Detail([(-x, y) for x, y in detail.points], detail.tone, detail.width)


def _mirrored(right: Sequence[Point]) -> list[Point]:
    """The whole, of its right half."""
    return [*right, *((-x, y) for x, y in reversed(right))]
