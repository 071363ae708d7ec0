"""The fake cluster keeps revisions and replicas as the real controllers do.

By what they write, whether or not pods run: on the real one no node takes these.
"""

from __future__ import annotations

import pytest
from tests.conformance.kube import (
    DAEMON_SETS,
    DEPLOYMENTS,
    MERGE,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
    STEPS,
    Api,
    Json,
    generation,
    workload,
)

REVISION = "deployment.kubernetes.io/revision"
RESTARTED = "kubectl.kubernetes.io/restartedAt"
HASH = "pod-template-hash"
REVISIONS = "apps/v1/controllerrevisions"
IMAGE = "/spec/template/spec/containers/0/image"


async def release(api: Api, image: str, what: str = DEPLOYMENTS) -> Json:
    steps = [{"op": "replace", "path": IMAGE, "value": image}]
    return await api.good("PATCH", api.path(what, "shop"), steps, STEPS)


def image_of(item: Json) -> str:
    return str(item["spec"]["template"]["spec"]["containers"][0]["image"])


def note(item: Json, name: str) -> str:
    return str((item["metadata"].get("annotations") or {}).get(name, ""))


async def sets(api: Api) -> dict[str, str]:
    """The image of each revision of the Deployment."""
    return {note(one, REVISION): image_of(one) for one in await api.items(REPLICA_SETS)}


async def until_sets(api: Api, wanted: dict[str, str]) -> None:
    async def there() -> bool:
        return await sets(api) == wanted

    await api.until(there)


async def until_seen(api: Api, what: str = DEPLOYMENTS) -> Json:
    async def seen() -> Json:
        one = await api.read(what, "shop")
        known = one.get("status", {}).get("observedGeneration")
        return one if known == generation(one) else {}

    return await api.until(seen)


async def test_a_deployment_has_a_set_that_has_pods(api: Api) -> None:
    made = await api.make(DEPLOYMENTS, workload(replicas=2))
    await until_sets(api, {"1": "shop:1"})
    [one] = await api.items(REPLICA_SETS)
    digest = one["metadata"]["labels"][HASH]
    assert one["metadata"]["name"] == f"shop-{digest}"
    [owner] = one["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Deployment", made["metadata"]["uid"])
    assert owner["controller"] is True
    assert one["spec"]["selector"]["matchLabels"] == {"app": "shop", HASH: digest}
    assert one["spec"]["template"]["metadata"]["labels"][HASH] == digest

    async def pods() -> list[Json]:
        found = await api.items(PODS)
        return found if len(found) == 2 else []

    for found in await api.until(pods):
        assert found["metadata"]["name"].startswith(f"shop-{digest}-")
        assert found["metadata"]["labels"] == {"app": "shop", HASH: digest}
        assert found["metadata"]["ownerReferences"][0]["uid"] == one["metadata"]["uid"]


async def test_what_controllers_note_makes_no_generation(api: Api) -> None:
    await api.make(DEPLOYMENTS, workload())
    await until_sets(api, {"1": "shop:1"})
    one = await until_seen(api)
    assert (generation(one), note(one, REVISION)) == (1, "1")


async def test_a_new_template_is_a_new_revision_and_the_old_one_the_newest_again(
    api: Api,
) -> None:
    await api.make(DEPLOYMENTS, workload())
    await until_sets(api, {"1": "shop:1"})
    [first] = await api.items(REPLICA_SETS)
    await release(api, "shop:2")
    await until_sets(api, {"1": "shop:1", "2": "shop:2"})
    await release(api, "shop:1")
    await until_sets(api, {"3": "shop:1", "2": "shop:2"})
    again = await api.read(REPLICA_SETS, first["metadata"]["name"])
    assert again["metadata"]["uid"] == first["metadata"]["uid"]
    assert note(again, "deployment.kubernetes.io/revision-history") == "1"

    async def noted() -> bool:
        return note(await api.read(DEPLOYMENTS, "shop"), REVISION) == "3"

    await api.until(noted)
    assert generation(await until_seen(api)) == 3


async def test_a_restart_is_a_revision_of_the_same_image(api: Api) -> None:
    await api.make(DEPLOYMENTS, workload())
    await until_sets(api, {"1": "shop:1"})
    notes = {"metadata": {"annotations": {RESTARTED: "2026-01-01T00:00:00Z"}}}
    patch = {"spec": {"template": notes}}
    await api.good("PATCH", api.path(DEPLOYMENTS, "shop"), patch, MERGE)
    await until_sets(api, {"1": "shop:1", "2": "shop:1"})


