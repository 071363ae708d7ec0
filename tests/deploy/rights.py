"""All that Prunella may do in a cluster. Another right is another line here, and in the docs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Rights = Mapping[str, str]

LOOK = "get list watch"
HOME: Rights = {
    "leases.coordination.k8s.io": "create",
    "leases.coordination.k8s.io prunella": "get update",
}
HEALING: Rights = {
    "pods": LOOK,
    "pods/eviction": "create",
    "replicasets.apps": LOOK,
    "controllerrevisions.apps": LOOK,
    "deployments.apps": f"{LOOK} patch",
    "statefulsets.apps": f"{LOOK} patch",
    "daemonsets.apps": f"{LOOK} patch",
    "deployments.apps/scale": "get patch",
    "statefulsets.apps/scale": "get patch",
    "horizontalpodautoscalers.autoscaling": f"{LOOK} patch",
    "healingpolicies.prunella.dev": "list watch",
    "healingpolicies.prunella.dev/status": "patch",
    "healingactions.prunella.dev": "create delete get list",
    "events": "create patch",
}
NODES: Rights = {"nodes": "list watch"}
CIRCUITS: Rights = {
    "httproutes.gateway.networking.k8s.io": f"{LOOK} patch",
    "virtualservices.networking.istio.io": f"{LOOK} patch",
    "services": f"{LOOK} patch",
    "pods": f"{LOOK} patch",  # one of them is taken out by a label or a readiness gate
    "pods/status": "patch",
    "endpointslices.discovery.k8s.io": "list watch",
}
SYNC: Rights = {
    "applications.argoproj.io": "get patch",
    "kustomizations.kustomize.toolkit.fluxcd.io": "get patch",
    "helmreleases.helm.toolkit.fluxcd.io": "get patch",
    "gitrepositories.source.toolkit.fluxcd.io": "get",
    "ocirepositories.source.toolkit.fluxcd.io": "get",
    "buckets.source.toolkit.fluxcd.io": "get",
    "helmcharts.source.toolkit.fluxcd.io": "get",
}


def table(rules: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Rules as above: a resource, the one object if it is only one, and the verbs in order."""
    found: dict[str, set[str]] = {}
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                plural, _, sub = resource.partition("/")
                whole = f"{plural}.{group}" if group else plural
                whole = f"{whole}/{sub}" if sub else whole
                for name in rule.get("resourceNames") or [""]:
                    found.setdefault(f"{whole} {name}".strip(), set()).update(rule["verbs"])
    return {what: " ".join(sorted(verbs)) for what, verbs in found.items()}


def in_order(*rights: Rights) -> dict[str, str]:
    return {what: " ".join(sorted(verbs.split())) for one in rights for what, verbs in one.items()}
