"""Where two Prunellas may live: a fake cluster, and a real one; and what befalls either."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tests.operator.conftest import Bed
from tests.real.kubernetes import OwnKubernetes, brittle

from prunella.kube.kinds import DEPLOYMENT, Json
from prunella.testing.kube import FakeCluster


class Fate(Protocol):
    """What a test may do to a cluster, and what it was asked."""

    async def deploy(self) -> None:
        """The Deployment ``web``."""

    async def ruin(self, pod: Json) -> None:
        """It ends, and nothing but another pod helps for long."""

    async def stop(self) -> None:
        """No API server any more."""

    async def start(self) -> None:
        """The same again."""

    async def evictions(self) -> int:
        """That were asked for, granted or not."""
        ...


class FakeFate:
    def __init__(self, bed: Bed, fake: FakeCluster) -> None:
        self._bed, self._fake = bed, fake
        self.stop, self.start = fake.stop, fake.start

    async def deploy(self) -> None:
        await self._bed.deploy("web")

    async def ruin(self, pod: Json) -> None:
        self._fake.node.backoff_s = 120.0
        self._fake.crash(pod["metadata"]["name"], times=3)

    async def evictions(self) -> int:
        return len([1 for _, path in self._fake.requests if path.endswith("/eviction")])


class RealFate:
    def __init__(self, bed: Bed, own: OwnKubernetes) -> None:
        self._bed, self._own = bed, own

    async def deploy(self) -> None:
        image = await asyncio.to_thread(self._own.make_image, "shop:1")
        await self._bed.cluster.create(DEPLOYMENT, brittle("web", image), self._bed.namespace)

    async def ruin(self, pod: Json) -> None:
        await asyncio.to_thread(self._own.ruin, pod)

    async def stop(self) -> None:
        await asyncio.to_thread(self._own.kill_api)

    async def start(self) -> None:
        await asyncio.to_thread(self._own.start_api)

    async def evictions(self) -> int:
        asked = await asyncio.to_thread(self._own.audit.asked, self._bed.namespace)
        return len([1 for one in asked if " create pods/eviction " in one])
