"""How often a platform is asked: seldom, and right before every effect and every verdict."""

from functools import partial

from prunella.core.ledger import EntryKind
from prunella.core.model import Instant, Outcome
from prunella.core.policy import Policy
from prunella.simulate.driver import Simulation
from prunella.simulate.world import Ailment

FAULT_S = 100.0


async def ailing(policy: Policy, ailment: Ailment, **settings: object) -> Simulation:
    sim = Simulation(policy)
    await sim.start(["a"], **settings)
    sim.at(FAULT_S, partial(sim.services["a"].suffer, ailment))
    return sim


async def outcomes(sim: Simulation) -> list[Outcome | None]:
    return [record.outcome for record in (await sim.store.history(10)).items]


async def last_move(sim: Simulation) -> Instant:
    (move,) = await sim.store.entries(1, kinds=frozenset({EntryKind.PHASE}))
    return move.at.instant


async def test_a_service_under_verification_is_asked_once_an_interval() -> None:
    sim = await ailing(Policy(soak_s=60), Ailment.HUNG)
    await sim.run(FAULT_S)
    looks, checks = sim.services["a"].look_count, sim.observation_count
    await sim.run(FAULT_S + 85)
    assert await outcomes(sim) == [Outcome.RECOVERED]
    assert sim.observation_count - checks > 60
    assert sim.services["a"].look_count - looks <= 60 / 5 + 4


async def test_an_end_that_nobody_tells_of_is_noticed_within_an_interval() -> None:
    sim = await ailing(Policy(soak_s=60, fall=100, min_samples=100), Ailment.CRASHED)
    sim.at(FAULT_S, partial(sim.tell, "a"))
    service = sim.services["a"]
    sim.at(FAULT_S + 30, partial(service.suffer, Ailment.CRASHED))
    await sim.run(FAULT_S + 30)
    assert await outcomes(sim) == [None]
    await sim.run(FAULT_S + 30 + 5 + 1.1)  # and until the next check
    assert (await outcomes(sim))[-1] is Outcome.RELAPSED


async def test_a_service_that_has_ended_by_then_has_not_recovered() -> None:
    policy = Policy(interval_s=60, soak_s=10)
    rehearsal = await ailing(policy, Ailment.HUNG)
    await rehearsal.run(FAULT_S + 300)
    assert await outcomes(rehearsal) == [Outcome.RECOVERED]
    verdict_at = await last_move(rehearsal)

    sim = await ailing(policy, Ailment.HUNG)
    sim.at(verdict_at - 0.01, partial(sim.services["a"].suffer, Ailment.CRASHED))
    await sim.run(verdict_at)
    assert await outcomes(sim) == [Outcome.RELAPSED]


async def test_what_was_stopped_a_moment_ago_is_not_started_on_an_older_look() -> None:
    policy = Policy(interval_s=60, deadline_s=20, backoff_base_s=4)
    rehearsal = await ailing(policy, Ailment.REFUSING, curable=False)
    await rehearsal.run(FAULT_S + 300)
    first, second, *_ = (effect.at for effect in rehearsal.effects)

    sim = await ailing(policy, Ailment.REFUSING, curable=False)
    sim.at(second - 0.5, partial(setattr, sim.services["a"], "stopped", True))  # noqa: FBT003
    await sim.run(FAULT_S + 300)
    assert [effect.at for effect in sim.effects] == [first]
    assert "human" in [veto.guard for veto in sim.engines["a"].decision.vetoes]
