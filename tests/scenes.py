"""Drawn pictures, the same for the same seed, and how far what a model sees of them is from what it would have seen.

`python -m tests.scenes 300` prints the figures for as many.
"""

import base64
import io
import math
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageStat

from gateway.images.header import ImageFormat, ImageHeader
from gateway.images.normalise import recipe
from gateway.images.pixels import apply

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789    .,:"


def scene(seed: int, size: tuple[int, int]) -> Image.Image:
    """A photo, a document or a chart, by turns, in RGB."""
    dice = random.Random(seed)
    kind = seed % 3
    if kind == 0:
        picture = _gradients(dice, size)
        _draw_shapes(dice, picture, 25)
        return _grainy(dice, picture)
    picture = Image.new("RGB", size, "white") if kind == 1 else _gradients(dice, size)
    if kind == 2:
        _draw_shapes(dice, picture, 60)
    _write_lines(dice, picture, picture.height if kind == 1 else picture.height // 3)
    return picture


def _gradients(dice: random.Random, size: tuple[int, int]) -> Image.Image:
    def ramp() -> Image.Image:
        return Image.linear_gradient("L").rotate(dice.choice((0, 90, 180, 270)))

    bands = dice.sample((ramp(), ramp(), Image.radial_gradient("L")), 3)
    return Image.merge("RGB", [band.resize(size) for band in bands])


def _draw_shapes(dice: random.Random, picture: Image.Image, count: int) -> None:
    pen = ImageDraw.Draw(picture)
    for _ in range(count):
        x, y, side = dice.randrange(picture.width), dice.randrange(picture.height), dice.randint(3, picture.width // 6)
        box = (x, y, x + side, y + int(side * dice.uniform(0.2, 1.5)))
        colour = dice.choices(range(256), k=3)
        match dice.randrange(3):
            case 0:
                pen.ellipse(box, fill=tuple(colour))
            case 1:
                pen.rectangle(box, fill=tuple(colour), outline="black", width=dice.randint(1, 4))
            case _:
                pen.line(
                    (x, y, dice.randrange(picture.width), dice.randrange(picture.height)), tuple(colour), dice.randint(1, 6)
                )


def _write_lines(dice: random.Random, picture: Image.Image, until: int) -> None:
    pen = ImageDraw.Draw(picture)
    y = 10
    while y < until:
        size = dice.randint(12, 40)
        line = "".join(dice.choices(_LETTERS, k=dice.randint(20, 140)))
        pen.text((dice.randint(5, 40), y), line, dice.choice(("black", "#223344", "#aa1111")), ImageFont.load_default(size))
        y += size * 3 // 2


def _grainy(dice: random.Random, picture: Image.Image) -> Image.Image:
    """With the noise of a sensor, of up to ±24 of 255."""
    noise = Image.frombytes("L", picture.size, dice.randbytes(picture.width * picture.height)).point(
        lambda level: level * 3 // 16
    )
    return ImageChops.subtract(
        ImageChops.add(picture, Image.merge("RGB", [noise] * 3)), Image.new("RGB", picture.size, "#181818")
    )


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def decoded(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@dataclass(frozen=True)
class Difference:
    """Of two pictures in RGB: the mean absolute error, of 255, and the peak signal-to-noise ratio, in decibels."""

    mean: float
    psnr_db: float

    @classmethod
    def of(cls, one: Image.Image, other: Image.Image) -> "Difference":
        assert one.size == other.size
        statistic = ImageStat.Stat(ImageChops.difference(one, other))
        squares = sum(statistic.sum2) / sum(statistic.count)
        return cls(sum(statistic.mean) / 3, 10 * math.log10(255**2 / squares) if squares else math.inf)


@dataclass(frozen=True)
class Fidelity:
    """What shrinking in the gateway does to what a model sees, and what saving the model's own picture as a JPEG would do."""

    shrunk: Difference
    jpeg: Difference


def fidelity(seed: int, size: tuple[int, int], ratio: float, form: ImageFormat) -> Fidelity:
    """Of a scene that is sent as `form`, and has `ratio` times the sides that the model's processor would resize it to."""
    source = encoded(scene(seed, size), form, **{"quality": 92} if form in {ImageFormat.JPEG, ImageFormat.WEBP} else {})
    target = (round(size[0] / ratio), round(size[1] / ratio))
    made = recipe(ImageHeader(form, *size, orientation=1, frames=1, has_alpha=False), target)
    assert made is not None
    seen = decoded(base64.b64decode(apply(base64.b64encode(source), made)))
    own = decoded(source).convert("RGB").resize(target, Image.Resampling.BICUBIC)
    return Fidelity(Difference.of(own, seen), Difference.of(own, decoded(encoded(own, "JPEG", quality=90))))


def drawn(count: int, sides: tuple[int, int]) -> Iterator[Fidelity]:
    """`count` scenes of any size with sides within `sides`, shrunk by 1.1 to 8, as JPEG, PNG and WebP."""
    for seed in range(count):
        dice = random.Random(f"size of {seed}")
        size = (dice.randint(*sides), dice.randint(*sides))
        form = (ImageFormat.JPEG, ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.WEBP)[seed % 4]
        yield fidelity(seed, size, dice.uniform(1.1, 8), form)


def main() -> None:
    results = list(drawn(int(sys.argv[1]), (600, 2400)))
    for name, differences in (("shrunk", [r.shrunk for r in results]), ("JPEG 90", [r.jpeg for r in results])):
        means, psnrs = [d.mean for d in differences], [d.psnr_db for d in differences]
        print(
            f"{name}: mean absolute error {statistics.median(means):.2f}, worst {max(means):.2f}; "
            f"PSNR {statistics.median(psnrs):.1f} dB, worst {min(psnrs):.1f}"
        )
    print("worse than JPEG 90:", sum(r.shrunk.mean >= r.jpeg.mean or r.shrunk.psnr_db <= r.jpeg.psnr_db for r in results))
    print("closest:", max(r.shrunk.mean / r.jpeg.mean for r in results))


if __name__ == "__main__":
    main()
