"""What becomes of workloads in the fake and in a real cluster alike."""

from __future__ import annotations

import pytest
from tests.kube.worlds import World, eventually
from tests.real.kubernetes import deployment

from prunella.errors import ConflictError
from prunella.kube.client import BudgetError
from prunella.kube.kinds import (
    CONTROLLER_REVISION,
    DAEMON_SET,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HPA,
    POD,
    REPLICA_SET,
    STATEFUL_SET,
    Json,
    Kind,
)

REVISION = "deployment.kubernetes.io/revision"
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction"}


async def start(world: World, kind: Kind = DEPLOYMENT, *, replicas: int = 2) -> Json:
    """A workload named ``shop`` of the first image, until it is ready."""
    body = deployment("shop", world.images[0], replicas=replicas)
    if kind is not DEPLOYMENT:
        spec: Json = body["spec"]
        spec |= {"serviceName": "shop"} if kind is STATEFUL_SET else {}
        if kind is DAEMON_SET:
            del spec["replicas"]
    await world.cluster.create(kind, body, world.namespace)
    return await world.ready(1 if kind is DAEMON_SET else replicas, kind)


async def evict(world: World, name: str, uid: str = "") -> None:
    body: Json = {**EVICTION, "metadata": {"name": name, "namespace": world.namespace}}
    if uid:
        body["deleteOptions"] = {"preconditions": {"uid": uid}}
    path = POD.path(world.namespace, name, "eviction")
    await world.cluster.ask("POST", path, body=body)


def images(pods: list[Json]) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in pods}


def revisions(sets: list[Json]) -> dict[str, int]:
    """By their images, as they are told."""
    return {
        one["spec"]["template"]["spec"]["containers"][0]["image"]: int(
            one["metadata"]["annotations"][REVISION]
        )
        for one in sets
    }


async def test_a_rollout_and_the_way_back(world: World) -> None:
    one, two = world.images
    first = await start(world)
    assert first["metadata"]["annotations"][REVISION] == "1"
    await world.release(two)
    second = await world.ready(2)
    assert second["metadata"]["annotations"][REVISION] == "2"
    assert images(await world.pods()) == {two}
    assert revisions(await world.all(REPLICA_SET)) == {one: 1, two: 2}
    await world.release(one)
    third = await world.ready(2)
    assert third["metadata"]["annotations"][REVISION] == "3"
    sets = await world.all(REPLICA_SET)
    assert revisions(sets) == {one: 3, two: 2}  # the old one again, not a new one
    assert sorted(each["spec"]["replicas"] for each in sets) == [0, 2]
    for pod in await world.pods():
        owner = next(each for each in sets if each["spec"]["replicas"])["metadata"]
        assert pod["metadata"]["ownerReferences"][0]["uid"] == owner["uid"]
        label = owner["labels"]["pod-template-hash"]
        assert pod["metadata"]["labels"] == {"app": "shop", "pod-template-hash": label}


@pytest.mark.parametrize("kind", [STATEFUL_SET, DAEMON_SET], ids=lambda kind: kind.name)
async def test_revisions_and_the_way_back(world: World, kind: Kind) -> None:
    one, two = world.images
    count = 2 if kind is STATEFUL_SET else 1
    await start(world, kind)
    for image in (two, one):
        await world.release(image, kind)
        await world.ready(count, kind)
        assert images(await world.pods()) == {image}
    kept = await world.all(CONTROLLER_REVISION)
    by_number = {each["revision"]: each for each in kept}
    assert sorted(by_number) == [2, 3]  # the first has become the newest again
    newest = by_number[3]
    assert newest["data"]["spec"]["template"]["spec"]["containers"][0]["image"] == one
    assert newest["metadata"]["ownerReferences"][0]["kind"] == kind.name
    labels = {pod["metadata"]["labels"]["controller-revision-hash"] for pod in await world.pods()}
    if kind is STATEFUL_SET:
        status = (await world.get(kind, "shop"))["status"]
        assert status["updateRevision"] == newest["metadata"]["name"]
        assert labels == {newest["metadata"]["name"]}
        names = {pod["metadata"]["name"] for pod in await world.pods()}
        assert names == {"shop-0", "shop-1"}
    else:
        assert labels == {newest["metadata"]["labels"]["controller-revision-hash"]}


