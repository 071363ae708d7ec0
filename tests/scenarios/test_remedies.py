"""Rolling back, scaling up and taking it back, as stories on the virtual clock."""

from functools import partial

import pytest

from prunella.core.machine import Phase
from prunella.core.model import ActionKind, Outcome, ServiceId
from prunella.core.policy import Policy
from prunella.core.snapshot import Forced
from prunella.simulate.driver import Simulation
from prunella.simulate.world import Ailment

HOUR_S = 3600.0
SOAKED_S = 700.0  # a version that was there from the start has soaked by then


def done(sim: Simulation) -> list[str]:
    return [effect.kind.value for effect in sim.effects]


async def outcomes(sim: Simulation) -> list[tuple[str, Outcome | None]]:
    page = await sim.store.history(50)
    return [(record.action.value, record.outcome) for record in reversed(page.items)]


async def versioned(**settings: object) -> Simulation:
    sim = Simulation(Policy(rollback_soak_s=60))
    await sim.start(["a"], revision="v1", bad={"v2": Ailment.ERRORING}, **settings)
    return sim


async def test_a_young_version_that_errs_is_rolled_back_to_the_one_that_soaked() -> None:
    sim = await versioned()
    sim.at(SOAKED_S, lambda: sim.deploy("a", "v2"))
    await sim.run(2 * HOUR_S)
    assert done(sim) == ["rollback"]
    assert await outcomes(sim) == [("rollback", Outcome.RECOVERED)]
    assert sim.services["a"].revision == "v1"


async def test_a_rollback_goes_instance_by_instance_within_one_action() -> None:
    sim = await versioned(instance_count=3)
    sim.at(SOAKED_S, lambda: sim.deploy("a", "v2"))
    await sim.run(2 * HOUR_S)
    assert done(sim) == ["rollback"] * 3
    first, second, third = (effect.at for effect in sim.effects)
    assert first < second < third
    assert await outcomes(sim) == [("rollback", Outcome.RECOVERED)]


async def test_a_version_that_is_noticed_after_its_fault_is_blamed_all_the_same() -> None:
    sim = await versioned()
    sim.at(SOAKED_S, lambda: sim.services["a"].deploy("v2"))  # nobody says so
    await sim.run(2 * HOUR_S)
    assert done(sim) == ["rollback"]
    assert await outcomes(sim) == [("rollback", Outcome.RECOVERED)]


async def test_a_version_that_cannot_start_is_rolled_back_before_anything_is_restarted() -> None:
    sim = Simulation(Policy(rollback_soak_s=60))
    await sim.start(["a"], revision="v1", bad={"v2": Ailment.UNSTARTABLE}, instance_count=2)
    sim.at(SOAKED_S, lambda: sim.deploy("a", "v2"))
    await sim.run(2 * HOUR_S)
    assert done(sim) == ["rollback"] * 2
    assert await outcomes(sim) == [("rollback", Outcome.RECOVERED)]


async def test_a_version_that_cannot_start_is_restarted_where_there_is_nothing_to_go_back_to() -> (
    None
):
    sim = Simulation(Policy(rollback_soak_s=60))
    await sim.start(["a"], revision="v1", bad={"v2": Ailment.UNSTARTABLE})
    sim.at(100, lambda: sim.deploy("a", "v2"))
    await sim.run(2 * HOUR_S)
    assert set(done(sim)) == {"restart"}


async def test_a_version_that_is_noticed_late_has_not_soaked_before() -> None:
    sim = await versioned()
    sim.at(SOAKED_S, lambda: sim.services["a"].deploy("v3"))
    sim.at(2 * SOAKED_S, lambda: sim.tell("a"))
    await sim.run(2 * SOAKED_S + 500)
    view = await sim.store.view(ServiceId("a"), sim.clock.stamp())
    assert [(v.revision, v.soaked_at is not None) for v in view.versions] == [
        ("v3", False),
        ("v1", True),
    ]


