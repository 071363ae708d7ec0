"""An action that Prunella died in is taken up by what is there, whatever was done of it."""

from collections.abc import AsyncIterator

import pytest

from prunella.core.health import ProbeKey
from prunella.core.ledger import Holder, Intent
from prunella.core.machine import Event, Phase
from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    IncidentId,
    InstanceId,
    Instant,
    Observation,
    Outcome,
    Run,
    ServiceId,
    SymptomKind,
    Verdict,
)
from prunella.core.policy import FleetPolicy, Policy
from prunella.plugins import stores
from prunella.ports import Store
from prunella.runtime.engine import Engine
from prunella.runtime.fleet import Fleet
from prunella.runtime.notices import Bus
from prunella.runtime.record import World
from prunella.testing.clock import SimClock
from prunella.testing.platform import FakePlatform
from prunella.testing.release import FakeRelease

SHOP = ServiceId("shop")
POLICY = Policy(rollback_soak_s=10.0, grace_s=5.0)


class Bed:
    """A service of three replicas in the middle of a rollback from v2 to v1."""

    def __init__(self, store: Store) -> None:
        self.clock = SimClock()
        self.store = store
        self.release = FakeRelease("v2", ["v1"])
        self.platform = FakePlatform(SHOP, self.clock, replicas=3)
        self.epoch = Epoch(0)

    async def begin(self) -> None:
        now = self.clock.stamp()
        self.epoch = await self.store.claim(Holder("h", 1, "1", self.clock.boot, "1"), now)
        await self.platform.ensure()
        status = await self.platform.observe()
        runs = tuple(Run(instance.id, instance.identity) for instance in status.instances)
        action = Action(
            ActionKind.ROLLBACK,
            SHOP,
            instance=runs[0].instance,
            identity=runs[0].identity,
            revision="v1",
            before="v2",
            runs=runs,
        )
        intent = Intent(
            action,
            IncidentId("i"),
            "erroring",
            SymptomKind.ERRORING,
            "prunella",
            now,
            now,
            Event.CONFIRMED,
        )
        assert isinstance(await self.store.begin(intent, lambda _: (), now, epoch=self.epoch), int)

    def engine(self) -> Engine:
        world = World(
            self.clock,
            self.store,
            Fleet(FleetPolicy()),
            Bus(),
            lambda _: (),
            lambda _: None,
            lambda: self.epoch,
        )
        return Engine(SHOP, "Shop", POLICY, [False], self.platform, world, self.release)

    async def live(self, engine: Engine, seconds: float) -> None:
        """Let time pass, with a good answer and a step each second."""
        for _ in range(int(seconds)):
            self.clock.move_to(Instant(self.clock.now() + 1.0))
            engine.observe(ProbeKey(0), Observation(Verdict.PASS, self.clock.now(), 0.01))
            next_at = await engine.advance()
            while next_at is not None and next_at <= self.clock.now():
                next_at = await engine.advance()

    def restarted(self) -> list[str]:
        return [str(done.action.instance) for done in self.platform.world.log if done.effective]


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    store = stores()["memory"].open("memory://", False)  # noqa: FBT003 - not read-only
    bed = Bed(store)
    await bed.begin()
    yield bed
    await store.close()


async def restored(bed: Bed) -> Engine:
    engine = bed.engine()
    (row,) = await bed.store.load()
    await engine.restore(row)
    return engine


async def test_nothing_was_done_of_it_so_it_is_given_up(bed: Bed) -> None:
    engine = await restored(bed)
    assert engine.phase is Phase.COOLING
    (record,) = (await bed.store.history(9)).items
    assert (record.outcome, bed.release.switch_count) == (Outcome.INTERRUPTED, 0)


async def test_deployed_and_not_running_yet_it_goes_on_with_the_first_instance(bed: Bed) -> None:
    bed.release.deployed = "v1"
    engine = await restored(bed)
    assert engine.phase is Phase.ACTING
    await bed.live(engine, 60)
    assert bed.restarted() == ["0", "1", "2"]
    (record,) = (await bed.store.history(9)).items
    assert (record.outcome, bed.release.switch_count) == (Outcome.RECOVERED, 0)


async def test_what_cannot_be_read_is_not_taken_for_not_done(bed: Bed) -> None:
    bed.release.deployed, bed.release.out_of_reach = "v1", True
    engine = await restored(bed)
    assert engine.phase is Phase.ACTING
    bed.release.out_of_reach = False
    await bed.live(engine, 60)
    assert bed.restarted() == ["0", "1", "2"]
    (record,) = (await bed.store.history(9)).items
    assert (record.outcome, bed.release.switch_count) == (Outcome.RECOVERED, 0)


@pytest.mark.parametrize("done", [1, 2, 3])
async def test_what_was_restarted_already_is_not_restarted_again(bed: Bed, done: int) -> None:
    bed.release.deployed = "v1"
    for instance in list("012")[:done]:
        action = Action(ActionKind.RESTART, SHOP, InstanceId(instance))
        await bed.platform.execute(action, epoch=bed.epoch)
    bed.platform.world.log.clear()
    engine = await restored(bed)
    assert engine.phase is Phase.VERIFYING
    await bed.live(engine, 60)
    assert bed.restarted() == list("012")[done:]
    (record,) = (await bed.store.history(9)).items
    assert record.outcome is Outcome.RECOVERED
