"""A source of releases that cannot tell: what is known without it goes on being known."""

from collections.abc import AsyncIterator

import pytest

from prunella.core.health import ProbeKey
from prunella.core.ledger import Holder
from prunella.core.model import (
    Epoch,
    Instant,
    Observation,
    ServiceId,
    Verdict,
)
from prunella.core.policy import FleetPolicy, Policy
from prunella.runtime.engine import Engine
from prunella.runtime.fleet import Fleet
from prunella.runtime.notices import Bus
from prunella.runtime.record import World
from prunella.stores.memory import MemoryStore
from prunella.testing.clock import SimClock
from prunella.testing.platform import FakePlatform
from prunella.testing.release import FakeRelease

SHOP = ServiceId("shop")
POLICY = Policy(release_soak_s=100.0, interval_s=5.0)


class Bed:
    """A healthy service in version v1, which is looked at every second."""

    def __init__(self) -> None:
        self.clock, self.store, self.release = SimClock(), MemoryStore(), FakeRelease("v1")
        self.platform = FakePlatform(SHOP, self.clock)
        self.epoch = Epoch(0)
        world = World(
            self.clock,
            self.store,
            Fleet(FleetPolicy()),
            Bus(),
            lambda _: (),
            lambda _: None,
            lambda: self.epoch,
        )
        self.engine = Engine(SHOP, "Shop", POLICY, [False], self.platform, world, self.release)

    async def begin(self) -> None:
        holder = Holder("h", 1, "1", self.clock.boot, "1")
        self.epoch = await self.store.claim(holder, self.clock.stamp())
        await self.platform.ensure()
        await self.engine.restore(None)

    async def live(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.move_to(Instant(self.clock.now() + 1.0))
            self.engine.observe(ProbeKey(0), Observation(Verdict.PASS, self.clock.now(), 0.01))
            await self.engine.look()
            await self.engine.advance()

    async def soaked(self) -> list[bool]:
        view = await self.store.view(SHOP, self.clock.stamp())
        return [version.soaked_at is not None for version in view.versions]


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    bed = Bed()
    await bed.begin()
    yield bed
    await bed.store.close()


async def test_instances_are_known_without_their_version(bed: Bed) -> None:
    bed.release.out_of_reach = True
    await bed.live(1)
    assert bed.engine.status == (await bed.platform.observe())._replace(revision=None)


async def test_a_version_soaks_only_while_it_is_known_to_run(bed: Bed) -> None:
    await bed.live(50)
    bed.release.out_of_reach = True
    await bed.live(100)
    assert await bed.soaked() == [False]
    bed.release.out_of_reach = False
    await bed.live(2)
    assert await bed.soaked() == [True]
