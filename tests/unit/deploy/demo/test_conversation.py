import pathlib
from typing import Any

import pytest
from PIL import Image

from deploy.demo.conversation import is_true, save_boxed
from deploy.demo.inspection import draw_scene

FRAME = (224, 27, 36)


def framed(path: pathlib.Path) -> list[tuple[int, int]]:
    with Image.open(path) as shown:
        picture = shown.convert("RGB")
    width, height = picture.size
    return [(x, y) for x in range(width) for y in range(height) if picture.getpixel((x, y)) == FRAME]


def flawed_seed() -> int:
    return next(seed for seed in range(100) if draw_scene(seed).worst and max(draw_scene(seed).bbox or (0,)) > 100)


def test_a_box_is_drawn_where_it_was_answered(tmp_path: pathlib.Path) -> None:
    scene = draw_scene(flawed_seed())
    save_boxed(scene, scene.located_result, tmp_path / "new" / "shown.png")
    found = framed(tmp_path / "new" / "shown.png")
    assert scene.bbox is not None
    left, top, right, bottom = (3 * edge for edge in scene.bbox)
    assert min(x for x, _ in found) == pytest.approx(left, abs=3)
    assert max(y for _, y in found) == pytest.approx(bottom, abs=3)
    assert max(x for x, y in found if y > top) == pytest.approx(right, abs=3)


def test_a_box_that_is_the_wrong_way_round_is_drawn_all_the_same(tmp_path: pathlib.Path) -> None:
    scene = draw_scene(flawed_seed())
    turned = scene.located_result.model_copy(update={"bbox": [500, 500, 400, 400]})
    save_boxed(scene, turned, tmp_path / "shown.png")
    assert framed(tmp_path / "shown.png")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"bbox": None}, False),
        ({"bbox": [0, 0, 20, 20]}, False),
        ({"severity": "none"}, False),
        ({"confidence": 0.5}, False),
    ],
)
def test_true_is_what_is_so_in_each_word_and_has_its_box_in_place(change: dict[str, Any], expected: bool) -> None:  # noqa: FBT001
    scene = draw_scene(flawed_seed())
    assert is_true(scene.located_result.model_copy(update=change), scene) is expected


def test_of_a_part_without_a_flaw_no_box_is_the_true_one() -> None:
    scene = draw_scene(flawed_seed(), is_flawless=True)
    assert is_true(scene.located_result, scene)
    assert not is_true(scene.located_result.model_copy(update={"bbox": [1, 2, 300, 400]}), scene)


def test_no_box_is_drawn_where_none_was_answered(tmp_path: pathlib.Path) -> None:
    scene = draw_scene(flawed_seed(), is_flawless=True)
    save_boxed(scene, scene.located_result, tmp_path / "shown.png")
    assert framed(tmp_path / "shown.png") == []
