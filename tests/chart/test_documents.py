"""Numbers on their way through Helm: from values of a file to documents that others than Kubernetes read."""

import pytest
import yaml

from tests.chart.rendering import application, merged, render, scenario_values

NUMBERS = {
    "seed": 12845056,
    "large": 9007199254740991,
    "million": 1000000,
    "small": 0.0006,
    "tiny": 0.00006,
    "tinier": 1.5e-7,
    "broken": 1234567.25,
    "negative": -0.00002,
    "list": [0.00007, 12845056, {"deep": 0.00008}],
    "text": "6e-05",
    "quoted": "12845056",
    "yes": "yes",
    "nothing": "",
    "lines": "one\ntwo: 3",
}


@pytest.fixture(scope="module")
def values() -> dict[str, object]:
    own = {
        "image_processor": {"size": {"shortest_edge": 3136, "longest_edge": 12845056}},
        "parameters_b": 0.00006,
        "engine_args": NUMBERS,
    }
    return merged(scenario_values("default"), {"models": {"qwen2-vl-7b": own}})


def test_numbers_and_texts_reach_the_engines_as_they_were_written(values: dict[str, object]) -> None:
    entry = application(render(values).engine("qwen2-vl-7b"))["args"]["catalog"]["models"]["qwen2-vl-7b"]
    assert repr(entry["engine_args"]) == repr(dict(sorted(NUMBERS.items()))), "a number of another type is another number"
    assert entry["parameters_b"] == 0.00006


def test_numbers_reach_the_gateway_as_they_were_written(values: dict[str, object]) -> None:
    catalog = yaml.safe_load(render(values).catalog_text)
    entry = catalog["models"]["qwen2-vl-7b"]
    assert repr(entry["image_processor"]["size"]["longest_edge"]) == "12845056"
    assert repr(entry["parameters_b"]) == "6e-05"


def test_whole_numbers_of_the_command_line_stay_whole(values: dict[str, object]) -> None:
    rendered = render(merged(values, {"grammar": {"memory_mib": 12845056, "seconds": 0.5}}))
    words = [str(word) for word in rendered.one("Deployment", "-grammar").pods[0].main["args"]]
    assert words[words.index("--memory-mib") + 1] == "12845056"
    assert words[words.index("--seconds") + 1] == "0.5"


def test_a_profile_that_says_no_more_than_its_hardware_gets_gpus_and_may_be_where_they_are() -> None:
    profile = {"hardware": {"kind": "gpu", "gpus_per_node": 4, "gpu_memory_gib": 79}}
    model = next(iter(scenario_values("default")["models"]))
    own = {"profiles": {"mine": profile}, "models": {model: {"kubernetes": {"profile": "mine"}}}}

    _, worker = render(merged(scenario_values("default"), own)).engine(model).pods

    assert worker.main["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert worker.spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "runtimeClassName" not in worker.spec


@pytest.mark.parametrize(("resource", "taint"), [("amd.com/gpu", "amd.com/gpu"), ("nvidia.com/mig-3g.40gb", "nvidia.com/gpu")])
def test_a_profile_without_tolerations_tolerates_the_taint_of_its_gpus(resource: str, taint: str) -> None:
    profile = {"resourceName": resource, "hardware": {"kind": "gpu", "gpus_per_node": 4, "gpu_memory_gib": 40}}
    model = next(iter(scenario_values("default")["models"]))
    own = {"profiles": {"mine": profile}, "models": {model: {"kubernetes": {"profile": "mine"}}}}

    _, worker = render(merged(scenario_values("default"), own)).engine(model).pods

    assert worker.main["resources"]["limits"][resource] == "1"
    assert [toleration["key"] for toleration in worker.spec["tolerations"]] == [taint]


def test_the_notes_forward_to_a_port_that_anybody_may_listen_on() -> None:
    notes = render(merged(scenario_values("default"), {"gateway": {"service": {"port": 80}}})).notes
    assert "8000:80 &" in notes
    assert "http://127.0.0.1:8000/v1" in notes
