"""No value is dead, undocumented, or read but undefined: values.yaml, the schema, the README and the templates agree."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
import yaml

from deploy.chart.schema import CHART
from tests.chart.entries import ENTRY, PROVIDER
from tests.chart.rendering import SCENARIOS, Rendered, Values, default_values, merged, render, scenario_values, schema
from tests.chart.template_reads import Path, reads

_HANDED_ON = {
    *(("models",), ("providers",), ("routing",), ("profiles",), ("commonLabels",)),
    *(("gateway", "settings"), ("limits",), ("extraObjects",)),
}
"""Whose keys are the user's, or the catalog's and the gateway's own."""

_KUBERNETES_OWN = {
    *("resources", "affinity", "nodeSelector", "annotations", "labels", "podAnnotations", "podLabels", "behavior", "hardware"),
    *(
        "podSecurityContext",
        "securityContext",
        "tolerations",
        "extraEnv",
        "extraVolumes",
        "extraVolumeMounts",
        "topologySpreadConstraints",
    ),
}


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Everything that can be set by itself: what is no map, or an empty one."""
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from leaves(child, (*path, key))
    else:
        yield path, value


def dotted(path: Path) -> str:
    return ".".join(path)


def at(values: Any, path: Path) -> Any:
    for step in path:
        values = values[step]
    return values


def nested(path: Path, value: Any) -> Values:
    for step in reversed(path):
        value = {step: value}
    assert isinstance(value, dict)
    return value


_LEAVES = [path for path, _ in leaves(default_values())]

_TOLERATION = {"key": "another", "operator": "Exists"}
_PEERS = [{"podSelector": {"matchLabels": {"a": "b"}}}]
_EGRESS = [{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"protocol": "TCP", "port": 8443}]}]
_AFFINITY: Values = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
_BEHAVIOR = {"scaleDown": {"stabilizationWindowSeconds": 77}}

_OTHERS: dict[str, Any] = {
    # By the path, or by its last step.
    "fullnameOverride": "another",
    "nameOverride": "another",
    "imagePullSecrets": [{"name": "another"}],
    "models": {"one-more": ENTRY},
    "providers": {"another": PROVIDER},
    "routing": {"aliases": {"another": "auto"}},
    "hardware.kind": "cpu",
    "tolerations": [_TOLERATION],
    "affinity": _AFFINITY,
    "extraEnv": [{"name": "ANOTHER", "value": "1"}],
    "extraVolumes": [{"name": "another", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "tmp", "mountPath": "/another"}],
    "topologySpreadConstraints": [{"maxSkew": 3, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "behavior": _BEHAVIOR,
    "hosts": [{"host": "another.example.org"}],
    "tls": [{"secretName": "another", "hosts": ["another.example.org"]}],
    "parentRefs": [{"name": "another"}],
    "hostnames": ["another.example.org"],
    "accessModes": ["ReadWriteOncePod"],
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "another"}}],
    "from": _PEERS,
    "networkPolicy.dns.to": _PEERS,
    "networkPolicy.apiServer.to": _PEERS,
    "networkPolicy.apiServer.ports": [7443],
    "to": _EGRESS,
    "gateway.settings": {"log_level": "debug"},
    "initializingTimeout": "77m",
    "digest": "sha256:" + "7" * 64,
    "memory": "77Gi",
    "cpu": "7",
    "size": "77Gi",
    "sharedMemory": "7Gi",
    "maxMemory": "77mb",
    "interval": "77s",
    "serverAddress": "http://another:9090",
    "endpoint": "http://another:4318/v1/traces",
    "rayVersion": "2.61.0",
    "address": "another:6379",
    "pullPolicy": "Always",
    "gateway.service.type": "NodePort",
    "upgradeStrategy": "None",
    "engines.model.profile": "another",
    "engines.model.modelCache.existingClaim": "another",
    "maxUnavailable": 2,
    "minReplicas": 4,
}

_BESIDE: dict[str, Values] = {
    # What a change needs to be allowed, or to have an effect.
    "gateway.podDisruptionBudget.maxUnavailable": {"gateway": {"replicas": 5, "autoscaling": {"hpa": {"minReplicas": 5}}}},
    "providers": {"data_may_leave": True, "gateway": {"providerKeys": {"existingSecret": "p"}}},
    "gateway.providerKeys.key": {"gateway": {"providerKeys": {"existingSecret": "p"}}},
    "engines.huggingFace.tokenKey": {"engines": {"huggingFace": {"existingSecret": "hub"}}},
    "engines.model.profile": {
        "profiles": {"another": {**default_values()["profiles"]["default"], "runtimeClassName": "other"}}
    },
    "engines.model.modelCache.existingClaim": {
        "engines": {"model": {"modelCache": {"kind": "existingClaim", "existingClaim": "first"}}}
    },
}


def _likely(path: Path) -> list[str]:
    """The scenarios: those of few models first, which are rendered soonest, and last where the path's part is switched off."""
    return sorted(SCENARIOS, key=lambda name: (_is_off(_effective(name), path), len(_effective(name)["models"])))


