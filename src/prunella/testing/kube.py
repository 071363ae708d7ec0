"""A Kubernetes API server without a cluster, for tests of what speaks to one.

It speaks the real protocol over HTTP on a free port: versions, conflicts, preconditions, watches
that expire, budgets that forbid an eviction. It can be told to misbehave as real ones do::

    async with FakeCluster() as fake:
        cluster = cluster_at(fake.access, SystemClock())
        await cluster.create(DEPLOYMENT, deployment("shop", "shop:1"), "default")
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from prunella.kube.kinds import DEPLOYMENT, NODE, POD, Json, Kind
from prunella.testing._kube_control import Controllers
from prunella.testing._kube_endpoints import Endpoints
from prunella.testing._kube_fill import filled
from prunella.testing._kube_kinds import NAMESPACE
from prunella.testing._kube_pods import CRASHED, OUT_OF_MEMORY, Node
from prunella.testing._kube_refusals import Key
from prunella.testing._kube_select import selection
from prunella.testing._kube_server import Server
from prunella.testing._kube_thread import Remote, on_thread

__all__ = ["FakeCluster", "threaded"]


class FakeCluster(Server):
    """One API server with what it holds, as a test sees and sets it.

    With `controllers`, it does what a cluster does: Deployments, StatefulSets and DaemonSets have
    pods, which run on the node ``node1`` as their images say (see `_kube_pods`).

    Attributes:
        grace_s: so long a pod that was deleted stays.
        node: `start_s` and `backoff_s` of its containers.
    """

    def __init__(self, *, controllers: bool = True) -> None:
        super().__init__()
        self.grace_s = 0.05
        self.node = Node(self._store)
        self._controllers = Controllers(self._store)
        self._endpoints = Endpoints(self._store)
        self._timers: set[asyncio.TimerHandle] = set()
        self._store.reactors.append(self._end)
        if controllers:
            self._store.reactors += [
                self.node.react,
                self._controllers.react,
                self._endpoints.react,
            ]
            self.put_node("node1")

    async def close(self) -> None:
        """End all: the server, the controllers, the node."""
        for timer in (*self._timers, *self.node.timers):
            timer.cancel()
        self._controllers.stop()
        self._endpoints.stop()
        await super().stop()

    # What becomes of things --------------------------------------------------------------------

    def crash(self, name: str, namespace: str = "default", *, times: int = 1) -> None:
        """The container of a pod ends with exit code 1, the last of so many times now.

        It is started again at once the first time, and after the node's back-off the next times.
        """
        self.node.end_often(_key(POD, name, namespace), CRASHED, times)

    def oom(self, name: str, namespace: str = "default", *, times: int = 1) -> None:
        """As `crash`, for want of memory."""
        self.node.end_often(_key(POD, name, namespace), OUT_OF_MEMORY, times)

    def unready(self, name: str, namespace: str = "default") -> None:
        """A pod's readiness probe fails from now on, until `recover`."""
        self.node.set_ready(_key(POD, name, namespace), ready=False)

    def recover(self, name: str, namespace: str = "default") -> None:
        """A pod runs and is ready, whatever it was."""
        self.node.set_ready(_key(POD, name, namespace), ready=True)

    def deadline(self, name: str, namespace: str = "default") -> None:
        """A Deployment's rollout is taking too long, unless it is complete."""
        self._controllers.deadline(_key(DEPLOYMENT, name, namespace))

    def put_node(self, name: str, *, ready: bool = True) -> None:
        """Pods are placed only where a node is ready."""
        told = {"type": "Ready", "status": "True" if ready else "False", "reason": "KubeletReady"}
        status = {
            "conditions": [{**told, "lastTransitionTime": self._store.now()}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        }
        labels = {"kubernetes.io/hostname": name}
        meta = {"name": name, "labels": labels}
        self.put({"apiVersion": "v1", "kind": NODE.name, "metadata": meta, "status": status})

    # What it holds -----------------------------------------------------------------------------

    def register(self, *kinds: Kind) -> None:
        """Know more kinds, as if their CustomResourceDefinitions were there."""
        for kind in kinds:
            self._kinds.add(kind)

    def put(self, item: Mapping[str, Any], namespace: str = "default") -> Json:
        """Make or replace an object with its status, as no client may.

        Without a status, it keeps its own.
        """
        kind = self._kinds.named(dict(item))
        meta = item["metadata"]
        namespace = meta.get("namespace", namespace) if kind.namespaced else ""
        key = Key(kind.group, kind.plural, namespace, meta["name"])
        if namespace and Key("", "namespaces", "", namespace) not in self._store.objects:
            self._store.create(NAMESPACE, "", {"metadata": {"name": namespace}})
        if key in self._store.objects:
            old = self._store.objects[key]
            kept = {"status": old["status"]} if "status" in old else {}
            return self._store.replace(key, {**kept, **item})
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

    def _end(self, key: Key, old: Json | None, new: Json | None) -> None:
        """Pods are gone a moment after they were told to go."""
        if key.plural != "pods" or new is None or "deletionTimestamp" not in new["metadata"]:
            return
        if old is None or "deletionTimestamp" in old["metadata"]:
            return
        uid = new["metadata"]["uid"]

        def remove() -> None:
            self._timers.discard(timer)
            found = self._store.objects.get(key)
            if found is not None and found["metadata"]["uid"] == uid:
                self._store.remove(key)

        timer = asyncio.get_running_loop().call_later(self.grace_s, remove)
        self._timers.add(timer)


@contextmanager
def threaded(*, controllers: bool = True) -> Generator[Remote[FakeCluster]]:
    """One that serves from a thread, for tests without an event loop of their own.

    As in::

    with threaded() as remote:
        remote.do(lambda fake: fake.crash("shop-0"))
    """
    with on_thread(lambda: FakeCluster(controllers=controllers)) as remote:
        remote.wait(FakeCluster.start)
        try:
            yield remote
        finally:
            remote.wait(FakeCluster.close)


def _key(kind: Kind, name: str, namespace: str) -> Key:
    return Key(kind.group, kind.plural, namespace if kind.namespaced else "", name)
