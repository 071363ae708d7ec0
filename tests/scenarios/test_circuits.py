"""Opening circuits and closing them again, as stories on the virtual clock."""

from functools import partial
from itertools import pairwise

from prunella.core.model import ActionKind, Mode, Outcome, ServiceId
from prunella.core.policy import Need, Policy
from prunella.core.traffic import OPEN_WIDE, Valve
from prunella.errors import ConflictError, PermanentError
from prunella.simulate.driver import Simulation
from prunella.simulate.world import Ailment

HOUR_S = 3600.0
A = ServiceId("a")
BREAK = ActionKind.CIRCUIT_BREAK


async def outcomes(sim: Simulation, kind: ActionKind | None = None) -> list[tuple[str, object]]:
    page = await sim.store.history(200)
    return [
        (record.action.value, record.outcome)
        for record in reversed(page.items)
        if kind in (None, record.action)
    ]


def shares(sim: Simulation) -> list[int]:
    """What was let through, each time that it was changed."""
    return [turned.valve.share for turned in sim.gateway.log if turned.effective]


async def failing(**settings: object) -> Simulation:
    """A service that no restart cures, behind a gateway."""
    sim = Simulation(Policy(deadline_s=30, soak_s=10), behind_gateway=True)
    await sim.start(["a"], curable=False, **settings)
    sim.at(100, partial(sim.services["a"].suffer, Ailment.REFUSING))
    return sim


async def test_what_a_restart_did_not_cure_is_kept_from_its_callers() -> None:
    sim = await failing()
    await sim.run(200)
    assert (await outcomes(sim))[:2] == [
        ("restart", Outcome.INEFFECTIVE),
        ("circuit-break", Outcome.CONTAINED),
    ]
    assert sim.gateway.valve(A) == Valve(0)


async def test_once_well_again_it_is_let_in_step_by_step() -> None:
    sim = await failing()
    sim.at(170, sim.services["a"].recover)
    served = sim.ask("a", 0.05, 600)
    await sim.run(600)
    assert shares(sim) == [0, 10, 50, 100]
    assert sim.gateway.valve(A) == OPEN_WIDE
    assert await sim.store.debts(sim.clock.stamp()) == {}
    assert all(served[-1000:])


async def test_where_no_share_can_be_let_in_all_are_at_once() -> None:
    sim = await failing()
    sim.gateway.shares = False
    sim.at(170, sim.services["a"].recover)
    await sim.run(600)
    assert shares(sim) == [0, 100]
    assert await sim.store.debts(sim.clock.stamp()) == {}
    assert {outcome for _, outcome in await outcomes(sim, ActionKind.CIRCUIT_CLOSE)} == {
        Outcome.RECOVERED
    }


async def test_as_long_as_it_is_unwell_nobody_is_let_in_and_the_waits_grow() -> None:
    sim = await failing()
    await sim.run(HOUR_S)
    assert shares(sim) == [0]
    page = await sim.store.history(200)
    breaks = [one.timestamp for one in reversed(page.items) if one.action is BREAK]
    gaps = [later - one for one, later in pairwise(breaks)]
    assert len(gaps) > 9
    assert all(29 < gap.total_seconds() < 345 for gap in gaps)
    assert gaps[-1].total_seconds() > 299
    sim.services["a"].recover()
    await sim.run(HOUR_S + 600)
    assert sim.gateway.valve(A) == OPEN_WIDE


async def test_a_share_that_fails_opens_it_again_at_once() -> None:
    """Well for its probes, and not for real requests."""
    sim = await failing()
    sim.at(170, sim.services["a"].recover)
    sim.at(170, lambda: sim.gateway.spoil("0", 1.0))
    sim.ask("a", 0.01, 600)
    await sim.run(400)
    assert shares(sim)[:4] == [0, 10, 0, 10]
    assert ("circuit-close", Outcome.RELAPSED) in await outcomes(sim)
    sim.gateway.spoil("0", 0.0)
    await sim.run(HOUR_S)
    assert sim.gateway.valve(A) == OPEN_WIDE


async def test_killed_while_it_is_open_prunella_closes_it_when_it_comes_back() -> None:
    sim = await failing()
    await sim.run(180)
    assert sim.gateway.valve(A) == Valve(0)
    sim.services["a"].recover()
    await sim.restart_prunella()
    await sim.run(600)
    assert sim.gateway.valve(A) == OPEN_WIDE
    assert shares(sim) == [0, 10, 50, 100]


async def test_without_prunella_the_gateway_closes_it_by_itself() -> None:
    sim = await failing()
    await sim.run(180)
    sim.clock.move_to(type(sim.clock.now())(400.0))
    assert sim.gateway.valve(A) == OPEN_WIDE


async def test_what_somebody_else_closes_stays_closed() -> None:
    sim = await failing()
    await sim.run(160)
    sim.gateway.meddle(A, OPEN_WIDE)
    await sim.run(230)
    assert shares(sim) == [0]
    assert await sim.store.debts(sim.clock.stamp()) == {}


async def test_a_gateway_that_has_begun_anew_is_told_again() -> None:
    sim = await failing()
    sim.ask("a", 0.5, 600)
    await sim.run(160)
    sim.gateway.restart()
    await sim.run(230)
    assert sim.gateway.valve(A) == Valve(0)


async def test_when_healing_is_not_automatic_any_more_it_is_closed() -> None:
    sim = await failing()
    await sim.run(180)
    sim.set_policy("a", Policy(mode=Mode.OBSERVE, deadline_s=30))
    await sim.restart_prunella()
    await sim.run(230)
    assert sim.gateway.valve(A) == OPEN_WIDE


