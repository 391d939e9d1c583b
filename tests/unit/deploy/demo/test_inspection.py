import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from deploy.demo.defects import GRADES, MARGIN
from deploy.demo.inspection import BACKGROUNDS, NEW_BACKGROUNDS, SIDE, ProductInspectionResult, Scene, draw_scene
from deploy.demo.parts import FINISHES, SHAPES

SEEDS = range(1000)
FADING = 3
"""Pixels around a box in which a soft edge, or a picture made smaller, may still be seen."""

LEEWAY = 9
"""Pixels by which a box may be wider than what is plain to see in it, on each side: 3 are by design, and thin tips fade."""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed) for seed in SEEDS]


def pixels(scene: Scene) -> npt.NDArray[np.int16]:
    return np.asarray(scene.picture).astype(np.int16)


def test_a_seed_always_gives_the_same_scene(scenes: list[Scene]) -> None:
    for scene in scenes[:20]:
        again = draw_scene(scene.seed)
        assert (pixels(again) == pixels(scene)).all()
        assert (again.part, again.defects) == (scene.part, scene.defects)
    assert len({scene.picture.tobytes() for scene in scenes}) == len(scenes)


def test_all_that_there_can_be_comes_up_and_what_is_flawless_is_a_third(scenes: list[Scene]) -> None:
    assert {scene.part.kind for scene in scenes} == SHAPES.keys()
    assert {(scene.part.material, scene.part.colour) for scene in scenes} == FINISHES.keys()
    kinds = Counter(scene.result.defect_type for scene in scenes)
    assert kinds.keys() == {"none", "scratch", "dent", "crack", "stain", "missing_hole"}
    assert 0.2 < kinds["none"] / len(scenes) < 0.4
    assert {scene.result.severity for scene in scenes} == {"none", "minor", "major", "critical"}
    assert max(len(scene.defects) for scene in scenes) == 2


def test_what_a_scene_has_more_than_one_without_defects_is_in_their_boxes_and_fills_them(scenes: list[Scene]) -> None:
    for scene in scenes:
        changed = np.abs(pixels(scene) - pixels(draw_scene(scene.seed, is_flawless=True))).sum(axis=2) > 24
        outside = changed.copy()
        for defect in scene.defects:
            left, top, right, bottom = (round(edge) for edge in defect.box)
            inside = changed[max(0, top) : bottom, max(0, left) : right]
            for across in (0, 1):
                reached = np.flatnonzero(inside.any(axis=across))
                assert reached[0] <= LEEWAY, (scene.seed, defect)
                assert reached[-1] >= inside.shape[1 - across] - 1 - LEEWAY, (scene.seed, defect)
            outside[max(0, top - FADING) : bottom + FADING, max(0, left - FADING) : right + FADING] = False
        assert not outside.any(), scene.seed


def test_the_same_scene_in_more_pixels_has_its_boxes_there_too(scenes: list[Scene]) -> None:
    for scene in scenes[:40]:
        larger = draw_scene(scene.seed, 2)
        assert larger.picture.size == (2 * SIDE, 2 * SIDE)
        assert larger.result == scene.result
        assert larger.part == scene.part
        for one, other in zip(scene.defects, larger.defects, strict=True):
            assert one.box == pytest.approx([edge / 2 for edge in other.box], abs=1.5)


def test_a_defect_is_as_long_as_its_grade_says_can_be_seen_so_long_and_is_inside_the_picture(scenes: list[Scene]) -> None:
    for scene in scenes:
        for defect in scene.defects:
            left, top, right, bottom = defect.box
            assert 0 <= left < right <= SIDE
            assert 0 <= top < bottom <= SIDE
            if defect.kind != "missing_hole":
                assert defect.grade.shortest <= defect.length <= defect.grade.longest
                assert max(right - left, bottom - top) <= defect.length * 1.3 + 2 * LEEWAY
                assert defect.grade in GRADES.values()
                width, height = right - left - 2 * MARGIN, bottom - top - 2 * MARGIN
                seen = math.hypot(width, height) if defect.kind in {"scratch", "crack"} else max(width, height)
                assert seen >= 0.8 * defect.grade.shortest, "which is more than of any smaller grade"


def test_the_truth_is_a_result_of_the_worst_defect(scenes: list[Scene]) -> None:
    order = ["none", "minor", "major", "critical"]
    for scene in scenes:
        result = scene.result
        assert ProductInspectionResult.model_validate_json(result.model_dump_json()) == result
        assert result.defect_detected is bool(scene.defects)
        assert (scene.bbox is None) is not result.defect_detected
        assert result.severity == max(["none", *(defect.grade.severity for defect in scene.defects)], key=order.index)


def test_questions_in_words_agree_with_the_truth(scenes: list[Scene]) -> None:
    for scene in scenes:
        answers = scene.questions
        assert scene.part.kind in answers["What part is this?"]
        assert scene.part.colour in answers["What colour is it?"]
        assert str(scene.part.holes) in answers["How many holes does it have?"]
        assert (scene.location if scene.defects else "no defect") in answers["Where is the defect?"]
        assert all(len(answer) < 120 for answer in answers.values())


def test_a_hole_that_is_missing_is_one_fewer_to_count() -> None:
    lacking = next(scene for seed in range(1000) if (scene := draw_scene(seed)).result.defect_type == "missing_hole")
    assert draw_scene(lacking.seed, is_flawless=True).part.holes == lacking.part.holes + 1


@pytest.mark.parametrize("background", [*BACKGROUNDS, *NEW_BACKGROUNDS])
def test_another_background_changes_nothing_of_the_part(background: str) -> None:
    one, other = draw_scene(11, backgrounds=(background,)), draw_scene(11, backgrounds=("plain",))
    assert (one.part, one.defects) == (other.part, other.defects)