async def test_a_version_that_has_not_soaked_is_nothing_to_go_back_to() -> None:
    sim = await versioned()
    sim.at(100, lambda: sim.deploy("a", "v2"))
    await sim.run(HOUR_S)
    assert "rollback" not in done(sim)
    first = (await sim.store.history(50)).items[-1]
    assert "no rollback: no other version has run healthy" in first.reason


async def test_a_fault_that_is_older_than_the_deploy_is_not_blamed_on_it() -> None:
    sim = await versioned(curable=False)
    sim.at(SOAKED_S, lambda: sim.services["a"].suffer(Ailment.ERRORING))
    sim.at(SOAKED_S + 100, lambda: sim.deploy("a", "v3"))
    await sim.run(2 * HOUR_S)
    assert done(sim)
    assert "rollback" not in done(sim)


async def test_what_a_rollback_has_brought_is_never_rolled_back_itself() -> None:
    sim = await versioned()
    sim.at(SOAKED_S, lambda: sim.deploy("a", "v2"))
    sim.at(SOAKED_S + 600, lambda: sim.services["a"].suffer(Ailment.ERRORING))
    sim.services["a"].curable = False
    await sim.run(3 * HOUR_S)
    assert done(sim).count("rollback") == 1
    assert sim.services["a"].revision == "v1"


async def test_a_person_must_name_the_guard_to_undo_an_undo() -> None:
    sim = await versioned()
    sim.at(SOAKED_S, lambda: sim.deploy("a", "v2"))
    await sim.run(HOUR_S)
    refused = await sim.force("a", Forced("ops", "trying", ActionKind.ROLLBACK))
    assert not isinstance(refused, int)
    assert [veto.guard for veto in refused] == ["rollback"]


async def test_a_version_that_runs_well_long_enough_has_soaked() -> None:
    sim = await versioned()
    sim.at(SOAKED_S, lambda: sim.deploy("a", "v3"))
    await sim.run(SOAKED_S + 500)
    view = await sim.store.view(ServiceId("a"), sim.clock.stamp())
    assert [(v.revision, v.soaked_at is not None) for v in view.versions] == [
        ("v3", False),
        ("v1", True),
    ]
    await sim.run(SOAKED_S + 700)
    view = await sim.store.view(ServiceId("a"), sim.clock.stamp())
    assert [(v.revision, v.soaked_at is not None) for v in view.versions] == [
        ("v3", True),
        ("v1", True),
    ]


async def scaled(ttl_s: float = 600.0, most: int = 4) -> Simulation:
    sim = Simulation(Policy(scale_min=1, scale_max=most, debt_ttl_s=ttl_s))
    await sim.start(["a"], instance_count=2, demand=1.0)
    return sim


def demand(sim: Simulation, instances: float) -> None:
    sim.services["a"].demand = instances


async def test_a_saturated_service_is_scaled_up_and_when_calm_down_again() -> None:
    sim = await scaled()
    sim.at(100, lambda: demand(sim, 2.5))
    sim.at(1500, lambda: demand(sim, 1.0))
    await sim.run(1400)
    assert done(sim) == ["scale-up"]
    assert sim.services["a"].instance_count == 3
    await sim.run(2 * HOUR_S)
    assert done(sim) == ["scale-up", "scale-down"]
    assert sim.services["a"].instance_count == 2
    assert await sim.store.debts(sim.clock.stamp()) == {}


async def test_what_is_still_needed_stays_beyond_its_time() -> None:
    sim = await scaled()
    sim.at(100, lambda: demand(sim, 2.5))
    await sim.run(5 * HOUR_S)
    assert done(sim) == ["scale-up"]
    assert sim.services["a"].instance_count == 3
    assert list(await sim.store.debts(sim.clock.stamp())) == ["a"]


