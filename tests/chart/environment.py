"""What a container finds when it starts: its variables and the files of its volumes, as the kubelet would make them."""

import base64
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from tests.chart.rendering import Pod, Rendered

_EXPANDED = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


def environment(release: Rendered, pod: Pod, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of the pod's main container.

    `given` has values of variables that come out of Secrets of the user's; any other becomes `<key> of <secret>`.
    """
    found: dict[str, str] = {}
    for entry in pod.main.get("env", []):
        name = entry["name"]
        text = entry["value"] if "value" in entry else (given or {}).get(name) or _referred(release, entry["valueFrom"])
        # As the kubelet has it: by what was said before, and what is not known stays as it is.
        found[name] = _EXPANDED.sub(lambda match: found.get(match.group(1), match.group(0)), text)
    return found


def _referred(release: Rendered, source: dict[str, Any]) -> str:
    match source:
        case {"secretKeyRef": {"name": name, "key": key}}:
            return secret(release, name, key) or f"{key} of {name}"
        case {"configMapKeyRef": {"name": name, "key": key}}:
            return str(release.one("ConfigMap", name).body["data"][key])
    raise AssertionError(f"what is {source}?")


def secret(release: Rendered, name: str, key: str) -> str | None:
    """A value that the release itself makes."""
    for one in release.of_kind("Secret"):
        if one.name == name:
            plain: dict[str, str] = one.body.get("stringData", {})
            return plain.get(key) or base64.b64decode(one.body.get("data", {}).get(key, "")).decode() or None
    return None


def files(release: Rendered, pod: Pod, container: dict[str, Any] | None = None) -> dict[pathlib.PurePosixPath, str | None]:
    """The files that a container finds in its ConfigMaps and Secrets, by their paths.

    Of a Secret that the release does not make nobody knows the keys, so its folder alone is there, with None.
    """
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
    found: dict[pathlib.PurePosixPath, str | None] = {}
    for mount in (container or pod.main).get("volumeMounts", []):
        folder = pathlib.PurePosixPath(mount["mountPath"])
        match volumes[mount["name"]]:
            case {"configMap": {"name": name}}:
                found |= {folder / key: text for key, text in release.one("ConfigMap", name).body["data"].items()}
            case {"secret": _}:
                found[folder] = None
    return found
