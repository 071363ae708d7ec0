"""Prunella ends in the middle of what it does to containers; a later one finds what is there."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
from tests.platforms.docker_bed import (
    EPOCH,
    DockerBed,
    kill,
    met,
    one_of,
    restart_of,
    scaling,
    seen,
)
from tests.platforms.engine_proxy import Fault

from prunella.core.model import Action, ActionKind, InstanceState
from prunella.platforms.docker import DockerPlatform

CHANGES = "(POST|DELETE) "
WHEN = pytest.mark.parametrize("takes_effect", [True, False], ids=["after", "before"])


async def cut_short(
    dock: DockerBed, platform: DockerPlatform, action: Action, step: int, *, takes_effect: bool
) -> DockerPlatform:
    """End a life of Prunella right before or after one change; the platform of the next life."""
    fault = Fault(CHANGES, b"", takes_effect=takes_effect, after=step)
    dock.proxy.faults.append(fault)
    asked = len(dock.proxy.asked)
    doing = asyncio.create_task(platform.execute(action, epoch=EPOCH))
    await met(lambda: fault.times == 0)
    if takes_effect:
        await met(lambda: len(dock.proxy.asked) > asked + step)
        await met(lambda: fault.done)
    doing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await doing
    await platform.close()
    return dock.build()


@WHEN
@pytest.mark.parametrize("dead", [True, False], ids=["start", "restart"])
async def test_a_restart_is_done_once(dock: DockerBed, *, dead: bool, takes_effect: bool) -> None:
    await dock.run("--stop-timeout", "1")
    platform = dock.build()
    before = await one_of(platform)
    if dead:
        kill(before)
        await seen(platform, InstanceState.EXITED)
    later = await cut_short(dock, platform, restart_of(before), 0, takes_effect=takes_effect)
    await later.observe()
    await later.execute(restart_of(before), epoch=EPOCH)
    after = await one_of(later)
    assert (after.state, after.identity == before.identity) == (InstanceState.RUNNING, False)
    assert sum("start" in request for request in dock.proxy.asked) == 1


@WHEN
@pytest.mark.parametrize("step", [0, 1], ids=["create", "start"])
async def test_a_scaling_up_ends_with_as_many_as_were_wanted(
    dock: DockerBed, step: int, *, takes_effect: bool
) -> None:
    await dock.run()
    platform = dock.build()
    await platform.observe()
    action = scaling(ActionKind.SCALE_UP, 1, 2)
    later = await cut_short(dock, platform, action, step, takes_effect=takes_effect)
    found = await later.observe()
    assert InstanceState.STOPPED not in [one.state for one in found.instances]
    await later.execute(replace(action, before=str(found.desired)), epoch=EPOCH)
    for one in (await later.observe()).instances:
        if one.state is InstanceState.EXITED:
            await later.execute(restart_of(one), epoch=EPOCH)
    assert (await seen(later, InstanceState.RUNNING, 2)).desired == 2
    assert await dock.names() == ["shop", "shop-prunella-2"]


@WHEN
@pytest.mark.parametrize("step", [0, 1], ids=["stop", "remove"])
async def test_a_scaling_down_ends_with_as_many_as_were_wanted(
    dock: DockerBed, step: int, *, takes_effect: bool
) -> None:
    await dock.run()
    platform = dock.build()
    await platform.observe()
    await platform.execute(scaling(ActionKind.SCALE_UP, 1, 2), epoch=EPOCH)
    action = scaling(ActionKind.SCALE_DOWN, 2, 1)
    later = await cut_short(dock, platform, action, step, takes_effect=takes_effect)
    found = await later.observe()
    assert InstanceState.EXITED not in [one.state for one in found.instances]
    await later.execute(replace(action, before=str(found.desired)), epoch=EPOCH)
    assert (await seen(later, InstanceState.RUNNING)).desired == 1
    assert await dock.names() == ["shop"]
