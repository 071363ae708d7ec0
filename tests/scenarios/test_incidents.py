"""Outages that automation has caused elsewhere, each as a story in which ours does not."""

from functools import partial
from itertools import islice

import pytest

from prunella.core.ledger import EntryKind
from prunella.core.machine import Phase
from prunella.core.model import Health, Mode, Outcome, ServiceId
from prunella.core.policy import FleetPolicy, Need, Policy
from prunella.core.snapshot import Forced, Reason
from prunella.errors import StaleEpochError
from prunella.simulate.driver import Simulation
from prunella.simulate.world import Ailment

HOUR_S = 3600.0
DAY_S = 86400.0


def names(count: int) -> list[str]:
    return [f"s{number}" for number in range(count)]


async def outcomes(sim: Simulation) -> list[Outcome | None]:
    return [record.outcome for record in (await sim.store.history(1000)).items]


async def test_a_remedy_that_feeds_the_fault_is_stopped_after_three_tries() -> None:
    sim = Simulation(Policy(deadline_s=60))
    await sim.start(["database"], curable=False)
    sim.at(60, partial(sim.services["database"].suffer, Ailment.SLOW))
    await sim.run(DAY_S)
    assert len(sim.effects) == 3
    assert sim.engines["database"].phase is Phase.QUARANTINED
    assert await outcomes(sim) == [Outcome.INEFFECTIVE] * 3


async def test_a_fault_that_spreads_with_each_heal_does_not_take_the_healer_along() -> None:
    sim = Simulation()
    await sim.start(names(20), curable=False)
    healthy = iter(names(20))
    sim.at(100, partial(sim.services[next(healthy)].suffer, Ailment.REFUSING))
    infected = 0

    def spread() -> None:
        """Two more fall ill for each service that was healed since the last look."""
        nonlocal infected
        for name in islice(healthy, 2 * len(sim.effects) - infected):
            sim.services[name].suffer(Ailment.REFUSING)
            infected += 1

    for second in range(101, 1800):
        sim.at(second, spread)
    await sim.run(1800)
    assert infected > 2
    assert len(sim.effects) <= 7  # of 60 that the budgets of 20 services would allow


async def test_a_partition_of_43_seconds_moves_nothing() -> None:
    sim = Simulation()
    await sim.start(names(12))
    for name in names(12):
        sim.at(100, partial(sim.services[name].suffer, Ailment.UNSEEN))
        sim.at(143, sim.services[name].recover)
    await sim.run(HOUR_S)
    assert sim.effects == []
    assert all(engine.diagnosis.health is Health.HEALTHY for engine in sim.engines.values())


async def test_a_partition_that_looks_like_timeouts_costs_two_restarts_at_most() -> None:
    sim = Simulation()
    await sim.start(names(12))
    for name in names(12):
        sim.at(100, partial(sim.services[name].suffer, Ailment.HUNG))
        sim.at(143, sim.services[name].recover)
    await sim.run(HOUR_S)
    assert len(sim.effects) <= 2


async def test_a_pause_outlives_the_death_of_the_healer() -> None:
    sim = Simulation()
    await sim.start(["zookeeper"])
    await sim.run(10)
    await sim.pause(None, "migration team", "moving the data")
    for hour in range(1, 6):
        await sim.run(hour * HOUR_S)
        sim.crash("zookeeper")
        await sim.restart_prunella()
    await sim.run(DAY_S)
    assert sim.effects == []


async def test_a_shared_dependency_that_fails_every_check_restarts_nobody_but_the_first() -> None:
    sim = Simulation()
    await sim.start(names(50))
    for number, name in enumerate(names(50)):
        sim.at(100 + number * 0.02, partial(sim.services[name].suffer, Ailment.ERRORING))
        sim.services[name].curable = False
        sim.at(1000, sim.services[name].recover)
    await sim.run(220)
    assert len(sim.effects) <= 1 + 0.1 * 50
    await sim.run(2 * HOUR_S)
    assert all(engine.diagnosis.health is Health.HEALTHY for engine in sim.engines.values())


async def test_an_empty_answer_of_the_platform_is_not_an_order_to_heal_everything() -> None:
    sim = Simulation()
    await sim.start(names(4))
    await sim.run(60)
    for service in sim.services.values():
        service.forgotten = True
        service.suffer(Ailment.REFUSING)
    await sim.run(HOUR_S)
    assert sim.effects == []
    assert any("knows no instance" in str(entry.body) for entry in sim.entries)


