"""`python -m deploy.chart.schema` writes helm/fovea/values.schema.json.

What is the catalog's or the gateway's own comes from their types; what is the chart's is written down here. Helm checks values
against it once they are merged over the defaults, so a part of the chart's that is missing has been taken away with `null`.
"""

import json
import pathlib
from typing import Any

from pydantic import BaseModel

from gateway.catalog.families import FAMILIES, FamilyName
from gateway.catalog.models import LEAST_CONTEXT_TOKENS, OF_GENERATING, Hardware, Limits, Model
from gateway.catalog.providers import Provider
from gateway.catalog.routes import Routing
from gateway.settings import Settings

CHART = pathlib.Path(__file__).parents[2] / "helm" / "fovea"
FILE = CHART / "values.schema.json"

SET_BY_THE_CHART = frozenset(
    {
        *("catalog", "engines_url", "engines_api_key", "grammar_url", "host", "port", "drain_delay_s"),
        *("api_keys_file", "provider_keys_file", "redis_url", "otlp_endpoint"),
    }
)
"""Settings of the gateway that follow from other values."""

Schema = dict[str, Any]

_DURATION = r"^([0-9]+(ms|s|m|h))+$"
_URL = r"^(https?://\S+)?$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_RAW: Schema = {"type": "object"}
"""An object of Kubernetes' own, which its API server checks."""
_RAW_LIST: Schema = {"type": "array", "items": _RAW}
_TEXTS_BY_NAME: Schema = {"type": "object", "additionalProperties": _TEXT}
_SIZE: Schema = {"type": "string", "pattern": _QUANTITY}
_PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
_PORTS: Schema = {"type": "array", "minItems": 1, "items": _PORT}


def _matching(pattern: str, **further: Any) -> Schema:
    return {"type": "string", "pattern": pattern, **further}


def _whole(least: int) -> Schema:
    return {"type": "integer", "minimum": least}


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _closed(properties: dict[str, Schema], required: list[str] | None = None) -> Schema:
    """An object that has these keys and no other; without `required`, those that no template could do without."""
    needed = [name for name, schema in properties.items() if _is_needed(schema)] if required is None else required
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": needed}


def _is_needed(schema: Schema) -> bool:
    is_closed = schema.get("additionalProperties") is False and "properties" in schema
    return is_closed or "enum" in schema or schema.get("type") in {"integer", "number", "boolean"}


def _of(entry: type[BaseModel], leave_out: frozenset[str] = frozenset()) -> Schema:
    """The schema of a type of the code, without references, and without `null`: in values that takes a key away."""
    document = entry.model_json_schema()
    schema: Schema = _plain(document, document.get("$defs", {}))
    schema["properties"] = {name: part for name, part in schema["properties"].items() if name not in leave_out}
    schema["required"] = [name for name in schema.get("required", []) if name not in leave_out]
    return schema


