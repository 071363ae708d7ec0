"""One client for each cluster and one reflector for each list, however many services need them."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from prunella.kube.access import Access
from prunella.kube.client import Cluster, Fence
from prunella.kube.kinds import Kind, Object
from prunella.kube.reflector import Reflector
from prunella.ports import Clock

T = TypeVar("T", bound=Object)


class SharedCluster(Cluster):
    """A client with its reflectors; made by `cluster_at`, left with `leave`."""

    def __init__(self, access: Access, clock: Clock) -> None:
        super().__init__(access, clock)
        self.users = 0
        self._reflectors: dict[tuple[Kind, str, type[Object]], Reflector[Any]] = {}

    def reflector(self, kind: Kind, namespace: str, as_: type[T]) -> Reflector[T]:
        """All objects of that kind in a namespace, or everywhere, as everybody here knows them."""
        key = (kind, namespace, as_)
        if key not in self._reflectors:
            self._reflectors[key] = Reflector(self, kind, namespace, as_)
        return self._reflectors[key]

    async def close(self) -> None:
        for reflector in self._reflectors.values():
            await reflector.close()
        self._reflectors.clear()
        await super().close()


_clusters: dict[tuple[asyncio.AbstractEventLoop, Access], SharedCluster] = {}
_fences: dict[asyncio.AbstractEventLoop, Fence] = {}


def fence_all(fence: Fence | None) -> None:
    """Put a fence before the writes to all clusters of this event loop, now and later."""
    loop = asyncio.get_running_loop()
    if fence is None:
        _fences.pop(loop, None)
    else:
        _fences[loop] = fence
    for (of, _), cluster in _clusters.items():
        if of is loop:
            cluster.fence = fence


def cluster_at(access: Access, clock: Clock) -> SharedCluster:
    """The one client of that cluster on this event loop; to be left with `leave`."""
    loop = asyncio.get_running_loop()
    cluster = _clusters.setdefault((loop, access), SharedCluster(access, clock))
    cluster.fence = _fences.get(loop)
    cluster.users += 1
    return cluster


async def leave(cluster: SharedCluster) -> None:
    """End the use of a client; the last one closes its connections."""
    cluster.users -= 1
    if cluster.users == 0:
        del _clusters[asyncio.get_running_loop(), cluster.access]
        await cluster.close()
