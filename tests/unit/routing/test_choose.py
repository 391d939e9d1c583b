"""Which models may answer, and in what order: tables of names, rules and presence."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.models import Catalog
from gateway.catalog.read import parse_catalog
from gateway.routing.choose import Chooser, Present, Standing
from gateway.routing.signals import Signals, applies, tokens_of

_ENTRY = """
  {name}:
    source: nowhere
    family: qwen2_vl
    tier: {tier}
    parameters_b: {size}
    {price}
    kv_cache: {{layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    context_tokens: 4096
    concurrency: 2
    queue_depth: 3
    longest_answer_s: 60
"""

RULES = """
routing:
  rules:
    pages: {tier: mid, images_over: 2}
    fine-print: {tier: mid, visual_tokens_over: 1000}
    long-prompt: {tier: mid, prompt_tokens_over: 2000}
    big-form: {tier: mid, schema_bytes_over: 4000}
    close-look: {tier: mid, detail: high}
    dossier: {tier: top, images_over: 4, visual_tokens_over: 5000}
  aliases:
    gpt-4o: auto:accurate
    house: [b, auto:fast]
"""


def entry(name: str, tier: str, size: float, price: str = "") -> str:
    return _ENTRY.format(name=name, tier=tier, size=size, price=price)


def catalog(*entries: str, routing: str = RULES) -> Catalog:
    return parse_catalog("hardware: {kind: cpu}\nmodels:" + "".join(entries) + routing)


FOUR = catalog(
    entry("a", "low", 2),
    entry("b", "mid", 7),
    entry("c", "mid", 8, "price: 3"),
    entry("d", "top", 20),
)

HERE = Present(is_there=True, in_flight=0)
BUSY = Present(is_there=True, in_flight=2)
FULL = Present(is_there=True, in_flight=5)
AWAY = Present(is_there=False, in_flight=0)
REFUSED = Present(is_there=True, in_flight=0, has_refused=True)

SMALL = Signals(images=1, visual_tokens=100, prompt_tokens=10, schema_bytes=0, detail=None)


def signals(**fields: Any) -> Signals:
    return replace(SMALL, **fields)


def order(names: Sequence[str], asked: Signals = SMALL, present: Mapping[str, Present] = {}, of: Catalog = FOUR) -> str:
    chooser = Chooser(of, lambda name: present.get(name, HERE))
    return "".join(choice.model for choice in chooser.choices(chooser.targets(names), lambda: asked))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", "a"),
        ("d", "d"),
        ("mid", "cb"),
        ("auto", "acbd"),
        ("auto:fast", "acbd"),
        ("auto:balanced", "acbd"),
        ("auto:accurate", "cbda"),
        ("gpt-4o", "cbda"),
        ("house", "bacd"),
    ],
)
def test_a_name_stands_for_models_in_an_order(name: str, expected: str) -> None:
    assert order([name]) == expected


def test_the_caller_s_own_order_is_kept_and_each_model_comes_once() -> None:
    assert order(["d", "mid", "auto"]) == "dcba"


RULE_ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "pages": ({"images": 2}, {"images": 3}),
    "fine-print": ({"visual_tokens": 1000}, {"visual_tokens": 1001}),
    "long-prompt": ({"prompt_tokens": 2000}, {"prompt_tokens": 2001}),
    "big-form": ({"schema_bytes": 4000}, {"schema_bytes": 4001}),
    "close-look": ({"detail": None}, {"detail": "high"}),
    "dossier": ({"images": 5, "visual_tokens": 5000}, {"images": 5, "visual_tokens": 5001}),
}
"""For each rule the last work that it does not apply to, and the first that it does."""


def test_every_rule_has_a_row() -> None:
    assert RULE_ROWS.keys() == FOUR.routing.rules.keys()


@pytest.mark.parametrize("name", RULE_ROWS)
def test_a_rule_applies_from_its_number_on(name: str) -> None:
    rule = FOUR.routing.rules[name]
    below, above = RULE_ROWS[name]
    assert not applies(rule, signals(**below))
    assert applies(rule, signals(**above))


@pytest.mark.parametrize("name", RULE_ROWS)
def test_a_rule_decides_and_without_it_the_choice_is_another(name: str) -> None:
    routing = FOUR.routing.model_copy(update={"rules": {name: FOUR.routing.rules[name]}})
    alone = FOUR.model_copy(update={"routing": routing})
    none = FOUR.model_copy(update={"routing": FOUR.routing.model_copy(update={"rules": {}})})
    asked = signals(**RULE_ROWS[name][1])
    expected = {"mid": "cbda", "top": "dcba"}[FOUR.routing.rules[name].tier]
    assert order(["auto"], asked, of=alone) == expected
    assert order(["auto"], asked, of=none) == "acbd"


def rank(name: str) -> int:
    return FOUR.tiers.index(FOUR.routing.rules[name].tier)


CONFLICTS = [(name, other) for name in RULE_ROWS for other in RULE_ROWS if rank(name) < rank(other)]


@pytest.mark.parametrize(("lower", "higher"), CONFLICTS)
def test_of_two_rules_the_higher_tier_counts_whatever_their_order(lower: str, higher: str) -> None:
    asked = signals(**{"images": 5, "visual_tokens": 5001} | RULE_ROWS[lower][1] | RULE_ROWS[higher][1])
    for names in ((lower, higher), (higher, lower)):
        rules = {name: FOUR.routing.rules[name] for name in names}
        both = FOUR.model_copy(update={"routing": FOUR.routing.model_copy(update={"rules": rules})})
        assert order(["auto"], asked, of=both)[0] == "d"


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("auto:fast", {"images": 3}, "acbd"),
        ("auto:balanced", {"images": 3}, "cbda"),
        ("auto:accurate", {"images": 3}, "dcba"),
        ("auto:accurate", {"images": 5, "visual_tokens": 6000}, "dcba"),
        ("auto:fast", {"images": 5, "visual_tokens": 6000}, "cbda"),
    ],
)
def test_who_leans_gets_a_tier_less_or_more(name: str, asked: dict[str, Any], expected: str) -> None:
    assert order([name], signals(**asked)) == expected


@pytest.mark.parametrize(
    ("name", "present", "expected"),
    [
        ("auto", {"a": AWAY}, "cbda"),
        ("auto", {"a": FULL}, "cbda"),
        ("auto", {"a": BUSY}, "acbd"),
        ("mid", {"c": BUSY}, "bc"),
        ("mid", {"c": FULL, "b": BUSY}, "bc"),
        ("mid", {"c": AWAY, "b": FULL}, "bc"),
        ("auto", {"a": AWAY, "b": FULL, "c": FULL, "d": FULL}, "cbda"),
        ("auto", {"a": AWAY, "b": AWAY, "c": AWAY, "d": AWAY}, "acbd"),
        ("a", {"a": AWAY}, "a"),
        ("auto", {"a": REFUSED}, "cbda"),
        ("mid", {"c": REFUSED, "b": AWAY}, "cb"),
        ("house", {"b": AWAY}, "acdb"),
        ("house", {"b": FULL}, "acdb"),
        ("house", {"b": AWAY, "a": FULL}, "cdab"),
        ("house", {"b": BUSY}, "bacd"),
    ],
)
def test_who_has_room_comes_first_and_who_is_away_last(name: str, present: dict[str, Present], expected: str) -> None:
    assert order([name], present=present) == expected


def test_a_choice_says_why() -> None:
    chooser = Chooser(FOUR, lambda _: HERE)
    asked = signals(images=5, visual_tokens=6000, detail="high")
    first = next(chooser.choices(chooser.targets(["auto"]), lambda: asked))
    assert (first.model, first.tier, first.rules) == ("d", "top", ("dossier",))
    named = next(chooser.choices(chooser.targets(["b"]), lambda: asked))
    assert (named.model, named.tier, named.rules) == ("b", "mid", ())


EMBEDDER = """
  e:
    source: nowhere
    family: clip
    kind: embedding
    tier: {tier}
    parameters_b: 0.1
    kv_cache: {{layers: 2, attention_heads: 4, kv_heads: 2, head_dim: 32, memory_gib: 1}}
    context_tokens: 77
    concurrency: 2
    queue_depth: 3
    longest_answer_s: 60
"""


@pytest.mark.parametrize("tier", ["low", "top", "vectors"])
def test_a_model_of_embeddings_is_chosen_for_nothing_and_changes_no_order(tier: str) -> None:
    five = catalog(entry("a", "low", 2), entry("b", "mid", 7), entry("d", "top", 20), EMBEDDER.format(tier=tier))
    assert [order([name], of=five) for name in ("auto:fast", "auto", "auto:accurate", "low")] == ["abd", "abd", "bda", "a"]
    assert not Chooser(five, lambda _: HERE).knows("e")
    assert Chooser(five, lambda _: HERE).knows("vectors") is False


def test_rules_are_read_only_where_they_matter() -> None:
    def read() -> Signals:
        raise AssertionError("nobody asked for rules")

    chooser = Chooser(FOUR, lambda _: HERE)
    assert [choice.model for choice in chooser.choices(chooser.targets(["a", "mid"]), read)] == ["a", "c", "b"]


_PRESENT = st.sampled_from([HERE, BUSY, FULL, REFUSED, AWAY])
_SIGNALS = st.builds(
    Signals,
    images=st.integers(0, 9),
    visual_tokens=st.integers(0, 9000),
    prompt_tokens=st.integers(0, 5000),
    schema_bytes=st.integers(0, 9000),
    detail=st.sampled_from([None, "high"]),
)


@given(
    names=st.lists(st.sampled_from(["a", "b", "mid", "auto", "auto:fast", "auto:accurate", "gpt-4o", "house"]), min_size=1),
    asked=_SIGNALS,
    present=st.fixed_dictionaries(dict.fromkeys("abcd", _PRESENT)),
)
def test_all_that_are_allowed_come_once_and_nobody_who_has_room_after_one_who_has_none(
    names: list[str], asked: Signals, present: dict[str, Present]
) -> None:
    chooser = Chooser(FOUR, lambda name: present[name])
    allowed = {name for target in chooser.targets(names) for name in target.models}
    got = order(names, asked, present)
    assert sorted(got) == sorted(allowed)
    standing = [(0 if present[name] in (HERE, BUSY) else 1) if present[name].is_there else 2 for name in got]
    assert standing == sorted(standing)


def test_a_choice_says_how_its_model_stands() -> None:
    present = {"a": HERE, "b": BUSY, "c": FULL, "d": AWAY}
    chooser = Chooser(FOUR, lambda name: present[name])
    choices = chooser.choices(chooser.targets(["auto"]), lambda: SMALL)
    standing = [(choice.model, choice.standing) for choice in choices]
    assert standing == [("a", Standing.OPEN), ("b", Standing.OPEN), ("c", Standing.FULL), ("d", Standing.AWAY)]


@pytest.mark.parametrize(
    ("name", "present", "expected"),
    [
        ("auto", {}, ["a", "c", "b", "d"]),
        ("auto", {"a": AWAY}, ["c a:away", "b a:away", "d a:away", "a"]),
        ("mid", {"c": BUSY}, ["b c:busy", "c"]),
        ("house", {"b": FULL, "a": AWAY}, ["c b:full a:away", "d b:full a:away", "b a:away", "a"]),
        ("auto", dict.fromkeys("abcd", AWAY), ["a", "c", "b", "d"]),
    ],
)
def test_a_choice_names_those_that_it_was_made_over(name: str, present: dict[str, Present], expected: list[str]) -> None:
    chooser = Chooser(FOUR, lambda name: present.get(name, HERE))
    choices = chooser.choices(chooser.targets([name]), lambda: SMALL)
    told = [" ".join([one.model, *(f"{over.model}:{over.standing.value}" for over in one.over)]) for one in choices]
    assert told == expected


def test_of_a_choice_no_more_is_asked_than_the_first_that_has_room() -> None:
    asked: list[str] = []

    def present(name: str) -> Present:
        asked.append(name)
        return AWAY if name == "a" else HERE

    chooser = Chooser(FOUR, present)
    assert next(chooser.choices(chooser.targets(["auto"]), lambda: SMALL)).model == "c"
    assert asked == ["a", "c"]


def test_four_bytes_are_a_token() -> None:
    assert [tokens_of(size) for size in (0, 1, 4, 5)] == [0, 1, 1, 2]