def _plain(schema: Any, definitions: Schema) -> Any:
    if isinstance(schema, list):
        return [_plain(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _plain(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    if {"type": "null"} in schema.get("anyOf", []):
        (there,) = (part for part in schema["anyOf"] if part != {"type": "null"})
        described = {"description": schema["description"]} if "description" in schema else {}
        return _plain(there, definitions) | described
    plain = {
        keyword: {name: _plain(part, definitions) for name, part in value.items()}
        if keyword in {"properties", "patternProperties"}
        else _plain(value, definitions)
        for keyword, value in schema.items()
        if keyword not in {"title", "default", "$defs", "format", "writeOnly"}
    }
    # A name that does not fit the pattern would otherwise be anything.
    return plain | {"additionalProperties": False} if "patternProperties" in plain else plain


_IMAGE = _closed(
    {
        "repository": _matching(r"^\S+$"),
        "tag": _TEXT,
        "digest": _matching(r"^(sha256:[0-9a-f]{64})?$"),
        "pullPolicy": _one_of("IfNotPresent", "Always", "Never"),
    }
)
_AMOUNTS: Schema = {"type": "object", "additionalProperties": {"anyOf": [_SIZE, {"type": "number", "minimum": 0}]}}
_RESOURCES = _closed({"requests": _AMOUNTS, "limits": _AMOUNTS, "claims": _RAW_LIST}, required=[])
_PLACEMENT: dict[str, Schema] = {
    "nodeSelector": _TEXTS_BY_NAME,
    "tolerations": _RAW_LIST,
    "affinity": _RAW,
    "priorityClassName": _TEXT,
}
_EXTRAS: dict[str, Schema] = {"extraEnv": _RAW_LIST, "extraVolumes": _RAW_LIST, "extraVolumeMounts": _RAW_LIST}
_OF_KUBERAY = ("app.kubernetes.io/name", "app.kubernetes.io/created-by")
"""Labels of Ray's pods that KubeRay selects a cluster's head by, and sets where nobody else has."""
_POD: dict[str, Schema] = _PLACEMENT | {"podAnnotations": _TEXTS_BY_NAME, "podLabels": _TEXTS_BY_NAME} | _EXTRAS


def _secret(**keys: Schema) -> Schema:
    """A Secret of the user's, and the names of its keys."""
    return _closed({"existingSecret": _TEXT} | keys)


def _key() -> Schema:
    return _matching(r"^[-._a-zA-Z0-9]+$")


def _profiles() -> Schema:
    profile = {
        "hardware": _of(Hardware),
        "resourceName": _matching(r"^[a-zA-Z0-9./_-]+$"),
        "nodeSelector": _TEXTS_BY_NAME,
        "tolerations": _RAW_LIST,
        "runtimeClassName": _TEXT,
    }
    return {"type": "object", "additionalProperties": _closed(profile, required=["hardware"])}


def _kubernetes() -> dict[str, Schema]:
    """How a model is run: `engines.model`, and what a model says instead."""
    cache = {
        "kind": _one_of("emptyDir", "persistentVolumeClaim", "existingClaim"),
        "size": _SIZE,
        "storageClassName": _TEXT,
        "accessModes": {
            "type": "array",
            "minItems": 1,
            "items": _one_of("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"),
        },
        "existingClaim": _TEXT,
    }
    return {
        "profile": _TEXT,
        "resources": _RESOURCES,
        "sharedMemory": _SIZE,
        "modelCache": _closed(cache, required=[]),
        "initializingTimeout": _matching(_DURATION),
        "upgradeStrategy": _one_of("NewCluster", "None"),
        **_PLACEMENT,
        "securityContext": _RAW,
        "serviceAccountName": _matching(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", maxLength=253),
        "annotations": _TEXTS_BY_NAME,
        "labels": _TEXTS_BY_NAME | {"properties": dict.fromkeys(_OF_KUBERAY, False)},
        **_EXTRAS,
    }


def _models() -> Schema:
    model = _of(Model, leave_out=frozenset({"engine_url", "engine_urls"}))
    model["properties"]["kubernetes"] = _closed(_kubernetes(), required=[])
    model["allOf"] = [_of_family(name) for name in FAMILIES]
    return _by_name(model)


def _of_family(name: FamilyName) -> Schema:
    """What an entry of that family may say: its type alone does not know."""
    family = FAMILIES[name]
    fields: dict[str, Any] = {"kind": {"const": family.kind}, "image_processor": _of(family.image_rule)}
    if not family.takes_video:
        fields["videos_per_request"] = {"maximum": 0}
    if family.kind == "generate":
        fields["context_tokens"] = {"minimum": LEAST_CONTEXT_TOKENS}
    else:
        fields |= dict.fromkeys(OF_GENERATING, False)
    said = {"properties": fields, "required": ["kind"] if family.kind != "generate" else []}
    return {"if": {"properties": {"family": {"const": name.value}}, "required": ["family"]}, "then": said}


def _providers() -> Schema:
    return _by_name(_of(Provider))


def _by_name(entry: Schema) -> Schema:
    """Entries by names of the user's. What a name may be the templates say: Helm would call one that does not fit unknown."""
    return {"type": "object", "additionalProperties": entry}


def _engines() -> Schema:
    return _closed(
        {
            "image": _IMAGE,
            "rayVersion": _matching(r"^[0-9]+\.[0-9]+\.[0-9]+$"),
            "head": _closed({"resources": _RESOURCES, **_PLACEMENT}),
            "model": _closed(_kubernetes()),
            "secret": _secret(apiKeyKey=_key()),
            "huggingFace": _secret(tokenKey=_key()),
            "offline": _FLAG,
        }
    )


def _grammar() -> Schema:
    above_zero = {"type": "number", "exclusiveMinimum": 0}
    return _closed(
        {
            "enabled": _FLAG,
            "replicas": _whole(1),
            "seconds": above_zero,
            "memory_mib": _whole(1),
            "mask_ms": above_zero,
            "workers": _whole(1),
            "queue": _whole(0),
            "modelCache": _closed({"existingClaim": _TEXT}),
            "resources": _RESOURCES,
            **_POD,
        }
    )


def _gateway() -> Schema:
    return _closed(
        {
            "image": _IMAGE,
            "replicas": _whole(1),
            "settings": _of(Settings, leave_out=SET_BY_THE_CHART),
            "apiKeys": _secret(key=_key()),
            "providerKeys": _secret(key=_key()),
            "tracing": _closed({"endpoint": _matching(_URL)}),
            "resources": _RESOURCES,
            "topologySpreadConstraints": _RAW_LIST,
            **_POD,
            "drainDelaySeconds": _whole(0),
            "podDisruptionBudget": _closed({"enabled": _FLAG, "maxUnavailable": _whole(1)}),
            "autoscaling": _closed({"hpa": _closed(_scaler()), "keda": _closed(_scaler() | _keda())}),
            "service": _closed(
                {
                    "type": _one_of("ClusterIP", "NodePort", "LoadBalancer"),
                    "port": _PORT,
                    "annotations": _TEXTS_BY_NAME,
                }
            ),
            "ingress": _ingress(),
            "httpRoute": _closed(
                {
                    "enabled": _FLAG,
                    "parentRefs": _RAW_LIST,
                    "hostnames": {"type": "array", "items": _TEXT},
                    "annotations": _TEXTS_BY_NAME,
                }
            ),
        }
    )


def _scaler() -> dict[str, Schema]:
    return {
        "enabled": _FLAG,
        "minReplicas": _whole(1),
        "maxReplicas": _whole(1),
        "requestsInFlight": _whole(1),
        "behavior": _RAW,
    }


def _keda() -> dict[str, Schema]:
    return {"serverAddress": _matching(_URL), "query": _TEXT, "pollingInterval": _whole(1), "authentication": _TEXT}


def _ingress() -> Schema:
    path = _closed(
        {
            "path": _matching("^/"),
            "pathType": _one_of("Prefix", "Exact", "ImplementationSpecific"),
        }
    )
    path["required"] = ["path", "pathType"]
    host = _closed({"host": _TEXT, "paths": {"type": "array", "items": path}}, required=["host"])
    return _closed(
        {
            "enabled": _FLAG,
            "className": _TEXT,
            "annotations": _TEXTS_BY_NAME,
            "hosts": {"type": "array", "items": host},
            "tls": _RAW_LIST,
        }
    )


def _redis() -> Schema:
    kind = _one_of("none", "bundled", "external")
    address = r"^((rediss?://)?(\[[0-9a-fA-F:]+\]|[^\s:/@\[\]]+):[0-9]{1,5})?$"
    return _closed(
        {
            "image": _IMAGE,
            "answers": _closed(
                {
                    "kind": kind,
                    "maxMemory": _matching(r"^[0-9]+([kmg]b?)?$"),
                    "resources": _RESOURCES,
                    "external": _secret(urlKey=_key()),
                }
            ),
            "rayState": _closed(
                {
                    "kind": kind,
                    "resources": _RESOURCES,
                    "persistence": _closed({"size": _SIZE, "storageClassName": _TEXT}),
                    "external": _closed(
                        {
                            "address": _matching(address),
                            "username": _TEXT,
                            "existingSecret": _TEXT,
                            "passwordKey": _key(),
                        }
                    ),
                }
            ),
        }
    )


def _network_policy() -> Schema:
    return _closed(
        {
            "enabled": _FLAG,
            "dns": _closed({"to": _RAW_LIST, "port": _PORT}),
            "apiServer": _closed({"to": _RAW_LIST, "ports": _PORTS}, required=["ports"]),
            "gateway": _closed({"from": _RAW_LIST, "to": _RAW_LIST}),
            "modelStore": _closed({"to": _RAW_LIST}),
            "monitoring": _closed({"from": _RAW_LIST}),
        }
    )


def _monitoring() -> Schema:
    monitor = {"enabled": _FLAG, "interval": _matching(_DURATION), "labels": _TEXTS_BY_NAME}
    return _closed(
        {
            "serviceMonitor": _closed(monitor | {"apiKey": _secret(key=_key())}),
            "podMonitor": _closed(monitor),
        }
    )


def document() -> Schema:
    """The schema of all values."""
    values: dict[str, Schema] = {
        "global": {"type": "object", "description": "What Helm gives every chart that is a part of another; nothing is read."},
        "enabled": {
            "const": True,
            "description": "What a chart of which this one is a part takes it by; nothing is read.",
        },
        "nameOverride": _matching(r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$", maxLength=36),
        "fullnameOverride": _matching(r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$", maxLength=36),
        "commonLabels": _TEXTS_BY_NAME,
        "imagePullSecrets": {"type": "array", "items": _closed({"name": _TEXT}, required=["name"])},
        "podSecurityContext": _RAW,
        "kuberay": _closed({"skipCheck": _FLAG, "operatorNamespace": _TEXT}),
        "limits": _of(Limits) | {"required": ["body_mib"]},
        "models": _models(),
        "providers": _providers(),
        "data_may_leave": _FLAG,
        "routing": _of(Routing),
        "profiles": _profiles(),
        "engines": _engines(),
        "grammar": _grammar(),
        "gateway": _gateway(),
        "redis": _redis(),
        "networkPolicy": _network_policy(),
        "monitoring": _monitoring(),
        "serviceAccount": _closed({"annotations": _TEXTS_BY_NAME}),
        "test": _closed(
            {
                "enabled": _FLAG,
                "timeoutSeconds": _whole(1),
                "apiKey": _secret(key=_key()),
                "resources": _RESOURCES,
            }
        ),
        "extraObjects": {"type": "array", "items": {"type": ["object", "string"]}},
    }
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart fovea"} | _closed(values)


def text() -> str:
    """The file."""
    return json.dumps(document(), indent=2) + "\n"


def main() -> None:
    """Writes it."""
    FILE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
