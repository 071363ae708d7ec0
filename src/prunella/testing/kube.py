"""A Kubernetes API server without a cluster, for tests of what speaks to one.

It speaks the real protocol over HTTP on a free port: versions, conflicts, preconditions, watches
that expire, budgets that forbid an eviction. It can be told to misbehave as real ones do::

    async with FakeCluster() as fake:
        cluster = cluster_at(fake.access, SystemClock())
        await cluster.create(DEPLOYMENT, deployment("shop", "shop:1"), "default")
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from prunella.kube.kinds import Json, Kind
from prunella.testing._kube_fill import filled
from prunella.testing._kube_kinds import NAMESPACE
from prunella.testing._kube_refusals import Key
from prunella.testing._kube_select import selection
from prunella.testing._kube_server import Server

__all__ = ["FakeCluster"]


class FakeCluster(Server):
    """One API server with what it holds, as a test sees and sets it.

    Attributes:
        grace_s: so long a pod that was deleted stays.
    """

    def __init__(self) -> None:
        super().__init__()
        self.grace_s = 0.05
        self._timers: set[asyncio.TimerHandle] = set()
        self._api.gone = self._remove_later

    async def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        await super().stop()

    def register(self, *kinds: Kind) -> None:
        """Know more kinds, as if their CustomResourceDefinitions were there."""
        for kind in kinds:
            self._kinds.add(kind)

    def put(self, item: Mapping[str, Any], namespace: str = "default") -> Json:
        """Make or replace an object with its status, as no client may; without one it keeps its."""
        kind = self._kinds.named(dict(item))
        meta = item["metadata"]
        namespace = meta.get("namespace", namespace) if kind.namespaced else ""
        key = Key(kind.group, kind.plural, namespace, meta["name"])
        if namespace and Key("", "namespaces", "", namespace) not in self._store.objects:
            self._store.create(NAMESPACE, "", {"metadata": {"name": namespace}})
        if key in self._store.objects:
            old = self._store.objects[key]
            return self._store.replace(key, {"status": old.get("status"), **item})
        made = self._store.create(kind, namespace, filled(kind, dict(item)))
        if "status" not in item:
            return made
        return self._store.replace(key, {**made, "status": item["status"]})

    def find(self, kind: Kind, name: str, namespace: str = "default") -> Json | None:
        return self._store.objects.get(_key(kind, name, namespace))

    def find_all(self, kind: Kind, namespace: str = "", labels: str = "") -> list[Json]:
        """In the order of their names."""
        test = selection(labels, "")
        return [item for _, item in self._store.of_kind(kind, namespace) if test(item)]

    def drop(self, kind: Kind, name: str, namespace: str = "default") -> None:
        """Remove an object at once."""
        self._store.remove(_key(kind, name, namespace))

    def _remove_later(self, key: Key) -> None:
        uid = self._store.get(key)["metadata"]["uid"]

        def remove() -> None:
            self._timers.discard(timer)
            found = self._store.objects.get(key)
            if found is not None and found["metadata"]["uid"] == uid:
                self._store.remove(key)

        timer = asyncio.get_running_loop().call_later(self.grace_s, remove)
        self._timers.add(timer)


def _key(kind: Kind, name: str, namespace: str) -> Key:
    return Key(kind.group, kind.plural, namespace if kind.namespaced else "", name)