async def test_a_healer_that_has_lost_the_store_to_another_does_nothing_more() -> None:
    sim = Simulation()
    await sim.start(["web"])
    await sim.run(60)
    late = sim.engines["web"]
    await sim.restart_prunella()
    sim.services["web"].suffer(Ailment.CRASHED)
    late.tell()
    with pytest.raises(StaleEpochError):
        await late.advance()
    assert sim.effects == []
    sim.crash("web")
    await sim.run(HOUR_S)
    assert len(sim.effects) == 1


async def test_after_a_storm_one_is_tried_and_then_twice_as_many() -> None:
    sim = Simulation(Policy(soak_s=30), FleetPolicy(pace_s=0.001))
    await sim.start(names(30))
    await sim.run(60)
    for name in names(30):
        sim.at(100, partial(sim.crash, name))
    await sim.run(HOUR_S)
    before = [effect for effect in sim.effects if effect.at < 101]
    after = [effect.at for effect in sim.effects if effect.at >= 101]
    assert len(before) <= 10
    assert after[0] >= 100 + 120
    assert after[1] - after[0] >= 30
    assert after[3] - after[2] >= 30
    assert all(engine.diagnosis.health is Health.HEALTHY for engine in sim.engines.values())


@pytest.mark.parametrize(("turn_s", "most"), [(0.0, 1), (1.0, 0)])
async def test_services_that_lose_half_of_themselves_one_after_the_other_are_a_storm(
    turn_s: float, most: int
) -> None:
    """What has been acted on, and what its platform is about to restart, counts as well."""
    sim = Simulation()
    await sim.start(names(10), instance_count=2, turn_s=turn_s)
    await sim.run(60)

    def lose_one(name: str) -> None:
        sim.services[name].suffer(Ailment.CRASHED)
        sim.services[name].heal_all_but(0)
        sim.tell(name)

    for number, name in enumerate(names(10)):
        sim.at(100 + 0.2 * number, partial(lose_one, name))
        sim.at(100 + 0.2 * number + turn_s, partial(sim.tell, name))
    await sim.run(160)
    assert len(sim.effects) <= most
    assert len([entry for entry in sim.entries if entry.kind is EntryKind.STORM]) == 1
    await sim.run(HOUR_S)
    assert all(engine.diagnosis.health is Health.HEALTHY for engine in sim.engines.values())


async def test_a_second_try_at_the_cause_does_not_wait_for_its_victims() -> None:
    sim = Simulation(Policy(deadline_s=60, soak_s=10))
    for name in names(9):
        sim.set_policy(name, Policy(needs=(Need(ServiceId("db")),)))
    await sim.start([*names(9), "db"])
    db = sim.services["db"]
    db.curable = False
    for name in names(9):
        sim.services[name].victim = lambda: db.ailment is not Ailment.NONE
    sim.at(100, partial(db.suffer, Ailment.REFUSING))
    sim.at(150, lambda: setattr(db, "curable", True))
    await sim.run(HOUR_S)
    first, second = sim.effects
    assert (first.service, second.service) == ("db", "db")
    assert second.at - first.at < 60 + 30
    assert all(engine.diagnosis.health is Health.HEALTHY for engine in sim.engines.values())


async def test_a_storm_that_the_platform_itself_cures_is_over_without_us() -> None:
    sim = Simulation()
    await sim.start(names(10), turn_s=1.0)
    await sim.run(60)
    for name in names(10):
        sim.at(100, partial(sim.crash, name))
        sim.at(100.5, sim.services[name].recover)
        sim.at(100.5, partial(sim.tell, name))
    await sim.run(HOUR_S)
    sim.crash("s0")
    await sim.run(HOUR_S + 60)
    assert [effect.service for effect in sim.effects] == ["s0"]


async def test_ten_thousand_services_failing_at_once_are_not_restarted_at_once() -> None:
    sim = Simulation(Policy(interval_s=60))
    await sim.start(names(10_000))
    await sim.run(61)
    for name in names(10_000):
        sim.services[name].suffer(Ailment.REFUSING)
    await sim.run(61 + 200)
    assert len(sim.effects) <= 16 + 200 / 10
    assert len([entry for entry in sim.entries if entry.kind is EntryKind.STORM]) == 1


