"""What else befalls real pods on a real node, healed by the whole orchestrator."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from tests.e2e.kube_bed import (
    HTTP,
    Clients,
    Cluster,
    ended,
    proven,
    run_of,
    shown,
    until,
    watched,
    watching,
)
from tests.real.images import Release, pack
from tests.real.kubernetes import OwnKubernetes, deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

STORM = [f"shop{number}" for number in range(10)]
_SERVE = """#!/bin/sh
# The first process of its container takes all the memory that there is, once it is told to.
httpd -p 80 -h /www
while [ ! -e /run/eat ]; do sleep 0.05; done
exec busybox tail /dev/zero
"""
_WORK = """#!/bin/sh
: > /run/work.$$
until busybox mkdir /run/lock 2> /dev/null; do sleep 0.1; done
sleep 0.1
busybox rmdir /run/lock
rm /run/work.$$
printf 'Content-Type: text/plain\\r\\n\\r\\ndone\\n'
"""
_LOAD = """#!/bin/sh
set -- /run/work.*
[ -e "$1" ] || shift
printf 'Content-Type: text/plain\\r\\n\\r\\ninflight %s\\n' $#
"""
_EAT = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\ntold\\n'
: > /run/eat
"""


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


@pytest.mark.parametrize(("gap_s", "most"), [(0.0, 0), (0.03, 1)], ids=["at once", "one by one"])
async def test_a_hundred_pods_of_ten_deployments_are_not_restarted_by_us(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path, gap_s: float, most: int
) -> None:
    """They end for the second time, so that the kubelet puts all of them off."""
    cluster = Cluster(own_kubernetes, namespace)
    image = own_kubernetes.make_image("shop:1", Release())
    for name in STORM:
        body = deployment(name, image, replicas=10)
        await asyncio.to_thread(own_kubernetes.call, "POST", cluster.path, body)
    await cluster.ready(10 * len(STORM), within_s=120)
    before = await cluster.kill_all()
    await cluster.ready(10 * len(STORM), besides=before, within_s=120)
    pods = await cluster.uids()
    services: dict[str, dict[str, Any]] = {name: {} for name in STORM}
    async with watching(tmp_path, own_kubernetes, namespace, services) as orchestrator:
        await cluster.kill_all(gap_s)
        await until(orchestrator.not_ready)
        print(orchestrator.not_ready())  # noqa: T201
        await until(lambda: orchestrator.get_system_health().healthy == len(STORM), 60)
        done = await orchestrator.get_healing_history(limit=500)
        ours = [one for one in done if one.actor == "prunella"]
        print(shown(ours))  # noqa: T201
        gone = pods - await cluster.uids()
    assert len(ours) <= most
    assert len(gone) == len(ours)


async def test_what_a_disruption_budget_forbids_is_not_done(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    image = own_kubernetes.make_image("shop:1", Release())
    await cluster.create(image, replicas=1, readinessProbe=None)
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "shop"}}}
    await cluster.call(
        "POST",
        f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets",
        {"metadata": {"name": "keep-one"}, "spec": budget},
    )
    pods = await cluster.uids()
    settings = {"probes": [{**HTTP, "timeout": "300ms"}]}
    async with watched(tmp_path, own_kubernetes, namespace, **settings) as orchestrator:
        await cluster.tell(delay_s=3600)
        refused = await ended(orchestrator, "restart")
        print(shown(await orchestrator.get_healing_history(limit=20)))  # noqa: T201
    assert refused.outcome == "error"
    assert "keep-one" in refused.detail
    assert await cluster.uids() == pods