def _is_off(values: Values, path: Path) -> bool:
    above = [at(values, path[:length]) for length in range(1, len(path))]
    return any(part.get("enabled") is False or part.get("kind") == "none" for part in above)


def _otherwise(path: Path, value: Any) -> Any:
    """Another value that may stand at the path."""
    for key in (dotted(path), dotted(path[-2:]), path[-1]):
        if key in _OTHERS:
            return _OTHERS[key]
    allowed = _enum(path)
    if allowed:
        return next(one for one in allowed if one != value)
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case dict():
            return {"another": "value"}
        case str():
            return "another"
    raise AssertionError(f"{dotted(path)}: what else could it be than {value!r}? Say so in _OTHERS")


def _enum(path: Path) -> list[Any]:
    node: Any = schema()
    for step in path:
        node = node.get("properties", {}).get(step, {})
    enum: list[Any] = node.get("enum", [])
    return enum


def _text(release: Rendered) -> str:
    """All that is sent to a cluster, but what is made by chance."""
    bodies = [document.body for document in release.documents if document.kind != "Secret"]
    secrets = [
        (one.body["metadata"], sorted(one.body.get("data") or one.body["stringData"])) for one in release.of_kind("Secret")
    ]
    return repr((bodies, secrets))


@functools.cache
def _base(name: str) -> str:
    return _text(render(scenario_values(name)))


@functools.cache
def _effective(name: str) -> Values:
    return merged(default_values(), scenario_values(name))


def _changed(name: str, path: Path) -> bool | str:
    """Whether another value at the path makes another release of the scenario; or why it cannot be rendered."""
    try:
        value = at(_effective(name), path)
    except KeyError:
        return "its default is taken away"
    beside = _BESIDE.get(dotted(path), {})
    values = merged(scenario_values(name), beside)
    try:
        before = _text(render(values)) if beside else _base(name)
        return _text(render(merged(values, nested(path, _otherwise(path, value))))) != before
    except helm_python.HelmRenderError as error:
        # A template that refuses it by its name has read it.
        return True if f"{dotted(path[:-1])}" in str(error) and path[-1] in str(error) else str(error)
    except helm_python.HelmError as error:
        return str(error)


@pytest.mark.parametrize("path", _LEAVES, ids=dotted)
def test_a_value_does_something(path: Path) -> None:
    outcomes = {}
    for name in _likely(path):
        outcomes[name] = _changed(name, path)
        if outcomes[name] is True:
            return
    pytest.fail(f"{dotted(path)} is dead: {outcomes}")


def test_a_value_that_does_nothing_is_found() -> None:
    """As this one, where something else decides."""
    assert _changed("hpa", ("gateway", "replicas")) is False
    assert _changed("default", ("gateway", "replicas")) is True


_OF_MODELS = [path for path in _LEAVES if path[:2] == ("engines", "model")]


