"""A fake and a real cluster, for tests of what is true of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import pytest
from tests.real.images import Release

from prunella.kube.access import access
from prunella.kube.client import JSON_PATCH
from prunella.kube.kinds import DEPLOYMENT, POD, Json, Kind
from prunella.kube.shared import SharedCluster, cluster_at, leave
from prunella.runtime.clock import SystemClock
from prunella.testing.kube import FakeCluster

T = TypeVar("T")


class World(NamedTuple):
    """A client of a cluster, a namespace of its own there, and images: good and bad."""

    cluster: SharedCluster
    kubeconfig: Path
    namespace: str
    images: tuple[str, str]
    crashing: str
    fake: FakeCluster | None

    async def get(self, kind: Kind, name: str) -> Json:
        return await self.cluster.get(kind, name, self.namespace)

    async def all(self, kind: Kind) -> list[Json]:
        return await items(self.cluster, kind, self.namespace)

    async def pods(self) -> list[Json]:
        """Those that are not on their way out."""
        return [pod for pod in await self.all(POD) if "deletionTimestamp" not in pod["metadata"]]

    async def ready(self, count: int, kind: Kind = DEPLOYMENT, name: str = "shop") -> Json:
        """Wait until all of a workload's pods are of its template, and ready."""

        async def settled() -> Json | None:
            one = await self.get(kind, name)
            status = one.get("status", {})
            if status.get("observedGeneration") != one["metadata"]["generation"]:
                return None
            updated = status.get("updatedReplicas", status.get("updatedNumberScheduled"))
            serving = status.get("readyReplicas", status.get("numberReady"))
            total = status.get("replicas", status.get("currentNumberScheduled"))
            return one if updated == serving == total == count else None

        await eventually(settled)
        return await self.get(kind, name)

    async def release(self, image: str, kind: Kind = DEPLOYMENT, name: str = "shop") -> Json:
        """Give a workload another image."""
        at = "/spec/template/spec/containers/0/image"
        step = [{"op": "replace", "path": at, "value": image}]
        return await self.cluster.patch(kind, name, self.namespace, step, content=JSON_PATCH)


@asynccontextmanager
async def made(kind: str, request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[World]:
    """A ``fake`` one, with `folder` for its kubeconfig, or the ``real`` one."""
    if kind == "fake":
        async with FakeCluster() as one:
            cluster = cluster_at(one.access, SystemClock())
            images, file = ("shop:1", "shop:2"), one.kubeconfig(folder)
            yield World(cluster, file, "default", images, "crash:1", one)
            await leave(cluster)
        return
    own = request.getfixturevalue("own_kubernetes")
    one, two = (own.make_image(f"shop:{n}", Release(version=str(n))) for n in (1, 2))
    bad = own.make_image("crash:1", Release(crashes=1))
    namespace = own.namespace()
    cluster = cluster_at(access(own.kubeconfig), SystemClock())
    yield World(cluster, own.kubeconfig, namespace, (one, two), bad, None)
    await leave(cluster)
    own.forget(namespace)


async def items(cluster: SharedCluster, kind: Kind, namespace: str) -> list[Json]:
    answer = await cluster.ask("GET", kind.path(namespace))
    return list(msgspec.json.decode(answer)["items"])


async def eventually(question: Callable[[], Awaitable[T]], patience_s: float = 60.0) -> T:
    """Ask until the answer is true, and return it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience_s
    while loop.time() < end:
        if found := await question():
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within {patience_s:g} s: {question}")
