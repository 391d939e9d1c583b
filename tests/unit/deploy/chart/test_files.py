"""What is written of the chart by hand and what is made from the code say the same."""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import helm_python
import jsonschema
import pytest
import yaml

from deploy.chart import readme, schema
from gateway import __version__
from gateway.catalog.read import load_catalog
from gateway.settings import Settings

CHART = schema.CHART
VALUES = yaml.safe_load(readme.VALUES.read_text())
SCHEMA = schema.document()
PATHS = {entry.path: entry.meaning for entry in readme.told(readme.VALUES.read_text())}


def test_the_schema_is_the_one_that_the_code_makes() -> None:
    assert schema.FILE.read_text() == schema.text(), "run `make manifests`"


def test_the_readme_has_the_table_that_the_comments_make() -> None:
    text = readme.FILE.read_text()

    assert text == readme.written(text, readme.VALUES.read_text()), "run `make manifests`"


def test_the_schema_is_of_draft_7_and_takes_the_defaults() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)

    assert list(jsonschema.Draft7Validator(SCHEMA).iter_errors(VALUES)) == []


def test_the_chart_is_of_the_gateways_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["appVersion"] == __version__


def closed(document: dict[str, Any], at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the schema that has keys of ours, by its path in the values."""
    yield at, document
    for name, part in document["properties"].items():
        if part.get("additionalProperties") is False and "properties" in part:
            yield from closed(part, f"{at}.{name}".lstrip("."))


def at(path: str) -> Any:
    found = VALUES
    for step in path.split(".") if path else []:
        found = found[step]
    return found


_NEVER_A_DEFAULT = {"global", "claims"}
"""What Helm gives to charts that are parts of others, and Kubernetes' further kind of resources."""

_CATALOGS_OWN = {"limits", "routing", "gateway.settings"}
"""Parts with defaults of their own, of which the values show none, or one."""


@pytest.mark.parametrize(
    ("path", "document"),
    [(path, document) for path, document in closed(SCHEMA) if path not in _CATALOGS_OWN],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_every_key_that_the_schema_knows_has_a_default(path: str, document: dict[str, Any]) -> None:
    helms = _NEVER_A_DEFAULT if path else {*_NEVER_A_DEFAULT, "enabled"}
    assert set(document["properties"]) - helms == set(at(path))


def leaves(values: Any, path: str = "") -> Iterator[str]:
    if not isinstance(values, dict) or not values:
        yield path
        return
    for name, value in values.items():
        yield from leaves(value, f"{path}.{name}".lstrip("."))


@pytest.mark.parametrize("path", list(leaves(VALUES)))
def test_every_value_is_told_of(path: str) -> None:
    """By a comment of its own, or where Kubernetes' or the catalog's keys begin."""
    steps = path.split(".")
    above = [".".join(steps[:length]) for length in range(1, len(steps) + 1)]
    told = [place for place in above if place in PATHS]

    assert told, path
    nearest = max(told, key=len)
    # Where one key beside it has a comment, each has.
    assert nearest == path or not any(other.startswith(f"{nearest}.") for other in PATHS), path


def test_no_comment_is_of_a_key_that_there_is_not() -> None:
    assert [path for path in PATHS if at(path) is None] == []


def test_comments_are_read_with_the_lines_that_follow() -> None:
    text = "# no\n# -- One,\n# two.\na: 1\n# -- Three.\n\nb:\n  # -- Four.\n  c: {d: 5}\n"

    assert [(entry.path, entry.meaning) for entry in readme.told(text)] == [("a", "One, two."), ("b.c", "Four.")]


def test_what_the_chart_sets_is_a_setting_and_none_of_the_values() -> None:
    offered = SCHEMA["properties"]["gateway"]["properties"]["settings"]["properties"].keys()

    assert offered | schema.SET_BY_THE_CHART == Settings.model_fields.keys()
    assert not offered & schema.SET_BY_THE_CHART


def rendered(template: str, change: dict[str, Any] | None = None) -> str:
    """What the chart makes of a text, with its own templates at hand."""
    values = yaml.safe_load((CHART / "ci" / "default-values.yaml").read_text())
    objects = [f"kind: None\ntext: {{{{ {template} | quote }}}}\n"]
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render(values | (change or {}) | {"extraObjects": objects}, name="r", namespace="n")
    (own,) = (text for path, text in texts.items() if path.endswith("extra-objects.yaml"))
    return str(yaml.safe_load(own)["text"])


def test_the_settings_that_the_chart_counts_with_have_the_gateways_defaults() -> None:
    counted = json.loads(rendered('include "fovea.gateway.settingsHere" .'))
    settings = Settings(catalog=pathlib.Path("catalog.yaml"))
    defaults = json.loads(settings.model_dump_json(include=set(counted)))

    assert counted
    assert counted == defaults


_NAMES = {"name", "namespace", "secretName", "claimName", "storageClassName", "runtimeClassName", "ingressClassName"}


def names(part: Any) -> Iterator[Any]:
    """Every value of a key that holds a name."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in _NAMES:
                yield value
            yield from names(value)
    elif isinstance(part, list):
        for value in part:
            yield from names(value)


def numbered(values: Any) -> Any:
    """The values with every Secret, class and claim that they name called by a number."""
    if isinstance(values, dict):
        called = re.compile("existing(Secret|Claim)|(storage|runtime|priority)?[cC]lassName|priorityClassName|authentication")
        return {
            key: "4711" if called.fullmatch(key) and isinstance(value, str) and value else numbered(value)
            for key, value in values.items()
        }
    return values


def test_a_name_that_looks_like_a_number_is_a_text_all_the_same() -> None:
    values = numbered(yaml.safe_load((CHART / "ci" / "everything-values.yaml").read_text()))
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render(values, name="4711", namespace="4711")
    documents = [
        document for path, text in texts.items() if not path.endswith("NOTES.txt") for document in yaml.safe_load_all(text)
    ]
    found = [(document["kind"], name) for document in documents for name in names(document)]

    assert ("Deployment", "4711") in found
    assert [(kind, name) for kind, name in found if not isinstance(name, str)] == []


@pytest.mark.parametrize(
    ("quantity", "mebibytes"),
    [("2Gi", 2048), ("1.5Gi", 1536), ("768Mi", 768), ("1048576Ki", 1024), ("1073741824", 1024), ("1G", 953), ("1Ti", 1048576)],
)
def test_a_quantity_of_memory_is_counted_in_mebibytes(quantity: str, mebibytes: int) -> None:
    assert rendered(f'include "fovea.mebibytes" "{quantity}"') == str(mebibytes)


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("https://api.example.org", "443"),
        ("http://api.example.org/v2", "80"),
        ("https://api.example.org:8443/openai", "8443"),
        ("http://[fd00::5]:9000", "9000"),
        ("http://[fd00::5]/x", "80"),
    ],
)
def test_the_port_of_an_address_is_known(url: str, port: str) -> None:
    assert rendered(f'include "fovea.urlPort" "{url}"') == port


@pytest.mark.parametrize(
    ("value", "variable"),
    [(0.03, "0.03"), (12845056, "12845056"), (True, "true"), (["https", "http"], "https,http"), ([], ""), ("debug", "debug")],
)
def test_a_setting_is_written_as_its_variable_is_read(value: object, variable: str) -> None:
    text = json.dumps(value).replace('"', '\\"')

    assert rendered(f'include "fovea.gateway.settingText" (fromJson "{{\\"a\\": {text}}}").a') == variable


def test_the_demo_is_the_scenario_that_is_tested() -> None:
    tested = yaml.safe_load((CHART / "ci" / "cpu-demo-values.yaml").read_text())
    del tested["kuberay"]

    assert tested == yaml.safe_load((CHART / "values-cpu-demo.yaml").read_text())


def test_the_demo_has_the_models_of_the_demo() -> None:
    catalog = CHART.parents[1] / "deploy" / "catalogs" / "cpu-demo.yaml"
    demo = yaml.safe_load((CHART / "values-cpu-demo.yaml").read_text())
    models = {name: {key: said for key, said in model.items() if key != "kubernetes"} for name, model in demo["models"].items()}

    load_catalog(catalog)
    expected = yaml.safe_load(catalog.read_text())
    assert (models, demo["routing"], demo["limits"]) == (expected["models"], expected["routing"], expected["limits"])


def test_the_file_that_is_checked_first_is_the_last_by_name() -> None:
    """Helm renders from Z to A: templates that need what is checked come after it."""
    templates = sorted(path.name for path in (CHART / "templates").glob("*.yaml"))

    assert templates[-1] == "validate.yaml"


def test_every_refusal_names_a_key_of_the_values() -> None:
    text = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    sentences = re.findall(r'fail (?:\(printf )?"([^"]+)"', text)

    assert len(sentences) == len(re.findall(r"\{\{-? *fail ", text))
    assert [said for said in sentences if not re.match(r"(%s|[a-zA-Z_]+)(\.[\w%]+)*( and [\w.]+)?: ", said)] == []
