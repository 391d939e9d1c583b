"""What `fovea plan --values` makes of the chart's values."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from deploy.chart.schema import CHART
from deploy.chart.values import merged
from deploy.cli import main

SMALL: dict[str, Any] = {
    "source": "somewhere",
    "family": "qwen2_vl",
    "tier": "edge",
    "parameters_b": 2.2,
    "kv_cache": {"layers": 28, "attention_heads": 16, "kv_heads": 2, "head_dim": 128},
    "context_tokens": 8192,
    "concurrency": 16,
    "queue_depth": 16,
    "longest_answer_s": 60,
}
LARGE = SMALL | {
    "tier": "precision",
    "parameters_b": 88.6,
    "kv_cache": {"layers": 100, "attention_heads": 64, "kv_heads": 8, "head_dim": 128},
    "tensor_parallel": 16,
}
TWELVE = {"attention_heads": 48, "kv_heads": 12}
L40S = {"hardware": {"kind": "gpu", "gpus_per_node": 4, "gpu_memory_gib": 44}}


def plan(folder: pathlib.Path, *documents: dict[str, Any]) -> Result:
    options = []
    for number, document in enumerate(documents):
        path = folder / f"{number}.yaml"
        path.write_text(yaml.safe_dump(document))
        options += ["--values", str(path)]
    return CliRunner().invoke(main, ["plan", *options])


def words(line: str) -> list[str]:
    return line.split()


def test_values_are_planned_on_what_the_chart_sets_by_itself(tmp_path: pathlib.Path) -> None:
    done = plan(tmp_path, {"models": {"small": SMALL}})
    assert done.exit_code == 0, done.output
    hardware = yaml.safe_load((CHART / "values.yaml").read_text())["profiles"]["default"]["hardware"]
    assert done.output.startswith(f"profile default: 1 x {hardware['gpus_per_node']} GPUs, the fewest that hold it\n")
    assert words(done.output.splitlines()[2])[:4] == ["small", "1", "1", "1"]


def test_models_are_planned_on_the_profile_that_they_name(tmp_path: pathlib.Path) -> None:
    values = {
        "profiles": {"cheap": L40S},
        "models": {"small": SMALL | {"kubernetes": {"profile": "cheap"}, "replicas": 6}, "large": LARGE},
    }
    done = plan(tmp_path, values)
    assert done.exit_code == 0, done.output
    assert "profile default: 2 x 8 GPUs, the fewest that hold it\n" in done.output
    assert "profile cheap: 2 x 4 GPUs, the fewest that hold it\n" in done.output
    first, second = done.output.split("profile cheap")
    assert "\nlarge " in first
    assert "\nsmall " not in first
    assert "\nsmall " in second


def test_what_an_upgrade_takes_beside_is_said(tmp_path: pathlib.Path) -> None:
    done = plan(tmp_path, {"models": {"small": SMALL, "large": LARGE}})
    assert "takes the model's GPUS once more until the old one is gone: up to 16 (large)" in done.output


def test_nodes_that_the_values_name_are_all_that_there_are(tmp_path: pathlib.Path) -> None:
    nodes = {"profiles": {"default": {"hardware": {"nodes": 3}}}}
    assert "profile default: 3 x 8 GPUs, as the values say" in plan(tmp_path, {"models": {"large": LARGE}}, nodes).output
    too_many = plan(tmp_path, {"models": {"large": LARGE | {"replicas": 2}}}, nodes)
    assert too_many.exit_code == 1
    assert "profiles.default: models: need 32 GPUs (large 32), and hardware has 24 (3 x 8)" in too_many.output


def test_later_files_go_before_earlier_ones_and_null_takes_away(tmp_path: pathlib.Path) -> None:
    done = plan(tmp_path, {"models": {"small": SMALL, "large": LARGE}}, {"models": {"large": None, "small": {"replicas": 3}}})
    assert done.exit_code == 0, done.output
    assert "large" not in done.output
    assert words(done.output.splitlines()[2])[:2] == ["small", "3"]


def test_maps_are_merged_and_lists_are_not() -> None:
    below = {"a": {"b": 1, "c": [1, 2]}, "d": 1, "e": {"f": 1}}
    above = {"a": {"c": [3], "g": {"h": None, "i": 1}}, "d": None, "e": 2}
    assert merged(below, above) == {"a": {"b": 1, "c": [3], "g": {"i": 1}}, "e": 2}


def test_cpu_values_are_planned_without_gpus(tmp_path: pathlib.Path) -> None:
    cpu = {"default": {"hardware": {"kind": "cpu", "gpus_per_node": None, "gpu_memory_gib": None}}}
    small = SMALL | {"kv_cache": SMALL["kv_cache"] | {"memory_gib": 1}}
    done = plan(tmp_path, {"profiles": cpu, "models": {"small": small}})
    assert done.exit_code == 0, done.output
    assert done.output.startswith("profile default: CPU\n")
    assert "Ray cluster" not in done.output


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({}, "models: name at least one model, as models.<name>"),
    "a key of a model that does not exist": ({"models": {"small": SMALL | {"teir": "x"}}}, "models.small.teir: unknown key"),
    "a model without a tier": (
        {"models": {"small": {key: value for key, value in SMALL.items() if key != "tier"}}},
        "models.small.tier: is required",
    ),
    "a profile that does not exist": (
        {"models": {"small": SMALL | {"kubernetes": {"profile": "h200"}}}},
        "models.small.kubernetes.profile: there is no profile 'h200' among profiles: default",
    ),
    "hardware that does not exist": (
        {"models": {"small": SMALL}, "profiles": {"default": {"hardware": {"gpu_memory_gib": None}}}},
        "profiles.default.hardware: kind gpu needs gpus_per_node",
    ),
    "two kinds of hardware": (
        {
            "models": {"small": SMALL, "other": SMALL | {"kubernetes": {"profile": "slow"}}},
            "profiles": {"slow": {"hardware": {"kind": "cpu"}}},
        },
        "profiles.slow.hardware.kind is cpu, and profiles.default.hardware.kind is gpu",
    ),
    "GPUs that are no whole nodes": (
        {
            "models": {
                "large": LARGE
                | {"tensor_parallel": 12, "kv_cache": LARGE["kv_cache"] | {"attention_heads": 48, "kv_heads": 12}}
            }
        },
        "models.large.tensor_parallel: 12 does not fit nodes of 8 GPUs (profiles.default.hardware.gpus_per_node)",
    ),
    "a rule to nowhere": (
        {"models": {"small": SMALL}, "routing": {"rules": {"big": {"tier": "nowhere", "images_over": 1}}}},
        "routing.rules.big",
    ),
    "a key of the chart's that does not exist": ({"models": {"small": SMALL}, "gatway": {}}, "gatway"),
    "a wrong type": ({"models": {"small": SMALL}, "profiles": {"default": {"hardware": 8}}}, "profiles.default.hardware: 8"),
    "models as a list": ({"models": [SMALL]}, "models: "),
    "engines elsewhere": ({"models": {"small": SMALL | {"engine_url": "http://elsewhere"}}}, "engine_url"),
    "too large": (
        {"models": {"small": SMALL | {"parameters_b": 70, "tensor_parallel": 1, "not_tensor_parallel_because": "a test"}}},
        "profiles.default: models.small: 130.4 GiB of weights per GPU",
    ),
}


@pytest.mark.parametrize(("values", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_by_its_key(tmp_path: pathlib.Path, values: dict[str, Any], sentence: str) -> None:
    done = plan(tmp_path, values)
    assert done.exit_code == 1, done.output
    assert sentence in done.output


@pytest.mark.parametrize(
    ("text", "sentence"), [("a: [", "is not YAML"), ("[]", "must be a map of values"), (None, "cannot be read")]
)
def test_a_file_that_holds_no_values_is_named(tmp_path: pathlib.Path, text: str | None, sentence: str) -> None:
    path = tmp_path / "values.yaml"
    if text is not None:
        path.write_text(text)
    done = CliRunner().invoke(main, ["plan", "--values", str(path)])
    assert done.exit_code == 1
    assert done.output.startswith(f"{path}: {sentence}")


def test_without_a_chart_it_says_how_to_name_one(tmp_path: pathlib.Path) -> None:
    (tmp_path / "values.yaml").write_text("{}")
    done = CliRunner().invoke(main, ["plan", "--values", str(tmp_path / "values.yaml"), "--chart", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "is no chart: say with --chart where the folder helm/fovea is" in done.output


def test_a_catalog_and_values_are_not_both_planned(tmp_path: pathlib.Path) -> None:
    done = CliRunner().invoke(main, ["plan", "catalog.yaml", "--values", str(tmp_path / "values.yaml")])
    assert done.exit_code == 2
    assert "say a catalog or --values, not both" in done.output


SCENARIOS = sorted([*(CHART / "ci").glob("*-values.yaml"), CHART / "values-cpu-demo.yaml"])


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_of_the_chart_has_a_plan(path: pathlib.Path) -> None:
    done = CliRunner().invoke(main, ["plan", "--values", str(path)])
    assert done.exit_code == 0, done.output


def test_the_command_imports_no_engine() -> None:
    programme = "import sys, json, deploy.cli; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    listed = subprocess.run([sys.executable, "-c", programme], capture_output=True, text=True, timeout=60, check=True)
    assert {"ray", "torch", "vllm", "transformers", "xgrammar"}.isdisjoint(json.loads(listed.stdout))
