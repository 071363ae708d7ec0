"""What the cluster is told of healing: HealingAction objects and Events."""

from __future__ import annotations

from tests.operator.conftest import Bed, Living, until

from prunella.kube.kinds import HEALING_ACTION, POD, Json

TARGET = {"kind": "Deployment", "name": "web"}
# What else stands in the way of a person here; the last one where the machine is busy.
BESIDES = ["min-healthy", "grace", "self-doubt"]


async def heal(one: Living, count: int = 1) -> list[str]:
    """Restart the service so many times; the ids of the actions."""
    service = f"{one.bed.namespace}.web"
    ids: list[str] = []
    for _ in range(count):
        await until(lambda: "web" in one.services())
        await until(lambda: one.healing.get_service_health(service).status == "healthy")
        done = await one.healing.force_heal(
            service, action="restart", actor="ann", override=BESIDES
        )
        assert done.outcome == "recovered"
        ids.append(done.id)
    return ids


async def begin(bed: Bed) -> None:
    await bed.deploy("web")
    await bed.policy("web", target=TARGET)


async def names(bed: Bed) -> list[str]:
    return sorted(one["metadata"]["name"] for one in await bed.all(HEALING_ACTION))


async def test_an_action_is_mirrored_once_also_over_a_restart(fake_bed: Bed) -> None:
    bed = fake_bed
    await begin(bed)
    async with bed.living() as one:
        await bed.told("web", "Healthy", "Well")
        (first,) = await heal(one)

        async def mirrored() -> list[Json]:
            return await bed.all(HEALING_ACTION)

        (action,) = await until(mirrored)
        assert action["metadata"]["name"] == f"default.web-{first}"
        spec, status = action["spec"], action["status"]
        assert (spec["service"], spec["action"], spec["policy"]) == (
            "default.web",
            "restart",
            "web",
        )
        assert (spec["actor"], spec["reason"]) == ("ann", "asked for by ann")
        assert (status["outcome"], status["success"]) == ("recovered", True)
        assert status["recoveryTime"].endswith("s")
    async with bed.living() as one:
        await bed.told("web", "Healthy", "Well")
        (second,) = await heal(one)
        wanted = sorted([f"default.web-{first}", f"default.web-{second}"])

        async def both() -> bool:
            return await names(bed) == wanted

        await until(both)
        posts = [path for method, path in bed.fake.requests if method == "POST"] if bed.fake else []
        assert len([path for path in posts if path.endswith("healingactions")]) == 2


async def test_what_could_not_be_mirrored_is_caught_up_by_the_next_one(fake_bed: Bed) -> None:
    bed, fake = fake_bed, fake_bed.fake
    assert fake is not None
    await begin(bed)
    fake.deny("list", "healingactions")
    async with bed.living() as one:
        await bed.told("web", "Healthy", "Well")
        (first,) = await heal(one)
        fake.allow("list", "healingactions")
        assert await names(bed) == []
    async with bed.living():

        async def caught_up() -> bool:
            return await names(bed) == [f"default.web-{first}"]

        await until(caught_up)


async def test_only_the_newest_are_kept(fake_bed: Bed) -> None:
    bed = fake_bed
    await begin(bed)
    async with bed.living(operator={"history": 2}) as one:
        await bed.told("web", "Healthy", "Well")
        *_, third, fourth = await heal(one, 4)

        async def pruned() -> bool:
            return await names(bed) == sorted(f"default.web-{id_}" for id_ in (third, fourth))

        await until(pruned)


async def test_a_mirror_that_may_not_write_is_counted_and_holds_up_nobody(fake_bed: Bed) -> None:
    bed, fake = fake_bed, fake_bed.fake
    assert fake is not None
    await begin(bed)
    fake.deny("create", "healingactions")
    async with bed.living() as one:
        await bed.told("web", "Healthy", "Well")
        await heal(one, 2)
        await until(lambda: one.healing.figures().get("dropped_mirrored_actions", 0) >= 1)


async def test_events_tell_of_healing_on_the_workload(bed: Bed) -> None:
    await begin(bed)
    async with bed.living() as one:
        if bed.fake is None:
            return await vetoed(bed, one)
        await bed.told("web", "Healthy", "Well")
        await heal(one)

        async def healed() -> list[Json]:
            return await bed.events("Healed")

        (event,) = await until(healed)
        about = event["involvedObject"]
        assert (about["kind"], about["name"], about["namespace"]) == (
            "Deployment",
            "web",
            bed.namespace,
        )
        assert about["uid"]
        assert (event["type"], event["count"]) == ("Normal", 1)
        assert event["message"] == "restart: recovered (asked for by ann)"
        assert len(await bed.events("Healing")) == 1
    return None


async def vetoed(bed: Bed, one: Living) -> None:
    """Without an image nothing ever runs there; that is told as well."""
    await bed.told("web", "Resolved", "Resolved")

    async def told() -> list[Json]:
        return [*await bed.events("HealVetoed"), *await bed.events("Healing")]

    (event, *_) = await until(told)
    assert event["involvedObject"]["uid"]
    assert one.services() == {"web"}


async def test_a_crash_is_healed_and_told(fake_bed: Bed) -> None:
    bed, fake = fake_bed, fake_bed.fake
    assert fake is not None
    fake.node.backoff_s = 60.0
    await begin(bed)
    async with bed.living():
        await bed.told("web", "Healthy", "Well")
        victim = (await bed.all(POD))[0]["metadata"]["name"]
        fake.crash(victim, times=3)

        async def healed() -> list[Json]:
            return [one for one in await bed.all(HEALING_ACTION) if one["status"].get("success")]

        found = await until(healed)
        assert found[0]["spec"]["actor"] == "prunella"
        left = [one["metadata"]["name"] for one in await bed.all(POD)]
        assert victim not in left
        await bed.told("web", "Healthy", "Well")


async def test_a_real_server_prints_them_as_history(real_bed: Bed) -> None:
    bed = real_bed
    action = {
        "metadata": {"name": "shop.web-1"},
        "spec": {
            "id": "1",
            "service": "shop.web",
            "action": "restart",
            "reason": "it was down",
            "startedAt": "2026-01-01T12:00:00.000000Z",
        },
        "status": {"outcome": "recovered", "success": True, "recoveryTime": "1.2s"},
    }
    await bed.cluster.create(HEALING_ACTION, action, bed.namespace)
    (shown,) = await bed.table(HEALING_ACTION)
    assert shown == {
        "Name": "shop.web-1",
        "Started": "2026-01-01T12:00:00.000000Z",
        "Service": "shop.web",
        "Action": "restart",
        "Outcome": "recovered",
        "Recovery": "1.2s",
        "Reason": "it was down",
    }
