"""Each guard has a story that ends badly without it; the last test removes them one by one."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from prunella.core.budget import INEFFECTIVE
from prunella.core.guards import guards
from prunella.core.model import Outcome, ServiceId
from prunella.core.policy import FleetPolicy, Policy
from prunella.core.traffic import OPEN_WIDE
from prunella.simulate.driver import Simulation
from prunella.simulate.world import Ailment

Story = Callable[[str], Awaitable[None]]
HOUR_S = 3600.0


async def target(without: str) -> None:
    """A platform that cannot say what runs is not asked to restart it."""
    sim = Simulation(without_guard=without)
    await sim.start(["a"])
    sim.at(100, lambda: setattr(sim.services["a"], "unreadable", True))
    sim.at(100, lambda: sim.services["a"].suffer(Ailment.REFUSING))
    await sim.run(HOUR_S)
    assert sim.effects == []


async def human(without: str) -> None:
    """A service that somebody has stopped stays stopped."""
    sim = Simulation(without_guard=without)
    await sim.start(["a"])
    sim.at(100, lambda: setattr(sim.services["a"], "stopped", True))
    sim.at(100, lambda: sim.services["a"].suffer(Ailment.REFUSING))
    await sim.run(HOUR_S)
    assert sim.effects == []


async def self_doubt(without: str) -> None:
    """Failures seen while most of the fleet cannot be seen at all condemn nobody."""
    sim = Simulation(without_guard=without)
    await sim.start(list("abcdef"))
    for name in "abcd":
        sim.at(100, partial(sim.services[name].suffer, Ailment.UNSEEN))
    sim.at(200, lambda: sim.services["e"].suffer(Ailment.HUNG))
    await sim.run(HOUR_S)
    assert sim.effects == []


async def lease(without: str) -> None:
    """Without a fresh lease on the store nothing is started."""
    sim = Simulation(without_guard=without)
    await sim.start(["a"])
    sim.at(90, lambda: setattr(sim.fleet, "lease", "no beat of our lease for 11 s"))
    sim.at(100, lambda: sim.crash("a"))
    await sim.run(HOUR_S)
    assert sim.effects == []


async def hold(without: str) -> None:
    """A pause is respected until it is lifted."""
    sim = Simulation(without_guard=without)
    await sim.start(["a"])
    await sim.run(50)
    await sim.pause("a")
    sim.at(100, lambda: sim.crash("a"))
    await sim.run(HOUR_S)
    assert sim.effects == []
    await sim.resume("a")
    await sim.run(HOUR_S + 60)
    assert len(sim.effects) == 1


async def grace(without: str) -> None:
    """A slow first start is no fault, even if it answers once on the way."""
    sim = Simulation(Policy(grace_s=120), without_guard=without)
    await sim.start(["a"])
    service = sim.services["a"]
    service.suffer(Ailment.REFUSING)
    sim.at(8, service.recover)
    sim.at(13, lambda: service.suffer(Ailment.REFUSING))
    sim.at(100, service.recover)
    await sim.run(600)
    assert sim.effects == []


async def backoff(without: str) -> None:
    """A service that breaks again right after it was healed waits before the next try."""
    sim = Simulation(Policy(soak_s=5, backoff_base_s=60), without_guard=without)
    await sim.start(["a"])
    sim.at(100, lambda: sim.crash("a"))
    sim.at(115, lambda: sim.crash("a"))
    await sim.run(600)
    first, second = sim.effects
    assert second.at - first.at > 45


async def budget(without: str) -> None:
    """Three actions in half an hour, however often it breaks."""
    policy = Policy(soak_s=5, attempts_limit=99, ineffective_limit=99, flapping_recoveries=99)
    sim = Simulation(policy, without_guard=without)
    await sim.start(["a"])
    for minute in range(1, 28, 3):
        sim.at(minute * 60.0, lambda: sim.crash("a"))
    await sim.run(1800)
    assert len(sim.effects) == 3


async def chain(without: str) -> None:
    """Three remedies that did not help are enough: quarantined, and told so."""
    policy = Policy(deadline_s=60, budget_window_s=60)
    sim = Simulation(policy, without_guard=without)
    await sim.start(["a"], curable=False)
    sim.at(100, lambda: sim.services["a"].suffer(Ailment.REFUSING))
    await sim.run(24 * HOUR_S)
    assert len(sim.effects) == 3
    assert sim.engines["a"].phase.value == "quarantined"


async def min_healthy(without: str) -> None:
    """One of two instances that still serve is not restarted for being slow."""
    sim = Simulation(without_guard=without)
    await sim.start(["a"])
    service = sim.services["a"]
    await sim.run(50)
    service.instance_count = 2
    service.suffer(Ailment.SLOW)
    await sim.run(HOUR_S)
    assert sim.effects == []


async def pace(without: str) -> None:
    """When much is unwell at once, one action in ten seconds for the whole fleet."""
    fleet = FleetPolicy(storm_ratio=1.0)
    sim = Simulation(fleet=fleet, without_guard=without)
    await sim.start([f"s{n}" for n in range(20)])
    for n in range(6):
        sim.at(100, partial(sim.crash, f"s{n}"))
    await sim.run(400)
    assert len(sim.effects) == 6
    gaps = [b.at - a.at for a, b in zip(sim.effects, sim.effects[1:], strict=False)]
    assert all(gap >= fleet.pace_s for gap in gaps[1:3])  # two go before it is much, two after


async def storm(without: str) -> None:
    """Half the fleet failing at once is not cured by restarting half the fleet."""
    sim = Simulation(without_guard=without)
    await sim.start([f"s{n}" for n in range(20)])
    for n in range(10):
        sim.at(100 + n * 0.1, partial(sim.services[f"s{n}"].suffer, Ailment.REFUSING))
        sim.at(200 + n * 0.1, sim.services[f"s{n}"].recover)
    await sim.run(HOUR_S)
    assert len(sim.effects) <= 2  # those that were confirmed before it was a storm


async def rollback(without: str) -> None:
    """A version that cannot be left again is not rolled back, however badly it does."""
    policy = Policy(irreversible=("v2*",), rollback_soak_s=60)
    sim = Simulation(policy, without_guard=without)
    await sim.start(["a"], revision="v1", bad={"v2.1": Ailment.ERRORING})
    sim.at(700, lambda: sim.deploy("a", "v2.1"))
    await sim.run(HOUR_S)
    assert sim.services["a"].revision == "v2.1"


async def scale(without: str) -> None:
    """More instances that did not help are not followed by still more of them."""
    policy = Policy(scale_max=20, budget_actions=9, ineffective_limit=9, attempts_limit=9)
    sim = Simulation(policy, without_guard=without)
    await sim.start(["a"], instance_count=2, demand=1.0)
    sim.at(100, lambda: setattr(sim.services["a"], "demand", 99.0))
    await sim.run(2 * HOUR_S)
    assert sim.services["a"].instance_count == 3


async def circuit(without: str) -> None:
    """A circuit that somebody else has closed stays closed, though the service is still ill."""
    policy = Policy(deadline_s=30, soak_s=10)
    sim = Simulation(policy, without_guard=without, behind_gateway=True)
    await sim.start(["a"], curable=False)
    sim.at(100, lambda: sim.services["a"].suffer(Ailment.REFUSING))
    sim.at(160, lambda: sim.gateway.meddle(ServiceId("a"), OPEN_WIDE))
    await sim.run(HOUR_S / 2)
    assert [turned.valve.share for turned in sim.gateway.log if turned.effective] == [0]


STORIES: dict[str, Story] = {
    "target": target,
    "human": human,
    "self-doubt": self_doubt,
    "lease": lease,
    "hold": hold,
    "grace": grace,
    "backoff": backoff,
    "budget": budget,
    "chain": chain,
    "min-healthy": min_healthy,
    "pace": pace,
    "storm": storm,
    "rollback": rollback,
    "scale": scale,
    "circuit": circuit,
}


def test_every_guard_has_a_story() -> None:
    assert set(STORIES) == {guard.name for guard in guards()}


@pytest.mark.parametrize("name", STORIES)
async def test_the_story_ends_well_with_all_guards(name: str) -> None:
    await STORIES[name]("")


@pytest.mark.parametrize("name", STORIES)
async def test_the_story_ends_badly_without_its_guard(name: str) -> None:
    with pytest.raises(AssertionError):
        await STORIES[name](name)


def test_outcomes_that_count_against_a_chain_are_all_but_the_good_ones() -> None:
    harmless = {Outcome.OBSERVED, Outcome.FOREIGN, Outcome.CANCELLED}
    good = {outcome for outcome in Outcome if outcome.is_success}
    assert set(Outcome) - INEFFECTIVE == harmless | good
