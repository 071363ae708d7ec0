"""Start-up grace: how long it protects what is slow to start, and that it ends with the start."""

from functools import partial

from prunella.core.machine import Phase
from prunella.core.model import Instant, Outcome
from prunella.core.policy import Policy
from prunella.simulate.driver import Simulation
from prunella.simulate.world import Ailment

GRACE_S = 300.0


async def test_a_hang_right_after_a_service_has_come_up_is_acted_on_at_once() -> None:
    sim = Simulation(Policy(grace_s=GRACE_S))
    await sim.start(["web"])
    sim.at(12, partial(sim.services["web"].suffer, Ailment.HUNG))
    await sim.run(GRACE_S / 2)
    (effect,) = sim.effects
    assert effect.at < 12 + 5 * 1.1 + 3 * 2.5  # the next check, and two more at close interval


async def test_what_has_not_come_up_has_the_whole_of_its_grace() -> None:
    sim = Simulation(Policy(grace_s=GRACE_S))
    await sim.start(["web"])
    sim.services["web"].suffer(Ailment.REFUSING)
    await sim.run(GRACE_S)
    assert sim.observation_count > GRACE_S / 6
    assert sim.effects == []
    await sim.run(GRACE_S + 60)
    assert len(sim.effects) == 1


async def test_a_hang_right_after_a_restart_waits_for_the_back_off_only() -> None:
    sim = Simulation(Policy(grace_s=GRACE_S, backoff_base_s=1.0))
    await sim.start(["web"])
    sim.at(100, partial(sim.crash, "web"))
    sim.at(110, partial(sim.services["web"].suffer, Ailment.HUNG))
    await sim.run(100 + GRACE_S)
    first, second = sim.effects
    assert first.at == Instant(100)
    assert second.at < 130
    assert sim.engines["web"].phase is Phase.WATCHING
    outcomes = [record.outcome for record in (await sim.store.history(10)).items]
    assert outcomes == [Outcome.RECOVERED, Outcome.RELAPSED]


async def test_a_good_start_does_not_shorten_the_grace_of_the_next_one() -> None:
    sim = Simulation(Policy(grace_s=60, deadline_s=20, soak_s=5))
    await sim.start(["web"])
    service = sim.services["web"]
    sim.at(50, lambda: setattr(service, "warm_up_s", 50.0))
    sim.at(100, partial(sim.crash, "web"))
    await sim.run(1000)
    assert [effect.at for effect in sim.effects] == [Instant(100)]


async def test_what_somebody_else_has_started_is_not_condemned_for_the_run_before() -> None:
    sim = Simulation()
    await sim.start(["web"])
    service = sim.services["web"]
    sim.at(100, lambda: setattr(service, "stopped", True))
    sim.at(100, partial(service.suffer, Ailment.REFUSING))
    await sim.run(200)
    assert "human" in [veto.guard for veto in sim.engines["web"].decision.vetoes]
    service.stopped, service.warm_up_s = False, 4.0
    sim.deploy("web", "")
    await sim.run(600)
    assert sim.effects == []
