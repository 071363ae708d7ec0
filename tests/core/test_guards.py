"""Each guard and each of its reasons alone, and what is too little for one, as tables."""

from typing import Any

import pytest
from tests.core.conftest import (
    CLEAR,
    CROWDED,
    FLOW,
    HELD,
    NOW,
    ONE,
    OWING,
    RELEASED,
    SHEDDING,
    TWO,
    but,
    tries,
)

from prunella.core.decide import decide, vet
from prunella.core.fleet import Storm
from prunella.core.guards import guards
from prunella.core.health import Diagnosis
from prunella.core.model import (
    Action,
    ActionKind,
    Health,
    Instance,
    InstanceId,
    InstanceState,
    Instant,
    Outcome,
    Scope,
    ServiceId,
    Status,
    Symptom,
    SymptomKind,
)
from prunella.core.policy import Policy
from prunella.core.snapshot import Forced, Reason, Snapshot
from prunella.core.targets import aim
from prunella.core.traffic import Valve

SLOW = Symptom(SymptomKind.SLOW, Health.DEGRADED, NOW, "3 answers in a row took longer")
ALONE: dict[str, dict[str, Any]] = {
    "target": {"status": None},
    "human": {"status": Status((Instance(InstanceId("0"), InstanceState.STOPPED),), 1)},
    "self-doubt": {"blind": 6},
    "lease": {"lease": "no beat of our lease"},
    "hold": {"holds": (HELD,)},
    "grace": {"grace_until": Instant(NOW + 1)},
    "backoff": {"attempts": tries(0.5)},
    "budget": {"attempts": tries(1300, 1500, 1700, outcome=Outcome.OBSERVED)},
    "chain": {"attempts": tries(7000, 8000, 9000, outcome=Outcome.INEFFECTIVE)},
    "min-healthy": {"diagnosis": Diagnosis(Health.DEGRADED, SLOW), "status": Status(TWO, 2)},
    "pace": {"unwell": 2, "fleet_started": (Instant(NOW - 9),)},
    "storm": {"storm": Storm(Instant(NOW - 100), Instant(NOW - 100))},
    "rollback": {"policy": Policy(irreversible=("v2*",))},
    "scale": {
        "policy": CROWDED.policy,
        "attempts": tries(7000, outcome=Outcome.INEFFECTIVE, kind=ActionKind.SCALE_UP),
    },
    "circuit": {"flow": FLOW._replace(valve=Valve(0))},
}
BASES = {"rollback": RELEASED, "scale": CROWDED, "circuit": SHEDDING}


@pytest.mark.parametrize(
    ("snap", "kind"),
    [
        (CLEAR, ActionKind.RESTART),
        (CROWDED, ActionKind.SCALE_UP),
        (RELEASED, ActionKind.ROLLBACK),
        (OWING, ActionKind.SCALE_DOWN),
        (SHEDDING, ActionKind.CIRCUIT_BREAK),
    ],
    ids=["hung", "crowded", "just released", "owing", "shedding"],
)
def test_with_nothing_in_its_way_it_acts(snap: Snapshot, kind: ActionKind) -> None:
    action = decide(snap).action
    assert action is not None
    assert action.kind is kind


def test_every_guard_speaks_alone_somewhere() -> None:
    assert set(ALONE) == {guard.name for guard in guards()}


@pytest.mark.parametrize("guard", ALONE)
def test_one_guard_is_enough_for_a_refusal(guard: str) -> None:
    decision = decide(but(ALONE[guard], BASES.get(guard, CLEAR)))
    assert decision.action is None
    assert [veto.guard for veto in decision.vetoes] == [guard]


MORE: dict[str, dict[str, Any]] = {
    "no instance": {"status": Status((), 0)},
    "a stall of our own": {"doubt": "the loop stood still"},
    "an earlier action": {"running": frozenset({ServiceId("web")})},
    "five of any outcome": {"attempts": tries(4000, 5000, 6000, 7000, 8000)},
    "a burst": {"fleet_started": tuple(Instant(NOW - 9 - n / 100) for n in range(16))},
    "enough at once after a storm": {
        "storm": Storm(Instant(NOW - 900), Instant(NOW - 900), width=2),
        "domain_running": 2,
    },
}


@pytest.mark.parametrize("what", MORE)
def test_each_of_a_guards_reasons_is_enough_for_a_refusal(what: str) -> None:
    decision = decide(but(MORE[what]))
    assert decision.action is None
    assert len(decision.vetoes) == 1


LESS: dict[str, dict[str, Any]] = {
    "a budget that has one left": {"attempts": tries(600, 1200, outcome=Outcome.OBSERVED)},
    "old tries": {"attempts": tries(15_000, 16_000, 17_000, outcome=Outcome.INEFFECTIVE)},
    "half of the fleet blind": {"blind": 5},
    "grace that has just ended": {"grace_until": NOW},
    "one instance of two, which is gone": {
        "diagnosis": Diagnosis(Health.DEGRADED, SLOW),
        "status": Status((TWO[0], TWO[1]._replace(state=InstanceState.EXITED)), 2),
    },
    "one of two unwell, and nothing else begun": {"unwell": 2},
    "another begun, and one unwell": {"unwell": 1, "fleet_started": (Instant(NOW - 1),)},
    "a burst but one": {"fleet_started": tuple(Instant(NOW - n / 100) for n in range(15))},
    "a burst that is over": {"fleet_started": (Instant(NOW - 10),) * 16},
    "one at a time after a storm": {
        "storm": Storm(Instant(NOW - 900), Instant(NOW - 120), width=2),
        "domain_running": 1,
    },
}


@pytest.mark.parametrize("what", LESS)
def test_no_guard_refuses_for_less(what: str) -> None:
    assert decide(but(LESS[what])).reason is Reason.HEAL


