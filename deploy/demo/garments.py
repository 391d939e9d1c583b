"""Catalogue photographs of garments, drawn from a seed, and the attributes that a shop lists of each.

    garment = draw_garment(7)    the same wherever the same versions of NumPy and Pillow draw it
    garment.picture              a PIL image of 224x224
    garment.attributes           its ProductAttributes

Whoever knows these rules can read every attribute off the picture:

product_type  the silhouette and what is sewn on, as `tailoring` says: t-shirt (short sleeves), shirt (long sleeves, collar
              with two points), sweater (roll neck, ribs), jacket (lapels, zip), dress (straps), skirt, trousers, shorts
color         of the fabric that the print and the marks are on
gender        the cut: Women is narrow in the middle of its height, Men is straight, Unisex is widest in the middle; of
              trousers and shorts, each leg is
season        the print: Spring flowers, Summer broad stripes across, Fall a check, Winter rows of zigzag
usage         Sports has a stripe down each side and a number in a disc, Formal a bow and three golden buttons below it,
              Casual one patch pocket
product_name  the others but the usage, in a row: Women's Red Summer Dress

Any value goes with any other. Marks and what a print repeats are 12 pixels of 224 and more (the lines of a check and of a
zigzag are thinner), light on what is dark and dark on what is light.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, Field

from deploy.demo.parts import Point, Pose
from deploy.demo.tailoring import CUTS, Cut, Gender, ProductType

SIDE = 224
"""Of a picture of scale 1, in pixels."""

QUESTIONS = (
    "List the attributes of this product.",
    "What would a catalogue say about this garment?",
    "Describe this product for a shop: name, type, color, gender, season and usage.",
    "Which attributes does this piece of clothing have?",
)
"""Ways to ask for the attributes; the first is the one to ask by."""

Rgb: TypeAlias = tuple[int, int, int]
Color = Literal["black", "white", "grey", "red", "yellow", "green", "blue", "pink", "brown"]
Season = Literal["Spring", "Summer", "Fall", "Winter"]
Usage = Literal["Casual", "Formal", "Sports"]

_FINE = 2
"""Drawn with so many times the pixels a side and then made smaller, for smooth edges."""

_FABRICS: dict[Color, Rgb] = {
    "black": (34, 34, 38),
    "white": (238, 238, 234),
    "grey": (128, 130, 134),
    "red": (198, 36, 40),
    "yellow": (238, 204, 48),
    "green": (38, 128, 66),
    "blue": (38, 82, 186),
    "pink": (240, 138, 178),
    "brown": (118, 72, 38),
}
_TONES: Sequence[Rgb] = (
    *((246, 246, 246), (226, 228, 232), (236, 228, 214), (214, 226, 234)),
    *((190, 184, 176), (160, 168, 178), (150, 140, 128), (96, 102, 110), (66, 70, 78)),
)
_LIGHT: Rgb = (250, 250, 246)
_DARK: Rgb = (22, 24, 40)
_GOLD: Rgb = (240, 192, 56)
_WOOD: Rgb = (158, 108, 62)
_STEEL: Rgb = (150, 154, 160)
_SHADOW = (0, 0, 0, 60)

_SEGMENTS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
"""Of a digit, as on a pocket calculator."""
_LAMPS: dict[str, tuple[Point, Point]] = {
    "a": ((-1, -2), (1, -2)),
    "b": ((1, -2), (1, 0)),
    "c": ((1, 0), (1, 2)),
    "d": ((-1, 2), (1, 2)),
    "e": ((-1, 0), (-1, 2)),
    "f": ((-1, -2), (-1, 0)),
    "g": ((-1, 0), (1, 0)),
}


class ProductAttributes(BaseModel):
    """What a catalogue lists of a garment; its name comes last, as it is made of what stands before."""

    product_type: ProductType
    color: Color
    gender: Gender
    season: Season
    usage: Usage
    product_name: str = Field(max_length=60)

    @classmethod
    def of(cls, product_type: ProductType, color: Color, gender: Gender, season: Season, usage: Usage) -> "ProductAttributes":
        """With the name that follows from them."""
        whose = gender if gender == "Unisex" else f"{gender}'s"
        name = f"{whose} {color.title()} {season} {product_type.title()}"
        return cls(product_type=product_type, color=color, gender=gender, season=season, usage=usage, product_name=name)


@dataclass(frozen=True, slots=True, eq=False)
class Garment:
    """A photograph of a garment, and the truth about it."""

    seed: int
    picture: Image.Image
    attributes: ProductAttributes


def draw_garment(seed: int, scale: float = 1) -> Garment:
    """The garment of a seed, on a picture of `scale` times 224 pixels a side."""
    attributes = attributes_of(seed)
    return Garment(seed, photograph(attributes, seed, scale), attributes)


def attributes_of(seed: int) -> ProductAttributes:
    """Those of the seed's garment, without a picture of it."""
    dice = random.Random(seed)  # noqa: S311  # nothing is secret about it
    return ProductAttributes.of(
        product_type=dice.choice(get_args(ProductType)),
        color=dice.choice(get_args(Color)),
        gender=dice.choice(get_args(Gender)),
        season=dice.choice(get_args(Season)),
        usage=dice.choice(get_args(Usage)),
    )


