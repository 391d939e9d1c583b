import itertools
import random
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from deploy.demo import garments
from deploy.demo.garments import SIDE, Color, ProductAttributes, Season, Usage, attributes_of, draw_garment, photograph
from deploy.demo.tailoring import CUTS, Gender, ProductType

ATTRIBUTES: Mapping[str, Any] = {
    "product_type": ProductType,
    "color": Color,
    "gender": Gender,
    "season": Season,
    "usage": Usage,
}
PAIRS = [pytest.param(*pair, id="-".join(pair)) for pair in itertools.combinations(ATTRIBUTES, 2)]
CUT_OUT = [pytest.param(kind, gender, id=f"{kind}-{gender}") for kind in CUTS for gender in get_args(Gender)]
SMALLEST = 0.73 * SIDE / 2
"""Pixels of a unit of a garment's frame, where it is drawn as small as it may be."""


def pixels(picture: Image.Image) -> npt.NDArray[np.int16]:
    return np.asarray(picture).astype(np.int16)


def differ(one: Image.Image, other: Image.Image, by: int = 60) -> npt.NDArray[np.bool_]:
    """Where a channel of theirs does."""
    apart: npt.NDArray[np.int16] = np.abs(pixels(one) - pixels(other)).max(axis=-1)
    return apart > by


def attributes(**chosen: str) -> ProductAttributes:
    usual = {"product_type": "shirt", "color": "red", "gender": "Men", "season": "Summer", "usage": "Casual"}
    return ProductAttributes.of(**(usual | chosen))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 7, 123_456])
def test_a_seed_is_the_same_garment_each_time(seed: int) -> None:
    first, second = draw_garment(seed), draw_garment(seed)

    assert first.picture.tobytes() == second.picture.tobytes()
    assert first.attributes == second.attributes == attributes_of(seed)
    assert first.seed == seed


def test_another_seed_is_another_photograph_of_the_same_attributes() -> None:
    assert differ(photograph(attributes(), 1), photograph(attributes(), 2), by=20).mean() > 0.1


def test_all_that_attributes_leave_open_depends_on_the_seed_alone() -> None:
    """Else a mark would give itself away by something that is not its own."""
    one, other = (photograph(attributes(usage=usage), 5) for usage in ("Casual", "Formal"))

    assert 0.01 < differ(one, other, by=0).mean() < 0.12


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_value_occurs_among_500_seeds(name: str) -> None:
    assert {getattr(attributes_of(seed), name) for seed in range(500)} == set(get_args(ATTRIBUTES[name]))


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_no_attribute_can_be_told_from_another(one: str, other: str) -> None:
    thrown = [attributes_of(seed) for seed in range(2000)]

    met = {(getattr(each, one), getattr(each, other)) for each in thrown}

    assert met == set(itertools.product(get_args(ATTRIBUTES[one]), get_args(ATTRIBUTES[other])))


@pytest.mark.parametrize(
    ("chosen", "name"),
    [
        ({"product_type": "dress", "gender": "Women"}, "Women's Red Summer Dress"),
        ({"product_type": "t-shirt", "color": "black", "season": "Fall"}, "Men's Black Fall T-Shirt"),
        ({"gender": "Unisex", "usage": "Sports"}, "Unisex Red Summer Shirt"),
    ],
)
def test_the_name_follows_from_the_other_attributes(chosen: dict[str, str], name: str) -> None:
    assert attributes(**chosen).product_name == name


def test_no_name_is_longer_than_the_schema_allows() -> None:
    everything = itertools.product(*(get_args(of) for of in ATTRIBUTES.values()))

    assert all(len(ProductAttributes.of(*values).product_name) <= 60 for values in everything)


@pytest.mark.parametrize(("scale", "side"), [(0.5, 112), (0.75, 168), (1, 224), (2, 448)])
def test_a_scale_changes_the_size_and_nothing_else(scale: float, side: int) -> None:
    usual, scaled = draw_garment(11), draw_garment(11, scale)

    assert scaled.picture.size == (side, side)
    assert scaled.attributes == usual.attributes
    small = [pixels(one.picture.resize((56, 56), Image.Resampling.BOX)) for one in (usual, scaled)]
    assert np.abs(small[0] - small[1]).mean() < 4


@pytest.mark.parametrize(("kind", "gender"), CUT_OUT)
def test_a_garment_lies_within_its_frame(kind: ProductType, gender: Gender) -> None:
    cut = CUTS[kind](gender)

    assert all(abs(x) <= 1 and abs(y) <= 1 for x, y in [*cut.outline, *cut.side, cut.front, cut.pocket, cut.bow, *cut.buttons])


def test_a_garments_frame_lies_wholly_in_the_picture() -> None:
    for seed in range(1000):
        pose = garments._thrown(random.Random(seed), SIDE)
        corners = pose.all_at([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        assert all(0 <= edge <= SIDE for corner in corners for edge in corner)


@pytest.mark.parametrize("kind", CUTS)
def test_cuts_differ_by_12_pixels_in_the_middle_of_the_height(kind: ProductType) -> None:
    women, men, unisex = (CUTS[kind](gender).side for gender in ("Women", "Men", "Unisex"))

    assert max(2 * (straight[0] - narrow[0]) for narrow, straight in zip(women, men, strict=True)) * SMALLEST >= 12
    assert max(2 * (wide[0] - straight[0]) for straight, wide in zip(men, unisex, strict=True)) * SMALLEST >= 12


@pytest.mark.parametrize("color", get_args(Color))
@pytest.mark.parametrize("name", ["gender", "season", "usage"])
def test_another_value_of_one_attribute_shows_in_every_type_and_color(name: str, color: str) -> None:
    for seed, kind in enumerate(get_args(ProductType)):
        values = get_args(ATTRIBUTES[name])
        pictures = [photograph(attributes(**{"product_type": kind, "color": color, name: value}), seed) for value in values]
        for one, other in itertools.combinations(pictures, 2):
            assert differ(one, other, by=45).sum() >= 12 * 12, kind


@pytest.mark.parametrize("gender", get_args(Gender))
@pytest.mark.parametrize("usage", get_args(Usage))
def test_a_print_shows_beside_the_marks_of_every_usage(usage: str, gender: str) -> None:
    for seed, kind in enumerate(get_args(ProductType)):
        chosen = {"product_type": kind, "usage": usage, "gender": gender}
        pictures = [photograph(attributes(**chosen, season=season), seed) for season in get_args(Season)]
        for one, other in itertools.combinations(pictures, 2):
            assert differ(one, other).sum() >= 2 * 12 * 12, kind


def test_another_type_is_another_silhouette() -> None:
    pictures = [photograph(attributes(product_type=kind), 3) for kind in get_args(ProductType)]

    for one, other in itertools.combinations(pictures, 2):
        assert differ(one, other).sum() >= 2 * 12 * 12


def test_another_color_is_most_of_another_garment() -> None:
    pictures = [photograph(attributes(color=color), 3) for color in get_args(Color)]

    for one, other in itertools.combinations(pictures, 2):
        assert differ(one, other, by=40).mean() > 0.1


@pytest.mark.parametrize("color", get_args(Color))
def test_every_color_has_backgrounds_it_can_be_told_from(color: Color) -> None:
    for seed in range(100):
        fabric = garments._varied(garments._FABRICS[color], random.Random(seed))
        assert len(garments._tones_apart_from(fabric)) >= 3


def test_the_question_to_ask_by_comes_first_and_none_twice() -> None:
    assert garments.QUESTIONS[0] == "List the attributes of this product."
    assert len(set(garments.QUESTIONS)) == len(garments.QUESTIONS)
