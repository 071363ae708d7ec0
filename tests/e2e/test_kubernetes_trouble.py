"""What else befalls real pods on a real node, healed by the whole orchestrator."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.e2e.kube_bed import HTTP, Cluster, ended, proven, shown, until, watched, watching
from tests.real.images import Release
from tests.real.kubernetes import OwnKubernetes, deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

STORM = [f"shop{number}" for number in range(10)]


async def test_a_version_that_is_never_ready_is_rolled_back_while_the_good_pods_stay(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    await cluster.create(own_kubernetes.make_image("shop:1", Release()))
    bad = own_kubernetes.make_image("shop:errors", Release("2", status=500))
    good = await cluster.uids()
    settings = {"probes": [HTTP], "release": {"soak": "1s"}}
    async with watched(tmp_path, own_kubernetes, namespace, **settings) as orchestrator:
        await proven(orchestrator)
        await cluster.deploy(bad)
        began = time.monotonic()
        undone = await ended(orchestrator, "rollback")
        print(f"rolled back and proven after {time.monotonic() - began:.2f} s")  # noqa: T201
        done = await orchestrator.get_healing_history(limit=20)
        print(shown(done))  # noqa: T201
        assert undone.outcome == "recovered"
    assert [one.action for one in done] == ["rollback"]
    assert await cluster.uids() == good


async def test_many_that_fail_at_once_are_left_to_their_cause(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    shared = tmp_path / "shared"
    shared.mkdir()
    page = shared / "index.html"
    page.write_text("all is well")
    image = own_kubernetes.make_image("shop:1", Release())
    for name in STORM:
        body = deployment(name, image, volumeMounts=[{"name": "shared", "mountPath": "/www"}])
        volume = {"name": "shared", "hostPath": {"path": str(shared)}}
        body["spec"]["template"]["spec"]["volumes"] = [volume]
        await asyncio.to_thread(own_kubernetes.call, "POST", cluster.path, body)
    await cluster.ready(2 * len(STORM))
    pods = await cluster.uids()
    services = {name: {"probes": [{**HTTP, "interval": "500ms"}]} for name in STORM}
    async with watching(tmp_path, own_kubernetes, namespace, services) as orchestrator:
        page.unlink()
        began = time.monotonic()
        stopped: set[str] = set()
        async with asyncio.timeout(60):
            while len(stopped) < len(STORM) - 1:
                stopped |= {one for one in STORM if "storm" in (await orchestrator.why(one)).vetoes}
                await asyncio.sleep(0.05)
        print(f"a storm for all after {time.monotonic() - began:.2f} s")  # noqa: T201
        page.write_text("all is well")
        await until(lambda: orchestrator.get_system_health().healthy == len(STORM))
        done = await orchestrator.get_healing_history(limit=50)
        print(shown(done))  # noqa: T201
        gone = pods - await cluster.uids()
        print(f"{len(gone)} of {len(pods)} pods have been replaced")  # noqa: T201
    assert len(done) <= 1  # before it is seen that it is not the only one
    assert len(gone) == len(done)
