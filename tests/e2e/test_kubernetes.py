"""Real pods on a real node, healed by the whole daemon; and how long that takes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.e2e.kube_bed import HTTP, Cluster, ended, proven, run_of, watched
from tests.real.images import Release
from tests.real.kubernetes import OwnKubernetes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

KILLS = 3


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
            await cluster.ready(1, besides={run_of(pod)})
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
    good = await cluster.uids()
    settings = {
        "probes": [HTTP],
        "release": {"soak": "1s"},
    }
    async with watched(tmp_path, own_kubernetes, namespace, **settings) as orchestrator:
        await proven(orchestrator)
        await cluster.deploy("docker.io/library/no-such-image:1")
        began = time.monotonic()
        undone = await ended(orchestrator, "rollback")
        print(f"rolled back and proven after {time.monotonic() - began:.2f} s")  # noqa: T201
        assert undone.outcome == "recovered"
        done = [one.action for one in await orchestrator.get_healing_history(limit=20)]
    assert done == ["rollback"]
    assert await cluster.uids() == good


async def test_a_version_that_crashes_is_rolled_back_while_the_good_pods_stay(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    await cluster.create(own_kubernetes.make_image("shop:1", Release()))
    bad = own_kubernetes.make_image("shop:bad", Release(crashes=3))
    good = await cluster.uids()
    async with watched(tmp_path, own_kubernetes, namespace, release={"soak": "1s"}) as orchestrator:
        await proven(orchestrator)
        await cluster.deploy(bad)
        undone = await ended(orchestrator, "rollback")
        assert undone.outcome == "recovered"
    assert await cluster.uids() == good
