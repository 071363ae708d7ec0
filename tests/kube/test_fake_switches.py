"""What a reflector and a client make of a server that misbehaves as real ones do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import aiohttp
import pytest
from tests.kube.worlds import eventually

from prunella.errors import TransientError
from prunella.kube.access import access
from prunella.kube.client import Cluster, ForbiddenError, MissingError
from prunella.kube.kinds import LEASE, POD, ROLLOUT, Json, Kind, Object
from prunella.kube.reflector import Reflector
from prunella.kube.shared import SharedCluster, cluster_at, leave
from prunella.runtime.clock import SystemClock
from prunella.testing.kube import FakeCluster, threaded

CRD = Kind(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)


@pytest.fixture
async def cluster(fake: FakeCluster) -> AsyncIterator[SharedCluster]:
    one = cluster_at(fake.access, SystemClock())
    yield one
    await leave(one)


def lease(name: str, holder: str = "a") -> Json:
    spec = {"holderIdentity": holder}
    meta = {"name": name}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


async def knows(reflector: Reflector[Object], *names: str) -> None:
    async def known() -> bool:
        return sorted(name for _, name in reflector.items) == sorted(names)

    await eventually(known)


async def followed(cluster: SharedCluster, fake: FakeCluster) -> Reflector[Object]:
    """A reflector that has begun to watch."""
    reflector = cluster.reflector(LEASE, "default", Object)
    await reflector.ready()

    async def open_() -> bool:
        return fake.watches == 1

    await eventually(open_)
    return reflector


@pytest.mark.parametrize("cut_first", [False, True], ids=["told", "refused"])
async def test_what_was_forgotten_is_listed_anew(
    fake: FakeCluster, cluster: SharedCluster, *, cut_first: bool
) -> None:
    """A watch that is too old is told so, or is refused when it is taken up again."""
    fake.put(lease("one"))
    reflector = await followed(cluster, fake)
    if cut_first:
        fake.cut()
    fake.expire()
    fake.drop(LEASE, "one")
    fake.put(lease("two"))
    await knows(reflector, "two")
    lists = [one for one in fake.requests if one == ("GET", LEASE.path("default"))]
    assert len(lists) == 2


async def test_a_watch_that_was_cut_goes_on_from_where_it_was(
    fake: FakeCluster, cluster: SharedCluster
) -> None:
    fake.put(lease("one"))
    reflector = await followed(cluster, fake)
    fake.cut()
    fake.drop(LEASE, "one")
    fake.put(lease("two"))
    await knows(reflector, "two")
    lists = [one for one in fake.requests if one == ("GET", LEASE.path("default"))]
    assert len(lists) == 1


async def test_a_bookmark_carries_over_a_forgotten_version(
    fake: FakeCluster, cluster: SharedCluster
) -> None:
    fake.put(lease("one"))
    reflector = await followed(cluster, fake)
    for _ in range(3):
        fake.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {}})
        fake.drop(Kind("", "v1", "nodes", "Node", namespaced=False), "n")
    fake.bookmark()
    fake.put(lease("two"))
    await knows(reflector, "one", "two")


async def test_an_old_view_is_told_until_it_is_fresh(
    fake: FakeCluster, cluster: SharedCluster
) -> None:
    """What is read is old, and a write from it is refused; nothing is lost in the end."""
    fake.put(lease("one"))
    reflector = await followed(cluster, fake)
    await knows(reflector, "one")
    fake.stale()
    seen = await cluster.get(LEASE, "one", "default")
    fake.put(lease("one", "b"))
    fake.put(lease("two"))
    assert (await cluster.get(LEASE, "one", "default")) == seen
    with pytest.raises(MissingError):
        await cluster.get(LEASE, "two", "default")
    with pytest.raises(Exception, match="the object has been modified"):
        await cluster.replace(LEASE, "one", "default", {**seen, "spec": {"holderIdentity": "c"}})
    assert sorted(name for _, name in reflector.items) == ["one"]
    fake.fresh()
    await knows(reflector, "one", "two")
    found = fake.find(LEASE, "one")
    assert found is not None
    assert found["spec"] == {"holderIdentity": "b"}


async def test_a_state_in_between_is_missed(fake: FakeCluster, cluster: SharedCluster) -> None:
    """Gone and made again: who watches sees but another object of that name."""
    old = fake.put(lease("one"))
    reflector = await followed(cluster, fake)
    told: list[tuple[bool, bool]] = []
    reflector.listen(lambda was, is_: told.append((was is not None, is_ is not None)))
    fake.skip(2)
    fake.drop(LEASE, "one")
    new = fake.put(lease("one", "b"))
    fake.put(lease("one", "c"))

    async def seen() -> bool:
        return bool(reflector.items["default", "one"].metadata.uid == new["metadata"]["uid"])

    await eventually(seen)
    assert told == [(True, True)]
    assert old["metadata"]["uid"] != new["metadata"]["uid"]


async def test_a_frozen_server_answers_when_it_is_thawed(
    fake: FakeCluster, cluster: SharedCluster
) -> None:
    hasty = Cluster(fake.access, SystemClock(), timeout_s=0.2)
    fake.put(lease("one"))
    fake.freeze()
    with pytest.raises(TransientError, match="does not answer within"):
        await hasty.get(LEASE, "one", "default")
    waiting = asyncio.create_task(cluster.get(LEASE, "one", "default"))
    fake.thaw()
    assert (await waiting)["spec"] == {"holderIdentity": "a"}
    await hasty.close()


async def test_what_is_put_off_is_asked_again(fake: FakeCluster, cluster: SharedCluster) -> None:
    fake.put(lease("one"))
    fake.throttle(1)
    await cluster.get(LEASE, "one", "default")
    assert fake.requests == [("GET", LEASE.path("default", "one"))] * 2


async def test_what_is_denied_is_refused(fake: FakeCluster, cluster: SharedCluster) -> None:
    fake.put(lease("one"))
    fake.deny("patch", "leases")
    assert not await cluster.allowed("patch", LEASE, "default")
    assert await cluster.allowed("update", LEASE, "default")
    with pytest.raises(ForbiddenError, match="cannot patch resource"):
        await cluster.patch(LEASE, "one", "default", {"spec": {"holderIdentity": "b"}})
    fake.deny("watch", "leases")
    with pytest.raises(ForbiddenError, match="cannot watch resource"):
        await cluster.reflector(LEASE, "default", Object).ready()
    fake.allow("patch", "leases")
    await cluster.patch(LEASE, "one", "default", {"spec": {"holderIdentity": "b"}})


async def test_what_was_done_without_an_answer_is_done(
    fake: FakeCluster, cluster: SharedCluster
) -> None:
    fake.put(lease("one"))
    fake.lose(1)
    change = {"spec": {"holderIdentity": "b"}}
    with pytest.raises(TransientError, match="cannot be reached"):
        await cluster.patch(LEASE, "one", "default", change)
    assert (await cluster.get(LEASE, "one", "default"))["spec"] == change["spec"]


async def test_a_server_that_comes_back(fake: FakeCluster, cluster: SharedCluster) -> None:
    fake.put(lease("one"))
    reflector = await followed(cluster, fake)
    await fake.stop()
    with pytest.raises(TransientError, match="cannot be reached"):
        await cluster.get(LEASE, "one", "default")
    fake.put(lease("two"))
    await fake.start()
    await knows(reflector, "one", "two")


async def test_kinds_are_known_when_they_are_defined(
    fake: FakeCluster, cluster: SharedCluster
) -> None:
    body = {"metadata": {"name": "shop"}, "spec": {"replicas": 1}}
    with pytest.raises(MissingError):
        await cluster.create(ROLLOUT, body, "default")
    names = {"plural": ROLLOUT.plural, "kind": ROLLOUT.name}
    version = {"name": ROLLOUT.version, "served": True, "storage": True, "subresources": {}}
    spec = {"group": ROLLOUT.group, "names": names, "scope": "Namespaced", "versions": [version]}
    name = f"{ROLLOUT.plural}.{ROLLOUT.group}"
    await cluster.create(CRD, {"metadata": {"name": name}, "spec": spec})
    await cluster.create(ROLLOUT, body, "default")
    assert fake.find(ROLLOUT, "shop") is not None
    await cluster.delete(CRD, name)
    with pytest.raises(MissingError):
        await cluster.get(ROLLOUT, "shop", "default")


async def test_a_kubeconfig_leads_to_it(fake: FakeCluster, tmp_path: Path) -> None:
    way = access(fake.kubeconfig(tmp_path))
    assert (way.context, way.server) == ("fake", fake.access.server)


def test_it_serves_those_that_have_no_event_loop() -> None:
    with threaded() as remote:
        remote.do(lambda fake: fake.put(lease("one")))
        server = remote.do(lambda fake: fake.access.server)
        with urlopen(server + LEASE.path("default", "one"), timeout=5) as answer:
            assert json.loads(answer.read())["spec"] == {"holderIdentity": "a"}
    with pytest.raises(URLError):
        urlopen(server + "/version", timeout=5)


async def test_a_pod_moves_to_a_node_that_is_ready(fake: FakeCluster) -> None:
    fake.put_node("node1", ready=False)
    container = {"name": "web", "image": "shop:1"}
    meta = {"name": "one"}
    fake.put(
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}
    )

    def pod() -> Json:
        found = fake.find(POD, "one")
        assert found is not None
        return found

    async def unplaced() -> bool:
        told = pod()["status"].get("conditions", ())
        return [(one["type"], one["reason"]) for one in told] == [("PodScheduled", "Unschedulable")]

    await eventually(unplaced)
    fake.put_node("node2")

    async def placed() -> bool:
        found = (pod()["spec"].get("nodeName"), pod()["status"]["phase"])
        return found == ("node2", "Running")

    await eventually(placed)


async def test_it_is_gone_at_once_whoever_follows_it(fake: FakeCluster) -> None:
    watch = fake.access.server + POD.path("default") + "?watch=true"
    async with aiohttp.ClientSession() as session, session.get(watch) as patient:
        fake.freeze()
        asking = asyncio.create_task(session.get(fake.access.server + "/version"))
        await eventually(lambda: asyncio.sleep(0, ("GET", "/version") in fake.requests))
        async with asyncio.timeout(5):  # else it waits for those who follow it
            await fake.stop()
        with pytest.raises(aiohttp.ClientError):
            await asking
        with pytest.raises(aiohttp.ClientError):
            await patient.content.read()
    fake.thaw()
