"""What is asked of a cluster, and what may be: the same, no more and no less."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
from tests.deploy.rights import CIRCUITS, HEALING, HOME, NODES, SYNC
from tests.gateways.kube_world import World, eventually
from tests.operator.conftest import Bed as House
from tests.operator.conftest import until as within
from tests.platforms.kube_bed import SHOP, Bed, restart_of, rollback, scaled, until
from tests.platforms.kube_keepers import Kept
from tests.real.kubernetes import Kubernetes, deployment

from prunella.core.model import Action, ActionKind, Epoch, ServiceId
from prunella.core.traffic import OPEN_WIDE, Valve
from prunella.errors import PrunellaError
from prunella.kube.client import Cluster
from prunella.kube.kinds import (
    DEPLOYMENT,
    HEALING_ACTION,
    HTTP_ROUTE,
    LEASE,
    POD,
    VIRTUAL_SERVICE,
    Kind,
)
from prunella.platforms._kube_keepers import APPLICATION, HELM_RELEASE, KUSTOMIZATION, SOURCES
from prunella.ports import Route
from prunella.runtime.clock import SystemClock
from prunella.testing.kube import FakeCluster

E1 = Epoch(1)
WEB = ServiceId("web")
TOKEN = "prunella"
GRANTED = frozenset(
    (verb, what.partition(" ")[0])
    for rights in (HOME, HEALING, NODES, CIRCUITS, SYNC)
    for what, verbs in rights.items()
    for verb in verbs.split()
)
KEEPERS = [
    (APPLICATION, APPLICATION),
    (KUSTOMIZATION, SOURCES["GitRepository"]),
    (KUSTOMIZATION, SOURCES["Bucket"]),
    (HELM_RELEASE, SOURCES["HelmChart"]),
    (HELM_RELEASE, SOURCES["OCIRepository"]),
]
Story = Callable[[FakeCluster, Path], Awaitable[None]]
pytestmark = pytest.mark.timeout(120)


def people(fake: FakeCluster, folder: Path) -> Kubernetes:
    return Kubernetes(fake.kubeconfig(folder))


async def too_late(fake: FakeCluster, change: Awaitable[None], act: Awaitable[None]) -> None:
    """Something is done to what somebody has changed, of which nothing was told."""
    fake.stale()
    await change
    with suppress(PrunellaError):
        await act
    fake.fresh()


async def heals(fake: FakeCluster, folder: Path, kind: str) -> None:
    """Every action; each also where somebody has changed what it is done to in between."""
    async with AsyncExitStack() as stack:
        bed = Bed(people(fake, folder), "default", fake, stack)
        ours = {"kubeconfig": fake.kubeconfig(folder, TOKEN), "kind": kind}
        await bed.apply(kind, replicas=1)
        platform = bed.platform(folder, **ours)
        good = await until(platform, lambda now: len(now.instances) == 1)
        noted = {"metadata": {"annotations": {"note": "of a person"}}}
        path = POD.path("default", (await bed.pods())[0]["metadata"]["name"])
        annotated = asyncio.to_thread(bed.cluster.merge, path, noted)
        restart = restart_of(good.instances[0])
        await too_late(fake, _done(annotated), platform.execute(restart, epoch=E1))
        await platform.execute(restart, epoch=E1)
        rolling = bed.platform(folder, **ours, restart="rollout")
        await rolling.observe()
        whole = Action(ActionKind.RESTART, SHOP)
        await too_late(fake, bed.change(noted, kind), rolling.execute(whole, epoch=E1))
        await bed.deploy("shop:2", kind)
        bad = await until(platform, lambda now: now.revision != good.revision)
        await platform.execute(rollback(good.revision, bad.revision), epoch=E1)
        await platform.testimony(None)
        await platform.examine()
        if kind != "DaemonSet":
            await platform.execute(scaled(1, 2), epoch=E1)
            more = {"spec": {"replicas": 3}}
            up = platform.execute(scaled(2, 4), epoch=E1)
            await too_late(fake, bed.change(more, kind), up)


async def _done(work: Awaitable[object]) -> None:
    await work


async def scales(fake: FakeCluster, folder: Path) -> None:
    """Where an autoscaler sets the number."""
    async with AsyncExitStack() as stack:
        bed = Bed(people(fake, folder), "default", fake, stack)
        await bed.apply(replicas=1)
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}
        spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 5}
        scaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
        fake.put({**scaler, "metadata": {"name": "shop"}, "spec": spec})
        platform = bed.platform(folder, kubeconfig=fake.kubeconfig(folder, TOKEN))
        await platform.observe()
        await platform.execute(scaled(1, 2), epoch=E1)


async def pauses(fake: FakeCluster, folder: Path, kind: Kind, source: Kind) -> None:
    """A rollback where something keeps the object as it is written elsewhere."""
    async with AsyncExitStack() as stack:
        bed = Bed(people(fake, folder), "default", fake, stack)
        kept = Kept(bed, kind, source)
        await kept.set_up()
        ours = {"kubeconfig": fake.kubeconfig(folder, TOKEN), "sync_namespace": "default"}
        platform = bed.platform(folder, pause_sync=True, **ours)
        good = await until(platform, lambda now: len(now.instances) == 2)
        await bed.deploy("bad:1")
        bad = await until(platform, lambda now: now.revision != good.revision)
        await platform.execute(rollback(good.revision, bad.revision), epoch=E1)
        assert await kept.is_paused()


async def turns(fake: FakeCluster, folder: Path) -> None:
    """Each kind of circuit, and one pod of each kind shut."""
    fake.register(HTTP_ROUTE, VIRTUAL_SERVICE)
    world = World(people(fake, folder), "default", lambda name: f"{name}:1", fake)
    refs = [{"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1}]
    await world.create(
        HTTP_ROUTE, {"metadata": {"name": "web"}, "spec": {"rules": [{"backendRefs": refs}]}}
    )
    http = [{"route": [{"destination": {"host": "web"}}]}]
    await world.create(VIRTUAL_SERVICE, {"metadata": {"name": "web"}, "spec": {"http": http}})
    await world.make_service()
    await world.make_pod("gated", gated=True)
    made = deployment("shop", "shop:1", replicas=1)
    made["spec"]["selector"]["matchLabels"] = {"part": "shop"}
    made["spec"]["template"]["metadata"]["labels"] = {"app": "web", "part": "shop"}
    await world.create(DEPLOYMENT, made)

    async def both() -> list[str]:
        return [*found] if len(found := await world.endpoints()) == 2 else []

    for section in ({"http_route": "web"}, {"virtual_service": "web"}, {"service": "web"}):
        gateway = world.gateway(folder, kubeconfig=fake.kubeconfig(folder, TOKEN))
        await gateway.route([Route(WEB, world.route(**section))])
        await gateway.observe()
        shut = frozenset(await eventually(both)) if "service" in section else frozenset[str]()
        valve = Valve(0, shut)
        await gateway.turn(WEB, valve, before=OPEN_WIDE, lease_s=60, epoch=E1)
        await gateway.turn(WEB, OPEN_WIDE, before=valve, lease_s=60, epoch=E1)
        assert not any(one.fault for one in await gateway.examine())
        await gateway.close()


async def lives(fake: FakeCluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At home: elected, told of policies, telling what was done, and pruning it."""
    cluster = Cluster(fake.access, SystemClock())
    monkeypatch.setenv("KUBECONFIG", str(fake.kubeconfig(folder, TOKEN)))
    house = House(cluster, "default", folder, fake)
    await house.define()
    await cluster.delete(LEASE, "prunella", "default")
    await house.deploy("web")
    await house.policy("web", target={"kind": "Deployment", "name": "web"})
    of_another = {"id": "of another store", "startedAt": "2020-01-01T00:00:00Z"}
    kind = {"apiVersion": HEALING_ACTION.api_version, "kind": HEALING_ACTION.name}
    for number in range(20):
        fake.put({**kind, "metadata": {"name": f"default.web-{number}"}, "spec": of_another})
    async with house.living(operator={"history": 1, "lease_ttl": "9s"}) as one:
        await house.told("web", "Healthy", "Well")
        for _ in range(2):
            await one.healing.force_heal(
                "default.web", action="restart", actor="ann", override=["min-healthy", "grace"]
            )

        async def told() -> bool:
            asked = fake.account(TOKEN, ()).asked
            return {("delete", "healingactions.prunella.dev"), ("patch", "events")} <= asked

        await within(told)
    await cluster.close()