async def test_replicas_are_as_many_as_wanted(world: World) -> None:
    await start(world)
    old = {pod["metadata"]["name"] for pod in await world.pods()}
    for replicas in (3, 1):
        change = {"spec": {"replicas": replicas}}
        await world.cluster.patch(DEPLOYMENT, "shop", world.namespace, change, sub="scale")
        await world.ready(replicas)
    assert {pod["metadata"]["name"] for pod in await world.pods()} < old  # the newest went first


async def test_a_note_in_the_template_makes_new_pods(world: World) -> None:
    await start(world)
    old = {pod["metadata"]["uid"] for pod in await world.pods()}
    note = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
    change = {"spec": {"template": {"metadata": {"annotations": note}}}}
    await world.cluster.patch(DEPLOYMENT, "shop", world.namespace, change)
    await world.ready(2)
    new = {pod["metadata"]["uid"] for pod in await world.pods()}
    assert len(new) == 2
    assert not old & new


async def test_an_evicted_pod_is_replaced(world: World) -> None:
    await start(world)
    victim, other = await world.pods()
    name, uid = victim["metadata"]["name"], victim["metadata"]["uid"]
    with pytest.raises(ConflictError):
        await evict(world, name, "other")
    assert len(await world.pods()) == 2
    await evict(world, name, uid)

    async def replaced() -> bool:
        uids = {pod["metadata"]["uid"] for pod in await world.pods()}
        return len(uids) == 2 and uid not in uids and other["metadata"]["uid"] in uids

    await eventually(replaced)
    await world.ready(2)


async def test_a_budget_forbids_and_allows(world: World) -> None:
    await start(world)
    selector = {"matchLabels": {"app": "shop"}}
    body = {"metadata": {"name": "shop"}, "spec": {"minAvailable": 2, "selector": selector}}
    await world.cluster.create(DISRUPTION_BUDGET, body, world.namespace)

    async def told(allowed: int) -> bool:
        budget = await world.get(DISRUPTION_BUDGET, "shop")
        status = budget.get("status", {})
        seen = bool(status) and status.get("observedGeneration") == budget["metadata"]["generation"]
        found = (status.get("disruptionsAllowed"), status.get("currentHealthy"))
        return seen and found == (allowed, 2)

    await eventually(lambda: told(0))
    victim, other = [pod["metadata"]["name"] for pod in await world.pods()]
    with pytest.raises(BudgetError, match="The disruption budget shop needs 2 healthy pods and ha"):
        await evict(world, victim)
    assert len(await world.pods()) == 2
    change = {"spec": {"minAvailable": 1}}
    await world.cluster.patch(DISRUPTION_BUDGET, "shop", world.namespace, change)
    await eventually(lambda: told(1))
    if world.fake is not None:
        world.fake.node.start_s = 30.0  # as a real one, it takes its time for a new pod
    await evict(world, victim)
    with pytest.raises(BudgetError):  # one at a time
        await evict(world, other)


async def test_an_autoscaler_raises_to_its_least(world: World) -> None:
    await start(world, replicas=1)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3}
    hpa = await world.cluster.create(
        HPA, {"metadata": {"name": "shop"}, "spec": spec}, world.namespace
    )
    assert "generation" not in hpa["metadata"]
    change = {"spec": {"minReplicas": 2}}
    await world.cluster.patch(HPA, "shop", world.namespace, change)
    await world.ready(2)


async def test_what_belongs_to_it_goes_with_it(world: World) -> None:
    await start(world)
    await world.cluster.delete(DEPLOYMENT, "shop", world.namespace)

    async def gone() -> bool:
        return not await world.all(REPLICA_SET) and not await world.all(POD)

    await eventually(gone)


async def test_a_pod_as_it_is_seen(world: World) -> None:
    await start(world, replicas=1)
    (pod,) = await world.pods()
    assert pod["spec"]["nodeName"]
    status = pod["status"]
    assert status["phase"] == "Running"
    assert status["podIP"]
    conditions = {one["type"]: one["status"] for one in status["conditions"]}
    assert conditions["Ready"] == conditions["ContainersReady"] == "True"
    (container,) = status["containerStatuses"]
    assert (container["ready"], container["restartCount"]) == (True, 0)
    assert "running" in container["state"]