@pytest.mark.parametrize("path", _OF_MODELS, ids=dotted)
def test_a_model_s_own_word_does_what_the_default_for_all_would(path: Path) -> None:
    beside = _BESIDE.get(dotted(path), {})
    values = merged(scenario_values("default"), beside)
    (model,) = values["models"]
    other = _otherwise(path, at(merged(default_values(), values), path))
    of_all = render(merged(values, nested(path, other)))
    of_one = render(merged(values, nested(("models", model, "kubernetes", *path[2:]), other)))

    assert _text(of_one) == _text(of_all)


_SET = {
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "nodeSelector": {"zone": "a"},
    "annotations": {"note": "all"},
    "priorityClassName": "batch",
    "extraEnv": [{"name": "NCCL_DEBUG", "value": "INFO"}],
}


@pytest.mark.parametrize("key", _SET)
def test_a_model_s_own_word_may_be_that_there_is_none(key: str) -> None:
    values = scenario_values("default")
    (model,) = values["models"]
    nothing = type(_SET[key])()
    of_all = merged(values, {"engines": {"model": {key: _SET[key]}}})

    freed = render(merged(of_all, nested(("models", model, "kubernetes", key), nothing)))

    assert _text(render(of_all)) != _text(render(values))
    assert _text(freed) == _text(render(values))


def test_nothing_is_left_out_of_a_model_because_it_is_nothing() -> None:
    values = scenario_values("default")
    (model,) = values["models"]
    none_at_all = {"queue_depth": 0, "images_per_request": 0, "trust_remote_code": False}

    release = render(merged(values, {"models": {model: none_at_all}}))

    catalog = yaml.safe_load(release.catalog_text)
    assert none_at_all.items() <= catalog["models"][model].items()


def test_every_value_that_a_template_names_is_there() -> None:
    values = default_values()
    undefined = []
    for template in sorted((CHART / "templates").rglob("*")):
        if template.is_file():
            undefined += [
                f"{template.name}: {dotted(path)}" for path in reads(template.read_text()) if not _is_there(values, path)
            ]

    assert undefined == []


def test_every_key_of_a_model_s_own_that_a_template_names_is_one_of_the_defaults() -> None:
    """Which are merged: `models.<name>.kubernetes` over `engines.model`, and the profile that it names."""
    values = default_values()
    known = {"kubernetes": values["engines"]["model"].keys(), "profile": values["profiles"]["default"].keys()}
    named = {
        match.groups()
        for template in (CHART / "templates").glob("*")
        if template.is_file()
        for match in re.finditer(r"(?:\$\w+\.|\$|\)\.)(kubernetes|profile)\.(\w+)", template.read_text(encoding="utf-8"))
    }

    assert {("kubernetes", "modelCache"), ("profile", "hardware")} <= named
    assert {(where, key) for where, key in named if key not in known[where]} == set()


def test_a_value_that_is_not_there_is_found() -> None:
    values = default_values()

    assert not _is_there(values, ("gateway", "replcas"))
    assert not _is_there(values, ("gateway", "replicas", "least"))
    assert _is_there(values, ("gateway", "image", "tag"))
    assert _is_there(values, ("models", "any", "source"))


