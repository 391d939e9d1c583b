"""`python -m deploy.chart.plain` writes k8s/: some scenarios of the chart as plain manifests, each with a kustomization.

The real Helm engine renders them, so they are the chart's; what is left out is Helm's own: its labels, its test, and Secrets,
which it would make up anew each time. Those are made by the kustomization, of files that whoever applies it writes.
"""

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from deploy.chart.schema import CHART

FOLDER = CHART.parents[1] / "k8s"
SCENARIOS = ("default", "cpu-demo", "external-redis")
RELEASE = "fovea"
NAMESPACE = "fovea"
KUSTOMIZATION = "kustomization.yaml"

_WITHOUT_HELM = {"kuberay": {"skipCheck": True}, "test": {"enabled": False}}
_HELMS_OWN = ("helm.sh/", "app.kubernetes.io/managed-by")
_NAMESPACE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}

Document = dict[str, Any]


def manifests(scenario: str) -> dict[str, str]:
    """The files of a scenario of the chart's `ci/`, by their names.

    Raises HelmEngineMissing: what renders them is not installed.
    """
    rendered = [_without_helm(document) for document in _rendered(scenario)]
    made = [document for document in rendered if document["kind"] == "Secret"]
    applied = [_NAMESPACE, *(document for document in rendered if document["kind"] != "Secret")]
    files = {_file(document): _text(document) for document in applied}
    if len(files) < len(applied):
        raise ValueError(f"{scenario}: two documents have the same kind and name")
    given = sorted(set(secrets_named(applied)) - {secret["metadata"]["name"] for secret in made})
    return dict(sorted(files.items())) | {KUSTOMIZATION: _kustomization(sorted(files), made, given)}


class HelmEngineMissing(Exception):
    """What renders the chart is not installed; the message says what to install."""


def _rendered(scenario: str) -> list[Document]:
    try:
        import helm_python  # noqa: PLC0415 - a part of `fovea[dev]` alone
    except ImportError as error:
        raise HelmEngineMissing("rendering the chart takes helm-python-sdk: pip install --editable '.[dev]'") from error
    values = yaml.safe_load((CHART / "ci" / f"{scenario}-values.yaml").read_text(encoding="utf-8"))
    values |= {key: {**values.get(key, {}), **ours} for key, ours in _WITHOUT_HELM.items()}
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    documents = [yaml.safe_load_all(text) for path, text in sorted(texts.items()) if path.endswith(".yaml")]
    return [document for of_file in documents for document in of_file if document]


def _without_helm(document: Document) -> Document:
    metadata = dict(document["metadata"])
    for key in ("labels", "annotations"):
        kept = {name: value for name, value in (metadata.pop(key, None) or {}).items() if not name.startswith(_HELMS_OWN)}
        metadata |= {key: kept} if kept else {}
    return document | {"metadata": metadata}


def _file(document: Document) -> str:
    return f"{document['kind'].lower()}-{document['metadata']['name']}.yaml"


def secrets_named(part: Any) -> Iterator[str]:
    """The names of all Secrets that `part`, manifests or a part of them, cannot do without."""
    if isinstance(part, list):
        for item in part:
            yield from secrets_named(item)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key == "secretName":
                yield value
            elif key == "secretKeyRef" and not value.get("optional"):
                yield value["name"]
            else:
                yield from secrets_named(value)


def _kustomization(files: list[str], made: list[Document], given: list[str]) -> str:
    document: Document = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": files}
    if made:
        document |= {"generatorOptions": {"disableNameSuffixHash": True}, "secretGenerator": [_generator(one) for one in made]}
    comment = "# Written by `make manifests`; k8s/README.md says how it is applied.\n"
    if made:
        comment += "# The files that secretGenerator names are yours to write, and in no repository.\n"
    if given:
        comment += f"# It needs Secrets that you have made in the namespace: {', '.join(given)}.\n"
    return comment + _text(document)


def _generator(secret: Document) -> Document:
    name = secret["metadata"]["name"]
    return {"name": name, "namespace": NAMESPACE, "files": [f"{key}=secrets/{name}/{key}" for key in sorted(secret["data"])]}


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such, without aliases, and lists below their keys as Kubernetes' own manifests have them."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml's
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - yaml's
        super().increase_indent(flow, indentless=False)


def _represented(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represented)


def _text(document: Document) -> str:
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return text


def main() -> None:
    """Writes all scenarios, and removes manifests that are there no longer."""
    for scenario in SCENARIOS:
        try:
            files = manifests(scenario)
        except HelmEngineMissing as error:
            sys.exit(str(error))
        folder = FOLDER / scenario
        folder.mkdir(parents=True, exist_ok=True)
        for path in set(folder.glob("*.yaml")) - {folder / name for name in files}:
            path.unlink()
        for name, text in files.items():
            pathlib.Path(folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
