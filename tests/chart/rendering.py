"""The chart as the real Helm engine renders it: documents, and the pods that the cluster makes of them."""

import copy
import functools
import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import helm_python
import yaml

from deploy.chart.schema import CHART
from gateway.catalog.models import Catalog
from gateway.catalog.read import parse_catalog

NAMESPACE = "serving"
LONG_RELEASE = "a-release-whose-name-is-as-long-as-helm-lets-it-be-53"

SCENARIOS = (
    *("default", "many-models", "90b-two-nodes", "external-redis", "hpa", "keda"),
    *("no-monitoring", "cpu-demo", "long-names", "everything"),
)
"""The files of `ci/`, without their ending `-values.yaml`."""

Values = dict[str, Any]

_POD_TEMPLATES = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Pod": (),
}


@dataclass(frozen=True)
class Pod:
    """A pod as the cluster is asked for it, before any operator has touched it."""

    owner: "Document"
    role: str
    """What part of its owner it is: `head`, `worker`, or nothing where the owner has one kind of pod."""
    template: dict[str, Any] = field(repr=False)

    @property
    def title(self) -> str:
        return f"{self.owner.title} {self.role}".strip()

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.template["spec"]
        return spec

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.template.get("metadata", {}).get("labels", {}))

    @property
    def labels_in_cluster(self) -> dict[str, str]:
        """With those that KubeRay adds where the template has not set them."""
        if self.owner.kind != "RayService":
            return self.labels
        added = {
            "ray.io/is-ray-node": "yes",
            "ray.io/cluster": f"{self.owner.name}-x7k2p",
            "ray.io/node-type": self.role,
            "ray.io/group": "headgroup" if self.role == "head" else "workers",
            "app.kubernetes.io/name": "kuberay",
            "app.kubernetes.io/created-by": "kuberay-operator",
        }
        return added | self.labels

    @property
    def main(self) -> dict[str, Any]:
        """The container that the others are there for: the first."""
        container: dict[str, Any] = self.spec["containers"][0]
        return container

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Every container, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


@dataclass(frozen=True)
class Document:
    """One object, and the template that it is from."""

    template: str
    body: dict[str, Any] = field(repr=False)

    @property
    def kind(self) -> str:
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.body["spec"]
        return spec

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.body["metadata"].get("labels") or {})

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.body["metadata"].get("annotations") or {})

    @property
    def pods(self) -> tuple[Pod, ...]:
        if self.kind == "RayService":
            return tuple(self._ray_pods())
        if self.kind not in _POD_TEMPLATES:
            return ()
        template = self.body
        for step in _POD_TEMPLATES[self.kind]:
            template = template[step]
        return (Pod(self, "", template),)

    def _ray_pods(self) -> Iterator[Pod]:
        cluster = self.spec["rayClusterConfig"]
        yield Pod(self, "head", cluster["headGroupSpec"]["template"])
        for group in cluster["workerGroupSpecs"]:
            yield Pod(self, "worker", group["template"])


@dataclass(frozen=True)
class Rendered:
    """What one release is made of."""

    release: str
    namespace: str
    values: Values = field(repr=False)
    """What was given, without the chart's defaults."""
    documents: tuple[Document, ...] = field(repr=False)
    notes: str = field(repr=False)

    @property
    def pods(self) -> tuple[Pod, ...]:
        return tuple(pod for document in self.documents for pod in document.pods)

    @property
    def own(self) -> tuple[Document, ...]:
        """What the chart itself makes: `extraObjects` are the user's."""
        return tuple(document for document in self.documents if not document.template.endswith("extra-objects.yaml"))

    @property
    def own_pods(self) -> tuple[Pod, ...]:
        return tuple(pod for document in self.own for pod in document.pods)

    def of_kind(self, kind: str) -> list[Document]:
        return [document for document in self.documents if document.kind == kind]

    def one(self, kind: str, ending: str = "") -> Document:
        """The one object of the kind whose name ends so."""
        found = [document for document in self.of_kind(kind) if document.name.endswith(ending)]
        assert len(found) == 1, f"{kind} *{ending}: {[document.name for document in found]}"
        return found[0]

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """The entries of the values, by the models' names."""
        return dict(self.values.get("models", {}))

    def engine(self, model: str) -> Document:
        """The RayService of a model, found by what it serves."""
        found = [service for service in self.of_kind("RayService") if application(service)["name"] == model]
        assert len(found) == 1, f"{model}: {[service.name for service in found]}"
        return found[0]

    @property
    def gateway(self) -> Pod:
        return self.one("Deployment", "-gateway").pods[0]

    @property
    def catalog_text(self) -> str:
        """The gateway's catalog, as its file has it."""
        text: str = self.one("ConfigMap", "-catalog").body["data"]["catalog.yaml"]
        return text

    @property
    def catalog(self) -> Catalog:
        """The gateway's, as it reads it."""
        return parse_catalog(self.catalog_text, "catalog.yaml")


def serve_config(service: Mapping[str, Any]) -> dict[str, Any]:
    """What Serve is told by a RayService."""
    config: dict[str, Any] = yaml.load(service["spec"]["serveConfigV2"], Loader=StrictLoader)
    return config


def application(service: Document) -> dict[str, Any]:
    """The one application of a RayService."""
    (only,) = serve_config(service.body)["applications"]
    assert isinstance(only, dict)
    return only


class StrictLoader(yaml.CSafeLoader):
    """YAML in which no key stands twice, as the API server refuses it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - its
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {sorted(map(str, twice))}", node.start_mark)
        return super().construct_mapping(node, deep)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Values:
    """`below` with `above` over it, maps into maps, as Helm does.

    Null takes a key away, and stays where there is none: of Helm it asks to take a default of the chart's away.
    """
    result = copy.deepcopy(dict(below))
    for key, value in above.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def render(values: Mapping[str, Any], *, release: str = "r", namespace: str = NAMESPACE) -> Rendered:
    """A release of the chart with `values`.

    Raises helm_python.HelmError: the chart refuses the values.
    """
    given = merged({"kuberay": {"skipCheck": True}}, values)
    texts = loaded_chart().render(given, name=release, namespace=namespace)
    documents = []
    notes = ""
    for path, text in texts.items():
        if path.endswith("NOTES.txt"):
            notes = text
        elif path.endswith((".yaml", ".yml")):
            documents += [Document(path, body) for body in yaml.load_all(text, Loader=StrictLoader) if body]
    return Rendered(release, namespace, given, tuple(documents), notes)


def refusal(values: Mapping[str, Any]) -> str:
    """Why the chart refuses `values`, which it does."""
    try:
        render(values)
    except helm_python.HelmError as error:
        return str(error)
    raise AssertionError("the chart takes them")


@functools.cache
def loaded_chart() -> helm_python.Chart:
    """As it is when it is first asked for: to read it anew for each of a thousand renderings would take long."""
    return helm_python.Chart.load(CHART)


@functools.cache
def scenario(name: str) -> Rendered:
    """The release of a scenario; rendered once."""
    release = LONG_RELEASE if name == "long-names" else "r"
    return render(scenario_values(name), release=release)


def scenario_values(name: str) -> Values:
    """The values of a scenario, to change and render."""
    path = CHART / "ci" / f"{name}-values.yaml"
    values: Values = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    return values


def default_values() -> Values:
    """The chart's `values.yaml`."""
    values: Values = yaml.load((CHART / "values.yaml").read_text(encoding="utf-8"), Loader=StrictLoader)
    return values


def schema() -> dict[str, Any]:
    """The chart's `values.schema.json`."""
    document: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return document
