"""What is done to an image follows from its header alone."""

import subprocess
import sys

import pytest

from gateway.images.header import ImageFormat, ImageHeader
from gateway.images.normalise import JPEG_LONGEST_SIDE, NORMALISER_VERSION, Recipe, recipe


def header(form: ImageFormat = ImageFormat.JPEG, *, orientation: int = 1, has_alpha: bool = False) -> ImageHeader:
    return ImageHeader(form, 640, 480, orientation, frames=1, has_alpha=has_alpha)


def made(of: ImageHeader, size: tuple[int, int]) -> Recipe:
    result = recipe(of, size)
    assert result is not None
    return result


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("has_alpha", [False, True])
def test_an_image_that_has_its_size_is_left_alone_whatever_else_it_is(orientation: int, *, has_alpha: bool) -> None:
    of = header(ImageFormat.PNG, orientation=orientation, has_alpha=has_alpha)
    assert recipe(of, of.upright_size) is None


def test_the_size_that_counts_is_the_upright_one() -> None:
    assert recipe(header(orientation=6), (480, 640)) is None
    assert recipe(header(orientation=6), (640, 480)) is not None


@pytest.mark.parametrize("form", ImageFormat)
def test_a_recipe_says_all_that_is_done(form: ImageFormat) -> None:
    expected = Recipe(
        version=NORMALISER_VERSION,
        format=ImageFormat.JPEG,
        orientation=8,
        flatten=True,
        width=240,
        height=320,
        stored_width=640,
        stored_height=480,
    )
    assert made(header(form, orientation=8, has_alpha=True), (240, 320)) == expected


def test_what_jpeg_cannot_hold_becomes_a_png() -> None:
    assert made(header(), (JPEG_LONGEST_SIDE, 1)).format is ImageFormat.JPEG
    assert made(header(), (JPEG_LONGEST_SIDE + 1, 1)).format is ImageFormat.PNG


def test_the_words_of_a_recipe_are_those_that_caches_know() -> None:
    assert str(made(header(), (320, 240))) == f"v{NORMALISER_VERSION}-jpeg-320x240-o1"
    assert str(made(header(orientation=6, has_alpha=True), (240, 320))) == f"v{NORMALISER_VERSION}-jpeg-240x320-o6-on-white"


def test_recipes_that_differ_have_different_words() -> None:
    sizes = [(320, 240), (240, 320), (32, 40), (3, 2240)]
    recipes = [
        made(header(orientation=orientation, has_alpha=has_alpha), size)
        for orientation in range(1, 9)
        for has_alpha in (False, True)
        for size in sizes
    ]
    assert len({str(one) for one in recipes}) == len(recipes)


def test_the_gateway_itself_imports_no_pillow() -> None:
    program = "import sys, gateway.images.normalise, gateway.images.workers; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
