"""docs/operations.md against the chart: what each change does, how long what drains may take, and which values there are."""

import pathlib
import re
from typing import Any

import pytest
import yaml

from deploy.chart.schema import CHART
from deploy.cli import main
from gateway.catalog.models import Hardware, Model
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics
from tests.chart.entries import PROVIDER
from tests.chart.environment import environment
from tests.chart.rendering import Document, Rendered, application, default_values, merged, render, scenario
from tests.chart.upgrading import cluster_hash

ROOT = pathlib.Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()

BASE: dict[str, Any] = {
    "gateway": {"apiKeys": {"existingSecret": "keys"}, "providerKeys": {"existingSecret": "provider-keys"}},
    "data_may_leave": True,
    "engines": {"model": {"modelCache": {"kind": "persistentVolumeClaim"}}},
    "models": {
        "small": {
            "source": "somewhere/small",
            "family": "qwen2_vl",
            "tier": "edge",
            "parameters_b": 2.2,
            "kv_cache": {"layers": 28, "attention_heads": 16, "kv_heads": 2, "head_dim": 128},
            "replicas": 2,
            "context_tokens": 8192,
            "concurrency": 16,
            "queue_depth": 16,
            "longest_answer_s": 60,
        }
    },
}
BASE["models"]["scaled"] = merged(
    BASE["models"]["small"], {"replicas": None, "autoscaling": {"min_replicas": 1, "max_replicas": 4, "target_in_flight": 8}}
)


def model(**changes: object) -> dict[str, Any]:
    return {"models": {"small": changes}}


def bounds(**changes: object) -> dict[str, Any]:
    return {"models": {"scaled": {"autoscaling": changes}}}


def kubernetes(**changes: object) -> dict[str, Any]:
    return model(kubernetes=changes)


CHANGES: dict[str, dict[str, Any]] = {
    "gateway.image.tag": {"gateway": {"image": {"tag": "9"}}},
    "gateway.settings": {"gateway": {"settings": {"log_level": "debug"}}},
    "gateway.replicas": {"gateway": {"replicas": 5}},
    "models.<name>.price": model(price=7),
    "models.<name>.tier": model(tier="server"),
    "models.<name>.cache": model(cache={"answers": "asked"}),
    "models.<name>.auto_detail": model(auto_detail="low"),
    "routing": {"routing": {"rules": {"many": {"tier": "edge", "images_over": 3}}}},
    "providers": {"providers": {"another": PROVIDER}},
    "models.<name>.replicas, from 2 on": model(replicas=5),
    "models.<name>.replicas, between 1 and more": model(replicas=1),
    "models.<name>.revision": model(revision="abc"),
    "models.<name>.concurrency": model(concurrency=8),
    "models.<name>.context_tokens": model(context_tokens=4096),
    "models.<name>.engine_args": model(engine_args={"max_num_batched_tokens": 4096}),
    "models.<name>.adapters": model(adapters={"stamps": {"source": "/models/stamps"}}),
    "models.<name>.longest_answer_s": model(longest_answer_s=90),
    "models.<name>.tensor_parallel": model(tensor_parallel=2),
    "models.<name>.autoscaling, its numbers": bounds(min_replicas=2, max_replicas=6, target_in_flight=16, downscale_delay_s=60),
    "models.<name>.autoscaling, its max_replicas between 1 and more": bounds(max_replicas=1),
    "models.<name>.autoscaling instead of replicas, or the other way round": model(
        replicas=None, autoscaling={"min_replicas": 1, "max_replicas": 4, "target_in_flight": 8}
    ),
    "models.<name>.kubernetes.resources": kubernetes(resources={"limits": {"memory": "80Gi"}}),
    "models.<name>.kubernetes.sharedMemory": kubernetes(sharedMemory="8Gi"),
    "models.<name>.kubernetes.nodeSelector": kubernetes(nodeSelector={"pool": "b"}),
    "models.<name>.kubernetes.annotations": kubernetes(annotations={"restarted": "today"}),
    "models.<name>.kubernetes.initializingTimeout": kubernetes(initializingTimeout="90m"),
    "models.<name>.kubernetes.tolerations": kubernetes(tolerations=[{"key": "spot", "operator": "Exists"}]),
    "limits.body_mib": {"limits": {"body_mib": 32}},
    "engines.image.tag": {"engines": {"image": {"tag": "9"}}},
    "engines.rayVersion": {"engines": {"rayVersion": "2.61.0"}},
    "engines.offline": {"engines": {"offline": True}},
    "engines.head.resources": {"engines": {"head": {"resources": {"limits": {"memory": "6Gi"}}}}},
    "commonLabels": {"commonLabels": {"team": "vision"}},
}


