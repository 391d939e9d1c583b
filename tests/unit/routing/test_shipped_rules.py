"""The rules of the catalogs that come with Fovea: of each the last work that it leaves alone, and the first that it takes."""

import pathlib
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from gateway.catalog.models import Catalog
from gateway.catalog.read import load_catalog
from gateway.routing.choose import Chooser, Present
from gateway.routing.signals import Signals

CATALOGS = pathlib.Path(__file__).parents[3] / "deploy" / "catalogs"

NOTHING = Signals(images=0, visual_tokens=0, prompt_tokens=0, schema_bytes=0, detail=None)

ROWS: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "cpu-demo": {
        "several-images": ({"images": 1}, {"images": 2}),
        "close-look": ({"detail": None}, {"detail": "high"}),
        "long-prompt": ({"prompt_tokens": 1000}, {"prompt_tokens": 1001}),
        "big-form": ({"schema_bytes": 2000}, {"schema_bytes": 2001}),
    },
    "multi-gpu": {
        "several-images": ({"images": 2}, {"images": 3}),
        "fine-print": ({"visual_tokens": 1500}, {"visual_tokens": 1501}),
        "long-prompt": ({"prompt_tokens": 4000}, {"prompt_tokens": 4001}),
        "big-form": ({"schema_bytes": 4000}, {"schema_bytes": 4001}),
        "close-look": ({"detail": None}, {"detail": "high"}),
        "dossier": ({"images": 5, "visual_tokens": 6000}, {"images": 5, "visual_tokens": 6001}),
    },
}
ALL = [(catalog, rule) for catalog, rules in ROWS.items() for rule in rules]


def begun_at(catalog: Catalog, signals: Signals) -> tuple[str, tuple[str, ...]]:
    chooser = Chooser(catalog, lambda _: Present(is_there=True, in_flight=0))
    choice = next(chooser.choices(chooser.targets(["auto"]), lambda: signals))
    return choice.tier, choice.rules


@pytest.mark.parametrize("path", sorted(CATALOGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_rule_has_a_row_and_every_row_a_rule(path: pathlib.Path) -> None:
    assert load_catalog(path).routing.rules.keys() == ROWS.get(path.stem, {}).keys()


@pytest.mark.parametrize(("name", "rule"), ALL)
def test_a_rule_takes_up_its_own_work_and_no_less(name: str, rule: str) -> None:
    catalog = load_catalog(CATALOGS / f"{name}.yaml")
    below, above = ROWS[name][rule]
    assert rule not in begun_at(catalog, replace(NOTHING, **below))[1]
    tier, rules = begun_at(catalog, replace(NOTHING, **above))
    assert rule in rules
    assert tier == catalog.routing.rules[rule].tier


@pytest.mark.parametrize(
    ("name", "rule", "other"), [(name, *pair) for name, rules in ROWS.items() for pair in combinations(rules, 2)]
)
def test_of_two_that_apply_the_higher_tier_counts(name: str, rule: str, other: str) -> None:
    catalog = load_catalog(CATALOGS / f"{name}.yaml")
    first, second = (ROWS[name][one][1] for one in (rule, other))
    both = {field: max(first.get(field, 0), second.get(field, 0)) for field in (first | second).keys() - {"detail"}}
    both |= {"detail": "high"} if "detail" in first | second else {}
    tier, rules = begun_at(catalog, replace(NOTHING, **both))
    ranks = {one: catalog.tiers.index(catalog.routing.rules[one].tier) for one in (rule, other)}
    assert catalog.tiers.index(tier) == max(ranks.values())
    assert {one for one in ranks if ranks[one] == max(ranks.values())} <= set(rules)
