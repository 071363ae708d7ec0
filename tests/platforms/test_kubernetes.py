"""Workloads of a cluster, a fake one and where there is one a real one, with a person beside us."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.platforms.kube_bed import (
    SHOP,
    Bed,
    fake_bed,
    ids,
    real_bed,
    restart_of,
    rollback,
    scaled,
    until,
)

from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    FactKind,
    InstanceState,
    Scope,
    Status,
    Verdict,
)
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.platforms.kubernetes import PLUGIN
from prunella.testing.clock import SimClock
from prunella.testing.kube import FakeCluster

E1 = Epoch(1)
pytestmark = pytest.mark.timeout(200)


@pytest.fixture(params=["fake", "real"])
async def bed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        is_fake = request.param == "fake"
        yield await (fake_bed(tmp_path, stack) if is_fake else real_bed(request, stack))


async def test_a_pod_in_its_back_off_is_replaced_and_the_new_one_takes_its_name(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply()
    platform = bed.platform(tmp_path)
    status = await until(platform, lambda now: len(now.instances) == 2)
    first = status.instances[0]
    (pod,) = [one for one in await bed.pods() if one["metadata"]["uid"] in first.identity]
    await bed.crash(await bed.crash_once(pod))
    bad = await until(platform, lambda now: now.instances[0].state is InstanceState.EXITED)
    assert bad.instances[0].id == first.id
    assert bad.instances[0].restart_count == 1
    await platform.execute(restart_of(bad.instances[0]), epoch=E1)
    after = await platform.observe()
    assert ids(after) == ids(status)
    assert after.instances[0].state is InstanceState.RUNNING
    assert pod["metadata"]["uid"] not in after.instances[0].identity
    assert after.instances[1].identity == status.instances[1].identity


async def test_what_the_kubelet_restarts_at_once_is_its_own_affair(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    await platform.observe()
    await bed.crash_once((await bed.pods())[0])
    status = await until(platform, lambda now: now.instances[0].restart_count == 1)
    assert status.instances[0].state is InstanceState.RUNNING
    assert FactKind.EXITED not in [fact.kind for fact in bed.facts]


@pytest.mark.parametrize("image", ["bad:1", "crash:1"])
async def test_a_version_that_cannot_start_is_blamed_and_rolled_back_while_the_good_pods_stay(
    bed: Bed, tmp_path: Path, image: str
) -> None:
    await bed.apply()
    platform = bed.platform(tmp_path)
    good = await until(platform, lambda now: len(now.instances) == 2)
    await bed.deploy(image)
    status = await until(
        platform, lambda now: any(one.state is InstanceState.EXITED for one in now.instances)
    )
    (bad,) = [one for one in status.instances if one.state is InstanceState.EXITED]
    assert bad.blames_version
    assert bad.revision == status.revision != good.revision
    await platform.execute(rollback(good.revision, status.revision), epoch=E1)
    after = await platform.observe()
    assert [one.identity for one in after.instances] == [one.identity for one in good.instances]
    assert after.revision == good.revision


async def test_a_rollback_says_why_where_kubectl_shows_it(bed: Bed, tmp_path: Path) -> None:
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    old = (await platform.observe()).revision
    await bed.deploy("shop:2")
    await bed.current(1, "shop:2")
    new = (await until(platform, lambda now: now.revision != old)).revision
    assert old is not None
    assert old.startswith("shop:1#")
    await platform.execute(rollback(old, new), epoch=E1)
    path = f"/apis/apps/v1/namespaces/{bed.namespace}/deployments/shop"
    cause = (await bed.call("GET", path))["metadata"]["annotations"]["kubernetes.io/change-cause"]
    assert cause == f"prunella: rolled back from {new} to {old}"


async def test_what_somebody_had_restarted_is_no_other_version(bed: Bed, tmp_path: Path) -> None:
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path, restart="rollout")
    before = await platform.observe()
    assert platform.capabilities[ActionKind.RESTART] is Scope.SERVICE
    action = Action(ActionKind.RESTART, SHOP, identity=before.identity)
    await platform.execute(action, epoch=E1)
    after = await platform.observe()
    assert after.revision == before.revision
    assert after.identity != before.identity
    assert after.instances[0].identity != before.instances[0].identity
    await platform.execute(action, epoch=E1)
    assert (await platform.observe()).identity == after.identity


async def test_a_stateful_set_is_rolled_back_though_it_waits_for_a_pod_that_never_comes_up(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply("StatefulSet", replicas=2)
    platform = bed.platform(tmp_path, kind="StatefulSet")
    good = await until(platform, lambda now: len(now.instances) == 2)
    assert ids(good) == ["shop-0", "shop-1"]
    await bed.deploy("bad:1", "StatefulSet")
    status = await until(
        platform, lambda now: any(one.state is InstanceState.EXITED for one in now.instances)
    )
    await platform.execute(rollback(good.revision, status.revision), epoch=E1)
    after = await platform.observe()
    assert ids(after) == ["shop-0", "shop-1"]
    assert after.revision == good.revision
    assert after.instances[0].identity == good.instances[0].identity


async def test_a_budget_that_forbids_an_eviction_is_named_and_nothing_is_done(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply()
    platform = bed.platform(tmp_path)
    before = await until(platform, lambda now: len(now.instances) == 2)
    path = f"/apis/policy/v1/namespaces/{bed.namespace}/poddisruptionbudgets"
    spec = {"minAvailable": 2, "selector": {"matchLabels": {"app": "shop"}}}
    body = {"metadata": {"name": "keep-two"}, "spec": spec}
    await bed.call("POST", path, body)

    async def forbids() -> bool:
        status = (await bed.call("GET", f"{path}/keep-two")).get("status", {})
        return bool(status.get("currentHealthy") == 2)

    async with asyncio.timeout(30):
        while not await forbids():  # noqa: ASYNC110 - a cluster has to be asked
            await asyncio.sleep(0.05)
    with pytest.raises(TransientError, match=r"PodDisruptionBudget forbids it now.*keep-two"):
        await platform.execute(restart_of(before.instances[0]), epoch=E1)
    assert await platform.observe() == before


async def test_where_an_autoscaler_sets_the_number_its_least_is_raised_and_put_back(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply()
    path = f"/apis/autoscaling/v2/namespaces/{bed.namespace}/horizontalpodautoscalers"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 4, "metrics": [metric]}
    await bed.call("POST", path, {"metadata": {"name": "auto"}, "spec": spec})
    platform = bed.platform(tmp_path)
    await until(platform, lambda now: len(now.instances) == 2)
    remarks = [one.message for one in await platform.examine()]
    assert any("HorizontalPodAutoscaler auto sets its number of pods, 1 to 4" in r for r in remarks)
    await platform.execute(scaled(2, 3), epoch=E1)
    assert (await platform.observe()).desired == 3
    await bed.ready(3)
    with pytest.raises(PermanentError, match="auto allows 4 pods at most"):
        await platform.execute(scaled(3, 5), epoch=E1)
    await platform.execute(scaled(3, 2), epoch=E1)
    assert (await platform.observe()).desired == 2
    kept = await bed.call("GET", f"{path}/auto")
    assert kept["spec"]["minReplicas"] == 1
    assert "prunella.dev/min-replicas" not in kept["metadata"].get("annotations", {})


async def test_an_action_that_is_cut_short_and_asked_again_happens_once(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply()
    platform = bed.platform(tmp_path)
    before = await until(platform, lambda now: len(now.instances) == 2)
    action = restart_of(before.instances[0])
    task = asyncio.create_task(platform.execute(action, epoch=E1))
    await bed.until(lambda pods: {one["metadata"]["uid"] for one in pods} != uids(before))
    task.cancel()
    await asyncio.wait([task])
    other = bed.platform(tmp_path)  # Prunella has been restarted
    await other.observe()
    await other.execute(action, epoch=E1)
    await bed.ready(2)
    now = {one["metadata"]["uid"] for one in await bed.pods()}
    assert len(now & uids(before)) == 1


def first_of(status: Status) -> str:
    return status.instances[0].identity


def uids(status: object) -> set[str]:
    return {one.identity.split("@")[0] for one in getattr(status, "instances", ())}


async def test_what_an_unknown_controller_owns_is_left_alone(bed: Bed, tmp_path: Path) -> None:
    await bed.apply(replicas=1)
    owner = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "operator",
        "controller": True,
        "uid": (await _config_map(bed))["metadata"]["uid"],
    }
    await bed.change({"metadata": {"ownerReferences": [owner]}})
    platform = bed.platform(tmp_path)
    status = await platform.observe()
    assert platform.capabilities == {}
    (remark,) = await platform.examine()
    assert remark.fault
    assert "belongs to ConfigMap operator, a controller that Prunella does not" in remark.message
    with pytest.raises(PermanentError, match="cannot restart"):
        await platform.execute(restart_of(status.instances[0]), epoch=E1)


async def _config_map(bed: Bed) -> dict[str, dict[str, str]]:
    path = f"/api/v1/namespaces/{bed.namespace}/configmaps"
    if bed.fake is not None:
        return {"metadata": {"uid": "0-1-2"}}
    made: dict[str, dict[str, str]] = await bed.call(
        "POST", path, {"metadata": {"name": "operator"}}
    )
    return made


@pytest.mark.parametrize(
    ("metadata", "lacks", "says"),
    [
        (
            {"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:x/shop"}},
            {ActionKind.ROLLBACK, ActionKind.SCALE_UP, ActionKind.SCALE_DOWN},
            "Argo CD looks after it",
        ),
        (
            {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}},
            {ActionKind.ROLLBACK, ActionKind.SCALE_UP, ActionKind.SCALE_DOWN},
            "Flux looks after it",
        ),
        (
            {"labels": {"app.kubernetes.io/managed-by": "Helm"}},
            {ActionKind.ROLLBACK},
            "in its own history, with `release: {kind: helm}`",
        ),
    ],
    ids=["argo", "flux", "helm"],
)
async def test_what_is_kept_as_it_is_written_elsewhere_is_not_rolled_back_here(
    tmp_path: Path, metadata: dict[str, object], lacks: set[ActionKind], says: str
) -> None:
    async with AsyncExitStack() as stack:
        bed = await fake_bed(tmp_path, stack)
        await bed.apply(replicas=1)
        await bed.change({"metadata": metadata})
        platform = bed.platform(tmp_path)
        await platform.observe()
        every = {ActionKind.RESTART, ActionKind.ROLLBACK} | {
            ActionKind.SCALE_UP,
            ActionKind.SCALE_DOWN,
        }
        assert platform.capabilities.keys() == every - lacks
        assert any(says in remark.message for remark in await platform.examine())


async def test_a_paused_deployment_is_not_rolled_back(bed: Bed, tmp_path: Path) -> None:
    await bed.apply(replicas=1)
    await bed.change({"spec": {"paused": True}})
    platform = bed.platform(tmp_path)
    await platform.observe()
    assert ActionKind.ROLLBACK not in platform.capabilities
    assert any("it is paused" in remark.message for remark in await platform.examine())


async def test_what_is_gone_with_its_namespace_is_an_error_and_told(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    (instance,) = (await platform.observe()).instances
    path = f"/apis/apps/v1/namespaces/{bed.namespace}/deployments/shop"
    await bed.call("DELETE", path)
    async with asyncio.timeout(30):
        while not any(one.instance == instance.id for one in bed.facts):  # noqa: ASYNC110 - a cluster has to be asked
            await asyncio.sleep(0.05)
    with pytest.raises(PermanentError, match="there is no Deployment shop in namespace"):
        await platform.observe()
    (remark,) = await platform.examine()
    assert remark.fault


async def test_one_on_every_node_is_called_after_its_node(bed: Bed, tmp_path: Path) -> None:
    await bed.apply("DaemonSet", replicas=1)
    platform = bed.platform(tmp_path, kind="DaemonSet")
    status = await until(platform, lambda now: len(now.instances) == 1)
    assert ids(status) == ["node1"]
    assert status.desired == 1
    assert ActionKind.SCALE_UP not in platform.capabilities
    await platform.execute(restart_of(status.instances[0]), epoch=E1)
    after = await until(platform, lambda now: len(now.instances) == 1)
    assert after.instances[0].identity != status.instances[0].identity


async def test_a_pod_that_was_ready_and_is_not_any_more_is_condemned(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.apply()
    platform = bed.platform(tmp_path)
    status = await until(platform, lambda now: len(now.instances) == 2)
    assert [one.verdict for one in status.instances] == [Verdict.PASS] * 2
    (pod,) = [one for one in await bed.pods() if one["metadata"]["uid"] in first_of(status)]
    await bed.spoil(pod)
    status = await until(platform, lambda now: now.instances[0].verdict is not Verdict.PASS)
    assert [one.verdict for one in status.instances] == [Verdict.FAIL, Verdict.PASS]
    assert not status.instances[0].blames_version


async def test_a_number_that_is_set_in_between_is_a_conflict(bed: Bed, tmp_path: Path) -> None:
    await bed.apply(replicas=1)
    platform = bed.platform(tmp_path)
    await platform.observe()
    await bed.change({"spec": {"replicas": 3}})
    with pytest.raises(ConflictError, match="there are to be 3 by now, not 1"):
        await platform.execute(scaled(1, 2), epoch=E1)


async def test_a_look_around_has_no_other_time_than_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeCluster() as fake:
        monkeypatch.setenv("KUBECONFIG", str(fake.kubeconfig(tmp_path)))
        assert PLUGIN.reach is not None
        assert PLUGIN.survey is not None
        clock = SimClock()
        assert await PLUGIN.reach(clock) == ""
        fake.throttle(1)  # to be waited out, which takes no time with this clock
        assert await PLUGIN.survey(clock) == ()
        assert clock.now() >= 1.0
