"""Releases of the chart in a cluster of the tests, by the real Helm."""

import base64
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import helm_python

from deploy.chart.schema import CHART
from tests.chart import rendering
from tests.chart.cluster_api import served
from tests.chart.cluster_kinds import EVERYTHING, Kind
from tests.chart.cluster_store import Cluster, Key
from tests.chart.field_ownership import Manager

NAMESPACE = rendering.NAMESPACE
_PATIENCE_S = 20
_HISTORY = 4
"""Revisions that are kept."""
_SOMEBODY = Manager("kubectl")

_KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: tests, cluster: {{server: "{address}"}}}}]
users: [{{name: somebody, user: {{}}}}]
contexts: [{{name: tests, context: {{cluster: tests, user: somebody, namespace: "{namespace}"}}}}]
current-context: tests
"""


@dataclass
class Helm:
    """Helm with a cluster, and one release in it."""

    cluster: Cluster
    config: helm_python.Config = field(repr=False)
    chart: pathlib.Path
    release: str = "r"

    def install(self, values: Mapping[str, Any]) -> None:
        """Raises helm_python.HelmError."""
        self.config.install(self.chart, self.release, dict(values), namespace=NAMESPACE, wait="watcher", timeout=_PATIENCE_S)

    def upgrade(self, values: Mapping[str, Any]) -> None:
        """To these values, with the chart's defaults beside them. Raises helm_python.HelmError."""
        self.config.upgrade(
            self.chart,
            self.release,
            dict(values),
            namespace=NAMESPACE,
            wait="watcher",
            timeout=_PATIENCE_S,
            max_history=_HISTORY,
        )

    def rollback(self, revision: int) -> None:
        """Raises helm_python.HelmError."""
        self.config.rollback(self.release, version=revision, wait="watcher", timeout=_PATIENCE_S)

    def test(self) -> None:
        """Raises helm_python.HelmError."""
        self.config.test(self.release, timeout=_PATIENCE_S)

    def uninstall(self) -> str:
        """What Helm says of it."""
        said: str = self.config.uninstall(self.release, wait="watcher", timeout=_PATIENCE_S)["info"]
        return said

    def statuses(self) -> list[str]:
        """Of the last revisions of the release, the oldest of them first."""
        return [revision["status"] for revision in self.config.history(self.release)]

    @property
    def revision(self) -> int:
        """The number of the last one."""
        return int(self.config.history(self.release)[-1]["revision"])

    def own(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The objects of the namespace by kind and name, without Helm's own records."""
        documents = [
            document for document in self.cluster.all(namespace=NAMESPACE) if document.get("type") != "helm.sh/release.v1"
        ]
        return {(document["kind"], document["metadata"]["name"]): document for document in documents}

    def everywhere(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """Every object of the cluster by kind, namespace and name, in whatever namespace, or in none; Helm's records too."""
        return {
            (document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]): document
            for document in self.cluster.all()
        }

    def key(self, kind: str, name: str) -> Key:
        return Key(self.cluster.kind(kind), NAMESPACE, name)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return self.cluster.get(self.key(kind, name))


@contextmanager
def helm(chart: pathlib.Path = CHART, kinds: tuple[Kind, ...] = EVERYTHING, kubernetes: str = "1.34") -> Iterator[Helm]:
    """A new cluster with the namespace of the tests, and Helm that speaks to it."""
    cluster = Cluster(kinds, kubernetes)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    cluster.create(Key(cluster.kind("Namespace"), "", NAMESPACE), namespace, _SOMEBODY)
    with served(cluster) as address:
        kubeconfig = _KUBECONFIG.format(address=address, namespace=NAMESPACE)
        with helm_python.Config(kubeconfig_content=kubeconfig, namespace=NAMESPACE, qps=1000.0, burst_limit=1000) as config:
            yield Helm(cluster, config, chart)


def secret_texts(secret: Mapping[str, Any]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