async def test_a_template_is_put_back_whole(api: Api) -> None:
    """The set's own label stays out of it, or it would be another template."""
    await api.make(DEPLOYMENTS, workload())
    await until_sets(api, {"1": "shop:1"})
    [first] = await api.items(REPLICA_SETS)
    await release(api, "shop:2")
    await until_sets(api, {"1": "shop:1", "2": "shop:2"})
    old = first["spec"]["template"]
    del old["metadata"]["labels"][HASH]
    steps = [
        {"op": "test", "path": "/metadata/generation", "value": 2},
        {"op": "replace", "path": "/spec/template", "value": old},
    ]
    await api.good("PATCH", api.path(DEPLOYMENTS, "shop"), steps, STEPS)
    await until_sets(api, {"3": "shop:1", "2": "shop:2"})


async def test_only_so_many_revisions_are_kept(api: Api) -> None:
    await api.make(DEPLOYMENTS, workload(replicas=0, revisionHistoryLimit=1))
    for number in (1, 2, 3):
        await release(api, f"shop:{number}")

        async def there(image: str = f"shop:{number}") -> bool:
            return image in (await sets(api)).values()

        await api.until(there)
    await until_sets(api, {"2": "shop:2", "3": "shop:3"})


async def test_what_is_paused_has_no_new_revision(api: Api) -> None:
    await api.make(DEPLOYMENTS, workload())
    await until_sets(api, {"1": "shop:1"})
    path = api.path(DEPLOYMENTS, "shop")
    await api.good("PATCH", path, {"spec": {"paused": True}}, MERGE)
    await release(api, "shop:2")
    await until_seen(api)
    assert await sets(api) == {"1": "shop:1"}
    await api.good("PATCH", path, {"spec": {"paused": False}}, MERGE)
    await until_sets(api, {"1": "shop:1", "2": "shop:2"})


async def test_a_scale_is_passed_on_to_the_set(api: Api) -> None:
    await api.make(DEPLOYMENTS, workload())
    await until_sets(api, {"1": "shop:1"})
    path = api.path(DEPLOYMENTS, "shop") + "/scale"
    await api.good("PATCH", path, {"spec": {"replicas": 3}}, MERGE)

    async def passed_on() -> bool:
        [one] = await api.items(REPLICA_SETS)
        return bool(one["spec"]["replicas"] == 3 and len(await api.items(PODS)) == 3)

    await api.until(passed_on)
    assert await sets(api) == {"1": "shop:1"}


async def test_a_pod_that_is_gone_is_replaced(api: Api) -> None:
    await api.make(DEPLOYMENTS, workload())

    async def others(than: str = "") -> list[str]:
        names = [one["metadata"]["name"] for one in await api.items(PODS)]
        return [name for name in names if name != than]

    [name] = await api.until(others)
    await api.good("DELETE", api.path(PODS, name), {"gracePeriodSeconds": 0})

    async def replaced() -> bool:
        return bool(await others(name))

    await api.until(replaced)


async def test_what_belongs_to_a_deployment_goes_with_it(api: Api) -> None:
    await api.make(DEPLOYMENTS, workload())
    await until_sets(api, {"1": "shop:1"})
    await api.good("DELETE", api.path(DEPLOYMENTS, "shop"))

    async def gone() -> bool:
        pods = [one for one in await api.items(PODS) if "deletionTimestamp" not in one["metadata"]]
        return not pods and not await api.items(REPLICA_SETS)

    await api.until(gone)


@pytest.mark.parametrize("what", [STATEFUL_SETS, DAEMON_SETS])
async def test_controller_revisions_are_counted_likewise(api: Api, what: str) -> None:
    body = workload(serviceName="shop") if what == STATEFUL_SETS else workload()
    if what == DAEMON_SETS:
        del body["spec"]["replicas"]
    made = await api.make(what, body)

    async def until_revisions(wanted: dict[int, str]) -> list[Json]:
        async def there() -> list[Json]:
            found = await api.items(REVISIONS)
            kept = {one["revision"]: image_of({"spec": one["data"]["spec"]}) for one in found}
            return found if kept == wanted else []

        return await api.until(there)

    [first] = await until_revisions({1: "shop:1"})
    [owner] = first["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (made["metadata"]["uid"], True)
    assert first["data"]["spec"]["template"]["$patch"] == "replace"
    await release(api, "shop:2", what)
    await until_revisions({1: "shop:1", 2: "shop:2"})
    await release(api, "shop:1", what)
    found = await until_revisions({3: "shop:1", 2: "shop:2"})
    names = {one["revision"]: one["metadata"]["name"] for one in found}
    assert names[3] == first["metadata"]["name"]
    assert image_of(await until_seen(api, what)) == "shop:1"
