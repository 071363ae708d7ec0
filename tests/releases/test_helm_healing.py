"""A bad upgrade by Helm, and how the whole of Prunella has Helm take it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.kube.worlds import World, made
from tests.releases.helm import PROGRAMS, Shop

from prunella import SelfHealingOrchestrator
from prunella.config import from_mapping
from prunella.wire import HealingAction

PATIENCE_S = 60.0


class Scene(NamedTuple):
    """Two pods of a chart, and the cluster that they run in."""

    shop: Shop
    world: World
    folder: Path

    async def deploy(self, image: str, *options: str) -> None:
        await asyncio.to_thread(self.shop.deploy, image, *options)

    async def told(self) -> list[str]:
        return await asyncio.to_thread(self.shop.told)

    async def uids(self) -> set[str]:
        return {pod["metadata"]["uid"] for pod in await self.world.pods()}

    @asynccontextmanager
    async def watched(self, **service: Any) -> AsyncIterator[SelfHealingOrchestrator]:
        """At a fast pace, once all is well and the version is proven."""
        where = {"kubeconfig": str(self.shop.kubeconfig), "namespace": self.world.namespace}
        settings = {
            "platform": "kubernetes",
            "kubernetes": {**where, "name": "shop"},
            "release": {
                "kind": "helm",
                "soak": "1s",
                **where,
                "name": "shop",
                "program": str(self.shop.charts.program),
            },
            "grace": "3s",
            "verify": {"soak": "500ms", "rollback_soak": "500ms", "deadline": "30s"},
        }
        config = from_mapping(
            {
                "store": f"sqlite:///{self.folder}/prunella.db",
                "state_dir": str(self.folder / "state"),
                "api": "off",
                "defaults": {"interval": "100ms"},
                "services": {"shop": {**settings, **service}},
            }
        )
        async with SelfHealingOrchestrator(config) as orchestrator:
            await until(lambda: proven(orchestrator))
            yield orchestrator


async def proven(orchestrator: SelfHealingOrchestrator) -> bool:
    versions = orchestrator._ward("shop").engine.record.versions
    return bool(versions) and versions[0].soaked_at is not None


async def ended(orchestrator: SelfHealingOrchestrator) -> HealingAction | None:
    done = await orchestrator.get_healing_history(limit=20)
    ours = (one for one in reversed(done) if one.outcome not in (None, "foreign"))
    return next(ours, None)


async def until(what: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while not (found := await what()):  # noqa: ASYNC110 - other processes have no event
            await asyncio.sleep(0.02)
    return found


@pytest.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with made(request.param, request, tmp_path) as world:
        yield world


@pytest.fixture(params=PROGRAMS)
async def scene(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Scene:
    package = PROGRAMS[request.param]
    shop = Shop(tmp_path, world.kubeconfig, namespace=world.namespace, package=package)
    scene = Scene(shop, world, tmp_path)
    await scene.deploy(world.images[0])
    await world.ready(2)
    return scene


async def test_an_upgrade_that_cannot_start_is_taken_back_by_helm_while_the_good_pods_stay(
    scene: Scene,
) -> None:
    good = await scene.uids()
    async with scene.watched() as orchestrator:
        version = orchestrator._ward("shop").engine.record.versions[0].revision
        await scene.deploy(scene.world.crashing)
        healed = await until(lambda: ended(orchestrator))
        assert (healed.action, healed.outcome) == ("rollback", "recovered")
        assert healed.revision == version == await asyncio.to_thread(scene.shop.version)
        await scene.world.ready(2)
        history = await orchestrator.get_healing_history(limit=20)
        assert [one.action for one in history if one.outcome != "foreign"] == ["rollback"]
    assert await scene.uids() == good
    assert [one.split(":")[0] for one in await scene.told()] == [
        "1 superseded",
        "2 superseded",
        "3 deployed",
    ]
    assert (await scene.told())[-1] == "3 deployed: Rollback to 1"
    await scene.deploy(scene.world.images[1])
    await scene.world.ready(2)


@pytest.mark.parametrize("option", ["--wait", "--atomic"])  # the latter rolls back by itself
async def test_an_upgrade_that_is_waited_for_is_taken_back_once_helm_has_given_up(
    scene: Scene, option: str
) -> None:
    good = await scene.uids()
    async with scene.watched() as orchestrator:
        with pytest.raises(RuntimeError, match="UPGRADE FAILED"):
            await scene.deploy(scene.world.crashing, option, "--timeout=6s")
        healed = await until(lambda: ended(orchestrator))
        assert (healed.action, healed.outcome) == ("rollback", "recovered")
        history = await orchestrator.get_healing_history(limit=20)
        assert [one.action for one in history if one.outcome != "foreign"] == ["rollback"]
    assert await scene.uids() == good
    *_, undone, newest = await scene.told()
    assert (undone.split(":")[0], newest) == ("2 failed", "3 deployed: Rollback to 1") or (
        option == "--atomic"
        and scene.world.fake is not None
        and newest == "4 deployed: Rollback to 1"  # Helm 4 waits for more than the fake tells
    )
