"""A source of releases that cannot tell: what is known without it goes on being known."""

from collections.abc import AsyncIterator
from typing import ClassVar

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


class SlowRelease(FakeRelease):
    """Asks no more than once, unless there is doubt."""

    restarts: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__("v1")
        self.whole = True
        self._known = ""

    async def observe(self) -> str:
        self._known = self._known or await super().observe()
        return self._known

    def doubt(self) -> None:
        self._known = ""


class Bed:
    """A healthy service in version v1, which is looked at every second."""

    def __init__(self, release: FakeRelease | None = None) -> None:
        self.clock, self.store = SimClock(), MemoryStore()
        self.release = release or FakeRelease("v1")
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
async def slow() -> AsyncIterator[Bed]:
    bed = Bed(SlowRelease())
    await bed.begin()
    yield bed
    await bed.store.close()


async def test_a_source_is_asked_anew_at_the_first_sign_of_something_wrong(slow: Bed) -> None:
    await slow.live(3)
    slow.release.deployed = "v2"
    await slow.live(3)
    assert slow.engine.status is not None
    assert slow.engine.status.revision == "v1"
    began = Instant(slow.clock.now() + 0.5)
    slow.clock.move_to(began)
    slow.engine.observe(ProbeKey(0), Observation(Verdict.FAIL, began, 0.01))
    slow.clock.move_to(Instant(began + 0.5))
    await slow.engine.look()
    assert slow.engine.status.revision == "v2"
    assert slow.engine.record._marks[-1].at.instant == began


async def test_a_source_is_asked_anew_when_its_platform_shows_another_version(slow: Bed) -> None:
    await slow.live(3)
    slow.release.deployed = "v2"
    slow.platform.deploy("p2")
    await slow.live(1)
    assert slow.engine.status is not None
    assert slow.engine.status.revision == "v2"


async def test_a_version_soaks_only_when_it_is_all_in_place(slow: Bed) -> None:
    assert isinstance(slow.release, SlowRelease)
    slow.release.whole = False
    await slow.live(150)
    assert await slow.soaked() == [False]
    slow.release.whole = True
    await slow.live(102)
    assert await slow.soaked() == [True]


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