def _is_there(values: Any, path: Path) -> bool:
    for length, step in enumerate(path):
        if path[:length] in _HANDED_ON or (length and path[length - 1] in _KUBERNETES_OWN):
            return True
        if not isinstance(values, dict) or step not in values:
            return False
        values = values[step]
    return True


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{{ .Values.a.b }}", {("a", "b")}),
        ("{{- $.Values.a.b | quote -}}", {("a", "b")}),
        ("{{ if and .root.Values.a (not $.Values.b) }}{{ end }}", {("a",), ("b",)}),
        ("{{ with .Values.a }}{{ .b.c }}{{ end }}{{ .d }}", {("a",), ("a", "b", "c")}),
        (
            "{{ with .Values.a }}{{ if .b }}{{ with .c }}{{ .d }}{{ end }}{{ .e }}{{ end }}{{ end }}",
            {("a",), ("a", "b"), ("a", "c"), ("a", "c", "d"), ("a", "e")},
        ),
        ("{{ with .Values.a }}x{{ else }}{{ .b }}{{ end }}", {("a",)}),
        ("{{ $x := .Values.a }}{{ $x.b }}{{ $y := $x.c }}{{ $y.d }}", {("a",), ("a", "b"), ("a", "c"), ("a", "c", "d")}),
        ("{{ range .Values.a }}{{ .b }}{{ $.Values.c }}{{ end }}", {("a",), ("c",)}),
        ('{{/* .Values.a */}}{{ printf ".Values.b" }}', set()),
        ('{{ with .Values.a }}{{ include "x" (dict "at" .b) }}{{ end }}', {("a",), ("a", "b")}),
    ],
)
def test_what_a_template_names_is_found(template: str, named: set[Path]) -> None:
    assert reads(template) == named


def _documented() -> dict[Path, str]:
    """The keys of values.yaml that say a value, with the first line of the comment above each."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert root is not None
    return {path: _comment(lines, line) for path, line in _keys(root, ())}


def _keys(node: yaml.Node, path: Path) -> Iterator[tuple[Path, int]]:
    """Those on a line of their own that are no mere headings."""
    assert isinstance(node, yaml.MappingNode)
    for key, child in node.value:
        if isinstance(child, yaml.MappingNode) and not child.flow_style:
            yield from _keys(child, (*path, key.value))
        else:
            yield (*path, key.value), key.start_mark.line


def _comment(lines: list[str], line: int) -> str:
    first = line
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return lines[first].strip() if first < line else ""


def test_every_value_has_a_comment() -> None:
    bare = [dotted(path) for path, comment in _documented().items() if not re.match(r"# -- \S", comment)]

    assert bare == []


def test_every_value_has_a_row_in_the_readme_and_no_row_is_of_nothing() -> None:
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([^`]+)` \|", readme, flags=re.MULTILINE))
    documented = {dotted(path) for path in _documented()}

    values = default_values()

    assert documented - rows == set()
    assert {row for row in rows if not _is_there(values, tuple(row.split(".")))} == set()


_HELM_S = {"global", "enabled"}
"""Keys that a chart has because it is a part of another."""


def test_the_schema_has_the_keys_of_the_values_and_no_others() -> None:
    assert _differences(default_values(), schema(), ()) == []


def _differences(values: Any, node: dict[str, Any], path: Path) -> list[str]:
    if path in _HANDED_ON or (path and path[-1] in _KUBERNETES_OWN) or not isinstance(values, dict):
        return []
    node = _resolved(node)
    known = node.get("properties", {})
    found = [f"{dotted((*path, key))}: not in the schema" for key in values.keys() - known.keys()]
    found += [f"{dotted((*path, key))}: not in values.yaml" for key in known.keys() - values.keys() - _HELM_S]
    for key in values.keys() & known.keys():
        found += _differences(values[key], known[key], (*path, key))
    return found


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        target = at(schema(), tuple(node["$ref"].removeprefix("#/").split("/")))
        assert isinstance(target, dict)
        return _resolved(target)
    return node


def _headings(values: Any, path: Path = ()) -> Iterator[Path]:
    """The maps whose keys are the chart's."""
    if isinstance(values, dict) and path not in _HANDED_ON and not (path and path[-1] in _KUBERNETES_OWN):
        yield path
        for key, child in values.items():
            yield from _headings(child, (*path, key))


@pytest.mark.parametrize("path", list(_headings(default_values())), ids=dotted)
def test_a_key_that_is_not_there_is_refused_at_every_level(path: Path) -> None:
    values = merged(scenario_values("default"), nested((*path, "unheardOf"), 1))

    with pytest.raises(helm_python.HelmError, match="unheardOf"):
        render(values)
