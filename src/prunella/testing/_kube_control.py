"""The controllers of the fake cluster: woken by what changes, they act from what there is."""

from __future__ import annotations

import asyncio

from prunella.kube.kinds import (
    DAEMON_SET,
    DISRUPTION_BUDGET,
    HPA,
    POD,
    Json,
    Kind,
)
from prunella.testing._kube_budget import OWNERS, disruptions
from prunella.testing._kube_deployments import keep_deployment, keep_replica_set
from prunella.testing._kube_hands import hash_of, tell
from prunella.testing._kube_refusals import Key
from prunella.testing._kube_select import at, parts
from prunella.testing._kube_sets import keep_daemon_set, keep_stateful_set
from prunella.testing._kube_store import Store

_MOST_STEPS = 1_000_000  # of which no end in sight is a defect here
_KEPT = {kind.plural for kind in (*OWNERS.values(), HPA, DISRUPTION_BUDGET)}


class Controllers:
    """They see all that happens; what they do waits until whatever happens now is over."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._awake: dict[Key, None] = {}  # in the order in which they woke
        self._soon: asyncio.Handle | None = None
        self._late: dict[Key, str] = {}  # Deployments by the template that is too late

    def react(self, key: Key, old: Json | None, new: Json | None) -> None:
        item = new or old or {}
        if key.plural in _KEPT and new is not None:
            self._wake(key)
        for owner in parts(item, "metadata.ownerReferences"):
            if owner.get("controller") and owner["kind"] in OWNERS:
                self._wake(_key(OWNERS[owner["kind"]], key.namespace, owner["name"]))
        if new is None and old is not None:
            self._orphan(old["metadata"]["uid"])
        if key.plural in {"pods", "replicasets"}:
            self._wake_all(DISRUPTION_BUDGET, key.namespace)
        if key.plural in {"deployments", "statefulsets"}:
            self._wake_all(HPA, key.namespace)
        if key.plural == "nodes":
            self._wake_all(DAEMON_SET, "")

    def deadline(self, key: Key) -> None:
        """The present template of a Deployment has had its time."""
        self._late[key] = hash_of(self._store.get(key)["spec"]["template"])
        self._wake(key)

    def stop(self) -> None:
        if self._soon is not None:
            self._soon.cancel()

    def _orphan(self, uid: str) -> None:
        for key, item in self._store.owned(uid):
            if key.plural != POD.plural:
                self._store.remove(key)
            elif "deletionTimestamp" not in item["metadata"]:
                self._store.mark(key, 30)

    def _wake_all(self, kind: Kind, namespace: str) -> None:
        for key, _ in self._store.of_kind(kind, namespace):
            self._wake(key)

    def _wake(self, key: Key) -> None:
        self._awake[key] = None
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        for _ in range(_MOST_STEPS):
            if not self._awake:
                self._soon = None
                return
            key = next(iter(self._awake))
            del self._awake[key]
            if key in self._store.objects:
                self._keep(key)
        raise AssertionError("the controllers come to no end")

    def _keep(self, key: Key) -> None:
        item = self._store.objects[key]
        if key.plural == "deployments":
            late = self._late.get(key) == hash_of(item["spec"]["template"])
            keep_deployment(self._store, key, late=late)
        elif key.plural == "replicasets":
            keep_replica_set(self._store, key)
        elif key.plural == "statefulsets":
            keep_stateful_set(self._store, key)
        elif key.plural == "daemonsets":
            keep_daemon_set(self._store, key)
        elif key.plural == "poddisruptionbudgets":
            tell(self._store, key, **disruptions(self._store, key, item))
        else:
            self._autoscale(key, item)

    def _autoscale(self, key: Key, item: Json) -> None:
        """Within its bounds; the load is unknown here, so that the number stays otherwise."""
        target = item["spec"]["scaleTargetRef"]
        kind = OWNERS.get(target["kind"])
        found = _key(kind, key.namespace, target["name"]) if kind is not None else None
        scaled = self._store.objects.get(found) if found is not None else None
        if scaled is None or found is None:
            return
        now = at(scaled, "spec.replicas") or 0
        wanted = max(now, item["spec"].get("minReplicas", 1)) if now else 0
        wanted = min(wanted, item["spec"]["maxReplicas"])
        self._store.replace(found, {**scaled, "spec": {**scaled["spec"], "replicas": wanted}})
        tell(self._store, key, currentReplicas=now, desiredReplicas=wanted)


def _key(kind: Kind, namespace: str, name: str) -> Key:
    return Key(kind.group, kind.plural, namespace, name)
