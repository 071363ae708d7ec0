"""Real pods on a real node, healed by the whole daemon; and how long that takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.real.images import Release
from tests.real.kubernetes import OwnKubernetes, deployment

from prunella.config import from_mapping
from prunella.runtime.orchestrator import SelfHealingOrchestrator
from prunella.wire import HealingAction

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

KILLS = 3


@asynccontextmanager
async def watched(
    folder: Path, cluster: OwnKubernetes, namespace: str, **service: Any
) -> AsyncIterator[SelfHealingOrchestrator]:
    """The Deployment ``shop``, watched at a fast pace."""
    where = {"kubeconfig": str(cluster.kubeconfig), "namespace": namespace, "name": "shop"}
    defaults = {
        "interval": "100ms",
        "grace": "3s",
        "verify": {"soak": "500ms", "rollback_soak": "500ms", "deadline": "30s"},
        "guards": {"backoff": {"base": "50ms", "cap": "100ms"}, "budget": {"actions": 20}},
    }
    config = from_mapping(
        {
            "store": f"sqlite:///{folder}/prunella.db",
            "state_dir": str(folder / "state"),
            "api": "off",
            "defaults": defaults,
            "services": {"shop": {"platform": "kubernetes", "kubernetes": where, **service}},
        }
    )
    async with SelfHealingOrchestrator(config) as orchestrator:
        await until(lambda: orchestrator.get_system_health().healthy == 1)
        yield orchestrator


async def until(condition: Callable[[], object], within_s: float = 40) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what pods do has no event here
            await asyncio.sleep(0.02)


async def ended(orchestrator: SelfHealingOrchestrator, kind: str) -> HealingAction:
    """The first action of that kind, once it has come to its end."""
    async with asyncio.timeout(60):
        while True:
            actions = await orchestrator.get_healing_history(limit=20)
            over = [one for one in actions if one.action == kind and one.success is not None]
            if over:
                return over[-1]
            await asyncio.sleep(0.05)


class Cluster:
    """What a person sees of it with kubectl."""

    def __init__(self, cluster: OwnKubernetes, namespace: str) -> None:
        self.cluster = cluster
        self.path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        self._namespace = namespace

    async def create(self, image: str, **settings: Any) -> None:
        body = deployment("shop", image, **settings)
        await asyncio.to_thread(self.cluster.call, "POST", self.path, body)
        await self.ready(body["spec"]["replicas"])

    async def deploy(self, image: str) -> None:
        container = {"name": "web", "image": image}
        body = {"spec": {"template": {"spec": {"containers": [container]}}}}
        content = "application/strategic-merge-patch+json"
        await asyncio.to_thread(self.cluster.call, "PATCH", f"{self.path}/shop", body, content)

    async def pods(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.cluster.pods, self._namespace)

    async def ready(self, count: int, *, besides: str = "") -> dict[str, Any]:
        """Wait for so many ready pods; one of them, in another run than the one named."""
        async with asyncio.timeout(60):
            while True:
                found = [one for one in await self.pods() if run_of(one) not in ("", besides)]
                if len(found) == count:
                    return found[0]
                await asyncio.sleep(0.02)


def run_of(pod: dict[str, Any]) -> str:
    """Names the run of a ready pod; empty: it is not ready."""
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
    if conditions.get("Ready") != "True":
        return ""
    return f"{pod['metadata']['uid']}@{pod['status']['containerStatuses'][0]['restartCount']}"


async def test_a_container_that_is_killed_again_and_again_is_never_waited_for(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    image = own_kubernetes.make_image("shop:1", Release())
    await cluster.create(image, replicas=1, readinessProbe=None)
    took_s: list[float] = []
    async with watched(tmp_path, own_kubernetes, namespace) as orchestrator:
        for _ in range(KILLS):
            pod = await cluster.ready(1)
            began = time.monotonic()
            await asyncio.to_thread(own_kubernetes.kill_container, pod)
            await cluster.ready(1, besides=run_of(pod))
            took_s.append(time.monotonic() - began)
        healed = await ended(orchestrator, "restart")
        done = await orchestrator.get_healing_history(limit=20)
    print("ready again after", ", ".join(f"{one:.2f} s" for one in took_s))  # noqa: T201
    print([(one.action, one.outcome) for one in reversed(done)])  # noqa: T201
    assert healed.success is not None


async def test_an_image_that_does_not_exist_is_rolled_back_while_the_good_pods_stay(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    await cluster.create(own_kubernetes.make_image("shop:1", Release()))
    good = {one["metadata"]["uid"] for one in await cluster.pods()}
    settings = {
        "probes": [{"kind": "http", "url": "http://{address}:{port}/"}],
        "release": {"soak": "1s"},
    }
    async with watched(tmp_path, own_kubernetes, namespace, **settings) as orchestrator:
        record = orchestrator._ward("shop").engine.record
        await until(lambda: record.versions and record.versions[0].soaked_at is not None)
        await cluster.deploy("docker.io/library/no-such-image:1")
        began = time.monotonic()
        undone = await ended(orchestrator, "rollback")
        print(f"rolled back and proven after {time.monotonic() - began:.2f} s")  # noqa: T201
        assert undone.outcome == "recovered"
        done = [one.action for one in await orchestrator.get_healing_history(limit=20)]
    assert done == ["rollback"]
    assert {one["metadata"]["uid"] for one in await cluster.pods()} == good


async def test_a_version_that_crashes_is_rolled_back_while_the_good_pods_stay(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    await cluster.create(own_kubernetes.make_image("shop:1", Release()))
    bad = own_kubernetes.make_image("shop:bad", Release(crashes=3))
    good = {one["metadata"]["uid"] for one in await cluster.pods()}
    async with watched(tmp_path, own_kubernetes, namespace, release={"soak": "1s"}) as orchestrator:
        record = orchestrator._ward("shop").engine.record
        await until(lambda: record.versions and record.versions[0].soaked_at is not None)
        await cluster.deploy(bad)
        undone = await ended(orchestrator, "rollback")
        assert undone.outcome == "recovered"
    assert {one["metadata"]["uid"] for one in await cluster.pods()} == good
