"""The API server of the tests: what a real one refuses of a chart, it refuses too. Charts here are wrong on purpose."""

import pathlib
import shutil

import helm_python
import pytest
import yaml

from deploy.chart.schema import CHART
from tests.chart import rendering
from tests.chart.cluster_kinds import CORE
from tests.chart.cluster_store import ApiError, Key
from tests.chart.field_ownership import Manager
from tests.chart.protobuf import read_object
from tests.chart.releases import helm, secret_texts

WORKLOAD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  {{- with .Values.replicas }}
  replicas: {{ . }}
  {{- end }}
  selector: {matchLabels: {{ .Values.selector | toJson }}}
  template:
    metadata: {labels: {app: web, version: {{ .Values.version | quote }}}}
    spec:
      containers:
        - name: web
          image: web:1
          env: {{ .Values.env | toJson }}
          {{- with .Values.more }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
"""
VALUES = {"replicas": 2, "selector": {"app": "web"}, "version": "1", "env": [], "more": {}}

STORE = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec:
  serviceName: store
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec: {containers: [{name: store, image: "store:1"}]}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: "{{ .Values.size }}"}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: kept, annotations: {helm.sh/resource-policy: keep}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: lost}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""

SECRET = """
apiVersion: v1
kind: Secret
metadata: {name: generated}
{{- $old := lookup "v1" "Secret" .Release.Namespace "generated" }}
data: {word: {{ if and .Values.guarded $old }}{{ $old.data.word }}{{ else }}{{ randAlphaNum 20 | b64enc }}{{ end }}}
"""

TEST_POD = """
apiVersion: v1
kind: Pod
metadata: {name: asks, annotations: {helm.sh/hook: test}}
spec: {restartPolicy: Never, containers: [{name: asks, image: "asks:1"}]}
"""


def chart_of(folder: pathlib.Path, *templates: str) -> pathlib.Path:
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("{apiVersion: v2, name: wrong, version: 1.0.0}", encoding="utf-8")
    (folder / "values.yaml").write_text(yaml.safe_dump(VALUES), encoding="utf-8")
    (folder / "templates" / "all.yaml").write_text("\n---\n".join(templates), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": "two"}, "not of type 'integer'"),
        ({"more": {"imagePullPolicee": "Always"}}, "imagePullPolicee"),
        ({"more": {"volumeMounts": [{"name": "nowhere", "mountPath": "/data"}]}}, "Not found: 'nowhere'"),
        ({"more": {"ports": [{"name": "a-name-that-is-long", "containerPort": 80}]}}, "a-name-that-is-long"),
        ({"more": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}}, "less than or equal"),
        ({"more": {"resources": {"requests": {"memory": "2 Gi"}}}}, "quantities"),
        ({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "duplicate entries"),
        ({"env": [{"name": "A", "value": 1}]}, "not of type 'string'"),
        ({"selector": {"app": "other"}}, "selector"),
        ({"version": "a label with spaces"}, "Invalid value"),
    ],
)
def test_an_object_that_a_cluster_would_refuse_is_refused(tmp_path: pathlib.Path, values: dict[str, object], said: str) -> None:
    with helm(chart_of(tmp_path / "chart", WORKLOAD)) as release:
        with pytest.raises(helm_python.HelmError, match=said):
            release.install(values)
        assert not release.own()


def test_a_kind_that_the_cluster_does_not_have_is_refused(tmp_path: pathlib.Path) -> None:
    service = "{apiVersion: ray.io/v1, kind: RayService, metadata: {name: a}, spec: {}}"
    with (
        helm(chart_of(tmp_path / "chart", service), kinds=CORE) as release,
        pytest.raises(helm_python.HelmError, match="requested resource"),
    ):
        release.install({})


def test_what_scaled_a_deployment_owns_its_replicas(tmp_path: pathlib.Path) -> None:
    with helm(chart_of(tmp_path / "chart", WORKLOAD)) as release:
        release.install({})
        release.cluster.scale(release.key("Deployment", "web"), 7)
        with pytest.raises(helm_python.HelmError, match=r"subresource \"scale\".*\.spec\.replicas"):
            release.upgrade({"version": "2"})
        with pytest.raises(helm_python.HelmError, match=r"\.spec\.replicas"):
            release.rollback(1)
        assert release.get("Deployment", "web")["spec"]["replicas"] == 7


def test_a_field_that_is_no_longer_applied_goes_unless_somebody_else_has_set_it(tmp_path: pathlib.Path) -> None:
    with helm(chart_of(tmp_path / "chart", WORKLOAD)) as release:
        release.install({})
        release.upgrade({"replicas": 0})
        assert release.get("Deployment", "web")["spec"]["replicas"] == 1, "what Kubernetes takes where nothing is said"
        release.cluster.scale(release.key("Deployment", "web"), 7)
        release.upgrade({"replicas": 0, "version": "2"})
        assert release.get("Deployment", "web")["spec"]["replicas"] == 7


@pytest.mark.parametrize(
    ("template", "values"), [(WORKLOAD, {"selector": {"app": "web", "version": "1"}}), (STORE, {"size": "2Gi"})]
)
def test_what_cannot_change_is_refused_when_it_does(tmp_path: pathlib.Path, template: str, values: dict[str, object]) -> None:
    with helm(chart_of(tmp_path / "chart", template)) as release:
        release.install({"size": "1Gi"})
        with pytest.raises(helm_python.HelmError, match="immutable"):
            release.upgrade({"size": "1Gi"} | values)


def test_an_uninstall_leaves_kept_objects_and_the_volumes_of_stateful_sets(tmp_path: pathlib.Path) -> None:
    with helm(chart_of(tmp_path / "chart", STORE)) as release:
        release.install({"size": "1Gi"})
        release.uninstall()
        assert release.own().keys() == {("PersistentVolumeClaim", "kept"), ("PersistentVolumeClaim", "data-store-0")}


@pytest.mark.parametrize("guarded", [True, False])
def test_a_secret_stays_the_same_only_where_it_is_looked_up(tmp_path: pathlib.Path, *, guarded: bool) -> None:
    with helm(chart_of(tmp_path / "chart", SECRET)) as release:
        release.install({"guarded": guarded})
        before = secret_texts(release.get("Secret", "generated"))
        release.upgrade({"guarded": guarded})
        assert (secret_texts(release.get("Secret", "generated")) == before) == guarded


def test_a_test_is_as_its_pod_ends(tmp_path: pathlib.Path) -> None:
    with helm(chart_of(tmp_path / "chart", TEST_POD)) as release:
        release.install({})
        release.test()
        release.cluster.end_of_pod = lambda _: "Failed"
        with pytest.raises(helm_python.HelmError, match="asks"):
            release.test()


def test_every_revision_is_kept_in_a_secret_of_helm(tmp_path: pathlib.Path) -> None:
    with helm(chart_of(tmp_path / "chart", WORKLOAD)) as release:
        release.install({})
        release.upgrade({"version": "2"})
        release.rollback(1)
        assert release.statuses() == ["superseded", "superseded", "deployed"]
        assert release.get("Secret", "sh.helm.release.v1.r.v2")["metadata"]["labels"]["status"] == "superseded"


def test_a_cluster_without_the_namespace_takes_nothing(tmp_path: pathlib.Path) -> None:
    with helm(chart_of(tmp_path / "chart", WORKLOAD)) as release:
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
        elsewhere = Key(release.cluster.kind("ConfigMap"), "elsewhere", "a")
        with pytest.raises(ApiError, match="namespaces"):
            release.cluster.create(elsewhere, document, Manager("somebody"))


def test_a_secret_in_protobuf_is_read_as_in_json() -> None:
    def text(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    metadata = text(1, b"name") + text(3, b"space") + text(11, text(1, b"owner") + text(2, b"helm"))
    secret = text(1, metadata) + text(2, text(1, b"release") + text(2, b"\xff\x00")) + text(3, b"Opaque")
    message = b"k8s\0" + text(1, text(1, b"v1") + text(2, b"Secret")) + text(2, secret)
    assert read_object(message) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "name", "namespace": "space", "labels": {"owner": "helm"}},
        "data": {"release": "/wA="},
        "type": "Opaque",
    }


def test_this_chart_would_fail_if_it_had_replicas_beside_an_autoscaler(tmp_path: pathlib.Path) -> None:
    chart = tmp_path / "fovea"
    shutil.copytree(CHART, chart)
    deployment = chart / "templates" / "gateway-deployment.yaml"
    right = deployment.read_text(encoding="utf-8")
    guard = "{{- if not (or $gateway.autoscaling.hpa.enabled $gateway.autoscaling.keda.enabled) }}"
    assert guard in right
    deployment.write_text(right.replace(guard, "{{- if true }}"), encoding="utf-8")
    values = rendering.scenario_values("hpa")
    with helm(chart) as release:
        release.install(values)
        release.cluster.scale(release.key("Deployment", "r-fovea-gateway"), 5)
        with pytest.raises(helm_python.HelmError, match=r"\.spec\.replicas"):
            release.upgrade(values)
