"""What the package brings of weights: small enough, readable by nothing but safetensors, and with a card."""

import json
import pathlib
import re
import sys

import pytest

from deploy.demo import SHIPPED, card, demo_model_path
from tests.conftest import free_port

WEIGHTS = card.CARD.parent
MB = 1_000_000


def test_they_are_no_larger_than_a_package_may_bring() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 12 * MB


def test_what_comes_with_the_package_is_what_is_said_to() -> None:
    kinds = {path.parent.name: path.stem for path in WEIGHTS.glob("*/*.safetensors")}
    assert kinds == {name: {"model": "model", "adapter": "adapter_model"}[kind] for name, kind in SHIPPED.items()}


@pytest.mark.parametrize("name", SHIPPED)
def test_they_are_where_a_catalog_finds_them(name: str) -> None:
    folder = demo_model_path(f"demo:{name}")
    assert folder == WEIGHTS / name
    assert [path.suffix for path in folder.iterdir() if path.stat().st_size > 100_000] == [".safetensors"] * (
        name != "catalogue"
    )


def test_the_adapter_says_whose_it_is() -> None:
    assert json.loads((WEIGHTS / "catalogue" / "adapter_config.json").read_text())["base_model_name_or_path"] == "demo:small"


def test_the_card_has_been_measured() -> None:
    measured = card.CARD.read_text().split(card.BEGIN)[1].split(card.END)[0]
    assert re.findall(r"^### .*", measured, re.MULTILINE) == [
        "### 1,000 scenes as in training",
        "### `small` on scenes that differ",
        "### `large` on scenes that differ",
        "### The adapter, on 300 garments",
    ]


def test_what_was_measured_takes_its_place_in_the_card_and_nothing_else_does() -> None:
    before = f"words\n{card.BEGIN}\nold\n{card.END}\nmore words\n"
    assert card.rewrite(before, lambda: iter(["| new |"])) == f"words\n{card.BEGIN}\n\n| new |\n\n{card.END}\nmore words\n"


def test_without_a_gateway_the_card_stays_as_it_is_and_why_is_said(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "SCENES", 2)
    monkeypatch.setattr(sys, "argv", ["card", str(tmp_path), "--url", f"http://127.0.0.1:{free_port()}"])
    before = card.CARD.read_bytes()
    with pytest.raises(SystemExit, match="does not answer"):
        card.main()
    assert card.CARD.read_bytes() == before
