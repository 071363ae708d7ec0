"""What one API server is asked in plain HTTP, be it the fake or a real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp

T = TypeVar("T")
Json = dict[str, Any]

MERGE = "application/merge-patch+json"
STEPS = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
DEPLOYMENTS, DAEMON_SETS = "apps/v1/deployments", "apps/v1/daemonsets"
STATEFUL_SETS, REPLICA_SETS = "apps/v1/statefulsets", "apps/v1/replicasets"
CONFIG_MAPS, PODS = "v1/configmaps", "v1/pods"
PATIENCE_S = 30.0


async def _forget_nothing() -> None:
    raise NotImplementedError("this server cannot be told to forget")


@dataclass
class Api:
    """One server, and a namespace in it that nobody else uses.

    Attributes:
        forget: make it forget all versions there have been till now.
        nobody: headers of one who may not list secrets.
    """

    session: aiohttp.ClientSession
    server: str
    headers: Mapping[str, str]
    namespace: str
    forget: Callable[[], Awaitable[None]] = _forget_nothing
    nobody: Mapping[str, str] = field(default_factory=dict)

    def path(self, what: str, name: str = "") -> str:
        """Of ``GROUP/VERSION/PLURAL`` in the namespace; the core group is ``v1/PLURAL``."""
        version, _, plural = what.rpartition("/")
        root = "apis" if "/" in version else "api"
        whole = f"/{root}/{version}/namespaces/{self.namespace}/{plural}"
        return f"{whole}/{name}" if name else whole

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        content: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Json]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.request(
            method,
            self.server + path,
            data=None if body is None else data,
            headers={**self.headers, "Content-Type": content, **(headers or {})},
            ssl=False,
        ) as answer:
            if answer.content_type != "application/json":
                return answer.status, {"text": await answer.text()}
            return answer.status, json.loads(await answer.read())

    async def good(
        self, method: str, path: str, body: object = None, content: str = "application/json"
    ) -> Json:
        status, answer = await self.ask(method, path, body, content)
        assert status in {200, 201}, answer
        return answer

    async def make(self, what: str, body: Json) -> Json:
        return await self.good("POST", self.path(what), body)

    async def read(self, what: str, name: str) -> Json:
        return await self.good("GET", self.path(what, name))

    async def items(self, what: str, query: str = "") -> list[Json]:
        return list((await self.good("GET", self.path(what) + query))["items"])

    @asynccontextmanager
    async def watch(self, what: str, query: str) -> AsyncIterator[Watch]:
        async with self.session.get(
            f"{self.server}{self.path(what)}?watch=1&{query}", headers=self.headers, ssl=False
        ) as answer:
            yield Watch(answer)

    async def until(self, condition: Callable[[], Awaitable[T]]) -> T:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if found := await condition():
                    return found
                await asyncio.sleep(0.05)


@dataclass
class Watch:
    answer: aiohttp.ClientResponse

    async def next(self) -> Json:
        """Empty: it has come to its end."""
        async with asyncio.timeout(PATIENCE_S):
            line = await self.answer.content.readline()
        return dict(json.loads(line)) if line else {}

    async def told(self) -> tuple[str, str]:
        """What has happened, and to what."""
        event = await self.next()
        return event["type"], event["object"]["metadata"]["name"]


def version(item: Json) -> int:
    return int(item["metadata"]["resourceVersion"])


def generation(item: Json) -> int:
    return int(item["metadata"]["generation"])


def template(image: str, app: str = "shop") -> Json:
    """Of pods that no node takes, so that nothing but the API and its controllers is at work."""
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {
            "nodeSelector": {"nowhere": "yes"},
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "web", "image": image, "imagePullPolicy": "Never"}],
        },
    }


def workload(name: str = "shop", image: str = "shop:1", **spec: Any) -> Json:
    """The body of a Deployment or of what is made like one."""
    labels = {"matchLabels": {"app": name}}
    whole = {"replicas": 1, "selector": labels, "template": template(image, name), **spec}
    return {"metadata": {"name": name}, "spec": whole}


def pod(name: str, app: str = "shop") -> Json:
    """As if on a node, and as if nobody ever looked after it there."""
    container = {"name": "web", "image": "shop:1", "imagePullPolicy": "Never"}
    return {
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {
            "nodeName": "nowhere",
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }


READY: Json = {
    "status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
    }
}


def config_map(name: str, **data: str) -> Json:
    return {"metadata": {"name": name, "labels": {"name": name}}, "data": data}
