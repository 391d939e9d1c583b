"""What pods refer to by name: Secrets, ConfigMaps, volumes' claims and accounts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_BY_KEY = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}
_BY_NAME = {"claimName": "PersistentVolumeClaim", "serviceAccountName": "ServiceAccount"}


@dataclass(frozen=True)
class Reference:
    """To an object of the same namespace, and to a key of it where one is named."""

    kind: str
    name: str
    key: str | None = None
    is_optional: bool = False


def references(value: Any) -> Iterator[Reference]:
    """All in documents or parts of them."""
    if isinstance(value, dict):
        for key, child in value.items():
            found = _reference(key, child)
            yield from [found] if found else references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


def _reference(key: str, value: Any) -> Reference | None:
    match value:
        case {"name": name, "key": entry} if key in _BY_KEY:
            return Reference(_BY_KEY[key], name, entry, value.get("optional", False))
        case {"secretName": name} if key == "authOptions":
            return Reference("Secret", name, "auth_token")
        case {"secretName": name} if key == "secret":
            return Reference("Secret", name, is_optional=value.get("optional", False))
        case {"name": name} if key == "configMap":
            return Reference("ConfigMap", name, is_optional=value.get("optional", False))
        case str() if key in _BY_NAME:
            return Reference(_BY_NAME[key], value)
    return None
