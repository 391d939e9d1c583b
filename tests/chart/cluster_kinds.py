"""The kinds of objects that the API server of the tests knows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind, as discovery names it; `group` is empty for the core's."""

    group: str
    version: str
    name: str
    plural: str
    is_namespaced: bool = True
    scales: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """Of the paths of its group, without a slash at the start."""
        return f"apis/{self.api_version}" if self.group else f"api/{self.version}"

    @property
    def resource(self) -> str:
        """As messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


CORE = (
    Kind("", "v1", "Namespace", "namespaces", is_namespaced=False),
    Kind("", "v1", "ConfigMap", "configmaps"),
    Kind("", "v1", "Secret", "secrets"),
    Kind("", "v1", "Service", "services"),
    Kind("", "v1", "ServiceAccount", "serviceaccounts"),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    Kind("", "v1", "Pod", "pods"),
    Kind("apps", "v1", "Deployment", "deployments", scales=True),
    Kind("apps", "v1", "StatefulSet", "statefulsets", scales=True),
    Kind("apps", "v1", "ReplicaSet", "replicasets", scales=True),
    Kind("batch", "v1", "Job", "jobs"),
    Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    Kind("networking.k8s.io", "v1", "Ingress", "ingresses"),
    Kind("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
)
"""What every cluster has."""

KUBERAY = (
    Kind("ray.io", "v1", "RayService", "rayservices"),
    Kind("ray.io", "v1", "RayCluster", "rayclusters"),
)

ADDONS = (
    Kind("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
    Kind("keda.sh", "v1alpha1", "TriggerAuthentication", "triggerauthentications"),
    Kind("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
    Kind("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"),
    Kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
)
"""What values switch on, where a cluster has it."""

EVERYTHING = CORE + KUBERAY + ADDONS
