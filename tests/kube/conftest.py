"""Both kinds of cluster; what is true of only one of them is no test of the other."""

from collections.abc import AsyncIterator

import pytest
from tests.kube.worlds import World
from tests.real.images import Release

from prunella.kube.access import access
from prunella.kube.shared import cluster_at, leave
from prunella.runtime.clock import SystemClock
from prunella.testing.kube import FakeCluster


@pytest.fixture
async def fake() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as one:
        yield one


@pytest.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "fake":
        async with FakeCluster() as one:
            cluster = cluster_at(one.access, SystemClock())
            yield World(cluster, "default", ("shop:1", "shop:2"), "crash:1", one)
            await leave(cluster)
        return
    own = request.getfixturevalue("own_kubernetes")
    one, two = (own.make_image(f"shop:{n}", Release(version=str(n))) for n in (1, 2))
    bad = own.make_image("crash:1", Release(crashes=1))
    namespace = own.namespace()
    cluster = cluster_at(access(own.kubeconfig), SystemClock())
    yield World(cluster, namespace, (one, two), bad, None)
    await leave(cluster)
    own.forget(namespace)