async def test_what_is_taken_back_too_early_is_put_back_for_longer() -> None:
    sim = await scaled()
    sim.at(100, lambda: demand(sim, 2.5))
    sim.at(700, lambda: demand(sim, 1.5))
    for at_s in range(740, 3000, 10):  # calm whenever there are three of them, and not with two

        def swing() -> None:
            demand(sim, 1.5 if sim.services["a"].instance_count == 3 else 2.5)

        sim.at(at_s, swing)
    await sim.run(1500)
    assert done(sim)[:3] == ["scale-up", "scale-down", "scale-up"]
    (debt,) = (await sim.store.debts(sim.clock.stamp()))[ServiceId("a")]
    assert (debt.before, debt.granted, debt.extended_count) == (2, 3, 1)
    recorded = await outcomes(sim)
    assert recorded[:2] == [("scale-up", Outcome.RECOVERED), ("scale-down", Outcome.RELAPSED)]


async def test_a_debt_outlives_prunella() -> None:
    sim = await scaled()
    sim.at(100, lambda: demand(sim, 2.5))
    await sim.run(400)
    demand(sim, 1.0)
    await sim.restart_prunella()
    await sim.run(HOUR_S)
    assert done(sim) == ["scale-up", "scale-down"]
    assert await sim.store.debts(sim.clock.stamp()) == {}


async def test_there_are_never_more_instances_than_allowed() -> None:
    sim = await scaled(most=4)
    sim.at(100, lambda: demand(sim, 9.0))
    await sim.run(3 * HOUR_S)
    assert sim.services["a"].instance_count <= 4
    assert sim.engines["a"].phase in (Phase.QUARANTINED, Phase.WATCHING)


async def test_restarts_by_the_platform_count_in_the_budget() -> None:
    sim = Simulation(Policy(soak_s=5))
    await sim.start(["a"])
    service = sim.services["a"]
    for number in range(1, 4):
        sim.at(100.0 * number, partial(setattr, service, "restart_count", number))
        sim.at(100.0 * number, partial(sim.tell, "a"))
    sim.at(500, lambda: sim.crash("a"))
    await sim.run(900)
    assert done(sim) == []
    assert await outcomes(sim) == [("restart", Outcome.FOREIGN)] * 3
    assert "budget" in [veto.guard for veto in sim.engines["a"].decision.vetoes]


async def run_until_effects(sim: Simulation, count: int) -> None:
    while len(sim.effects) < count:
        await sim.run(sim.clock.now() + 0.5)


@pytest.mark.parametrize("crash_after", [1, 2, 3])
async def test_a_rollback_that_prunella_dies_in_is_taken_up_where_it_was(crash_after: int) -> None:
    sim = await versioned(instance_count=3)
    sim.at(SOAKED_S, lambda: sim.deploy("a", "v2"))
    await run_until_effects(sim, crash_after)
    await sim.restart_prunella()
    await sim.run(2 * HOUR_S)
    assert done(sim) == ["rollback"] * 3
    assert await outcomes(sim) == [("rollback", Outcome.RECOVERED)]


async def test_a_canary_that_does_not_get_well_spares_the_rest() -> None:
    sim = Simulation(Policy(rollback_soak_s=60))
    bad = {"v2": Ailment.ERRORING}
    await sim.start(["a"], revision="v1", bad=bad, instance_count=3)
    sim.at(SOAKED_S, lambda: sim.deploy("a", "v2"))
    sim.at(SOAKED_S + 1, lambda: bad.update({"v1": Ailment.CRASHED}))
    await sim.run(2 * HOUR_S)
    assert done(sim).count("rollback") == 1


async def test_a_person_who_deploys_in_the_same_moment_wins() -> None:
    sim = await versioned()
    service = sim.services["a"]
    sim.at(SOAKED_S, lambda: sim.deploy("a", "v2"))
    service.before_effect = lambda: service.deploy("v3") if service.revision == "v2" else None
    await sim.run(2 * HOUR_S)
    assert done(sim) == []
    assert service.revision == "v3"
    assert (await outcomes(sim))[0] == ("rollback", Outcome.CANCELLED)
