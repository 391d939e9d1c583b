"""The documents say what the code does: each table against its source."""

import inspect
import pathlib
import re

import pytest
from pydantic import BaseModel

from deploy.cli import main
from deploy.evaluation.answers import Answer
from deploy.evaluation.dataset import Row
from gateway import errors
from gateway.catalog.entry import Cache
from gateway.catalog.families import FamilyName
from gateway.catalog.models import Adapter, Autoscaling, Hardware, KvCache, Limits, Model
from gateway.catalog.providers import Provider
from gateway.catalog.routes import Routing, Rule
from gateway.errors import GatewayError
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics
from gateway.wire import embeddings
from gateway.wire.chat import (
    LEFT_OUT,
    MAX_MESSAGES,
    MAX_MODELS,
    MAX_N,
    MAX_PARTS,
    MAX_STOP_SEQUENCES,
    MAX_TOKEN_IDS,
    MAX_TOOLS,
    REFUSED,
    ChatCompletionRequest,
)

ROOT = pathlib.Path(__file__).parents[2]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
EVALUATION = (ROOT / "docs" / "evaluation.md").read_text()


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = text.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


SECTIONS: dict[str, type[BaseModel]] = {
    "### `hardware`": Hardware,
    "### `limits`": Limits,
    "### `models.<name>`": Model,
    "### `models.<name>.kv_cache`": KvCache,
    "### `models.<name>.autoscaling`": Autoscaling,
    "### `models.<name>.adapters.<name>`": Adapter,
    "### `models.<name>.cache`": Cache,
    "### `providers.<name>`": Provider,
    "### `routing`": Routing,
    "### `routing.rules.<name>`": Rule,
}


@pytest.mark.parametrize(("heading", "kind"), SECTIONS.items(), ids=SECTIONS.keys())
def test_every_key_of_the_catalog_is_told(heading: str, kind: type[BaseModel]) -> None:
    told = {cells[0].strip("`"): cells[1] for cells in rows(CONFIGURATION, heading)}
    known = {field.alias or name: field for name, field in kind.model_fields.items()}
    assert told.keys() == known.keys()
    for name, field in known.items():
        assert (told[name] == "required") == field.is_required(), name
        if isinstance(field.default, int | float):
            assert told[name] == str(field.default).lower(), name


def test_every_family_is_told() -> None:
    assert all(f"`{family}`" in CONFIGURATION for family in FamilyName)


def test_every_setting_is_told() -> None:
    told = {cells[0].strip("`"): (cells[1].strip("`"), cells[2]) for cells in rows(CONFIGURATION, "## Settings")}
    expected = {
        f"FOVEA_{name.upper()}": ("required" if field.is_required() else str(field.default), field.description)
        for name, field in Settings.model_fields.items()
    }
    assert told == expected


def test_every_metric_is_told() -> None:
    told = {cells[0].strip("`").removesuffix("_total"): (cells[1], cells[3]) for cells in rows(CONFIGURATION, "## Metrics")}
    expected = {family.name: (family.type, family.documentation) for family in Metrics().registry.collect()}
    assert told == expected


@pytest.mark.parametrize(
    ("mark", "fields"),
    [
        ("passed on", ChatCompletionRequest.model_fields.keys()),
        ("left out", LEFT_OUT.keys()),
        ("refused", REFUSED.keys()),
        ("embeddings: passed on", embeddings.EmbeddingRequest.model_fields.keys()),
        ("embeddings: left out", embeddings.LEFT_OUT.keys()),
        ("embeddings: refused", embeddings.REFUSED.keys()),
    ],
)
def test_every_field_of_a_request_is_told(mark: str, fields: set[str]) -> None:
    section = API.split(f"<!-- {mark} -->", 1)[1].split("<!-- end -->", 1)[0]
    assert re.findall(r"`(\w+)`", section) == sorted(fields)


def test_the_limits_of_a_request_are_told() -> None:
    said = f"At most {MAX_N} for `n`, {MAX_STOP_SEQUENCES} for `stop`, {MAX_MESSAGES} for `messages`"
    assert f"{said}, {MAX_PARTS} parts in one message, {MAX_TOOLS} for `tools`, {MAX_TOKEN_IDS} for lists of tokens" in API
    assert f"; {MAX_MODELS} names in [`models`]" in API
    assert f"`input` is a text or up to {embeddings.MAX_INPUTS} of them" in API


def test_every_error_code_is_told() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, GatewayError)]
    codes = {kind.code for kind in kinds if kind.code}
    source = "".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))
    codes |= set(re.findall(r'reason="(\w+)"', source))
    assert {code for code in codes if f"`{code}`" not in API} == set()


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(f"`fovea {name}" in readme for name in main.commands)


def test_every_field_of_a_dataset_is_told() -> None:
    told = {cells[0].strip("`"): cells[1] for cells in rows(EVALUATION, "## The file")}
    assert told.keys() == Row.model_fields.keys()
    assert {name for name, default in told.items() if default == "required"} == {
        name for name, field in Row.model_fields.items() if field.is_required()
    }


def test_every_field_of_an_answer_is_told() -> None:
    assert [cells[0].strip("`") for cells in rows(EVALUATION, "## What is written")] == list(Answer.model_fields)


def test_every_option_of_an_evaluation_is_told() -> None:
    told = {cells[0].strip("`"): cells[1] for cells in rows(EVALUATION, "# Evaluation")}
    options = {option.opts[0]: option for option in main.commands["evaluate"].params if option.opts[0].startswith("--")}
    assert told.keys() == options.keys()
    for name, option in options.items():
        default = "required" if option.required else option.to_info_dict()["default"]
        assert told[name] == ("\u2013" if default is None else f"{default}".removesuffix(".0")), name


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("0*.md"))


@pytest.mark.parametrize(
    "folder",
    [path.parent for top in ("gateway", "deploy") for path in sorted((ROOT / top).rglob("__init__.py"))],
    ids=lambda folder: str(folder.relative_to(ROOT)),
)
def test_a_folder_s_init_says_what_is_in_it(folder: pathlib.Path) -> None:
    said = (folder / "__init__.py").read_text()
    there = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    there |= {f"{path.name}/" for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {name for name in there if name not in said} == set()