def photograph(attributes: ProductAttributes, seed: int, scale: float = 1) -> Image.Image:
    """A garment with these attributes; all that they leave open is as the seed has it."""
    dice = random.Random(f"photograph {seed}")  # noqa: S311  # nothing is secret about it
    side = round(SIDE * scale) * _FINE
    pose, fabric = _thrown(dice, side), _varied(_FABRICS[attributes.color], dice)
    cut = CUTS[attributes.product_type](attributes.gender)
    surface = Image.new("RGB", (side, side), fabric)
    needle = _Needle(ImageDraw.Draw(surface), pose, fabric)
    _PRINTS[attributes.season](needle, dice.uniform(0, 0.3))
    for detail in cut.details:
        needle.sew(detail.points, detail.tone, detail.width)
    _MARKS[attributes.usage](needle, cut, dice.randrange(10))
    needle.sew([*cut.outline, cut.outline[0]], 0.45, 0.045)
    is_hung, style = dice.random() < 0.5, dice.choice(list(_BACKGROUNDS))
    light = _Light.thrown(dice)
    canvas = _BACKGROUNDS[style](dice.choice(_tones_apart_from(fabric)), side)
    _lay(canvas, surface, pose, cut, is_hung=is_hung)
    return light.shine(canvas.resize((side // _FINE,) * 2, Image.Resampling.BOX), seed)


def _thrown(dice: random.Random, side: float) -> Pose:
    """Any that leaves the whole frame, however it is turned, on a canvas of `side` by `side`."""
    size, angle = side / 2 * dice.uniform(0.73, 0.86), math.radians(dice.uniform(-7, 7))
    slack = side / 2 - size * (math.cos(angle) + abs(math.sin(angle)))
    return Pose(side / 2 + dice.uniform(-slack, slack), side / 2 + dice.uniform(-slack, slack), size, angle)


@dataclass(frozen=True, slots=True)
class _Needle:
    """Draws on the fabric, in the garment's frame. A tone of 0 is the fabric's own, of 1 its contrast."""

    draw: ImageDraw.ImageDraw
    pose: Pose
    fabric: Rgb

    def thread(self, tone: float) -> Rgb:
        red, green, blue = self.fabric
        contrast = _DARK if 0.3 * red + 0.6 * green + 0.1 * blue > 140 else _LIGHT
        return _mixed(self.fabric, contrast, tone)

    def sew(self, points: Sequence[Point], tone: float, width: float = 0) -> None:
        """An area, or with a width a line."""
        placed, thread = self.pose.all_at(points), self.thread(tone)
        if width:
            self.draw.line(placed, fill=thread, width=max(1, round(width * self.pose.size)), joint="curve")
        else:
            self.draw.polygon(placed, fill=thread)

    def patch(self, points: Sequence[Point], tone: float) -> None:
        """An area with a margin of bare fabric, so that it stands out from a print."""
        self.sew([*points, *points[:2]], 0, 0.08)
        self.sew(points, tone)

    def dot(self, middle: Point, radius: float, fill: Rgb) -> None:
        (x, y), reach = self.pose.at(*middle), radius * self.pose.size
        self.draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill)


def _flowers(needle: _Needle, start: float) -> None:
    petals = [(0.085 * math.cos(turn), 0.085 * math.sin(turn)) for turn in (2 * math.pi * k / 5 for k in range(5))]
    for row, y in enumerate(_steps(start, 0.36)):
        for x in _steps(start + row % 2 * 0.21, 0.42):
            for right, down in petals:
                needle.dot((x + right, y + down), 0.06, needle.thread(0.8))
            needle.dot((x, y), 0.045, (228, 150, 40))


def _stripes(needle: _Needle, start: float) -> None:
    for y in _steps(start, 0.4):
        needle.sew([(-1, y), (1, y), (1, y + 0.15), (-1, y + 0.15)], 0.7)


def _check(needle: _Needle, start: float) -> None:
    for y in _steps(start, 0.26):
        needle.sew([(-1, y), (1, y)], 0.7, 0.065)
    for x in _steps(0.05, 0.25):  # one of them runs down each leg, however narrow
        needle.sew([(x, -1), (x, 1)], 0.7, 0.065)


def _zigzag(needle: _Needle, start: float) -> None:
    for y in _steps(start, 0.38):
        needle.sew([(x, y + (0.09 if turn % 2 else -0.09)) for turn, x in enumerate(_steps(0, 0.15))], 0.75, 0.08)


_PRINTS: dict[Season, Callable[[_Needle, float], None]] = {
    "Spring": _flowers,
    "Summer": _stripes,
    "Fall": _check,
    "Winter": _zigzag,
}


def _pocket(needle: _Needle, cut: Cut, number: int) -> None:  # noqa: ARG001  # as all marks are drawn
    (x, y), half = cut.pocket, 0.15
    left, right, top, bottom = x - half, x + half, y - half, y + half
    needle.patch([(left, top), (right, top), (right, bottom - 0.07), (x, bottom + 0.03), (left, bottom - 0.07)], 0.95)
    needle.sew([(left, top + 0.08), (right, top + 0.08)], 0.1, 0.03)


def _bow(needle: _Needle, cut: Cut, number: int) -> None:  # noqa: ARG001  # as all marks are drawn
    for x, y in cut.buttons:
        needle.dot((x, y), 0.12, needle.thread(0))
        needle.dot((x, y), 0.095, needle.thread(1))
        needle.dot((x, y), 0.07, _GOLD)
    x, y = cut.bow
    for way in (-1, 1):
        needle.patch([(x, y - 0.04), (x + 0.27 * way, y - 0.14), (x + 0.27 * way, y + 0.14), (x, y + 0.04)], 1)
    needle.dot((x, y), 0.07, needle.thread(0.2))


def _sporty(needle: _Needle, cut: Cut, number: int) -> None:
    inward = [(x - 0.16, y) for x, y in reversed(cut.side)]
    for way in (-1, 1):
        needle.patch([(x * way, y) for x, y in (*cut.side, *inward)], 1)
    x, y = cut.front
    needle.dot((x, y), 0.25, needle.thread(0))
    needle.dot((x, y), 0.21, needle.thread(1))
    for lamp in _SEGMENTS[number]:
        needle.sew([(x + 0.06 * right, y + 0.06 * down) for right, down in _LAMPS[lamp]], 0, 0.05)


_MARKS: dict[Usage, Callable[[_Needle, Cut, int], None]] = {"Casual": _pocket, "Formal": _bow, "Sports": _sporty}


def _plain(tone: Rgb, side: int) -> Image.Image:
    return Image.new("RGB", (side, side), tone)


def _fading(tone: Rgb, side: int) -> Image.Image:
    return _blended(tone, Image.linear_gradient("L"), side)


def _vignette(tone: Rgb, side: int) -> Image.Image:
    return _blended(tone, Image.radial_gradient("L"), side)


def _floor(tone: Rgb, side: int) -> Image.Image:
    room = Image.new("RGB", (side, side), tone)
    room.paste(_darker(tone), (0, round(0.8 * side), side, side))
    return room


_BACKGROUNDS: dict[str, Callable[[Rgb, int], Image.Image]] = {
    "plain": _plain,
    "fading": _fading,
    "vignette": _vignette,
    "floor": _floor,
}


def _blended(tone: Rgb, share: Image.Image, side: int) -> Image.Image:
    bright, dark = (Image.new("RGB", share.size, one) for one in (tone, _darker(tone)))
    return Image.composite(dark, bright, share).resize((side, side), Image.Resampling.BILINEAR)


def _tones_apart_from(fabric: Rgb) -> list[Rgb]:
    """Of backgrounds, from which the garment can be told where they are bright and where they are dark."""
    return [tone for tone in _TONES if min(_distance(tone, fabric), _distance(_darker(tone), fabric)) > 90]


def _lay(canvas: Image.Image, surface: Image.Image, pose: Pose, cut: Cut, *, is_hung: bool) -> None:
    """Puts the garment on the canvas, with its shadow and, if it is hung, its hanger."""
    draw, mask = ImageDraw.Draw(canvas, "RGBA"), Image.new("L", canvas.size, 0)
    outline = pose.all_at(cut.outline)
    draw.polygon([(x + 0.04 * pose.size, y + 0.05 * pose.size) for x, y in outline], fill=_SHADOW)
    if is_hung:
        _hang(draw, pose, cut)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    canvas.paste(surface, (0, 0), mask)


def _hang(draw: ImageDraw.ImageDraw, pose: Pose, cut: Cut) -> None:
    top = min(y for _, y in cut.outline)
    start = top - 0.03 if cut.is_worn_below else -0.84
    end = start if cut.is_worn_below else -0.7
    bar = [(-0.45, end), (0, start), (0.45, end)]
    hook = [(0, start), (0, start - 0.16), (0.06, start - 0.22), (0, start - 0.28), (-0.06, start - 0.24)]
    draw.line(pose.all_at(hook), fill=_STEEL, width=round(0.035 * pose.size), joint="curve")
    draw.line(pose.all_at(bar), fill=_WOOD, width=round(0.08 * pose.size), joint="curve")


@dataclass(frozen=True, slots=True)
class _Light:
    """From where it comes, how bright it is, and how much noise the camera makes of it."""

    angle: float
    brightness: float
    noise: float

    @classmethod
    def thrown(cls, dice: random.Random) -> "_Light":
        return cls(dice.uniform(0, 2 * math.pi), dice.uniform(0.87, 1.1), dice.uniform(0, 5))

    def shine(self, picture: Image.Image, seed: int) -> Image.Image:
        across = np.linspace(-0.5, 0.5, picture.width, dtype=np.float32)
        slope = across * math.cos(self.angle) + across[:, None] * math.sin(self.angle)
        pixels = np.asarray(picture, np.float32) * (self.brightness * (1 + 0.16 * slope))[..., None]
        pixels += self.noise * np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _steps(start: float, step: float) -> list[float]:
    """From one edge of the frame, a step apart, to the other."""
    return [start - 1.3 + number * step for number in range(math.ceil(2.6 / step))]


def _varied(fabric: Rgb, dice: random.Random) -> Rgb:
    red, green, blue = (max(0, min(255, channel + dice.randint(-12, 12))) for channel in fabric)
    return red, green, blue


def _mixed(one: Rgb, other: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _darker(tone: Rgb) -> Rgb:
    return _mixed(tone, (0, 0, 0), 0.16)


def _distance(one: Rgb, other: Rgb) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))
