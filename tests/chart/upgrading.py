"""A release to be changed, and what a change of it does to the engines that are there."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from tests.chart.entries import MODEL
from tests.chart.rendering import Values, merged, serve_config

VALUES: Values = {
    "models": {
        "still": MODEL,
        "changed": merged(MODEL, {"kubernetes": {"modelCache": {"kind": "persistentVolumeClaim"}}}),
        "scaling": merged(
            MODEL, {"replicas": None, "autoscaling": {"min_replicas": 1, "max_replicas": 3, "target_in_flight": 12}}
        ),
    },
    "engines": {"image": {"tag": "1.0.0"}},
    "gateway": {"image": {"tag": "1.0.0"}, "settings": {"allow_anonymous": True}},
    "redis": {"answers": {"kind": "bundled"}, "rayState": {"kind": "bundled"}},
}
"""With everything that a release can make by itself: Secrets, volumes, and models whose replicas are fixed, or not."""

Effect = Literal["nothing", "Serve adds or removes replicas", "Serve restarts replicas", "new Ray cluster"]


def effect(before: Mapping[str, Any], after: Mapping[str, Any]) -> Effect:
    """What a change of a RayService does to the engines that it stands for."""
    if cluster_hash(before) != cluster_hash(after):
        return "new Ray cluster"
    if serve_config(before) == serve_config(after):
        return "nothing"
    return (
        "Serve adds or removes replicas"
        if _without_overrides(before) == _without_overrides(after)
        else "Serve restarts replicas"
    )


def _without_overrides(service: Mapping[str, Any]) -> dict[str, Any]:
    config = serve_config(service)
    for application in config["applications"]:
        application.pop("deployments", None)
    return config


def cluster_hash(service: Mapping[str, Any]) -> str:
    """Changes where KubeRay (1.6 and 1.7) makes a new Ray cluster for a RayService: it leaves out what autoscalers change."""
    spec = json.loads(json.dumps(service["spec"]["rayClusterConfig"]))
    spec.pop("upgradeStrategy", None)
    for group in spec["workerGroupSpecs"]:
        for name in ("replicas", "minReplicas", "maxReplicas"):
            group.pop(name, None)
        group.get("scaleStrategy", {}).pop("workersToDelete", None)
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
