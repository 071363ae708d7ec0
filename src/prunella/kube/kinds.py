"""What a cluster holds, and where in its API that is found."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec


class Kind(NamedTuple):
    """A resource of the API: ``Kind("apps", "v1", "deployments", "Deployment")``."""

    group: str  # empty for the core group
    version: str
    plural: str
    name: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", sub: str = "") -> str:
        """Of one object, of one of its subresources, or of all; empty namespace: everywhere."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        return "/".join([*parts, self.plural, *filter(None, (name, sub))])


POD = Kind("", "v1", "pods", "Pod")
NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
SERVICE = Kind("", "v1", "services", "Service")
EVENT = Kind("", "v1", "events", "Event")
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
REPLICA_SET = Kind("apps", "v1", "replicasets", "ReplicaSet")
STATEFUL_SET = Kind("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SET = Kind("apps", "v1", "daemonsets", "DaemonSet")
CONTROLLER_REVISION = Kind("apps", "v1", "controllerrevisions", "ControllerRevision")
ROLLOUT = Kind("argoproj.io", "v1alpha1", "rollouts", "Rollout")
HPA = Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
DISRUPTION_BUDGET = Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
HEALING_POLICY = Kind("prunella.dev", "v1alpha1", "healingpolicies", "HealingPolicy")
HEALING_ACTION = Kind("prunella.dev", "v1alpha1", "healingactions", "HealingAction")
NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
VIRTUAL_SERVICE = Kind("networking.istio.io", "v1", "virtualservices", "VirtualService")


class Struct(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The part of an object that we read; the rest is never kept. Fields are camelCase outside.

    Not seen by the garbage collector, so that thousands of them cost it nothing.
    """


class Owner(Struct, frozen=True):
    uid: str
    kind: str
    name: str
    controller: bool = False


class Meta(Struct, frozen=True):
    """What every object has of its kind; annotations are left out, since they can be large."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    owner_references: tuple[Owner, ...] = ()
    creation_timestamp: str = ""
    deletion_timestamp: str = ""

    @property
    def owner(self) -> Owner | None:
        """The controller that looks after it."""
        return next((one for one in self.owner_references if one.controller), None)


class NotedMeta(Meta, frozen=True):
    """With the annotations, for the kinds that carry what we need there."""

    annotations: dict[str, str] = {}


class Object(Struct, frozen=True):
    """Any object, by its metadata."""

    metadata: Meta


Json = dict[str, Any]
