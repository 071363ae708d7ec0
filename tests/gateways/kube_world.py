"""A cluster with a service of two pods ``a`` and ``b`` in it: the fake one, or a real one.

Requests go where the endpoints of the Service say, as kube-proxy leads them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from tests.real.definitions import least
from tests.real.kubernetes import Kubernetes, OwnKubernetes

from prunella.gateways.kubernetes import KubernetesGateway, KubernetesGatewaySpec, KubernetesRoute
from prunella.kube.kinds import HTTP_ROUTE, POD, SERVICE, VIRTUAL_SERVICE, Json, Kind
from prunella.plugins import GatewayContext
from prunella.runtime.clock import SystemClock
from prunella.testing.kube import FakeCluster

GATE = "prunella.dev/serving"
NOTE = "prunella.dev/circuit"
DEFINITIONS = [least(kind, subresources={"status": {}}) for kind in (HTTP_ROUTE, VIRTUAL_SERVICE)]


@dataclass
class World:
    """One namespace of one cluster.

    Attributes:
        addresses: where the pods of the fake cluster answer in truth, by name.
        own: the real cluster, where it is one that can be ended.
    """

    api: Kubernetes
    namespace: str
    image: Callable[[str], str]
    fake: FakeCluster | None = None
    own: OwnKubernetes | None = None
    addresses: dict[str, str] = field(default_factory=dict[str, str])
    _turn: itertools.count[int] = field(default_factory=itertools.count)

    async def call(self, method: str, kind: Kind, name: str = "", body: Any = None) -> Json:
        """One request, as another client of the cluster makes it."""
        path = kind.path(self.namespace, name)
        return await asyncio.to_thread(self.api.call, method, path, body)

    async def get(self, kind: Kind, name: str) -> Json:
        return await self.call("GET", kind, name)

    async def merge(self, kind: Kind, name: str, body: Json, sub: str = "") -> Json:
        path = kind.path(self.namespace, name, sub)
        return await asyncio.to_thread(self.api.merge, path, body)

    async def create(self, kind: Kind, body: Json) -> Json:
        whole = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        return await self.call("POST", kind, body=whole)

    async def make_service(self, **spec: Any) -> None:
        """The Service ``web``, which asks for the labels app and part."""
        ports = [{"port": 80, "targetPort": 80}]
        whole = {"selector": {"app": "web", "part": "shop"}, "ports": ports, **spec}
        await self.create(SERVICE, {"metadata": {"name": "web"}, "spec": whole})

    async def make_pod(self, name: str, *, gated: bool, **meta: Any) -> None:
        container = {
            "name": "web",
            "image": self.image(name),
            "imagePullPolicy": "Never",
            "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1},
        }
        spec: Json = {"containers": [container], "terminationGracePeriodSeconds": 1}
        if gated:
            spec["readinessGates"] = [{"conditionType": GATE}]
        labels = {"app": "web", "part": "shop"}
        await self.create(POD, {"metadata": {"name": name, "labels": labels, **meta}, "spec": spec})

    async def able(self, *names: str) -> None:
        """Until the containers of these pods are ready; a gate is none of theirs."""

        async def ready() -> bool:
            found = [(await self.get(POD, name)).get("status", {}) for name in names]
            return all(
                any(c["type"] == "ContainersReady" and c["status"] == "True" for c in conditions)
                for conditions in (one.get("conditions", ()) for one in found)
            )

        await eventually(ready)

    async def endpoints(self) -> dict[str, str]:
        """The pods that requests to the Service are led to, and their addresses."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
        query = "?labelSelector=kubernetes.io/service-name%3Dweb"
        found = await asyncio.to_thread(self.api.items, path + query)
        return {
            one["targetRef"]["name"]: one["addresses"][0]
            for part in found
            for one in part.get("endpoints") or ()
            if one["conditions"].get("ready") is not False
        }

    async def ask(self) -> tuple[int, str]:
        """One request to the Service: status and body; 0: nobody can be connected to."""
        found = await self.endpoints()
        if not found:
            return 0, ""
        name = sorted(found)[next(self._turn) % len(found)]
        return await asyncio.to_thread(fetch, self.addresses.get(name, found[name]))

    def gateway(self, folder: Path, **more: Any) -> KubernetesGateway:
        section = {"kubeconfig": self.api.kubeconfig, **more}
        spec = KubernetesGatewaySpec.model_validate(section)
        return KubernetesGateway(spec, GatewayContext("cluster", SystemClock(), folder))

    def route(self, **object_: str) -> KubernetesRoute:
        section = {"name": "cluster", "namespace": self.namespace, **object_}
        return KubernetesRoute.model_validate(section)


def fetch(address: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://{address}/", timeout=5) as answer:
            return answer.status, answer.read().decode().strip()
    except URLError:
        return 0, ""


async def eventually(question: Callable[[], Awaitable[Any]], patience_s: float = 60.0) -> Any:
    """Ask until the answer is true, and return it."""
    async with asyncio.timeout(patience_s):
        while not (found := await question()):  # noqa: ASYNC110 - it is a question over HTTP
            await asyncio.sleep(0.02)
        return found