GOOD = tuple(one._replace(revision="v1") for one in TWO)
BAD = Instance(InstanceId("c"), InstanceState.EXITED, "c", revision="v2", blames_version=True)
STUCK = Symptom(
    SymptomKind.DOWN,
    Health.DEGRADED,
    NOW,
    "no such image",
    factual=True,
    instances=(BAD.id,),
    partial=True,
    blames_version=True,
)


@pytest.mark.parametrize(
    ("good", "reason"), [(GOOD, Reason.HEAL), ((GOOD[0], TWO[1]), Reason.VETOED)]
)
def test_a_rollback_to_what_is_well_already_takes_nothing_away(
    good: tuple[Instance, ...], reason: Reason
) -> None:
    status = Status((*good, BAD), 2, "v2")
    decision = decide(
        but({"status": status, "diagnosis": Diagnosis(Health.DEGRADED, STUCK)}, RELEASED)
    )
    assert decision.reason is reason
    assert decision.action is None or decision.action.kind is ActionKind.ROLLBACK


V2, V1 = RELEASED.ledger.versions
SINCE = Instant(NOW - 90)  # before v2 was deployed
OLD_FAULT = Symptom(SymptomKind.ERRORING, Health.FAILED, SINCE, "500 three times")
BACK = ActionKind.ROLLBACK


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"versions": ()}, "it is not known which version runs"),
        ({"status": ONE._replace(revision=None)}, "it is not known which version runs"),
        ({"status": ONE._replace(revision="v3")}, "v2 was deployed last, and v3 is"),
        ({"versions": (V2, V1._replace(soaked_at=None))}, "no other version has run healthy"),
        ({"versions": (V2._replace(actor="prunella"), V1)}, "an undo is not undone"),
        ({"policy": Policy(irreversible=("v1", "v[2]"))}, "v2 is marked irreversible"),
        ({"diagnosis": Diagnosis(Health.FAILED, OLD_FAULT)}, "the fault is older than v2"),
        ({"attempts": tries(59, outcome=Outcome.INEFFECTIVE, kind=BACK)}, "was tried already"),
        ({"attempts": tries(61, outcome=Outcome.INEFFECTIVE, kind=BACK)}, ""),
        ({"attempts": tries(59, outcome=Outcome.INEFFECTIVE)}, ""),
        ({"attempts": tries(59, outcome=Outcome.CANCELLED, kind=BACK)}, ""),
    ],
    ids=str,
)
def test_a_rollback_is_objected_to(changes: dict[str, Any], says: str) -> None:
    snap = but(changes, RELEASED)
    action = aim(BACK, snap.service, snap, snap.diagnosis.symptom)
    found = [veto.reason for veto in vet(snap, action) if veto.guard == "rollback"]
    assert [says in reason for reason in found] == ([True] if says else [])


UP = ActionKind.SCALE_UP


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"status": None}, "it is not known how many there are"),
        ({"policy": Policy(scale_max=2)}, "there are 2 already, at most 2"),
        ({"attempts": tries(7000, outcome=Outcome.INEFFECTIVE, kind=UP)}, "did not help in the"),
        ({"attempts": tries(14_401, outcome=Outcome.INEFFECTIVE, kind=UP)}, ""),
        ({"attempts": tries(7000, kind=UP)}, ""),
        ({"attempts": tries(7000, outcome=Outcome.INEFFECTIVE)}, ""),
    ],
    ids=str,
)
def test_more_instances_are_objected_to(changes: dict[str, Any], says: str) -> None:
    snap = but(changes, CROWDED)
    action = aim(UP, snap.service, snap, snap.diagnosis.symptom)
    found = [veto.reason for veto in vet(snap, action) if veto.guard == "scale"]
    assert [says in reason for reason in found] == ([True] if says else [])


@pytest.mark.parametrize(
    ("irreversible", "kind"), [((), ActionKind.ROLLBACK), (("v2*",), ActionKind.RESTART)]
)
def test_a_fresh_version_that_cannot_be_left_is_healed_like_any_other(
    irreversible: tuple[str, ...], kind: ActionKind
) -> None:
    both = {ActionKind.RESTART: Scope.INSTANCE, ActionKind.ROLLBACK: Scope.SERVICE}
    changes = {"policy": Policy(irreversible=irreversible), "capabilities": both}
    action = decide(but(changes, RELEASED)).action
    assert action is not None
    assert action.kind is kind


def test_an_instance_that_the_platform_does_not_know_is_no_target() -> None:
    stranger = Action(ActionKind.RESTART, CLEAR.service, instance=InstanceId("9"))
    assert [veto.guard for veto in vet(CLEAR, stranger)] == ["target"]


@pytest.mark.parametrize("able", [True, False])
def test_a_person_is_told_what_a_platform_cannot_do(able: bool) -> None:  # noqa: FBT001
    changes = {} if able else {"capabilities": {ActionKind.ROLLBACK: Scope.SERVICE}}
    decision = decide(but({**changes, "forced": Forced("me", "now")}))
    assert (decision.action is not None) is able
    assert [veto.guard for veto in decision.vetoes] == ([] if able else ["capability"])


@pytest.mark.parametrize(
    "changes",
    [{"doubt": "the loop stood still"}, {"blind": 10}, {"grace_until": Instant(NOW + 1)}],
    ids=str,
)
def test_a_fact_is_not_doubted(changes: dict[str, Any]) -> None:
    fact = Symptom(SymptomKind.DOWN, Health.FAILED, NOW, "exit code 1", factual=True)
    assert decide(but({**changes, "diagnosis": Diagnosis(Health.FAILED, fact)})).action
