"""Real requests as evidence, as stories on the virtual clock."""

from functools import partial

from prunella.core.model import ActionKind, Health, Outcome, ServiceId
from prunella.core.policy import Policy
from prunella.core.traffic import OPEN_WIDE
from prunella.simulate.driver import Simulation
from prunella.simulate.world import Ailment

A = ServiceId("a")
QUICK = Policy(deadline_s=30, soak_s=10)


async def done(sim: Simulation) -> list[tuple[str, str | None, Outcome | None]]:
    page = await sim.store.history(50)
    return [(one.action.value, one.instance, one.outcome) for one in reversed(page.items)]


async def test_a_service_that_fails_its_callers_is_healed_though_its_probe_passes() -> None:
    sim = Simulation(QUICK, behind_gateway=True)
    await sim.start(["a"])
    sim.ask("a", 0.1, 600)
    sim.at(100, partial(sim.gateway.spoil, "0", 0.5))
    sim.at(130, partial(sim.gateway.spoil, "0", 0.0))
    await sim.run(600)
    actions = await done(sim)
    assert actions[0][:2] == ("restart", "0")
    assert actions[-1][2] is Outcome.RECOVERED
    assert sim.engines["a"].diagnosis.health is Health.HEALTHY


async def test_a_few_failures_among_many_requests_are_no_fault() -> None:
    sim = Simulation(QUICK, behind_gateway=True)
    await sim.start(["a"])
    sim.ask("a", 0.02, 900)
    sim.at(100, partial(sim.gateway.spoil, "0", 0.03))
    await sim.run(900)
    assert await done(sim) == []


async def test_too_few_requests_prove_nothing() -> None:
    sim = Simulation(QUICK, behind_gateway=True)
    await sim.start(["a"])
    sim.ask("a", 2.0, 900)
    sim.at(100, partial(sim.gateway.spoil, "0", 0.5))
    await sim.run(900)
    assert await done(sim) == []


async def test_a_probe_that_real_requests_contradict_restarts_nothing() -> None:
    """Its address is wrong, or its path; the service itself serves thousands."""
    sim = Simulation(QUICK, behind_gateway=True)
    await sim.start(["a"])
    sim.gateway.serves = lambda _service, _server: True
    sim.ask("a", 0.02, 900)
    sim.at(100, partial(sim.services["a"].suffer, Ailment.REFUSING))
    await sim.run(900)
    assert sim.effects == []
    assert sim.engines["a"].diagnosis.health is Health.SUSPECT


async def test_what_callers_and_probe_agree_on_is_healed_at_once() -> None:
    sim = Simulation(QUICK, behind_gateway=True)
    await sim.start(["a"])
    sim.ask("a", 0.02, 300)
    sim.at(100, partial(sim.services["a"].suffer, Ailment.REFUSING))
    await sim.run(300)
    assert [effect.kind for effect in sim.effects] == [ActionKind.RESTART]
    assert sim.effects[0].at < 110


async def test_a_server_that_fails_among_good_ones_is_shut_and_let_in_when_it_serves() -> None:
    sim = Simulation(QUICK, behind_gateway=True)
    await sim.start(["a"], instance_count=4)
    served = sim.ask("a", 0.02, 900)
    sim.at(100, partial(sim.gateway.spoil, "2", 1.0))
    sim.at(160, partial(sim.gateway.spoil, "2", 0.0))
    await sim.run(900)
    actions = await done(sim)
    assert actions[0] == ("circuit-break", "2", Outcome.CONTAINED)
    assert actions[-1] == ("circuit-close", "2", Outcome.RECOVERED)
    assert sim.gateway.valve(A) == OPEN_WIDE
    failed = len(served) - sum(served)
    assert failed < 20 / 0.02 / 4  # as many as a few readings take to notice, twice
    assert all(served[-10_000:])


async def test_where_all_servers_fail_alike_none_is_shut() -> None:
    sim = Simulation(QUICK, behind_gateway=True)
    await sim.start(["a"], instance_count=4)
    sim.ask("a", 0.02, 300)
    for server in "0123":
        sim.at(100, partial(sim.gateway.spoil, server, 0.5))
    await sim.run(300)
    assert all(turned.valve.shut == frozenset() for turned in sim.gateway.log)
