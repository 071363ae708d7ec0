"""Services of a real swarm of one node: what its tasks tell, and updates beside other people's."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.platforms.docker_bed import EPOCH, SERVICE, met
from tests.platforms.engine_proxy import EngineProxy, Fault, proxied, status
from tests.real.engine import Engine
from tests.real.images import Release, make_image

from prunella.core.model import Action, ActionKind, Fact, FactKind, InstanceState, Status
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.platforms.swarm import PLUGIN, SwarmPlatform, SwarmSpec
from prunella.plugins import PlatformContext
from prunella.runtime.clock import SystemClock
from prunella.testing.site import free_port

UPDATE = "POST /services/[^/]+/update"
RESTART_SOON = ("--restart-delay", "100ms")


class SwarmBed:
    """One swarm behind a proxy."""

    def __init__(self, engine: Engine, proxy: EngineProxy, folder: Path) -> None:
        self.engine = engine
        self.proxy = proxy
        self.facts: list[Fact] = []
        self.platforms: list[SwarmPlatform] = []
        self._folder = folder

    async def docker(self, *argv: str) -> str:
        return await asyncio.to_thread(self.engine.docker, *argv)

    async def create(self, *options: str, replicas: int = 1) -> None:
        scale = () if "--mode" in options else ("--replicas", str(replicas))
        fixed = ("--detach", "--name", "shop", "--stop-grace-period", "1s", *scale)
        await self.docker("service", "create", *fixed, *options, "shop:1")

    async def update(self, *options: str) -> None:
        await self.docker("service", "update", "--detach", *options, "shop")

    def build(self, **fields: Any) -> SwarmPlatform:
        body = {"service": "shop", "host": self.proxy.host} | fields
        context = PlatformContext(SERVICE, SystemClock(), self._folder, self.facts.append)
        self.platforms.append(SwarmPlatform(SwarmSpec.model_validate(body), context))
        return self.platforms[-1]

    async def running(self, platform: SwarmPlatform, count: int = 1, image: str = "") -> Status:
        """What is there once so many instances of that image run."""
        async with asyncio.timeout(40):
            while True:
                try:
                    found = await platform.observe()
                except PrunellaError:
                    found = Status((), 0)
                good = [
                    one
                    for one in found.instances
                    if one.state is InstanceState.RUNNING and image in one.revision
                ]
                if len(good) == len(found.instances) == count:
                    return found
                await asyncio.sleep(0.05)


@pytest.fixture
async def bed(swarm: Engine, tmp_path: Path) -> AsyncIterator[SwarmBed]:
    make_image(swarm, "shop:1")
    make_image(swarm, "shop:2", Release(version="2"))
    async with proxied(swarm.socket, tmp_path / "proxy.sock") as proxy:
        bed = SwarmBed(swarm, proxy, tmp_path)
        yield bed
        for platform in bed.platforms:
            await platform.close()


def restart(now: Status) -> Action:
    return Action(ActionKind.RESTART, SERVICE, identity=now.identity)


def rollback(now: Status, revision: str) -> Action:
    return Action(ActionKind.ROLLBACK, SERVICE, revision=revision, before=now.revision or "")


async def test_an_end_is_a_fact_at_once_and_the_replacement_is_counted(bed: SwarmBed) -> None:
    await bed.create(*RESTART_SOON)
    platform = bed.build()
    (before,) = (await bed.running(platform)).instances
    bed.facts.clear()
    os.kill(before.pids[0], signal.SIGKILL)
    await met(lambda: FactKind.EXITED in [fact.kind for fact in bed.facts])
    assert "137" in bed.facts[-1].detail
    (after,) = (await bed.running(platform)).instances
    assert (after.id, after.restart_count) == (before.id, before.restart_count + 1)
    assert after.identity != before.identity
    assert [fact.kind for fact in bed.facts][:2] == [FactKind.EXITED, FactKind.STARTED]


async def test_a_restart_replaces_one_task_after_the_other(bed: SwarmBed) -> None:
    await bed.create("--update-parallelism", "0", replicas=2)
    platform = bed.build()
    before = await bed.running(platform, 2)
    fewest = 2

    async def watch() -> None:
        nonlocal fewest
        while True:
            listed = await bed.docker("ps", "--quiet")
            fewest = min(fewest, len(listed.split()))

    watching = asyncio.create_task(watch())
    await platform.execute(restart(before), epoch=EPOCH)
    watching.cancel()
    after = await bed.running(platform, 2)
    assert fewest == 1
    assert not {i.identity for i in before.instances} & {i.identity for i in after.instances}
    assert FactKind.EXITED not in [fact.kind for fact in bed.facts]
    await platform.execute(restart(before), epoch=EPOCH)
    assert await bed.running(platform, 2) == after


@pytest.mark.parametrize(
    "fault",
    [
        Fault(UPDATE, status(500)),
        Fault(UPDATE, status(500, "rpc error: update out of sequence"), takes_effect=False),
        Fault(UPDATE, b""),
    ],
    ids=["500 after the effect", "out of sequence", "hang after the effect"],
)
async def test_an_update_is_made_once_whatever_is_answered(bed: SwarmBed, fault: Fault) -> None:
    await bed.create()
    platform = bed.build(timeout=1)
    before = await bed.running(platform)
    fault.times = 1
    bed.proxy.faults.append(fault)
    await platform.execute(restart(before), epoch=EPOCH)
    assert (await bed.running(platform)).identity != before.identity
    assert len(bed.proxy.asked) == 1


async def test_an_update_that_did_not_take_place_is_an_error(bed: SwarmBed) -> None:
    await bed.create()
    platform = bed.build(timeout=1)
    before = await bed.running(platform)
    bed.proxy.faults.append(Fault(UPDATE, status(500, "no leader"), takes_effect=False))
    with pytest.raises(TransientError, match="no leader"):
        await platform.execute(restart(before), epoch=EPOCH)
    assert await bed.running(platform) == before


async def test_somebody_who_changes_it_in_the_same_second_wins(bed: SwarmBed) -> None:
    await bed.create()
    platform = bed.build()
    before = await bed.running(platform)

    async def deploy() -> None:
        await bed.update("--env-add", "COLOUR=red", "--image", "shop:2")

    bed.proxy.faults.append(Fault(UPDATE, first=deploy))
    with pytest.raises(ConflictError, match="somebody else"):
        await platform.execute(restart(before), epoch=EPOCH)
    after = await bed.running(platform, image="shop:2")
    assert after.revision == "shop:2"


async def test_a_rollback_goes_to_the_previous_spec_and_keeps_the_number(bed: SwarmBed) -> None:
    await bed.create("--env", "MODE=old", replicas=2)
    platform = bed.build()
    await bed.running(platform, 2)
    await bed.update("--image", "shop:2", "--env-add", "MODE=new")
    now = await bed.running(platform, 2, "shop:2")
    await platform.execute(rollback(now, "shop:1"), epoch=EPOCH)
    after = await bed.running(platform, 2, "shop:1")
    assert (after.revision, after.desired) == ("shop:1", 2)
    form = "{{json .Spec.TaskTemplate.ContainerSpec.Env}}"
    assert await bed.docker("service", "inspect", "--format", form, "shop") == '["MODE=old"]'


async def test_a_rollback_past_the_previous_spec_changes_the_image_alone(bed: SwarmBed) -> None:
    await bed.create()
    platform = bed.build()
    await bed.running(platform)
    await bed.update("--image", "shop:2", "--update-failure-action", "rollback")
    await bed.running(platform, 1, "shop:2")
    await bed.update("--env-add", "MODE=new")
    now = await bed.running(platform, 1, "shop:2")
    await platform.execute(rollback(now, "shop:1"), epoch=EPOCH)
    assert (await bed.running(platform, 1, "shop:1")).revision == "shop:1"
    form = "{{json .Spec.TaskTemplate.ContainerSpec.Env}} {{.Spec.UpdateConfig.FailureAction}}"
    found = await bed.docker("service", "inspect", "--format", form, "shop")
    assert found == '["MODE=new"] pause'


async def test_what_swarm_has_rolled_back_itself_is_not_rolled_back_again(bed: SwarmBed) -> None:
    await bed.create()
    platform = bed.build()
    await bed.running(platform)
    await bed.update("--image", "shop:2")
    await bed.running(platform, 1, "shop:2")
    await bed.update("--rollback")
    now = await bed.running(platform, 1, "shop:1")
    with pytest.raises(PermanentError, match="an undo is not undone"):
        await platform.execute(rollback(now, "shop:2"), epoch=EPOCH)
    assert (await platform.observe()).revision == "shop:1"


async def test_a_global_service_can_be_restarted_and_not_scaled(bed: SwarmBed) -> None:
    await bed.create("--mode", "global")
    platform = bed.build()
    before = await bed.running(platform)
    assert set(platform.capabilities) == {ActionKind.RESTART, ActionKind.ROLLBACK}
    await platform.execute(restart(before), epoch=EPOCH)
    after = await bed.running(platform)
    assert (after.desired, after.instances[0].id) == (1, before.instances[0].id)
    assert any("cannot be scaled" in remark.message for remark in await platform.examine())


async def test_scaled_to_nothing_it_has_no_instances_and_wants_none(bed: SwarmBed) -> None:
    await bed.create()
    platform = bed.build()
    await bed.running(platform)
    await bed.docker("service", "scale", "--detach", "shop=0")
    assert (await bed.running(platform, 0)).desired == 0
    assert FactKind.EXITED not in [fact.kind for fact in bed.facts]


async def test_what_cannot_work_is_a_fault_and_what_is_odd_a_remark(bed: SwarmBed) -> None:
    await bed.create()
    (fault,) = await bed.build(service="absent").examine()
    assert fault.fault
    assert "no service absent" in fault.message
    remarks = await bed.build().examine()
    assert not any(remark.fault for remark in remarks)
    assert any("replaces a task" in remark.message for remark in remarks)
    assert any("without its digest" in remark.message for remark in remarks)


async def test_an_engine_that_manages_no_swarm_is_a_fault(docker: Engine, tmp_path: Path) -> None:
    spec = SwarmSpec.model_validate({"service": "shop", "host": f"unix://{docker.socket}"})
    context = PlatformContext(SERVICE, SystemClock(), tmp_path, lambda _: None)
    (fault,) = await SwarmPlatform(spec, context).examine()
    assert fault.fault
    assert "no manager of a swarm" in fault.message


async def test_its_manager_killed_and_started_again_is_followed_anew(bed: SwarmBed) -> None:
    await bed.create(*RESTART_SOON)
    platform = bed.build()
    before = await bed.running(platform)
    await asyncio.to_thread(bed.engine.kill)
    await asyncio.to_thread(bed.engine.start)
    after = await bed.running(platform)
    async with asyncio.timeout(30):  # the end of its task is heard of a little later
        while after.instances[0].identity == before.instances[0].identity:
            await asyncio.sleep(0.05)
            after = await bed.running(platform)
    assert after.identity == before.identity


async def test_services_can_be_surveyed(bed: SwarmBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", bed.proxy.host)
    port = free_port()
    await bed.create("--publish", f"mode=host,published={port},target=80", replicas=1)
    assert PLUGIN.reach is not None
    assert await PLUGIN.reach(SystemClock()) == ""
    assert PLUGIN.survey is not None
    (draft,) = await PLUGIN.survey(SystemClock())
    assert (draft.id, draft.section, draft.scale) == (
        "shop",
        {"service": "shop"},
        {"min": 1, "max": 3},
    )
    assert draft.probes == ({"kind": "http", "url": f"http://127.0.0.1:{port}/"},)
