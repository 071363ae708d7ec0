"""The fake platform's knobs: what simulations rely on."""

import pytest

from prunella.core.model import Action, ActionKind, Epoch, Fact, InstanceState, ServiceId
from prunella.errors import TransientError
from prunella.testing.clock import SimClock
from prunella.testing.platform import FakePlatform, World

WEB = ServiceId("web")
RESTART = Action(ActionKind.RESTART, WEB)


async def up(world: World | None = None, clock: SimClock | None = None) -> FakePlatform:
    platform = FakePlatform(WEB, clock or SimClock(), world=world, replicas=2)
    await platform.ensure()
    return platform


async def test_effects_are_logged_with_their_time_and_epoch_over_all_platforms() -> None:
    world, clock = World(), SimClock()
    one, two = await up(world, clock), await up(world, clock)
    await one.execute(RESTART, epoch=Epoch(4))
    clock.advance(7)
    await two.execute(RESTART, epoch=Epoch(5))
    assert [(float(e.at), int(e.epoch)) for e in world.log] == [(0.0, 4), (7.0, 5)]
    assert all(executed.effective for executed in world.log)


async def test_a_crash_is_told_at_its_virtual_time_once() -> None:
    facts, clock = list[Fact](), SimClock()
    platform = FakePlatform(WEB, clock, on_fact=facts.append)
    await platform.ensure()
    clock.advance(3)
    platform.crash()
    platform.crash()
    assert [(float(fact.at), fact.detail) for fact in facts] == [(3.0, "killed by SIGKILL")]


async def test_a_silent_platform_tells_of_a_crash_by_being_observed_only() -> None:
    facts = list[Fact]()
    platform = FakePlatform(WEB, SimClock(), on_fact=facts.append, silent=True)
    await platform.ensure()
    platform.crash()
    assert facts == []
    assert (await platform.observe()).instances[0].state is InstanceState.EXITED


async def test_a_deaf_platform_says_done_and_does_nothing() -> None:
    platform = await up()
    before = await platform.observe()
    platform.go_deaf()
    await platform.execute(RESTART, epoch=Epoch(1))
    assert await platform.observe() == before
    assert [executed.effective for executed in platform.world.log] == [False]


async def test_a_broken_execute_raises_logs_and_changes_nothing_until_it_is_mended() -> None:
    platform = await up()
    before = await platform.observe()
    platform.break_execute("no route")
    with pytest.raises(TransientError, match="no route"):
        await platform.execute(RESTART, epoch=Epoch(1))
    assert await platform.observe() == before
    platform.mend()
    await platform.execute(RESTART, epoch=Epoch(1))
    assert await platform.observe() != before


async def test_a_broken_observe_raises_until_it_is_mended() -> None:
    platform = await up()
    platform.break_observe("timeout")
    with pytest.raises(TransientError, match="timeout"):
        await platform.observe()
    platform.mend()
    assert (await platform.observe()).desired == 2


async def test_no_method_ever_waits() -> None:
    platform = await up()
    for call in (platform.observe(), platform.execute(RESTART, epoch=Epoch(1)), platform.stop()):
        with pytest.raises(StopIteration):
            call.send(None)
