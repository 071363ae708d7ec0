"""One client for each cluster and one reflector for each list, however many services need them."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from prunella.kube.access import Access
from prunella.kube.client import Cluster
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


def cluster_at(access: Access, clock: Clock) -> SharedCluster:
    """The one client of that cluster on this event loop; to be left with `leave`."""
    key = (asyncio.get_running_loop(), access)
    cluster = _clusters.setdefault(key, SharedCluster(access, clock))
    cluster.users += 1
    return cluster


async def leave(cluster: SharedCluster) -> None:
    """End the use of a client; the last one closes its connections."""
    cluster.users -= 1
    if cluster.users == 0:
        del _clusters[asyncio.get_running_loop(), cluster.access]
        await cluster.close()