async def test_what_is_asked_is_what_is_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stories: dict[str, Story] = {
        **{kind: partial(heals, kind=kind) for kind in ("Deployment", "StatefulSet", "DaemonSet")},
        **{
            f"{kind.name} of {source.name}": partial(pauses, kind=kind, source=source)
            for kind, source in KEEPERS
        },
        "autoscaler": scales,
        "circuits": turns,
        "home": partial(lives, monkeypatch=monkeypatch),
    }
    asked: set[tuple[str, str]] = set()
    for name, story in stories.items():
        folder = tmp_path / name
        folder.mkdir()
        async with FakeCluster() as fake:
            account = fake.account(TOKEN, GRANTED)
            await story(fake, folder)
            assert account.asked - GRANTED == set(), name
            asked |= account.asked
    assert GRANTED - asked == set()


async def test_what_may_not_be_followed_is_not_asked_for(tmp_path: Path) -> None:
    """In one namespace alone nobody may look at nodes."""
    async with FakeCluster() as fake, AsyncExitStack() as stack:
        account = fake.account(TOKEN, GRANTED - {("list", "nodes"), ("watch", "nodes")})
        bed = Bed(people(fake, tmp_path), "default", fake, stack)
        await bed.apply(replicas=1)
        await bed.platform(tmp_path, kubeconfig=fake.kubeconfig(tmp_path, TOKEN)).observe()
        assert account.asked <= account.allowed