@pytest.mark.parametrize("acks_only", [False, True], ids=["restarted", "not even that"])
async def test_a_process_that_is_up_but_does_not_serve_is_not_called_recovered(
    acks_only: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    sim = Simulation(Policy(deadline_s=60))
    await sim.start(["redis"], curable=False, acks_only=acks_only)
    sim.at(60, partial(sim.services["redis"].suffer, Ailment.ERRORING))
    await sim.run(DAY_S)
    assert await outcomes(sim) == [Outcome.INEFFECTIVE] * 3


async def test_a_recovery_that_does_not_outlive_its_soak_is_a_relapse() -> None:
    sim = Simulation()
    await sim.start(["cache"], relapse_s=30.0)
    sim.at(60, partial(sim.services["cache"].suffer, Ailment.REFUSING))
    await sim.run(DAY_S)
    assert set(await outcomes(sim)) == {Outcome.RELAPSED}
    assert len(sim.effects) == 3


@pytest.mark.parametrize("relapse_s", [1.0, 20.0, 100.0, 700.0, 1300.0, 2400.0])
async def test_a_service_broken_for_a_month_costs_a_bounded_number_of_restarts(
    relapse_s: float,
) -> None:
    sim = Simulation(Policy(interval_s=30, suspect_interval_s=30))
    await sim.start(["agent"], relapse_s=relapse_s)
    sim.at(100, partial(sim.services["agent"].suffer, Ailment.REFUSING))
    await sim.run(30 * DAY_S)
    assert len(sim.effects) <= 5
    assert sim.engines["agent"].phase is Phase.QUARANTINED


async def test_a_fault_every_67_minutes_is_too_rare_for_any_limit_and_healed_each_time() -> None:
    sim = Simulation(Policy(interval_s=30, suspect_interval_s=30))
    await sim.start(["agent"], relapse_s=4000.0)
    sim.at(100, partial(sim.services["agent"].suffer, Ailment.REFUSING))
    await sim.run(10 * DAY_S)
    assert len(sim.effects) == pytest.approx(10 * DAY_S / 4080, rel=0.02)
    assert set(await outcomes(sim)) == {Outcome.RECOVERED}


async def test_recoveries_that_do_not_last_end_in_quarantine_however_well_each_one_looked() -> None:
    sim = Simulation(Policy(budget_window_s=60, attempts_limit=99))
    await sim.start(["worker"], relapse_s=200.0)
    sim.at(60, partial(sim.services["worker"].suffer, Ailment.REFUSING))
    await sim.run(DAY_S)
    assert await outcomes(sim) == [Outcome.RECOVERED] * 3
    assert "did not last" in sim.engines["worker"].decision.detail


@pytest.mark.parametrize("seconds", range(1, 90, 8))
async def test_the_healer_dying_at_any_moment_of_a_heal_repeats_nothing(seconds: int) -> None:
    sim = Simulation()
    await sim.start(["web"])
    sim.at(100, lambda: sim.crash("web"))
    await sim.run(100 + seconds)
    for _ in range(2):
        await sim.restart_prunella()
    await sim.run(HOUR_S)
    assert len(sim.effects) == 1
    assert await outcomes(sim) == [Outcome.RECOVERED]
    assert len({effect.epoch for effect in sim.effects}) == 1


async def test_a_healer_that_comes_back_in_the_middle_of_a_heal_still_says_why() -> None:
    sim = Simulation()
    await sim.start(["web"])
    sim.at(100, lambda: sim.crash("web"))
    await sim.run(105)
    await sim.restart_prunella()
    await sim.run(106)
    engine = sim.engines["web"]
    assert engine.phase is Phase.VERIFYING
    assert (engine.decision.reason, "exit code 1" in engine.decision.detail) == (Reason.HEAL, True)


async def test_a_backlog_that_gathered_under_a_pause_is_worked_off_at_a_pace() -> None:
    sim = Simulation(fleet=FleetPolicy(storm_ratio=1.0))
    await sim.start(names(60))
    await sim.run(50)
    await sim.pause(None)
    for number in range(38):
        sim.at(60 + 200 * number, partial(sim.services[f"s{number}"].suffer, Ailment.REFUSING))
    await sim.run(3 * HOUR_S)
    assert sim.effects == []
    await sim.resume(None)
    await sim.run(3 * HOUR_S + 60)
    assert 1 <= len(sim.effects) <= 7


async def test_what_got_well_under_a_pause_is_left_alone_after_it() -> None:
    sim = Simulation()
    await sim.start(names(10))
    await sim.run(50)
    await sim.pause(None)
    for number, name in enumerate(names(10)):
        sim.at(60 + 300 * number, partial(sim.services[name].suffer, Ailment.HUNG))
        sim.at(200 + 300 * number, sim.services[name].recover)
    await sim.run(HOUR_S)
    await sim.resume(None)
    await sim.run(2 * HOUR_S)
    assert sim.effects == []


async def test_a_remedy_that_takes_the_healer_down_with_it_is_not_repeated_for_ever() -> None:
    sim = Simulation()
    await sim.start(["host"], relapse_s=200.0)
    sim.at(60, partial(sim.services["host"].suffer, Ailment.REFUSING))
    seen = 0
    for minute in range(1, 24 * 60):
        await sim.run(minute * 60.0)
        if len(sim.effects) > seen:
            seen = len(sim.effects)
            await sim.restart_prunella()
    assert 1 < len(sim.effects) <= 5
    assert sim.engines["host"].phase is Phase.QUARANTINED


async def test_every_heal_leaves_its_evidence_in_the_record() -> None:
    sim = Simulation()
    await sim.start(["web"])
    sim.at(60, partial(sim.services["web"].suffer, Ailment.ERRORING))
    await sim.run(600)
    (record,) = (await sim.store.history(10)).items
    assert "500" in record.evidence
    assert record.incident
    assert record.recovery_time_ms is not None
    assert record.downtime_ms is not None
    assert 0 < record.recovery_time_ms < record.downtime_ms


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S, 30 * DAY_S, -56 * 365 * DAY_S])
async def test_jumps_of_the_wall_clock_change_no_budget_and_no_wait(jump_s: float) -> None:
    policy = Policy(soak_s=5, flapping_recoveries=99)

    async def story(jump_s: float) -> list[float]:
        sim = Simulation(policy)
        await sim.start(["web"])
        for number in range(12):
            sim.at(100 + 60 * number, lambda: sim.crash("web"))
        sim.at(170, lambda: setattr(sim.clock, "wall_offset_s", jump_s))
        await sim.run(300)
        await sim.restart_prunella()
        await sim.run(DAY_S)
        return [effect.at for effect in sim.effects]

    assert await story(jump_s) == await story(0.0)