def rows() -> dict[str, tuple[str, str]]:
    """Of each change in the table of the document, what it does to engines and to the gateway."""
    section = OPERATIONS.split("<!-- upgrades -->", 1)[1].split("<!-- end -->", 1)[0]
    lines = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in section.splitlines() if line]
    return {change: (engines, gateway) for change, engines, gateway in lines[2:]}


@pytest.fixture(scope="module")
def base() -> Rendered:
    return render(BASE)


def test_every_change_of_the_table_is_tried() -> None:
    assert rows().keys() == CHANGES.keys()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_does_what_the_table_says(base: Rendered, change: str) -> None:
    after = render(merged(BASE, CHANGES[change]))
    assert (to_engines(base, after), to_the_gateway(base, after)) == rows()[change]


def to_engines(before: Rendered, after: Rendered) -> str:
    """To all that it does something to."""
    done = {to_one_engine(before.engine(name), after.engine(name)) for name in BASE["models"]} - {"nothing"}
    assert len(done) <= 1
    return "".join(done) or "nothing"


def to_one_engine(old: Document, new: Document) -> str:
    """By what KubeRay and Serve go by: the hash of the cluster, the arguments of the application, and all that is left."""
    if cluster_hash(old.body) != cluster_hash(new.body):
        return "new cluster"
    if application(old)["args"] != application(new)["args"]:
        return "replicas restart"
    return "nothing" if old.spec == new.spec else "in place"


def to_the_gateway(before: Rendered, after: Rendered) -> str:
    return "nothing" if before.gateway.template == after.gateway.template else "rolls"


def test_what_drains_has_the_time_that_is_told(base: Rendered) -> None:
    values, entry = default_values(), BASE["models"]["small"]
    longest = entry["longest_answer_s"]
    gateway = f"`gateway.drainDelaySeconds` + the longest `longest_answer_s` of all models and providers + {30} s"
    assert gateway in OPERATIONS
    delay = values["gateway"]["drainDelaySeconds"]
    assert f"`gateway.drainDelaySeconds` ({delay} s)" in OPERATIONS
    assert base.gateway.spec["terminationGracePeriodSeconds"] == delay + longest + 30
    worker = next(pod for pod in base.engine("small").pods if pod.role == "worker")
    assert "20 + 30 + `longest_answer_s` + 10 s, and 20 s of margin" in OPERATIONS
    assert worker.spec["terminationGracePeriodSeconds"] == 20 + 30 + longest + 10 + 20
    assert worker.main["lifecycle"]["preStop"]["sleep"]["seconds"] == 20
    assert "`longest_answer_s` + 60 s after the switch" in OPERATIONS
    assert base.engine("small").spec["rayClusterDeletionDelaySeconds"] == longest + 60
    assert environment(base, worker)["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"] == str(longest + 10)


def named_values() -> set[str]:
    """Every path in backticks that begins with a key of the values and goes on below it."""
    tops = "|".join(default_values())
    return {path.removesuffix(".") for path in re.findall(rf"`((?:{tops})\.[\w.<>]+)[`:]", OPERATIONS)}


@pytest.mark.parametrize("path", sorted(named_values()))
def test_a_value_that_is_named_exists(path: str) -> None:
    match path.split("."):
        case ["models", "<name>", "kubernetes", *rest]:
            assert exists(default_values()["engines"]["model"], rest)
        case ["models", "<name>", *rest]:
            assert all(field in Model.model_fields for field in rest[:1])
        case ["profiles", "<name>", "hardware", field]:
            assert field in Hardware.model_fields
        case ["profiles", "<name>", *rest]:
            assert exists(default_values()["profiles"]["default"], rest)
        case ["gateway", "settings", field]:
            assert field in Settings.model_fields
        case keys:
            assert exists(default_values(), keys)


def exists(values: Any, path: list[str]) -> bool:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", OPERATIONS, re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line.split("#")[0].split() for line in text.splitlines() if re.match(r"(fovea|docker|helm|kubectl) ", line)]


_WITH_COMMANDS = ("README.md", "docs/operations.md", "helm/fovea/README.md", "helm/fovea/values-cpu-demo.yaml", "k8s/README.md")
_OF_NO_NAMESPACE = {("kubectl", "apply"), ("kubectl", "create", "namespace"), ("helm", "repo", "add")}
"""What is applied says its own."""