async def test_a_sick_server_among_three_gets_no_more_requests() -> None:
    sim = Simulation(Policy(deadline_s=30, soak_s=10), behind_gateway=True)
    await sim.start(["a"], instance_count=3)
    service = sim.services["a"]
    await sim.run(50)
    service.suffer(Ailment.CRASHED)
    service.heal_all_but(1)
    sim.tell("a")
    await sim.run(52)
    assert sim.gateway.log[0].valve == Valve(100, frozenset({"1"}))
    await sim.run(300)
    assert sim.gateway.valve(A) == OPEN_WIDE
    assert ("restart", Outcome.RECOVERED) in await outcomes(sim)


async def cascade(**settings: object) -> Simulation:
    """A shop that can live without recommendations, if they fail at once."""
    sim = Simulation(Policy(deadline_s=30, soak_s=10), behind_gateway=True)
    sim.set_policy("shop", Policy(needs=(Need(ServiceId("recommend"), optional=True),)))
    await sim.start(["shop", "recommend"], **settings)
    recommend = sim.services["recommend"]
    sim.services["shop"].victim = lambda: (
        recommend.ailment is not Ailment.NONE
        and sim.gateway.valve(ServiceId("recommend")).share > 0
    )
    return sim


async def test_the_circuit_of_what_takes_others_down_is_broken_and_it_alone_is_healed() -> None:
    sim = await cascade()
    sim.at(100, partial(sim.services["recommend"].suffer, Ailment.ERRORING))
    served = sim.ask("shop", 0.1, 600)
    await sim.run(600)
    page = await sim.store.history(50)
    assert {record.service for record in page.items} == {"recommend"}
    assert page.items[-1].action is ActionKind.CIRCUIT_BREAK
    assert all(served[-2000:])


async def test_a_pause_does_not_hold_up_the_circuit() -> None:
    """What may not be restarted is kept from its callers all the same, and let in again."""
    sim = await cascade()
    recommend = sim.services["recommend"]
    await sim.run(50)
    await sim.pause("recommend")
    sim.at(100, partial(recommend.suffer, Ailment.ERRORING))
    sim.at(300, recommend.recover)
    await sim.run(290)
    assert sim.gateway.valve(ServiceId("recommend")) == Valve(0)
    assert sim.services["shop"].serves(0)
    await sim.run(900)
    assert shares(sim) == [0, 10, 50, 100]
    assert sim.effects == []


async def test_a_victim_is_not_restarted_before_what_it_needs() -> None:
    sim = Simulation(Policy(deadline_s=30, soak_s=10), behind_gateway=True)
    sim.set_policy("shop", Policy(needs=(Need(ServiceId("db")),)))
    await sim.start(["shop", "db"])
    db = sim.services["db"]
    sim.services["shop"].victim = lambda: db.ailment is not Ailment.NONE
    sim.at(100, partial(db.suffer, Ailment.REFUSING))
    await sim.run(600)
    assert [effect.service for effect in sim.effects] == ["db"]
    assert sim.engines["shop"].diagnosis.symptom is None


async def test_a_victim_that_has_died_is_brought_up_after_what_it_needs() -> None:
    sim = Simulation(Policy(deadline_s=30, soak_s=10), behind_gateway=True)
    sim.set_policy("shop", Policy(needs=(Need(ServiceId("db")),)))
    await sim.start(["shop", "db"])
    sim.at(100, partial(sim.services["db"].suffer, Ailment.REFUSING))
    sim.at(120, partial(sim.crash, "shop"))
    await sim.run(600)
    assert [effect.service for effect in sim.effects] == ["db", "shop"]


async def test_a_gateway_in_trouble_is_not_asked_again_and_again() -> None:
    sim = await failing()
    sim.at(120, sim.gateway.break_down)
    await sim.run(400)
    assert shares(sim) == []
    turns = await outcomes(sim, BREAK)
    assert len(turns) <= 280 / 5
    sim.gateway.mend()
    await sim.run(450)
    assert sim.gateway.valve(A) == Valve(0)


async def test_a_gateway_that_refuses_is_tried_now_and_then() -> None:
    sim = await failing()
    sim.at(120, lambda: setattr(sim.gateway, "turn", refuse))
    await sim.run(400)
    turns = await outcomes(sim, BREAK)
    assert 1 <= len(turns) <= 280 / 5
    assert {outcome for _, outcome in turns} == {Outcome.ERROR}


async def test_what_somebody_else_changes_in_the_same_moment_is_theirs() -> None:
    sim = await failing()
    sim.at(120, lambda: setattr(sim.gateway, "turn", conflict))
    await sim.run(400)
    assert await outcomes(sim, BREAK) == [("circuit-break", Outcome.CANCELLED)]
    assert await sim.store.debts(sim.clock.stamp()) == {}


async def test_observing_it_is_said_once_what_would_have_been_done() -> None:
    sim = Simulation(Policy(mode=Mode.OBSERVE), behind_gateway=True)
    await sim.start(["a"], instance_count=3)
    service = sim.services["a"]
    sim.at(50, partial(service.suffer, Ailment.CRASHED))
    sim.at(50, partial(service.heal_all_but, 1))
    await sim.run(600)
    assert sim.gateway.log == []
    assert await outcomes(sim, BREAK) == [("circuit-break", Outcome.OBSERVED)]


async def refuse(*_args: object, **_keywords: object) -> None:
    raise PermanentError("it says no")


async def conflict(*_args: object, **_keywords: object) -> None:
    raise ConflictError("somebody else was sooner")