async def test_observing_does_nothing_and_says_what_it_would_have_done() -> None:
    sim = Simulation(Policy(mode=Mode.OBSERVE))
    await sim.start(["web"])
    sim.at(60, lambda: sim.crash("web"))
    await sim.run(60)
    await sim.run(HOUR_S)
    assert sim.effects == []
    assert set(await outcomes(sim)) == {Outcome.OBSERVED}
    assert len(await outcomes(sim)) <= 2 * 3  # the budget of two half hours


async def test_a_slow_start_after_a_restart_is_waited_for() -> None:
    sim = Simulation()
    await sim.start(["java"], warm_up_s=0.0)
    sim.services["java"].warm_up_s = 120.0
    sim.at(60, lambda: sim.crash("java"))
    await sim.run(HOUR_S)
    assert len(sim.effects) == 1
    assert await outcomes(sim) == [Outcome.RECOVERED]


async def test_a_person_heals_a_quarantined_and_paused_service_and_it_is_verified() -> None:
    sim = Simulation(Policy(deadline_s=60))
    await sim.start(["web"], curable=False)
    sim.at(60, partial(sim.services["web"].suffer, Ailment.REFUSING))
    await sim.run(HOUR_S)
    assert sim.engines["web"].phase is Phase.QUARANTINED
    await sim.pause("web")
    sim.services["web"].curable = True
    begun = await sim.force("web", Forced("anna", "disk replaced"))
    assert isinstance(begun, int)
    await sim.run(2 * HOUR_S)
    newest = (await sim.store.history(1)).items[0]
    assert (newest.outcome, newest.actor) == (Outcome.RECOVERED, "anna")


async def test_released_from_quarantine_a_service_gets_a_fresh_start() -> None:
    sim = Simulation(Policy(deadline_s=60))
    await sim.start(["web"], curable=False)
    sim.at(60, partial(sim.services["web"].suffer, Ailment.REFUSING))
    await sim.run(HOUR_S)
    assert len(sim.effects) == 3
    sim.services["web"].curable = True
    await sim.resume("web")
    await sim.run(2 * HOUR_S)
    assert len(sim.effects) == 4
    assert (await outcomes(sim))[0] is Outcome.RECOVERED