def told_commands(text: str) -> list[str]:
    """Whatever would be typed, in blocks and in sentences, but the mere name of a command."""
    return re.findall(r"\b(?:kubectl|helm) [a-z-][^`|;)\n]* [^`|;)\n]+", re.sub(r"\s*\\\n\s*", " ", text))


@pytest.mark.parametrize("document", _WITH_COMMANDS)
def test_every_command_says_its_namespace(document: str) -> None:
    told = told_commands((ROOT / document).read_text())
    of_namespaces = [one for one in told if not any(tuple(one.split()[: len(name)]) == name for name in _OF_NO_NAMESPACE)]

    assert of_namespaces
    assert [one for one in of_namespaces if "--namespace" not in one] == []


def test_a_command_without_its_namespace_would_be_found() -> None:
    assert told_commands("of `helm test` and\n`kubectl get pods`:\nx=$(kubectl get \\\n  nodes)\n") == [
        "kubectl get pods",
        "kubectl get nodes",
    ]


def test_the_commands_name_what_is_there() -> None:
    """Files of the repository, commands of ours, and the objects that the example values of the document make."""
    files = {word for command in commands() for word in command if re.match(r"(helm|deploy)/", word)}
    files |= set(re.findall(r"\bk8s/[\w.-]+\w", OPERATIONS))
    assert len(files) >= 5
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert {command[1] for command in commands() if command[0] == "fovea"} <= set(main.commands)


def example() -> Rendered:
    [text] = re.findall(r"```yaml\n(.*?)```", OPERATIONS, re.DOTALL)
    return render(yaml.safe_load(text), release="fovea", namespace="vlm")


def test_the_example_values_are_values() -> None:
    rendered = example()
    names = {document.name for document in rendered.documents}
    waited_for = set(re.findall(r"(?:rayservice[/ ]|deployment/)(fovea-[\w-]+)", OPERATIONS))
    assert waited_for == {"fovea-qwen2-vl-7b", "fovea-gateway"}
    assert waited_for <= names


def test_the_tree_names_the_objects_that_there_are() -> None:
    told = set(re.findall(r"<release>-fovea-([a-z-]+)\b", OPERATIONS.split("```")[1]))
    everything = render(merged(BASE, {"redis": {"answers": {"kind": "bundled"}, "rayState": {"kind": "bundled"}}}))
    made = {document.kind: set[str]() for document in everything.documents}
    for document in everything.documents:
        made[document.kind].add(document.name.removeprefix("r-fovea-"))
    assert told == made["Deployment"] | made["StatefulSet"]
    for line in OPERATIONS.split("```")[1].splitlines():
        found = re.match(r"├── <release>-fovea-([a-z-]+)\s+(\w+)", line) or re.match(
            r"└── <release>-fovea-([a-z-]+)\s+(\w+)", line
        )
        if found:
            assert found[1] in made[found[2]]


def test_the_metrics_that_are_told_are_there() -> None:
    there = {family.name for family in Metrics().registry.collect()}
    told = {name.removesuffix("_total") for name in re.findall(r"`(fovea_[a-z_]+)`", OPERATIONS)}
    assert told
    assert told <= there


def test_secrets_that_are_told_are_all_that_can_be_named() -> None:
    told = set(re.findall(r"\| `([\w.]+\.existingSecret)` \|", OPERATIONS))
    there = set(secrets(default_values(), ""))
    of_clients = {"test.apiKey.existingSecret", "monitoring.serviceMonitor.apiKey.existingSecret"}
    assert told == there - of_clients
    assert all(f"`{name}`" in OPERATIONS or f"`{name.removesuffix('.existingSecret')}`" in OPERATIONS for name in of_clients)


def secrets(values: dict[str, Any], prefix: str) -> list[str]:
    found = []
    for key, value in values.items():
        if key == "existingSecret":
            found.append(f"{prefix}{key}")
        elif isinstance(value, dict):
            found += secrets(value, f"{prefix}{key}.")
    return found


def test_the_versions_that_are_needed_are_the_chart_s() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f"| Kubernetes | {chart['kubeVersion'].removeprefix('>=').removesuffix('.0-0')} |" in OPERATIONS
    assert set(re.findall(r"fovea/(?:gateway|engine|engine-cpu):(\S+)", OPERATIONS)) == {str(chart["appVersion"])}


def test_the_demo_on_kind_uses_the_images_that_are_loaded() -> None:
    demo = scenario("cpu-demo")
    loaded = re.search(r"kind load docker-image (.*)", OPERATIONS)
    assert loaded
    ours = {container["image"] for pod in demo.pods for container in pod.containers if "redis" not in container["image"]}
    assert ours == set(loaded[1].split())
