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
from pathlib import Path
from typing import Any, Self

import msgspec
import yaml
from aiohttp import web

from prunella.kube.access import Access
from prunella.kube.kinds import Json, Kind
from prunella.runtime.clock import SystemClock
from prunella.testing._kube_api import Api, is_watch
from prunella.testing._kube_fill import filled
from prunella.testing._kube_kinds import NAMESPACE, Kinds, Place, discovery
from prunella.testing._kube_refusals import Key, Refused
from prunella.testing._kube_select import selection
from prunella.testing._kube_store import Store
from prunella.testing._kube_watch import Watches
from prunella.testing.site import free_port

__all__ = ["FakeCluster"]

_NAMESPACES = ("default", "kube-system")


class FakeCluster:
    """One API server with what it holds.

    Attributes:
        requests: method and path of each, besides those of watches.
        grace_s: so long a pod that was deleted stays.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.port = free_port()
        self.access = Access(f"http://127.0.0.1:{self.port}", context="fake")
        self._store = Store(SystemClock().wall)
        self._kinds = Kinds()
        self._api = Api(self._store, self._kinds)
        self._watches = Watches(self._store)
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._throttled = 0
        self._timers: set[asyncio.TimerHandle] = set()
        self._runner: web.AppRunner | None = None
        self._api.gone = self._remove_later
        for name in _NAMESPACES:
            self._store.create(NAMESPACE, "", {"metadata": {"name": name}})

    @property
    def grace_s(self) -> float:
        return self._api.grace_s

    @grace_s.setter
    def grace_s(self, grace_s: float) -> None:
        self._api.grace_s = grace_s

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    def kubeconfig(self, folder: Path) -> Path:
        """A new file in `folder`; the context is named ``fake``."""
        path = folder / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.access.server}}],
            "users": [{"name": "tester", "user": {"token": "fake"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "tester"}}],
            "current-context": "fake",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    # What it holds -----------------------------------------------------------------------------

    def register(self, *kinds: Kind) -> None:
        """Know more kinds, as if their CustomResourceDefinitions were there."""
        for kind in kinds:
            self._kinds.add(kind)

    def put(self, item: Mapping[str, Any], namespace: str = "default") -> Json:
        """Make or replace an object with its status, as no client may."""
        kind = self._kinds.named(dict(item))
        meta = item["metadata"]
        namespace = meta.get("namespace", namespace) if kind.namespaced else ""
        key = Key(kind.group, kind.plural, namespace, meta["name"])
        if namespace and Key("", "namespaces", "", namespace) not in self._store.objects:
            self._store.create(NAMESPACE, "", {"metadata": {"name": namespace}})
        if key in self._store.objects:
            return self._store.replace(key, item)
        made = self._store.create(kind, namespace, filled(kind, dict(item)))
        return (
            self._store.replace(key, {**made, "status": item["status"]})
            if "status" in item
            else made
        )

    def find(self, kind: Kind, name: str, namespace: str = "default") -> Json | None:
        namespace = namespace if kind.namespaced else ""
        return self._store.objects.get(Key(kind.group, kind.plural, namespace, name))

    def find_all(self, kind: Kind, namespace: str = "", labels: str = "") -> list[Json]:
        """In the order of their names."""
        test = selection(labels, "")
        return [item for _, item in self._store.of_kind(kind, namespace) if test(item)]

    def drop(self, kind: Kind, name: str, namespace: str = "default") -> None:
        """Remove an object at once."""
        namespace = namespace if kind.namespaced else ""
        self._store.remove(Key(kind.group, kind.plural, namespace, name))

    # How it misbehaves -------------------------------------------------------------------------

    def freeze(self) -> None:
        """Accept and do not answer, until `thaw`; watches stay open and silent."""
        self._thawed.clear()
        self._hold()

    def thaw(self) -> None:
        self._thawed.set()
        self._hold()

    def _hold(self) -> None:
        if self._thawed.is_set() and self._api.snapshot is None:
            self._watches.held.set()
        else:
            self._watches.held.clear()

    # How ---------------------------------------------------------------------------------------

    def _remove_later(self, key: Key, grace_s: float) -> None:
        uid = self._store.get(key)["metadata"]["uid"]

        def remove() -> None:
            self._timers.discard(timer)
            found = self._store.objects.get(key)
            if found is not None and found["metadata"]["uid"] == uid:
                self._store.remove(key)

        timer = asyncio.get_running_loop().call_later(grace_s, remove)
        self._timers.add(timer)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if not is_watch(request):
            self.requests.append((request.method, request.path))
        await self._thawed.wait()
        try:
            return await self._respond(request)
        except Refused as refused:
            return _json(refused.status(), refused.code)

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        if request.path in {"/readyz", "/livez", "/healthz"}:
            return web.Response(text="ok")
        if request.path == "/version":
            return _json({"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
        if request.method == "GET" and (found := discovery(self._kinds, request.path)) is not None:
            return _json(found)
        place = self._kinds.place(request.path)
        self._api.check(request, place)
        if is_watch(request) and request.method == "GET":
            return await self._watch(request, place)
        status, body = await self._api.answer(request, place)
        return _json(body, status)

    async def _watch(self, request: web.Request, place: Place) -> web.StreamResponse:
        query = request.query
        fields = query.get("fieldSelector", "")
        if place.name:
            fields = ",".join(filter(None, (fields, f"metadata.name={place.name}")))
        test = selection(query.get("labelSelector", ""), fields)
        return await self._watches.serve(
            request, place, test, lambda: self._api.items(request, place)
        )


def _json(body: Json, status: int = 200) -> web.Response:
    data = msgspec.json.encode(body)
    return web.Response(body=data, status=status, content_type="application/json")
