"""What holds for every family's image rule, and what single ones are known to say. The engine's word is in tests/engine."""

import math
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.catalog import image_rules
from gateway.catalog.families import FAMILIES, FamilyName
from gateway.catalog.image_rules import Budget, ImageRule, QwenRule, Size, UnfitSize
from gateway.catalog.tiling_rules import Idefics3Rule, InternVLRule, LlavaNextRule, LlavaOnevisionRule

FREE = Budget(max_pixels=None, max_side=None)
LOW = Budget(max_pixels=None, max_side=512)

DEMO = QwenRule.model_validate({"size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 256}})
RULES: dict[str, ImageRule] = {name: family.image_rule() for name, family in FAMILIES.items()} | {"demo": DEMO}

rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
sides = st.one_of(st.integers(1, 64), st.integers(1, 1500), st.integers(1, 9000))
sizes = st.tuples(sides, sides).filter(lambda size: max(size) <= 200 * min(size))


def every_size(test: Callable[[Size], None]) -> Callable[[], None]:
    """A few sizes that have been wrong or could be, and drawn ones."""
    for size in ((1, 1), (8, 8), (1007, 994), (4000, 3000), (2000, 10), (5000, 25), (1457, 1455), (28, 5600)):
        test = example(size=size)(test)
    drawn: Callable[[], None] = settings(max_examples=150)(given(size=sizes)(test))
    return drawn


@rules
def test_no_image_is_ever_enlarged(rule: ImageRule) -> None:
    @every_size
    def holds(size: Size) -> None:
        for budget in (FREE, LOW, Budget(200_000, None), Budget(50_000, 300)):
            sent = rule.sent_size(*size, budget)
            assert sent[0] <= size[0]
            assert sent[1] <= size[1]
            assert min(sent) >= 1

    holds()


@rules
def test_without_a_budget_of_its_own_an_image_costs_what_it_would_have(rule: ImageRule) -> None:
    @every_size
    def holds(size: Size) -> None:
        assert rule.tokens(*rule.sent_size(*size, FREE)) == rule.tokens(*size)

    holds()


@rules
@pytest.mark.parametrize("budget", [FREE, LOW, Budget(200_000, None)], ids=["free", "low", "pixels"])
def test_what_was_sent_would_be_sent_as_it_is(rule: ImageRule, budget: Budget) -> None:
    @every_size
    def holds(size: Size) -> None:
        sent = rule.sent_size(*size, budget)
        assert rule.sent_size(*sent, budget) == sent

    holds()


@rules
def test_an_image_fits_its_budget(rule: ImageRule) -> None:
    @settings(max_examples=300)
    @given(size=sizes, max_pixels=st.integers(20_000, 4_000_000), max_side=st.integers(64, 3000))
    def holds(size: Size, max_pixels: int, max_side: int) -> None:
        sent = rule.sent_size(*size, Budget(max_pixels, max_side))
        assert max(sent) <= max_side
        assert sent[0] * sent[1] <= max_pixels

    holds()


@rules
def test_an_image_within_its_budget_is_sent_as_without_one(rule: ImageRule) -> None:
    @settings(max_examples=200)
    @given(size=sizes)
    def holds(size: Size) -> None:
        if isinstance(rule, QwenRule):  # it counts the pixels of the rounded sides
            return
        assert rule.sent_size(*size, Budget(size[0] * size[1], max(size))) == rule.sent_size(*size, FREE)

    holds()


@rules
def test_a_smaller_box_never_sends_a_longer_side_than_a_larger_one_allows(rule: ImageRule) -> None:
    @settings(max_examples=200)
    @given(size=sizes, boxes=st.tuples(st.integers(64, 3000), st.integers(64, 3000)))
    def holds(size: Size, boxes: tuple[int, int]) -> None:
        low, high = sorted(boxes)
        assert max(rule.sent_size(*size, Budget(None, low))) <= low <= high

    holds()


@rules
def test_low_detail_costs_no_more_unless_the_image_is_a_strip(rule: ImageRule) -> None:
    @every_size
    def holds(size: Size) -> None:
        if max(size) > 4 * min(size):  # what is left of its shorter side is rounded up, and small images are enlarged
            return
        # Where all sizes of an aspect cost about the same, rounding to whole pixels moves it by a row or a tile.
        assert rule.tokens(*rule.sent_size(*size, LOW)) <= 1.3 * rule.tokens(*size)

    holds()


@pytest.mark.parametrize("name", [FamilyName.QWEN2_VL, FamilyName.QWEN2_5_VL, FamilyName.QWEN3_VL])
def test_qwen_s_resize_does_nothing_to_what_is_sent(name: FamilyName) -> None:
    rule = RULES[name]
    assert isinstance(rule, QwenRule)
    factor = rule.patch_size * rule.merge_size

    @every_size
    def holds(size: Size) -> None:
        for budget in (LOW, Budget(500_000, None)):
            sent = rule.sent_size(*size, budget)
            assert sent == size or all(side % factor == 0 or (side < factor and side in size) for side in sent), sent

    holds()


@pytest.mark.parametrize(
    ("size", "tokens"),
    [((1920, 1080), 2691), ((8, 8), 4), ((1, 1), 4), ((28, 5600), 200), ((504, 504), 324)],
)
def test_qwen_counts_28_by_28_pixels_and_two_markers(size: Size, tokens: int) -> None:
    assert QwenRule().tokens(*size) == tokens + 2


def test_a_photo_is_sent_to_the_demo_models_at_the_size_they_would_shrink_it_to() -> None:
    assert DEMO.sent_size(4000, 3000, FREE) == (504, 364)
    assert DEMO.tokens(4000, 3000) == DEMO.tokens(504, 364) == 18 * 13 + 2
    assert DEMO.sent_size(448, 336, FREE) == (448, 336)


def test_qwen_takes_no_aspect_above_200() -> None:
    with pytest.raises(UnfitSize, match=r"The image is 10x2010, an aspect of 201\.0:1; this model takes up to 200:1"):
        QwenRule().tokens(10, 2010)
    with pytest.raises(UnfitSize):
        QwenRule().sent_size(2010, 10, LOW)
    assert QwenRule().tokens(10, 2000)


def test_qwen_s_limits_go_by_two_names() -> None:
    named = QwenRule(min_pixels=56 * 56, max_pixels=28 * 28 * 256)
    assert named.tokens(4000, 3000) == DEMO.tokens(4000, 3000)


def test_detail_low_is_a_handful_of_tokens_where_the_family_allows_it() -> None:
    photo = (4000, 3000)
    low = {name: rule.tokens(*rule.sent_size(*photo, LOW)) for name, rule in RULES.items()}
    high = {name: rule.tokens(*photo) for name, rule in RULES.items()}
    assert (low["qwen2_5_vl"], high["qwen2_5_vl"]) == (18 * 13 + 2, 143 * 107 + 2)
    assert (low["internvl"], high["internvl"]) == (256 + 3, 13 * 256 + 3)
    assert (low["llava_next"], high["llava_next"]) == (576 + 24 * 33 + 1, 576 + 36 * 49 + 1)
    assert (low["gemma3"], high["gemma3"]) == (260, 260)
    assert low["smolvlm"] == high["smolvlm"]


def test_an_image_is_sent_as_it_lies_on_its_canvas() -> None:
    # Not 504: 3000 * (672 / 4000) is a little more than that in floating point, and the processor rounds up.
    assert LlavaNextRule().sent_size(4000, 3000, FREE) == (672, 505)
    assert LlavaOnevisionRule().sent_size(4000, 3000, FREE) == (2304, 1728)
    assert InternVLRule().sent_size(4000, 3000, FREE) == (4 * 448, 3 * 448)
    assert Idefics3Rule().sent_size(4000, 3000, FREE) == (1456, 1092)


def test_an_image_below_its_canvas_is_sent_as_it_is() -> None:
    for rule in (LlavaNextRule(), LlavaOnevisionRule(), InternVLRule(), Idefics3Rule()):
        assert rule.sent_size(300, 200, FREE) == (300, 200)


def test_every_rule_says_where_it_is_from() -> None:
    for family in FAMILIES.values():
        assert family.image_rule.__doc__ is not None
        assert ".py" in family.image_rule.__doc__


def test_no_arithmetic_fails_on_thin_images() -> None:
    for rule in RULES.values():
        for size in ((1, 200), (200, 1), (1, 20000), (20000, 1)):
            try:
                assert math.isfinite(rule.tokens(*size))
                assert min(rule.sent_size(*size, LOW)) >= 1
            except UnfitSize:
                assert isinstance(rule, QwenRule)


MEANT: dict[tuple[str | None, str], Budget] = {
    (None, "high"): Budget(200_000, None),
    (None, "low"): Budget(200_000, 512),
    ("auto", "high"): Budget(200_000, None),
    ("auto", "low"): Budget(200_000, 512),
    ("low", "high"): Budget(200_000, 512),
    ("high", "low"): Budget(200_000, None),
    ("original", "low"): Budget(200_000, None),
}
"""What an image's `detail` allows with a model's `auto_detail` and 200,000 pixels."""


@rules
def test_a_size_that_comes_again_becomes_what_the_rule_says(rule: ImageRule) -> None:
    for (detail, auto_detail), budget in MEANT.items():
        for size in ((1600, 1200), (1200, 1600), (1600, 1200)):
            sent = rule.sent_size(*size, budget)
            assert image_rules.sizes(rule, 200_000, auto_detail)(*size, detail) == (sent, rule.tokens(*sent))


def test_a_size_that_is_refused_is_refused_again() -> None:
    for _ in range(2):
        with pytest.raises(UnfitSize, match="an aspect of 300"):
            image_rules.sizes(DEMO, None, "high")(3000, 10, None)


def test_models_share_what_is_known_of_sizes_where_all_that_decides_it_is_the_same() -> None:
    known = image_rules.sizes(QwenRule(), None, "high")
    assert image_rules.sizes(QwenRule(), None, "high") is known
    assert (
        len(
            {
                known,
                image_rules.sizes(DEMO, None, "high"),
                image_rules.sizes(QwenRule(), 1000, "high"),
                image_rules.sizes(QwenRule(), None, "low"),
            }
        )
        == 4
    )
