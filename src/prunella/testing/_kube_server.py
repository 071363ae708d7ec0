"""The fake API server on its port, and how it can be told to misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec
import yaml
from aiohttp import web

from prunella.kube.access import Access
from prunella.kube.kinds import Json
from prunella.runtime.clock import SystemClock
from prunella.testing._kube_api import Account, Api, is_watch
from prunella.testing._kube_kinds import NAMESPACE, Kinds, Place, discovery
from prunella.testing._kube_refusals import Refused
from prunella.testing._kube_select import selection
from prunella.testing._kube_store import Store
from prunella.testing._kube_watch import Watches
from prunella.testing.site import free_port

_NAMESPACES = ("default", "kube-system")
_WRITES = {"POST", "PUT", "PATCH", "DELETE"}


class Server:
    """One API server with what it holds.

    Attributes:
        requests: method and path of each, besides those of watches.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.port = free_port()
        self.access = Access(f"http://127.0.0.1:{self.port}", context="fake")
        self._store = Store(SystemClock().wall)
        self._kinds = Kinds()
        self._api = Api(self._store, self._kinds)
        self._watches = Watches(self._store)
        self._store.reactors.append(self._kinds.react)
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._throttled = self._lost = 0
        self._runner: web.AppRunner | None = None
        for name in _NAMESPACES:
            self._store.create(NAMESPACE, "", {"metadata": {"name": name}})

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        """Close the port and all connections at once; what it holds is kept for `start`."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in [*runner.sites]:
            await site.stop()
        assert runner.server is not None, "it has been started"
        for connection in runner.server.connections:  # else watches are waited for
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def close(self) -> None:
        """End all there is."""
        await self.stop()

    def kubeconfig(self, folder: Path, token: str = "") -> Path:
        """A new file in `folder`; the context is named ``fake``.

        Args:
            token: of an `account`; empty: of somebody who may do all.
        """
        path = folder / (f"kubeconfig-{token}" if token else "kubeconfig")
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.access.server}}],
            "users": [{"name": "tester", "user": {"token": token or "fake"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "tester"}}],
            "current-context": "fake",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def account(self, token: str, allowed: Iterable[tuple[str, str]]) -> Account:
        """Somebody who may do only that: pairs such as ``("create", "pods/eviction")`` and
        ``("get", "deployments.apps/scale")``, in every namespace.
        """
        return self._api.accounts.setdefault(token, Account(allowed))

    @property
    def watches(self) -> int:
        """How many are open."""
        return len(self._watches)

    @property
    def watched(self) -> list[str]:
        """The plurals of what open watches follow, each as often as it is followed."""
        return self._watches.kinds

    # How it misbehaves -------------------------------------------------------------------------

    def freeze(self) -> None:
        """Accept and do not answer, until `thaw`; watches stay open and silent."""
        self._thawed.clear()
        self._hold()

    def thaw(self) -> None:
        self._thawed.set()
        self._hold()

    def stale(self) -> None:
        """Answer gets and lists from what is there now, and tell watches nothing, until `fresh`.

        Changes are made to what is there in truth.
        """
        self._api.snapshot = (self._store.version, dict(self._store.objects))
        self._hold()

    def fresh(self) -> None:
        self._api.snapshot = None
        self._hold()

    def skip(self, changes: int) -> None:
        """Tell watches nothing of the next changes; the next one after them tells all at once."""
        self._store.skipped = changes

    def expire(self) -> None:
        """Forget all versions till now: open watches are told so, and end; those that ask from
        an old version on, or for the rest of a list, are refused: 410.
        """
        self._store.forget()
        self._api.forget_pages()
        self._watches.expire()

    def cut(self) -> None:
        """End all watches, without a word."""
        self._watches.cut()

    def bookmark(self) -> None:
        """Tell all watches that want to know how far they have come."""
        self._watches.bookmark()

    def throttle(self, requests: int) -> None:
        """Put off the next requests: 429, and a second to wait."""
        self._throttled = requests

    def lose(self, writes: int) -> None:
        """Do what the next writes ask for, and close the connection instead of an answer."""
        self._lost = writes

    def deny(self, verb: str, plural: str) -> None:
        """Refuse that with 403; ``plural`` may name a subresource: ``pods/eviction``."""
        self._api.denied.add((verb, plural))

    def allow(self, verb: str, plural: str) -> None:
        self._api.denied.discard((verb, plural))

    def _hold(self) -> None:
        if self._thawed.is_set() and self._api.snapshot is None:
            self._watches.held.set()
        else:
            self._watches.held.clear()

    # How ---------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if not is_watch(request):
            self.requests.append((request.method, request.path))
        await self._thawed.wait()
        if self._throttled:
            self._throttled -= 1
            words = "Too many requests, please try again later."
            return web.Response(status=429, text=words, headers={"Retry-After": "1"})
        try:
            answer = await self._respond(request)
        except Refused as refused:
            if not refused.reason:
                return web.Response(text=f"{refused}\n", status=refused.code)
            return _json(refused.status(), refused.code)
        if self._lost and request.method in _WRITES and request.transport is not None:
            self._lost -= 1
            request.transport.abort()
        return answer

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
