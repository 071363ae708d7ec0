"""How trouble of pods looks in the fake and in a real cluster alike."""

from __future__ import annotations

import pytest
from tests.kube.test_fake_workloads import evict, images, start
from tests.kube.worlds import World, eventually

from prunella.kube.client import BudgetError
from prunella.kube.kinds import DEPLOYMENT, DISRUPTION_BUDGET, POD, STATEFUL_SET, Json


def container(pod: Json) -> Json:
    return dict((pod["status"].get("containerStatuses") or [{}])[0])


def conditions(item: Json) -> dict[str, tuple[str, str]]:
    told = item.get("status", {}).get("conditions", ())
    return {one["type"]: (one["status"], one.get("reason", "")) for one in told}


async def new_pod(world: World, image: str) -> Json | None:
    return next((pod for pod in await world.pods() if images([pod]) == {image}), None)


async def test_a_release_that_crashes(world: World) -> None:
    """It is restarted again and again; the good pods stay, and the Deployment says it is late."""
    await start(world)
    good = {pod["metadata"]["uid"] for pod in await world.pods()}
    hurry = {"spec": {"progressDeadlineSeconds": 2}}
    await world.cluster.patch(DEPLOYMENT, "shop", world.namespace, hurry)
    await world.release(world.crashing)

    async def waits() -> Json | None:
        pod = await new_pod(world, world.crashing)
        waiting = container(pod).get("state", {}).get("waiting", {}) if pod else {}
        return pod if waiting.get("reason") == "CrashLoopBackOff" else None

    pod = await eventually(waits)
    assert pod is not None
    assert pod["status"]["phase"] == "Running"
    assert container(pod)["restartCount"] >= 1
    assert container(pod)["lastState"]["terminated"]["exitCode"] == 1
    assert container(pod)["lastState"]["terminated"]["reason"] == "Error"
    assert conditions(pod)["Ready"][0] == "False"
    if world.fake is not None:
        world.fake.deadline("shop")

    async def late() -> bool:
        told = conditions(await world.get(DEPLOYMENT, "shop"))
        return told["Progressing"] == ("False", "ProgressDeadlineExceeded")

    await eventually(late)
    told = await world.get(DEPLOYMENT, "shop")
    assert conditions(told)["Available"] == ("True", "MinimumReplicasAvailable")
    assert {one["metadata"]["uid"] for one in await world.pods()} > good
    await world.release(world.images[0])
    done = await world.ready(2)
    assert conditions(done)["Progressing"] == ("True", "NewReplicaSetAvailable")
    assert {one["metadata"]["uid"] for one in await world.pods()} == good


async def test_what_does_not_serve_may_be_evicted_where_enough_do(world: World) -> None:
    await start(world)
    good = (await world.pods())[0]["metadata"]["name"]
    await world.release(world.crashing)

    async def broken() -> Json | None:
        pod = await new_pod(world, world.crashing)
        return pod if pod and container(pod).get("restartCount", 0) >= 1 else None

    pod = await eventually(broken)
    assert pod is not None
    selector = {"matchLabels": {"app": "shop"}}
    body: Json = {"metadata": {"name": "shop"}, "spec": {"minAvailable": 3, "selector": selector}}
    await world.cluster.create(DISRUPTION_BUDGET, body, world.namespace)
    for needed in (3, 2):
        change = {"spec": {"minAvailable": needed}}
        await world.cluster.patch(DISRUPTION_BUDGET, "shop", world.namespace, change)

        async def told(needed: int = needed) -> bool:
            status = (await world.get(DISRUPTION_BUDGET, "shop")).get("status", {})
            found = (status.get("desiredHealthy"), status.get("currentHealthy"))
            return found == (needed, 2) and status["disruptionsAllowed"] == 0

        await eventually(told)
        with pytest.raises(BudgetError):
            await evict(world, good)
        if needed == 3:
            with pytest.raises(BudgetError):
                await evict(world, pod["metadata"]["name"])
        else:
            await evict(world, pod["metadata"]["name"], pod["metadata"]["uid"])


async def test_an_image_that_is_nowhere(world: World) -> None:
    await start(world, replicas=1)
    pull = {"name": "web", "image": "bad.invalid/bad:1", "imagePullPolicy": "IfNotPresent"}
    spec = {"template": {"spec": {"containers": [pull]}}}
    await world.cluster.patch(DEPLOYMENT, "shop", world.namespace, {"spec": spec})

    async def waits() -> Json | None:
        pod = await new_pod(world, pull["image"])
        waiting = container(pod).get("state", {}).get("waiting", {}) if pod else {}
        return pod if waiting.get("reason") == "ImagePullBackOff" else None

    pod = await eventually(waits)
    assert pod is not None
    assert pod["status"]["phase"] == "Pending"
    assert container(pod)["restartCount"] == 0


async def test_a_container_that_was_killed(world: World, request: pytest.FixtureRequest) -> None:
    done = await start(world, replicas=1)
    (pod,) = await world.pods()
    if world.fake is None:
        request.getfixturevalue("own_kubernetes").kill_container(pod)
    else:
        world.fake.crash(pod["metadata"]["name"])

    async def again() -> Json | None:
        same = await world.get(POD, pod["metadata"]["name"])
        return same if container(same)["restartCount"] == 1 and container(same)["ready"] else None

    same = await eventually(again)
    assert same is not None
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert container(same)["lastState"]["terminated"]["reason"] == "Error"
    after = await world.ready(1)
    assert after["metadata"]["generation"] == done["metadata"]["generation"]
    assert conditions(after)["Progressing"] == ("True", "NewReplicaSetAvailable")


async def test_a_stateful_set_waits_for_its_broken_pod(world: World) -> None:
    """The way back alone does not mend it: the pod has to be deleted too."""
    await start(world, STATEFUL_SET)
    await world.release(world.crashing, STATEFUL_SET)

    async def broken() -> Json | None:
        pod = await new_pod(world, world.crashing)
        return pod if pod and container(pod).get("restartCount", 0) >= 1 else None

    pod = await eventually(broken)
    assert pod is not None
    assert pod["metadata"]["name"] == "shop-1"
    await world.release(world.images[0], STATEFUL_SET)

    async def seen() -> bool:
        one = await world.get(STATEFUL_SET, "shop")
        return bool(one["status"]["observedGeneration"] == one["metadata"]["generation"])

    await eventually(seen)
    same = await world.get(POD, "shop-1")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert "deletionTimestamp" not in same["metadata"]
    await world.cluster.delete(POD, "shop-1", world.namespace, uid=pod["metadata"]["uid"])
    await world.ready(2, STATEFUL_SET)
    assert images(await world.pods()) == {world.images[0]}
