"""The refusals of the fake and of a real API server, in our words."""

from __future__ import annotations

import pytest
from tests.kube.worlds import World, eventually, items
from tests.real.kubernetes import deployment

from prunella.errors import ConflictError
from prunella.kube.client import JSON_PATCH, InvalidError, MissingError
from prunella.kube.kinds import DEPLOYMENT, ROLLOUT, Json, Kind

CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")


async def shop(world: World, *, replicas: int = 0) -> Json:
    body = deployment("shop", world.images[0], replicas=replicas)
    return await world.cluster.create(DEPLOYMENT, body, world.namespace)


async def test_what_is_there_is_not_made_again(world: World) -> None:
    await shop(world)
    with pytest.raises(ConflictError, match=r'deployments\.apps "shop" already exists'):
        await shop(world)


async def test_what_has_changed_meanwhile_is_not_overwritten(world: World) -> None:
    body = {"metadata": {"name": "one"}, "data": {"a": "1"}}
    old = await world.cluster.create(CONFIG_MAP, body, world.namespace)
    await world.cluster.patch(CONFIG_MAP, "one", world.namespace, {"data": {"b": "2"}})
    with pytest.raises(ConflictError, match="the object has been modified"):
        await world.cluster.replace(CONFIG_MAP, "one", world.namespace, old)
    version = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}}
    with pytest.raises(ConflictError, match="the object has been modified"):
        await world.cluster.patch(
            CONFIG_MAP, "one", world.namespace, {**version, "data": {"a": "3"}}
        )
    newest = await world.get(CONFIG_MAP, "one")
    assert newest["data"] == {"a": "1", "b": "2"}
    done = await world.cluster.replace(
        CONFIG_MAP, "one", world.namespace, {**newest, "data": {"c": "4"}}
    )
    assert done["data"] == {"c": "4"}


async def test_a_test_that_does_not_hold_changes_nothing(world: World) -> None:
    await shop(world)
    path, value = "/spec/template/spec/containers/0/image", world.images[1]
    change = {"op": "replace", "path": path, "value": value}
    for wrong in (
        {"op": "test", "path": "/metadata/generation", "value": 99},
        {"op": "test", "path": path, "value": "other"},
        {"op": "test", "path": "/metadata/labels/nothing", "value": "x"},
        {"op": "remove", "path": "/metadata/labels/nothing"},
    ):
        with pytest.raises(InvalidError, match="the server rejected our request"):
            await world.cluster.patch(
                DEPLOYMENT, "shop", world.namespace, [wrong, change], content=JSON_PATCH
            )
    right = {"op": "test", "path": "/metadata/generation", "value": 1}
    done = await world.cluster.patch(
        DEPLOYMENT, "shop", world.namespace, [right, change], content=JSON_PATCH
    )
    assert done["spec"]["template"]["spec"]["containers"][0]["image"] == value
    assert done["metadata"]["generation"] == 2


async def test_what_is_not_there(world: World) -> None:
    with pytest.raises(MissingError, match=r'deployments\.apps "shop" not found'):
        await world.get(DEPLOYMENT, "shop")
    with pytest.raises(MissingError):
        await world.get(ROLLOUT, "shop")  # nobody has told the server of that kind
    with pytest.raises(MissingError, match='namespaces "nowhere" not found'):
        await world.cluster.create(CONFIG_MAP, {"metadata": {"name": "one"}}, "nowhere")
    await world.cluster.delete(DEPLOYMENT, "shop", world.namespace)  # gone already: all is well


async def test_only_the_one_that_is_meant_is_deleted(world: World) -> None:
    old = await shop(world)
    with pytest.raises(ConflictError, match="the UID in the precondition"):
        await world.cluster.delete(DEPLOYMENT, "shop", world.namespace, uid="other")
    await world.cluster.delete(DEPLOYMENT, "shop", world.namespace, uid=old["metadata"]["uid"])

    async def gone() -> bool:
        return not await items(world.cluster, DEPLOYMENT, world.namespace)

    await eventually(gone)
