"""Providers in an order of models: data leaves last."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.read import parse_catalog
from gateway.routing.choose import Chooser, Present, Standing
from gateway.routing.signals import Signals

_MODEL = """
  {name}:
    source: nowhere
    family: qwen2_vl
    tier: {tier}
    parameters_b: {size}
    kv_cache: {{layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    context_tokens: 4096
    concurrency: 2
    queue_depth: 3
    longest_answer_s: 60
"""
_PROVIDER = """
  {name}:
    url: https://{name}.example.com
    model: m
    tier: {tier}
    price: {price}
    context_tokens: 4096
    concurrency: 5
    longest_answer_s: 60
"""


def entry(name: str, tier: str, size: float) -> str:
    return _MODEL.format(name=name, tier=tier, size=size)


def provider(name: str, tier: str, price: float) -> str:
    return _PROVIDER.format(name=name, tier=tier, price=price)


CATALOG = parse_catalog(
    "hardware: {kind: cpu}\ndata_may_leave: true\nmodels:"
    + entry("a", "low", 2)
    + entry("b", "mid", 7)
    + entry("c", "mid", 8)
    + "providers:"
    + provider("x", "low", 0.1)
    + provider("y", "mid", 0.2)
    + provider("z", "far", 0.1)
    + """
routing:
  rules: {pages: {tier: far, images_over: 2}}
  aliases: {house: [x, a], any: auto}
"""
)
OURS, THEIRS = "abc", "xyz"

HERE = Present(is_there=True, in_flight=0)
FULL = Present(is_there=True, in_flight=5)
AWAY = Present(is_there=False, in_flight=0)

SMALL = Signals(images=1, visual_tokens=100, prompt_tokens=10, schema_bytes=0, detail=None)


def order(names: Sequence[str], present: Mapping[str, Present] = {}, asked: Signals = SMALL) -> str:
    chooser = Chooser(CATALOG, lambda name: present.get(name, HERE))
    return "".join(choice.model for choice in chooser.choices(chooser.targets(names), lambda: asked))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["auto"], "abcxyz"),
        (["auto:accurate"], "bcayzx"),
        (["any"], "abcxyz"),
        (["low"], "ax"),
        (["mid"], "bcy"),
        (["far"], "z"),
        (["x"], "x"),
        (["house"], "xa"),
        (["low", "b"], "abx"),
        (["low", "mid"], "abcxy"),
        (["low", "x", "b"], "axb"),
        (["x", "auto"], "xabcyz"),
        (["y", "low", "c"], "yacx"),
    ],
)
def test_whoever_was_not_named_comes_after_every_model_of_ours(names: list[str], expected: str) -> None:
    assert order(names) == expected


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ({"a": AWAY, "b": FULL, "c": AWAY}, "bacxyz"),
        ({"x": AWAY, "y": FULL}, "abczyx"),
    ],
)
def test_also_after_those_that_are_full_or_away(present: dict[str, Present], expected: str) -> None:
    assert order(["auto"], present) == expected


def test_a_rule_for_a_tier_of_providers_begins_there_and_sends_nothing_there_first() -> None:
    assert order(["auto"], asked=replace(SMALL, images=3)) == "bcazyx"


def test_a_choice_says_that_it_is_a_last_resort() -> None:
    chooser = Chooser(CATALOG, lambda _: HERE)

    def said(names: list[str]) -> list[tuple[str, str, bool]]:
        choices = chooser.choices(chooser.targets(names), lambda: SMALL)
        return [(one.model, one.tier, one.standing == Standing.LAST_RESORT) for one in choices]

    assert said(["low"]) == [("a", "low", False), ("x", "low", True)]
    assert said(["x"]) == [("x", "low", False)]


@given(
    names=st.lists(st.sampled_from(["a", "c", "low", "mid", "far", "auto", "auto:fast", "auto:accurate", "any"]), min_size=1),
    present=st.fixed_dictionaries(dict.fromkeys(OURS + THEIRS, st.sampled_from([HERE, FULL, AWAY]))),
    images=st.integers(0, 5),
)
def test_nothing_leaves_before_one_of_ours_unless_a_provider_is_named(
    names: list[str], present: dict[str, Present], images: int
) -> None:
    got = order(names, present, replace(SMALL, images=images))
    leaves = [name in THEIRS for name in got]
    assert leaves == sorted(leaves)
    assert len(set(got)) == len(got)
