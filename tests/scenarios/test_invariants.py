"""Whatever happens to a fleet, in any order: what never happens, checked against the world."""

from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunella.core.machine import Phase
from prunella.core.model import Mode, Outcome
from prunella.core.policy import Policy
from prunella.simulate.driver import Simulation
from prunella.simulate.world import Ailment

HOUR_S = 3600.0


async def chaos(seed: int, *, restarts: bool = True) -> Simulation:
    """An hour of faults at random moments, then quiet until everything must have ended."""
    random = Random(seed)
    policy = Policy(
        soak_s=20, deadline_s=60, mode=random.choice([Mode.AUTO, Mode.AUTO, Mode.OBSERVE])
    )
    sim = Simulation(policy, seed=seed)
    services = [f"s{number}" for number in range(random.randint(1, 12))]
    await sim.start(services)
    for _ in range(random.randint(1, 25)):
        service = sim.services[random.choice(services)]
        service.curable = random.random() < 0.7
        service.acks_only = random.random() < 0.1
        service.broken_platform = random.random() < 0.1
        service.relapse_s = random.choice([None, None, 5.0, 300.0])
        when_s = random.uniform(10, HOUR_S)
        ailment = random.choice([a for a in Ailment if a is not Ailment.NONE])
        if ailment is Ailment.CRASHED:
            sim.at(when_s, partial(sim.crash, service.id))
        else:
            sim.at(when_s, partial(service.suffer, ailment))
        sim.at(when_s + random.uniform(1, 600), service.recover)
    at_s = 0.0
    while restarts and at_s < HOUR_S:
        at_s += random.uniform(60, 1200)
        await sim.run(at_s)
        await sim.restart_prunella()
    for service in sim.services.values():
        sim.at(HOUR_S + 700, service.recover)
    await sim.run(HOUR_S + 1500)
    return sim


@given(st.integers(0, 10**9))
@settings(max_examples=60, deadline=None)
async def test_no_effect_without_an_intent_and_never_beyond_the_budget(seed: int) -> None:
    sim = await chaos(seed)
    records = (await sim.store.history(1000)).items
    acted = [record for record in records if record.outcome is not Outcome.OBSERVED]
    assert len(sim.effects) <= len(acted)
    for service in sim.services.values():
        mine = [effect.at for effect in sim.effects if effect.service == service.id]
        for first, fourth in zip(mine, mine[3:], strict=False):
            assert fourth - first >= sim.policy.budget_window_s


@given(st.integers(0, 10**9))
@settings(max_examples=60, deadline=None)
async def test_every_incident_ends_and_history_is_in_the_order_of_its_sequence(seed: int) -> None:
    sim = await chaos(seed)
    records = (await sim.store.history(1000)).items
    assert all(record.outcome is not None for record in records)
    assert [record.id for record in records] == sorted((r.id for r in records), reverse=True)
    for engine in sim.engines.values():
        assert engine.phase in (Phase.WATCHING, Phase.QUARANTINED, Phase.COOLING)
        assert engine.running is None


@given(st.integers(0, 10**9))
@settings(max_examples=40, deadline=None)
async def test_the_same_seed_gives_the_same_history(seed: int) -> None:
    one, other = await chaos(seed), await chaos(seed)
    assert one.effects == other.effects
    assert (await one.store.history(1000)).items == (await other.store.history(1000)).items


@pytest.mark.parametrize("seed", range(5))
async def test_a_healthy_fleet_with_rare_noise_is_left_alone(seed: int) -> None:
    sim = Simulation(seed=seed)
    await sim.start(["a", "b"], noise_ratio=0.002)
    await sim.run(5 * 86400.0)
    assert sim.effects == []
