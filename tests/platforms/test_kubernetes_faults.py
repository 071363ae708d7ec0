"""A cluster that misbehaves: old views, lost answers, lost events, refusals, an absent server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from tests.platforms.kube_bed import (
    Bed,
    fake_bed,
    real_bed,
    restart_of,
    rollback,
    scaled,
    until,
)
from tests.real.kubernetes import OwnKubernetes

from prunella.core.model import Epoch, InstanceState, Verdict
from prunella.core.progress import is_borne
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.kube.shared import cluster_at, leave
from prunella.kube.workloads import Scaler
from prunella.platforms._kube_scaler import SCALED_OBJECT, lowered, raised
from prunella.runtime.clock import SystemClock
from prunella.testing.kube import FakeCluster

E1 = Epoch(1)
pytestmark = pytest.mark.timeout(200)


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        yield await fake_bed(tmp_path, stack)


def fake_of(bed: Bed) -> FakeCluster:
    assert bed.fake is not None
    return bed.fake


async def uids(bed: Bed) -> set[str]:
    return {one["metadata"]["uid"] for one in await bed.pods()}


async def test_who_acts_on_an_old_view_does_not_undo_what_a_person_has_done(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply()
    platform = bed.platform(tmp_path)
    await until(platform, lambda now: len(now.instances) == 2)
    fake_of(bed).stale()
    await bed.change({"spec": {"replicas": 3}})
    with pytest.raises((ConflictError, TransientError)):
        await platform.execute(scaled(2, 4), epoch=E1)
    fake_of(bed).fresh()
    assert (await until(platform, lambda now: now.desired != 2)).desired == 3


async def test_a_rollback_on_an_old_view_does_not_undo_a_newer_deploy(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply()
    platform = bed.platform(tmp_path)
    first = (await until(platform, lambda now: len(now.instances) == 2)).revision
    await bed.deploy("shop:2")
    second = (await until(platform, lambda now: now.revision != first)).revision
    await bed.current(2, "shop:2")
    fake_of(bed).stale()
    await bed.deploy("shop:3")
    with pytest.raises(PrunellaError):
        await platform.execute(rollback(first, second), epoch=E1)
    fake_of(bed).fresh()
    await bed.current(2, "shop:3")


async def test_a_run_that_nobody_was_told_of_shows_in_what_is_there(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    (before,) = (await until(platform, lambda now: len(now.instances) == 1)).instances
    fake_of(bed).skip(1)  # that its container has ended
    await bed.crash((await bed.pods())[0])
    status = await until(platform, lambda now: now.instances[0].restart_count == 1)
    assert status.instances[0].identity != before.identity
    await platform.execute(restart_of(before), epoch=E1)  # that run is over already
    assert (await platform.observe()).instances[0].identity == status.instances[0].identity


async def test_an_eviction_whose_answer_is_lost_happens_once(bed: Bed, tmp_path: Path) -> None:
    await bed.apply()
    platform = bed.platform(tmp_path)
    status = await until(platform, lambda now: len(now.instances) == 2)
    before = await uids(bed)
    fake_of(bed).lose(1)
    await platform.execute(restart_of(status.instances[0]), epoch=E1)
    await bed.ready(2)
    assert len(await uids(bed) & before) == 1


async def test_a_pod_that_has_only_been_written_on_meanwhile_is_evicted_all_the_same(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    (one,) = (await until(platform, lambda now: len(now.instances) == 1)).instances
    (pod,) = await bed.pods()
    fake_of(bed).skip(1)
    path = f"/api/v1/namespaces/{bed.namespace}/pods/{pod['metadata']['name']}"
    touched = {"metadata": {"annotations": {"touched": "yes"}}}
    await asyncio.to_thread(bed.cluster.merge, path, touched)
    requests = fake_of(bed).requests
    requests.clear()
    await platform.execute(restart_of(one), epoch=E1)
    assert [method for method, _ in requests] == ["POST", "GET", "POST"]
    assert pod["metadata"]["uid"] not in (await platform.observe()).instances[0].identity


async def test_a_run_that_has_been_replaced_unseen_is_left_alone(bed: Bed, tmp_path: Path) -> None:
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    (one,) = (await until(platform, lambda now: len(now.instances) == 1)).instances
    (pod,) = await bed.pods()
    fake_of(bed).skip(1000)
    await bed.crash_once(pod)
    await platform.execute(restart_of(one), epoch=E1)
    (left,) = await bed.pods()
    assert left["metadata"]["uid"] == pod["metadata"]["uid"]


async def test_requests_that_are_put_off_are_asked_again(bed: Bed, tmp_path: Path) -> None:
    await bed.apply()
    platform = bed.platform(tmp_path)
    status = await until(platform, lambda now: len(now.instances) == 2)
    before = await uids(bed)
    fake_of(bed).throttle(1)
    await platform.execute(restart_of(status.instances[0]), epoch=E1)
    await bed.ready(2)
    assert len(await uids(bed) & before) == 1


async def test_an_action_asks_little_and_calm_asks_nothing(bed: Bed, tmp_path: Path) -> None:
    await bed.apply()
    platform = bed.platform(tmp_path)
    status = await until(platform, lambda now: len(now.instances) == 2)
    await bed.deploy("bad:1")
    bad = await until(platform, lambda now: now.revision != status.revision)
    requests = fake_of(bed).requests
    requests.clear()
    for _ in range(5):
        await platform.observe()
    assert requests == []
    await platform.execute(rollback(status.revision, bad.revision), epoch=E1)
    assert [method for method, _ in requests] == ["GET", "PATCH"]
    requests.clear()
    await platform.execute(restart_of(status.instances[0]), epoch=E1)
    assert [method for method, _ in requests] == ["POST"]


async def test_what_makes_no_sense_is_an_error_and_not_an_old_view(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    before = await until(platform, lambda now: len(now.instances) == 1)
    (pod,) = await bed.pods()
    strange = {**pod, "status": {**pod["status"], "podIP": 7}}
    fake_of(bed).put(strange)
    with pytest.raises(TransientError, match=r"pods is no list.*podIP"):
        await until(platform, lambda _: False)
    del pod["metadata"]["resourceVersion"]
    fake_of(bed).put(pod)

    async def seen() -> bool:
        try:
            return await platform.observe() == before
        except TransientError:
            return False

    async with asyncio.timeout(30):
        while not await seen():  # noqa: ASYNC110 - a cluster has to be asked
            await asyncio.sleep(0.05)


async def test_a_view_that_has_expired_is_taken_anew(bed: Bed, tmp_path: Path) -> None:
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    await until(platform, lambda now: len(now.instances) == 1)
    fake_of(bed).expire()
    await bed.change({"spec": {"replicas": 2}})
    status = await until(platform, lambda now: len(now.instances) == 2)
    assert status.desired == 2


async def test_a_server_that_is_away_is_no_empty_cluster_and_comes_back(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply()
    platform = bed.platform(tmp_path)
    before = await until(platform, lambda now: len(now.instances) == 2)
    await fake_of(bed).stop()
    with pytest.raises(TransientError, match="cannot be reached"):
        await until(platform, lambda _: False)
    await fake_of(bed).start()

    async def seen() -> bool:
        try:
            return await platform.observe() == before
        except TransientError:
            return False

    async with asyncio.timeout(30):
        while not await seen():  # noqa: ASYNC110 - a cluster has to be asked
            await asyncio.sleep(0.05)


async def test_nodes_that_may_not_be_seen_are_done_without(bed: Bed, tmp_path: Path) -> None:
    fake_of(bed).deny("list", "nodes")
    fake_of(bed).deny("watch", "nodes")
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    assert len((await platform.observe()).instances) == 1
    assert any("may not watch nodes" in one.message for one in await platform.examine())


async def test_pods_that_may_not_be_seen_are_an_error_that_says_so(
    bed: Bed, tmp_path: Path
) -> None:
    fake_of(bed).deny("list", "pods")
    platform = bed.platform(tmp_path)
    with pytest.raises(PermanentError, match=r"not allowed: .*pods"):
        await platform.observe()
    (remark,) = await platform.examine()
    assert remark.fault


async def test_an_eviction_that_is_not_allowed_is_refused_and_foretold(
    bed: Bed, tmp_path: Path
) -> None:
    fake_of(bed).deny("create", "pods/eviction")
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    status = await platform.observe()
    (remark,) = await platform.examine()
    assert "restart will fail: we may not create pods/eviction" in remark.message
    with pytest.raises(PermanentError, match="not allowed"):
        await platform.execute(restart_of(status.instances[0]), epoch=E1)
    assert await platform.observe() == status


async def test_where_keda_sets_the_number_its_own_object_is_to_be_changed(
    bed: Bed, tmp_path: Path
) -> None:
    fake = fake_of(bed)
    await bed.apply(replicas=1)
    owner = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "shop", "uid": "1"}
    meta = {"name": "keda-shop", "ownerReferences": [{**owner, "controller": True}]}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 4}
    scaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    fake.put({**scaler, "metadata": meta, "spec": spec})
    fake.deny("patch", "scaledobjects")
    platform = bed.platform(tmp_path)
    await platform.observe()
    said = [one.message for one in await platform.examine()]
    assert any("scale-up will fail: we may not patch scaledobjects" in one for one in said)


async def test_what_ran_out_of_memory_is_said_so(bed: Bed, tmp_path: Path) -> None:
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    await platform.observe()
    (pod,) = await bed.pods()
    fake_of(bed).oom(pod["metadata"]["name"], times=2)
    status = await until(platform, lambda now: now.instances[0].state is InstanceState.EXITED)
    assert "OOMKilled, exit code 137" in status.instances[0].detail
    assert "OOMKilled, exit code 137" in await platform.testimony(status.instances[0].id)


async def test_the_pods_of_a_sick_node_are_condemned_by_its_name(bed: Bed, tmp_path: Path) -> None:
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    status = await platform.observe()
    (pod,) = await bed.pods()
    fake_of(bed).put_node("node2")
    fake_of(bed).put_node("node1", ready=False)
    fake_of(bed).unready(pod["metadata"]["name"])
    status = await until(platform, lambda now: now.instances[0].verdict is Verdict.FAIL)
    assert "its node node1 is not ready" in status.instances[0].detail
    await platform.execute(restart_of(status.instances[0]), epoch=E1)
    (pod,) = await bed.ready(1)
    assert pod["spec"]["nodeName"] == "node2"


async def test_what_never_becomes_ready_is_blamed_on_its_version_once_its_time_is_up(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply()
    platform = bed.platform(tmp_path)
    good = await until(platform, lambda now: len(now.instances) == 2)
    await bed.deploy("unready:1")
    status = await until(platform, lambda now: len(now.instances) == 3)
    assert status.revision != good.revision  # it runs, and what probes say of it counts
    assert status.instances[2].verdict is None
    assert not is_borne(status)
    fake_of(bed).deadline("shop")
    status = await until(platform, lambda now: now.instances[2].verdict is Verdict.FAIL)
    assert status.instances[2].blames_version
    await platform.execute(rollback(good.revision, status.revision), epoch=E1)
    after = await platform.observe()
    assert [one.identity for one in after.instances] == [one.identity for one in good.instances]


@pytest.mark.parametrize("context", ["nowhere"])
async def test_a_context_that_is_not_there_is_an_error_that_names_those_that_are(
    bed: Bed, tmp_path: Path, context: str
) -> None:
    platform = bed.platform(tmp_path, context=context)
    (remark,) = await platform.examine()
    assert remark.fault
    assert "nowhere" in remark.message
    assert "fake" in remark.message


@pytest.mark.parametrize("least", [None, 0, 1])
async def test_the_least_number_of_a_scaled_object_is_put_back_exactly(
    bed: Bed, least: int | None
) -> None:
    fake = fake_of(bed)
    fake.register(SCALED_OBJECT)
    spec = {"maxReplicaCount": 4} | ({} if least is None else {"minReplicaCount": least})
    kind = {"apiVersion": SCALED_OBJECT.api_version, "kind": SCALED_OBJECT.name}
    fake.put({**kind, "metadata": {"name": "shop"}, "spec": spec})
    owner = {"uid": "u1", "kind": SCALED_OBJECT.name, "name": "shop", "controller": True}
    metadata = {"name": "keda-hpa-shop", "namespace": "default", "ownerReferences": [owner]}
    scaler = msgspec.convert({"metadata": metadata, "spec": {"maxReplicas": 4}}, Scaler)
    cluster = cluster_at(fake.access, SystemClock())
    await raised(cluster, scaler, 2, 3)
    found = fake.find(SCALED_OBJECT, "shop", "default")
    assert found is not None
    assert found["spec"]["minReplicaCount"] == 3
    assert await lowered(cluster, scaler, 3, 2) == 2
    found = fake.find(SCALED_OBJECT, "shop", "default")
    assert found is not None
    assert found["spec"] == spec
    assert not found["metadata"].get("annotations")
    await leave(cluster)


async def test_rollouts_in_a_cluster_without_argo_are_an_error(bed: Bed, tmp_path: Path) -> None:
    platform = bed.platform(tmp_path, kind="Rollout")
    with pytest.raises(PermanentError):
        await platform.observe()


async def test_a_real_server_that_is_killed_in_the_midst_of_an_action(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        bed = await real_bed(request, stack)
        own = bed.cluster
        assert isinstance(own, OwnKubernetes)
        await bed.apply()
        platform = bed.platform(tmp_path)
        good = await until(platform, lambda now: len(now.instances) == 2)
        await bed.deploy("shop:2")
        await bed.current(2, "shop:2")
        new = await until(platform, lambda now: now.revision != good.revision)
        action = rollback(good.revision, new.revision)
        task = asyncio.create_task(platform.execute(action, epoch=E1))
        path = f"/apis/apps/v1/namespaces/{bed.namespace}/deployments/shop"
        while (  # noqa: ASYNC110 - a cluster has to be asked
            await bed.call("GET", path)
        )["metadata"]["generation"] < 3 and not task.done():
            await asyncio.sleep(0.01)
        await asyncio.to_thread(own.kill_api)
        await asyncio.to_thread(own.start_api)
        await asyncio.wait([task], timeout=60)
        assert task.done()
        if (error := task.exception()) is not None:
            assert isinstance(error, TransientError)
            await platform.execute(action, epoch=E1)
        await bed.current(2, "shop:1")
        assert (await bed.call("GET", path))["metadata"]["generation"] == 3