async def test_an_autoscaler_is_found_as_it_was_before(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    await cluster.create(own_kubernetes.make_image("shop:1", Release()))
    path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}
    body = {
        "metadata": {"name": "shop", "annotations": {"team": "web"}},
        "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 5},
    }
    made = await cluster.call("POST", path, body)

    limit = {"pattern": r"(\d+)", "above": 7}
    settings = {
        "probes": [{**HTTP, "number": limit}],
        "scale": {"min": 2, "max": 4, "ttl": "2s"},
    }
    async with watched(tmp_path, own_kubernetes, namespace, **settings) as orchestrator:
        await cluster.tell(version="9")
        await cluster.ready(3)
        assert (await cluster.call("GET", f"{path}/shop"))["spec"]["minReplicas"] == 3
        await cluster.tell(version="1")
        more = await ended(orchestrator, "scale-up")
        less = await ended(orchestrator, "scale-down")
        print(shown(await orchestrator.get_healing_history(limit=20)))  # noqa: T201
    assert (more.outcome, more.replicas) == ("recovered", 3)
    assert (less.outcome, less.replicas) == ("recovered", 2)
    found = await cluster.call("GET", f"{path}/shop")
    assert found["spec"] == made["spec"]
    for one in (found, made):
        del one["metadata"]["resourceVersion"], one["metadata"]["managedFields"]
    assert found["metadata"] == made["metadata"]


async def test_what_hangs_is_replaced_one_pod_after_the_other(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    image = own_kubernetes.make_image("shop:1", Release())
    await cluster.create(image, readinessProbe=None)
    before = await cluster.uids()
    settings = {"probes": [{**HTTP, "timeout": "300ms"}]}
    async with watched(tmp_path, own_kubernetes, namespace, **settings) as orchestrator:
        await cluster.tell(delay_s=3600)
        began = time.monotonic()
        seen = [before]
        healed = asyncio.ensure_future(ended(orchestrator, "restart"))
        while not healed.done():
            if (now := await cluster.uids()) != seen[-1]:
                seen.append(now)
            await asyncio.sleep(0.05)
        print(f"both replaced and proven after {time.monotonic() - began:.2f} s")  # noqa: T201
        done = await orchestrator.get_healing_history(limit=20)
        print(shown(done))  # noqa: T201
        assert healed.result().outcome == "recovered"
    print([len(before & one) for one in seen])  # noqa: T201
    assert [one.symptom for one in done] == ["hung"]
    assert any(len(before & one) == 1 for one in seen)  # the canary has gone alone
    assert not before & await cluster.uids()


async def test_a_container_that_has_run_out_of_memory_says_so(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    files = {**Release().files(), "bin/serve": _SERVE, "www/cgi-bin/eat": _EAT}
    image = own_kubernetes.load_image("shop:hungry", pack(files), ["/bin/serve"], ["PATH=/bin"])
    limits = {"limits": {"memory": "24Mi"}}
    await cluster.create(image, replicas=1, resources=limits)
    async with watched(tmp_path, own_kubernetes, namespace) as orchestrator:
        for _ in range(2):  # the kubelet restarts it at once, and puts it off the second time
            pod = await cluster.ready(1)
            await cluster.ask(pod, "/cgi-bin/eat")
            await cluster.ready(1, besides={run_of(pod)})
        healed = await ended(orchestrator, "restart", outcome="recovered")
        print(shown(await orchestrator.get_healing_history(limit=20)))  # noqa: T201
    assert "OOMKilled" in healed.reason
    assert healed.symptom == "down"


async def test_what_is_slow_under_load_is_scaled_and_scaled_back(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    files = {**Release().files(), "www/cgi-bin/work": _WORK, "www/cgi-bin/load": _LOAD}
    image = own_kubernetes.load_image("shop:busy", pack(files), ["/bin/serve"], ["PATH=/bin"])
    await cluster.create(image, replicas=1)
    limit = {"pattern": r"inflight (\d+)", "above": 7}
    settings = {
        "probes": [{**HTTP, "url": f"{HTTP['url']}cgi-bin/load", "number": limit}],
        "scale": {"min": 1, "max": 2, "ttl": "2s"},
    }
    clients = Clients(cluster, "/cgi-bin/work", 10)
    async with watched(tmp_path, own_kubernetes, namespace, **settings) as orchestrator:
        async with clients.asking():
            more = await ended(orchestrator, "scale-up")
            alone, shared = median(clients.took_s[10:40]), median(clients.took_s[-30:])
            print(f"an answer took {alone:.2f} s, then {shared:.2f} s")  # noqa: T201
        less = await ended(orchestrator, "scale-down")
        print(shown(await orchestrator.get_healing_history(limit=20)))  # noqa: T201
    assert (more.outcome, more.replicas) == ("recovered", 2)
    assert (less.outcome, less.replicas) == ("recovered", 1)
    await cluster.ready(1)
