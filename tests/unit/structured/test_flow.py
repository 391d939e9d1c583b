import itertools
import json
import random
import time
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.structured.fault import DEEPEST, Fault
from gateway.structured.flow import MOST_BLANKS, JsonFlow

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=25,
)
layouts = st.sampled_from([{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}])
ODD = '{}[]",:\\/ \n\tnulltrefas0123456789.-+eEuD8dC\x00\x1f\x7f\ud83d\ufeff\u00a0é😀'


def flown(pieces: Iterable[str]) -> JsonFlow:
    flow = JsonFlow()
    for piece in pieces:
        flow.add(piece)
    return flow


def cut(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(at % (len(text) + 1) for at in cuts), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


def fault_of(text: str) -> Fault | None:
    return JsonFlow().add(text)


def is_json(text: str) -> bool:
    """What both readers take; CPython's takes NaN and halves of pairs as well, orjson no number that overflows a double."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        value = json.loads(text, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def has_a_continuation(text: str) -> bool:
    """Whether some text makes it JSON: tries ends of a token, then closes all that is open, with a member if need be."""
    tails = [
        "",
        '"',
        "0",
        "u0041",
        "0041",
        "041",
        "41",
        "1",
        "dc00",
        "\\udc00",
        "udc00",
        "c00",
        "00",
        "00\\udc00",
        "0\\udc00",
        "n",
    ]
    words = [word[at:] for word in ("true", "false", "null") for at in range(1, len(word))]
    ends = ["", '"', ":0", '":0', "0", '"":0', '"k":0']
    closers = "".join("}" if opener == "{" else "]" for opener in reversed(open_in(text)))
    return any(is_json(text + tail + end + closers) for tail in (*tails, *words) for end in ends)


def open_in(text: str) -> list[str]:
    openers: list[str] = []
    is_in_string = is_escaped = False
    for char in text:
        if is_in_string:
            is_in_string = is_escaped or char != '"'
            is_escaped = char == "\\" and not is_escaped
        elif char == '"':
            is_in_string = True
        elif char in "{[":
            openers.append(char)
        elif char in "}]":
            openers = openers[:-1]
    return openers


@given(values, layouts, st.lists(st.integers(0, 10_000), max_size=20))
def test_every_prefix_of_json_is_taken_however_it_is_cut_and_the_whole_is_whole(
    value: Any, layout: dict[str, Any], cuts: list[int]
) -> None:
    text = json.dumps(value, **layout)
    flow = JsonFlow()
    for piece in cut(text, cuts):
        assert flow.add(piece) is None
    assert flow.is_whole


@given(values, layouts)
def test_every_prefix_is_whole_only_if_it_is_json_by_itself(value: Any, layout: dict[str, Any]) -> None:
    text = json.dumps(value, **layout)[:200]
    flow = JsonFlow()
    for end, char in enumerate(text, start=1):
        assert flow.add(char) is None
        assert flow.is_whole == is_json(text[:end])


@given(values, layouts, st.data(), st.lists(st.integers(0, 10_000), max_size=20))
def test_with_one_character_changed_it_is_whole_exactly_if_it_can_be_read(
    value: Any, layout: dict[str, Any], data: st.DataObject, cuts: list[int]
) -> None:
    text = json.dumps(value, **layout)
    at = data.draw(st.integers(0, len(text)))
    char = data.draw(st.sampled_from(ODD))
    corrupt = text[:at] + char + text[at + data.draw(st.integers(0, 1)) :]
    flow = flown(cut(corrupt, cuts))
    assert flow.is_whole == is_json(corrupt)
    if flow.is_whole and "e" not in corrupt.lower():
        assert orjson.loads(corrupt) == orjson.loads(json.dumps(json.loads(corrupt)))
    assert flow.add("") == fault_of(corrupt), "the cuts decide nothing"


@given(values, layouts, st.data())
def test_a_violation_is_told_with_the_first_character_that_no_json_can_have(
    value: Any, layout: dict[str, Any], data: st.DataObject
) -> None:
    text = json.dumps(value, **layout)[:60]
    at = data.draw(st.integers(0, len(text)))
    corrupt = text[:at] + data.draw(st.sampled_from(ODD)) + text[at + 1 :]
    flow = JsonFlow()
    for end, char in enumerate(corrupt, start=1):
        fault = flow.add(char)
        assert (fault is None) == has_a_continuation(corrupt[:end]), corrupt[:end]
        if fault is not None:
            break


@given(st.text(alphabet='{}[]",:01.-e tn\\u', max_size=12))
@example('"\\ud83d\\ude00"')
@example("-0.0e-0")
def test_any_text_is_whole_exactly_if_it_can_be_read(text: str) -> None:
    assert flown([text]).is_whole == is_json(text)
    assert flown(text).is_whole == is_json(text)


@pytest.mark.parametrize(
    "text",
    ["01", "-01", "1.", "1.e", "+1", ".5", "1e+", "--1", "NaN", "Infinity", "True", "nul1", "'a'",
     '"\\x"', '"\\u12g4"', "\ufeff1",
     '"\\ud800"', '"\\ud800x', '"\\udc00"', '"\\ud800\\u0041"', '"\ud800', '"\n"', '"\x00', "[1,]", '{"a":1,}', "{1", "[1 2]",
     '{"a" 1}', '{"a":}', "[}", "{]", "1 2", "{}x", "]", "//", "\u00a01", "\x0c1"],
)  # fmt: skip
def test_what_is_no_json_is_refused_or_not_whole(text: str) -> None:
    for pieces in ([text], list(text)):
        assert not flown(pieces).is_whole
    is_begun = text in {"1.", "1e+"}
    assert (fault_of(text) is None) == is_begun


@pytest.mark.parametrize(
    "text", ["0", "-0", "1e400", "[]", " {} ", '"\\u00e9\\ud83D\\uDE00"', '"\x7f"', "1E+5", '{"":{"":[]}}']
)
def test_what_is_json_is_whole(text: str) -> None:
    assert flown([text]).is_whole
    assert flown(text).is_whole


def test_a_number_by_itself_is_whole_and_may_go_on() -> None:
    flow = JsonFlow()
    wholes = []
    for char in "-10.5e+7 ":
        assert flow.add(char) is None
        wholes.append(flow.is_whole)
    assert wholes == [False, True, True, False, True, False, False, True, True]


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ('{"items": [1, {"a": 2}, [], {"price": 1.x', "/items/3/price"),
        ('{"items": [1, {"a": [[1]]}, [], {"price": 1, !', "/items/3"),
        ("[1, 2, 3, x", "/3"),
        ("x", ""),
        ("{} x", ""),
        ('{"a/b~c": {"\\u00e9": +', "/a~1b~0c/é"),
        ('{"a": "},][{:", "b": "\x01', "/b"),
        ('{"a": 1, "b\x01', ""),
        ('[{"a": [' + '{"b": 1}, ' * 100 + "nulL", "/0/a/100"),
    ],
)
def test_a_fault_says_where_it_is(text: str, pointer: str) -> None:
    for pieces in ([text], list(text)):
        fault = flown(pieces).add("")
        assert fault is not None
        assert fault.pointer == pointer


def test_the_first_fault_stays_and_says_little_of_the_answer() -> None:
    flow = JsonFlow()
    fault = flow.add('["secret", nothing' + "x" * 1000)
    assert fault == Fault("not_json", "/1", 'Unexpected "o" in true, false or null.')
    assert flow.add("]") is fault
    assert not flow.is_whole


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("before", ["", "[", "[1,", '{"a":', "[1", '{"a":1,', "{}", '{"a"', "[" + '{"a": [1, 2]},' * 9])
def test_blanks_without_end_are_a_fault_wherever_they_are(before: str, size: int) -> None:
    text = before + " \n" * (MOST_BLANKS // 2)
    assert flown([text[at : at + size] for at in range(0, len(text), size)]).add("") is None
    text += "\t"
    fault = flown([text[at : at + size] for at in range(0, len(text), size)]).add("")
    assert fault is not None
    assert fault.reason == "whitespace"


def test_blanks_in_a_string_are_its_own_affair_and_those_apart_are_not_added_up() -> None:
    assert flown(['["' + " " * 5000 + '"]']).is_whole
    assert flown(["[" + (" " * 40 + "1" + " " * 40 + ",") * 100 + " 1]"]).is_whole


@pytest.mark.parametrize("opener", ["[", '{"a":', '[{"a":'])
def test_depth_is_bounded(opener: str) -> None:
    levels = DEEPEST // (opener.count("[") + opener.count("{"))
    assert fault_of(opener * levels) is None
    for pieces in ([opener * (levels + 1)], list(opener * (levels + 1))):
        fault = flown(pieces).add("")
        assert fault is not None
        assert fault.reason == "too_deep"
        assert fault.pointer.count("/") == DEEPEST


def test_whole_json_at_the_deepest_is_taken_in_one_piece_and_in_many() -> None:
    inner = "[" + "1, " * 50 + "1]"
    text = "[" * (DEEPEST - 1) + inner + "]" * (DEEPEST - 1)
    assert flown([text]).is_whole
    assert flown(text).is_whole
    fault = fault_of(f"[{text}]")
    assert fault is not None
    assert fault.reason == "too_deep"


HARD = [
    '"' + "\\u00e9" * 20_000,
    "1" * 100_000,
    "[" * 400 + "1," * 50_000,
    '{"a":{"b":{"c":{"d":1}}},' * 400,
    '[[[[1,2,3],[4]],{"a":{"b":[{}]}}],' * 3000,
    '{"a":[' + '"x y z",' * 12_000,
    '["' + '\\\\"' * 30_000,
]


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
@pytest.mark.parametrize("size", [3, 1 << 20])
def test_time_grows_with_the_length_and_not_with_its_square(text: str, size: int) -> None:
    def seconds(of: str) -> float:
        best = 9.0
        for _ in range(3):
            flow = JsonFlow()
            start = time.process_time()
            for at in range(0, len(of), size):
                flow.add(of[at : at + size])
            best = min(best, time.process_time() - start)
        return best

    assert seconds(text) < 0.002 + 8 * seconds(text[: len(text) // 4])


def test_random_cuts_of_a_long_answer_make_no_difference() -> None:
    dice = random.Random(7)
    text = json.dumps({"items": [{"n": i, "tags": ["é", "\n"], "deep": [[[i]]]} for i in range(300)]}, indent=1)
    for _ in range(50):
        at = dice.randrange(len(text))
        corrupt = text[:at] + dice.choice(ODD) + text[at + 1 :]
        pieces = cut(corrupt, [dice.randrange(len(corrupt)) for _ in range(dice.randrange(300))])
        assert flown(pieces).add("") == fault_of(corrupt) == flown(corrupt).add("")
