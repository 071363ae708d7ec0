"""What a server adds to objects, and the form in which it shows their number of replicas."""

from __future__ import annotations

from prunella.kube.kinds import Json, Kind
from prunella.testing._kube_patch import copied
from prunella.testing._kube_select import at, part

_ROLLING: Json = {"maxSurge": "25%", "maxUnavailable": "25%"}
_DEFAULTS: dict[str, Json] = {
    "Deployment": {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": _ROLLING},
    },
    "StatefulSet": {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
    },
    "DaemonSet": {
        "revisionHistoryLimit": 10,
        "updateStrategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
        },
    },
    "ReplicaSet": {"replicas": 1},
    "HorizontalPodAutoscaler": {"minReplicas": 1},
    "Pod": {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30},
}


def filled(kind: Kind, body: Json) -> Json:
    """With what the server takes for granted where nothing is said."""
    if kind.name not in _DEFAULTS:
        return body
    whole: Json = copied(body)
    spec = {**copied(_DEFAULTS[kind.name]), **whole.get("spec", {})}
    if kind.name == "Pod":
        whole["status"] = {"phase": "Pending"}
    if isinstance(template := spec.get("template"), dict):
        inner: Json = template["spec"]  # pyright: ignore[reportUnknownVariableType]
        template["spec"] = {**_DEFAULTS["Pod"], **inner}
    return {**whole, "spec": spec}


def scale_of(item: Json) -> Json:
    """The Scale of an object that has replicas."""
    meta = item["metadata"]
    names = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    labels = part(item, "spec.selector.matchLabels")
    status = {
        "replicas": at(item, "status.replicas") or 0,
        "selector": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
    }
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: meta[name] for name in names if name in meta},
        "spec": {"replicas": at(item, "spec.replicas") or 0},
        "status": status,
    }
