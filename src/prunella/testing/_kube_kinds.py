"""Which kinds the fake API server knows, and what a path in its API means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prunella.kube import kinds
from prunella.kube.kinds import Json, Kind
from prunella.testing._kube_refusals import Key, Refused

CRD = Kind(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)
NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
REVIEW = Kind(
    "authorization.k8s.io",
    "v1",
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
    namespaced=False,
)
SCALABLE = {"deployments", "statefulsets", "replicasets", "rollouts"}
BUILT_IN = (
    *(kinds.POD, kinds.NODE, kinds.SERVICE, kinds.EVENT, kinds.DEPLOYMENT, kinds.REPLICA_SET),
    *(kinds.STATEFUL_SET, kinds.DAEMON_SET, kinds.CONTROLLER_REVISION, kinds.HPA),
    *(kinds.DISRUPTION_BUDGET, kinds.ENDPOINT_SLICE, kinds.LEASE, CRD, NAMESPACE, REVIEW),
    Kind("", "v1", "configmaps", "ConfigMap"),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "serviceaccounts", "ServiceAccount"),
    Kind("batch", "v1", "jobs", "Job"),
    Kind("batch", "v1", "cronjobs", "CronJob"),
    Kind("events.k8s.io", "v1", "events", "Event"),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    Kind("networking.k8s.io", "v1", "ingresses", "Ingress"),
    Kind("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    Kind(
        "rbac.authorization.k8s.io",
        "v1",
        "clusterrolebindings",
        "ClusterRoleBinding",
        namespaced=False,
    ),
)
_WITHOUT_STATUS = {
    *("events", "configmaps", "secrets", "serviceaccounts", "leases", "endpointslices"),
    *("controllerrevisions", "roles", "rolebindings", "clusterroles", "clusterrolebindings"),
}


class Place(NamedTuple):
    """What a path means: all objects of a kind, or one, or a part of it."""

    kind: Kind
    namespace: str
    name: str
    sub: str

    @property
    def key(self) -> Key:
        namespace = self.namespace if self.kind.namespaced else ""
        return Key(self.kind.group, self.kind.plural, namespace, self.name)


class Kinds:
    """Those of every cluster, and those that were added."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Kind] = {}
        self._bare = set(_WITHOUT_STATUS)  # their `status` is a field like others
        self._scalable = set(SCALABLE)
        for kind in BUILT_IN:
            self.add(kind)

    def add(self, kind: Kind) -> None:
        self._known[kind.group, kind.version, kind.plural] = kind

    def define(self, definition: Json) -> None:
        """Know the kinds of a CustomResourceDefinition."""
        spec = definition["spec"]
        names = spec["names"]
        for version in spec["versions"]:
            whole = spec.get("scope", "Namespaced") == "Namespaced"
            self.add(
                Kind(
                    spec["group"], version["name"], names["plural"], names["kind"], namespaced=whole
                )
            )
            subs: Json = version.get("subresources") or {}
            if "status" not in subs:
                self._bare.add(names["plural"])
            if "scale" in subs:
                self._scalable.add(names["plural"])

    def react(self, key: Key, old: Json | None, new: Json | None) -> None:
        """Know what CustomResourceDefinitions there are."""
        if key.kind != (CRD.group, CRD.plural):
            return
        if old is not None:
            self.undefine(old["spec"]["group"], old["spec"]["names"]["plural"])
        if new is not None:
            self.define(new)

    def undefine(self, group: str, plural: str) -> None:
        for key in [one for one in self._known if one[0] == group and one[2] == plural]:
            del self._known[key]

    def of(self, group: str, plural: str) -> Kind | None:
        return next((one for one in self if (one.group, one.plural) == (group, plural)), None)

    def named(self, item: Json) -> Kind:
        """The kind of an object, by its own words. Raises: Refused: it is not known."""
        for kind in self:
            if (kind.api_version, kind.name) == (item.get("apiVersion"), item.get("kind")):
                return kind
        raise Refused(404, "NotFound", f"no such kind: {item.get('apiVersion')} {item.get('kind')}")

    def __iter__(self) -> Iterator[Kind]:
        return iter([*self._known.values()])

    def has_status(self, kind: Kind) -> bool:
        return kind.plural not in self._bare

    def place(self, path: str) -> Place:
        """Raises: Refused: the server knows nothing of it."""
        parts = [one for one in path.split("/") if one]
        group = ""
        if parts[:1] == ["apis"] and len(parts) > 2:
            group, parts = parts[1], parts[1:]
        elif parts[:1] != ["api"]:
            raise _no_page()
        if len(parts) < 3 or group not in {kind.group for kind in self}:
            raise _no_page()
        version, rest = parts[1], parts[2:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in {"status", "finalize"}:
            namespace, rest = rest[1], rest[2:]
        kind = self._known.get((group, version, rest[0]))
        name, sub, *more = [*rest[1:], "", ""]
        if kind is None or any(more) or (namespace and not kind.namespaced):
            raise _nowhere()
        if sub and not self._has(kind, sub):
            raise _nowhere()
        return Place(kind, namespace, name, sub)

    def _has(self, kind: Kind, sub: str) -> bool:
        return (
            (sub == "status" and self.has_status(kind))
            or (sub == "scale" and kind.plural in self._scalable)
            or (sub == "eviction" and kind == kinds.POD)
        )


def discovery(known: Iterable[Kind], path: str) -> Json | None:
    """The answers to ``/api``, ``/apis`` and to a group and version below them."""
    versions = sorted({(one.group, one.version) for one in known})
    parts = [one for one in path.split("/") if one]
    if parts == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"]}
    if parts == ["apis"]:
        groups = [
            {"name": group, "versions": [{"groupVersion": f"{group}/{v}", "version": v}]}
            for group, v in versions
            if group
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    wanted = ("", *parts[1:]) if parts[:1] == ["api"] else tuple(parts[1:])
    if parts[:1] not in (["api"], ["apis"]) or wanted not in versions:
        return None
    resources: list[Json] = [
        {"name": one.plural, "kind": one.name, "namespaced": one.namespaced, "verbs": []}
        for one in known
        if (one.group, one.version) == wanted
    ]
    whole = "/".join(filter(None, wanted))
    return {"kind": "APIResourceList", "groupVersion": whole, "resources": resources}


def _no_page() -> Refused:
    """Not even the group is known: no part of the server feels addressed."""
    return Refused(404, "", "404 page not found")


def _nowhere() -> Refused:
    return Refused(404, "NotFound", "the server could not find the requested resource")
