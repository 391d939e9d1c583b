"""What a selector takes, by labels: of NetworkPolicies, Services, workloads and monitors."""

from collections.abc import Mapping
from typing import Any


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a selector takes what has these labels; an empty one takes all."""
    wanted = selector.get("matchLabels") or {}
    return wanted.items() <= labels.items() and all(_holds(entry, labels) for entry in selector.get("matchExpressions") or [])


def _holds(entry: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator = entry["key"], entry["operator"]
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    if operator == "In":
        return labels.get(key) in entry["values"]
    if operator == "NotIn":
        return labels.get(key) not in entry["values"]
    raise ValueError(f"there is no operator {operator}")
