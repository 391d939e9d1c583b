"""How right one answer is: the benchmarks' own definitions, by examples and by what must hold of any answer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.evaluation.scores import (
    Box,
    anls,
    as_box,
    chosen_letter,
    edit_distance,
    exact_field,
    iou,
    multiple_choice,
    relaxed_accuracy,
)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("intention", "execution", 5)],
)
def test_edit_distance_is_levenshtein_s(one: str, other: str, distance: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == distance


@pytest.mark.parametrize(
    ("answer", "truths", "score"),
    [
        ("ITC Limited", ["ITC Limited"], 1),
        ("  itc   limited\n", ["ITC Limited"], 1),
        ("0.28", ["0.28", ".28"], 1),
        ("hallo", ["hello"], 0.8),
        ("hallo", ["far off", "hello", "hullo"], 0.8),
        ("University of California", ["University of California."], 24 / 25),
        ("ab", ["ac"], 0),
        ("abc", ["abd"], 2 / 3),
        ("The answer is 12", ["12"], 0),
        ("", ["12"], 0),
        ("", [""], 1),
    ],
)
def test_anls_is_one_less_the_distance_to_the_nearest_truth_and_0_from_a_half_on(
    answer: str, truths: list[str], score: float
) -> None:
    assert anls(answer, truths) == pytest.approx(score)


WORDS = st.text(alphabet="abAB ,.1", max_size=12)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_anls_is_0_or_more_than_a_half(answer: str, truths: list[str]) -> None:
    score = anls(answer, truths)
    assert score == 0 or 0.5 < score <= 1
    assert anls(truths[0], truths) == 1
    assert anls(answer, [*truths, answer]) == 1


@pytest.mark.parametrize(
    ("answer", "truth", "score"),
    [
        ("14", "14", 1),
        ("105", "100", 1),
        ("95", "100", 1),
        ("105.1", "100", 0),
        ("-100", "100", 0),
        ("-99", "-100", 1),
        ("0.45", "45%", 1),
        ("45%", "45%", 1),
        ("45", "45%", 0),
        ("47%", "0.46", 1),
        ("0", "0", 1),
        ("0.0", "0", 0),
        ("0.01", "0", 0),
        ("1,000", "1000", 0),
        ("Yes", "yes", 1),
        (" yes\n", "Yes", 1),
        ("yes.", "yes", 0),
        ("nan", "12", 0),
        ("inf", "12", 0),
        ("twelve", "12", 0),
        ("%", "%", 1),
    ],
)
def test_relaxed_accuracy_allows_numbers_5_per_cent_and_texts_nothing(answer: str, truth: str, score: float) -> None:
    assert relaxed_accuracy(answer, truth) == score


OPTIONS = ["barrel-vaulted roofing", "decorative rhythm", "a higher roof", "the entrance of light"]


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        (" B\n", "B"),
        ("(B)", "B"),
        ("(A) is wrong, so it is (C)", "C"),
        ("(C), as (A) is wrong", "A"),
        ("It must be (B), not A and not C ", "B"),
        ("A or D ", "D"),
        ("The answer is D", "D"),
        ("The answer is D.", "D"),
        ("I believe they stand for decorative rhythm here", "B"),
        ("It is not Decorative Rhythm but rather THE ENTRANCE OF LIGHT", "D"),
        # So it reads, for better or worse: the article is a letter by itself.
        ("It is not decorative rhythm but rather A HIGHER ROOF", "A"),
    ],
)
def test_a_choice_is_read_as_mmmu_reads_it(response: str, letter: str) -> None:
    assert chosen_letter(response, OPTIONS) == letter
    assert multiple_choice(response, OPTIONS, letter) == 1
    assert multiple_choice(response, OPTIONS, "E") == 0


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("The answer is B.\nBECAUSE: light", "B"),
        ("The answer is B. The answer is C. No more", None),
        ("The answer is Boston", None),
        ("Decorative rhythm.", "B"),
        ("rhythm", None),
        ("", None),
        ("b", None),
        ("E", None),
        ("none of these", None),
    ],
)
def test_where_mmmu_would_guess_nothing_is_left_to_chance(response: str, letter: str | None) -> None:
    assert chosen_letter(response, OPTIONS) == letter


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=26))
def test_a_choice_is_one_of_the_options_or_none(response: str, options: list[str]) -> None:
    letter = chosen_letter(response, options)
    assert letter is None or 0 <= ord(letter) - ord("A") < len(options)


@pytest.mark.parametrize(
    ("said", "truth", "score"),
    [
        (1, 1.0, 1),
        (True, 1, 0),
        (1, True, 0),
        (0, False, 0),
        (None, None, 1),
        (None, False, 0),
        ("scratch", "scratch", 1),
        ("Scratch", "scratch", 0),
        ([1, [2]], [1, [2.0]], 1),
        ([1], [True], 0),
        ([1], [1, 2], 0),
        ({"a": 1, "b": None}, {"b": None, "a": 1}, 1),
        ({"a": 1}, {"a": 1, "b": None}, 0),
        ({"a": True}, {"a": 1}, 0),
    ],
)
def test_a_field_is_right_where_it_is_the_same_json_value(said: Any, truth: Any, score: float) -> None:
    assert exact_field(said, truth) == score


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),
        ((0, 0, 2, 2), (0, 0, 2, 1), 0.5),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0),
        ((0, 0, 1, 1), (5, 5, 9, 9), 0),
        ((3, 3, 3, 3), (3, 3, 3, 3), 1),
        ((3, 3, 3, 3), (4, 4, 4, 4), 0),
        ((3, 3, 3, 3), (0, 0, 9, 9), 0),
    ],
)
def test_iou_is_what_is_shared_of_what_is_covered(one: Box, other: Box, share: float) -> None:
    assert iou(one, other) == pytest.approx(share)


SIDES = st.floats(-1e6, 1e6)
BOXES = st.tuples(SIDES, SIDES, SIDES, SIDES).map(list).map(as_box)


@given(BOXES, BOXES)
def test_iou_is_symmetric_and_between_0_and_1(one: Box | None, other: Box | None) -> None:
    assert one is not None
    assert other is not None
    assert iou(one, other) == iou(other, one)
    assert 0 <= iou(one, other) <= 1
    assert iou(one, one) == 1


@pytest.mark.parametrize(
    "value", [None, [1, 2, 3], [1, 2, 3, "4"], [1, 2, 3, True], [0, 0, 1, float("nan")], [0, 0, 1, 1e400], "box"]
)
def test_what_is_no_box_is_none(value: Any) -> None:
    assert as_box(value) is None


def test_the_sides_of_a_box_are_put_in_order() -> None:
    assert as_box([9, 8, 1, 2]) == (1, 2, 9, 8)
