"""What is wrong with a document, by the schemas that an API server goes by.

Core kinds are held to the schemas of `kubernetes_validate`, in which an unknown field is an error; kinds of operators to ours
in `schemas/`, which have the fields that the chart uses and no others.
"""

import functools
import importlib.resources
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jsonschema
import referencing
import referencing.jsonschema

KUBERNETES_VERSIONS = ("1.30", "1.34", "1.37")

_OURS = pathlib.Path(__file__).parent / "schemas"
_THEIRS = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"

_OPERATORS = {
    ("ray.io/v1", "RayService"): "rayservice.json",
    ("keda.sh/v1alpha1", "ScaledObject"): "scaledobject.json",
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "servicemonitor.json",
    ("monitoring.coreos.com/v1", "PodMonitor"): "podmonitor.json",
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): "httproute.json",
}


def problems(body: dict[str, Any], version: str) -> list[str]:
    """One sentence for each mistake in `body`, as Kubernetes `version` would see it; empty where there is none."""
    kind = (str(body.get("apiVersion")), str(body.get("kind")))
    validator = _validator(*kind, version)
    if validator is None:
        return [f"{kind[0]} {kind[1]} is unknown to Kubernetes {version} and to schemas/"]
    errors = [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(body)]
    return errors + [f"{path}: is null" for path in _nulls(body, "$")]


def _nulls(value: Any, path: str) -> Iterator[str]:
    """Where the document says null, which the schemas let pass and server-side apply takes for a wish to delete."""
    if value is None:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _nulls(child, f"{path}.{key}")


@functools.cache
def _validator(api_version: str, kind: str, version: str) -> jsonschema.Draft202012Validator | None:
    schema = _schema(api_version, kind, version)
    if schema is None:
        return None
    return jsonschema.Draft202012Validator(schema, registry=_definitions(version))


def _schema(api_version: str, kind: str, version: str) -> dict[str, Any] | None:
    if (api_version, kind) in _OPERATORS:
        ours: dict[str, Any] = json.loads((_OURS / _OPERATORS[api_version, kind]).read_text(encoding="utf-8"))
        return ours
    group, _, number = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.split(".", maxsplit=1)[0], number) if part)
    file = _folder(version) / f"{name}.json"
    if not file.is_file():
        return None
    theirs: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return theirs


@functools.cache
def _definitions(version: str) -> referencing.Registry[Any]:
    contents = json.loads((_folder(version) / "_definitions.json").read_text(encoding="utf-8"))
    resource = referencing.Resource.from_contents(contents)
    registry: referencing.Registry[Any] = referencing.Registry()
    return resource @ registry


def _folder(version: str) -> Any:
    return _THEIRS / f"v{version}.0-local-strict"
