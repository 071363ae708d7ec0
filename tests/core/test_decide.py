"""Properties of the decision: what it never does, over all snapshots."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.core.conftest import CLEAR, CROWDED, HELD, NOW, OWING, RELEASED, but, tries

from prunella.core.budget import ASIDE, backoff_until
from prunella.core.decide import decide
from prunella.core.fleet import Storm
from prunella.core.guards import guards
from prunella.core.health import Diagnosis
from prunella.core.ledger import Attempt
from prunella.core.machine import Phase
from prunella.core.model import (
    ActionId,
    ActionKind,
    Debt,
    Health,
    IncidentId,
    Instance,
    InstanceId,
    InstanceState,
    Instant,
    Mode,
    Outcome,
    Scope,
    ServiceId,
    Status,
    Symptom,
    SymptomKind,
    Version,
)
from prunella.core.policy import Policy
from prunella.core.snapshot import Forced, Reason, Snapshot

times = (st.floats(NOW - 20_000, NOW) | st.floats(NOW - 20, NOW)).map(Instant)
attempts = st.lists(
    st.builds(
        Attempt,
        st.sampled_from(ActionKind),
        times,
        st.none(),
        st.sampled_from(Outcome),
        st.just("prunella"),
        st.just(IncidentId("i")),
    ),
    max_size=8,
).map(lambda found: tuple(sorted(found, key=lambda a: -a.at)))
symptoms = st.none() | st.builds(
    Symptom,
    st.sampled_from(SymptomKind),
    st.sampled_from([Health.DEGRADED, Health.FAILED]),
    times,
    st.just("evidence"),
    st.booleans(),
)
versions = st.builds(
    Version,
    st.sampled_from(["v1", "v2", "v3"]),
    times,
    st.sampled_from(["", "prunella"]),
    st.none() | times,
)
debts = st.builds(
    Debt,
    st.just(ActionKind.SCALE_UP),
    st.just(ActionId(1)),
    st.integers(1, 3),
    st.integers(2, 5),
    st.floats(NOW - 600, NOW + 600).map(Instant),
)
statuses = st.none() | st.lists(st.sampled_from(InstanceState), max_size=4).map(
    lambda states: Status(
        tuple(Instance(InstanceId(str(n)), state, f"r{n}") for n, state in enumerate(states)),
        len(states),
        "v1",
        "service-run",
    )
)


def diagnosis_of(symptom: Symptom | None, health: Health) -> Diagnosis:
    return Diagnosis(health) if symptom is None else Diagnosis(symptom.severity, symptom)


# Up to three of these make a snapshot that differs from one with nothing against its remedy.
OTHERWISE: dict[str, st.SearchStrategy[Any]] = {
    "policy": st.builds(
        lambda mode, most: Policy(mode=mode, scale_max=most),
        st.sampled_from(Mode),
        st.integers(0, 4),
    ),
    "phase": st.sampled_from(Phase),
    "diagnosis": st.builds(
        diagnosis_of, symptoms, st.sampled_from([Health.UNKNOWN, Health.HEALTHY, Health.SUSPECT])
    ),
    "status": statuses,
    "capabilities": st.dictionaries(st.sampled_from(ActionKind), st.sampled_from(Scope)),
    "attempts": attempts,
    "running": st.just(frozenset({ServiceId("web")})),
    "fleet_started": st.lists(times, max_size=20).map(
        lambda found: tuple(sorted(found, reverse=True))
    ),
    "holds": st.just((HELD,)),
    "versions": st.lists(versions, max_size=4).map(
        lambda found: tuple(sorted(found, key=lambda v: -v.deployed_at))
    ),
    "debts": st.lists(debts, max_size=1).map(tuple),
    "unwell": st.integers(0, 10),
    "blind": st.integers(0, 10),
    "storm": st.builds(Storm, st.none() | times, times, st.none(), st.sampled_from([1, 2, 4])),
    "domain_running": st.integers(0, 4),
    "doubt": st.just("the loop stood still"),
    "lease": st.just("no beat of our lease"),
    "grace_until": st.floats(NOW - 10, NOW + 10).map(Instant),
}


snapshots = st.builds(
    but,
    st.lists(st.sampled_from(list(OTHERWISE)), max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: OTHERWISE[name] for name in names})
    ),
    st.sampled_from([CLEAR, CROWDED, RELEASED, OWING]),
)


@given(snapshots)
def test_is_deterministic_and_always_says_why(snap: Snapshot) -> None:
    assert decide(snap) == decide(snap)
    assert decide(snap).detail


@given(snapshots)
def test_never_acts_without_a_confirmed_symptom(snap: Snapshot) -> None:
    action = decide(snap).action
    if snap.diagnosis.symptom is None and action is not None:
        assert action.kind is ActionKind.SCALE_DOWN


@given(snapshots)
def test_never_scales_beyond_what_is_allowed_nor_below_what_there_was(snap: Snapshot) -> None:
    action = decide(snap).action
    if action is None or action.replicas is None:
        return
    granted = max((debt.granted for debt in snap.ledger.debts), default=0)
    if action.kind is ActionKind.SCALE_UP:
        assert action.replicas <= max(snap.policy.scale_max, granted)
    if action.kind is ActionKind.SCALE_DOWN:
        assert snap.status is not None
        assert action.replicas == snap.status.desired - 1
        assert action.replicas >= min(debt.before for debt in snap.ledger.debts)


@given(snapshots)
def test_never_rolls_back_to_what_has_not_soaked_and_never_undoes_an_undo(snap: Snapshot) -> None:
    action = decide(snap).action
    if action is not None and action.kind is ActionKind.ROLLBACK:
        soaked = {v.revision for v in snap.ledger.versions if v.soaked_at is not None}
        assert action.revision in soaked
        assert action.revision != action.before == snap.ledger.versions[0].revision
        assert snap.ledger.versions[0].actor != "prunella"


@given(snapshots)
def test_never_acts_twice_at_once(snap: Snapshot) -> None:
    if snap.phase is not Phase.WATCHING or snap.ledger.running:
        assert decide(snap).action is None


@given(snapshots)
def test_never_acts_on_an_unreadable_or_empty_target(snap: Snapshot) -> None:
    if snap.status is None or not snap.status.instances:
        assert decide(snap).action is None
        assert decide(replace(snap, forced=Forced("me", "now"))).action is None


@given(snapshots)
def test_never_acts_under_a_hold_beyond_the_budget_or_while_backing_off(snap: Snapshot) -> None:
    policy = snap.policy
    spent = [
        a
        for a in snap.ledger.attempts
        if NOW - a.at < policy.budget_window_s
        and a.outcome is not Outcome.CANCELLED
        and a.kind not in ASIDE
    ]
    waiting = backoff_until(snap.service, snap.ledger.attempts, policy, NOW) > NOW
    action = decide(snap).action
    if snap.ledger.holds:
        assert action is None
    if action is not None and (len(spent) >= policy.budget_actions or waiting):
        granted = max((debt.granted for debt in snap.ledger.debts), default=0)
        assert action.replicas is not None, "what is taken or put back is no remedy"
        assert action.replicas <= granted


@given(snapshots)
def test_never_acts_when_healing_is_off_and_only_pretends_when_observing(snap: Snapshot) -> None:
    decision = decide(snap)
    if snap.policy.mode is Mode.OFF:
        assert decision.action is None
    if snap.policy.mode is Mode.OBSERVE and decision.action is not None:
        assert decision.reason is Reason.OBSERVED


@given(snapshots)
def test_a_person_passes_the_yielding_guards_only(snap: Snapshot) -> None:
    decision = decide(replace(snap, forced=Forced("me", "now")))
    yielding = {guard.name for guard in guards() if guard.yields}
    assert not yielding & {veto.guard for veto in decision.vetoes}


@given(snapshots)
def test_a_person_never_passes_a_missing_lease(snap: Snapshot) -> None:
    if snap.fleet.lease:
        assert decide(replace(snap, forced=Forced("me", "now"))).action is None


@given(snapshots)
def test_every_veto_that_lifts_by_itself_sets_the_alarm(snap: Snapshot) -> None:
    decision = decide(snap)
    until = [veto.until for veto in decision.vetoes if veto.until is not None]
    if decision.reason is Reason.VETOED and until:
        assert decision.wake_at == max(until)
        assert decision.wake_at > NOW


@given(snapshots)
def test_never_takes_a_service_that_serves_below_its_healthy_share(snap: Snapshot) -> None:
    action, status = decide(snap).action, snap.status
    if action is None or status is None or snap.diagnosis.health is Health.FAILED:
        return
    running = {i.id for i in status.instances if i.state is InstanceState.RUNNING}
    if len(status.instances) > 1 and action.instance in running:
        assert len(running) - 1 >= snap.policy.min_healthy_ratio * len(status.instances)
    if action.kind is ActionKind.SCALE_DOWN and action.replicas is not None:
        assert len(running) - 1 >= snap.policy.min_healthy_ratio * action.replicas


def test_services_that_failed_together_do_not_come_back_together() -> None:
    five = tries(0, 0, 0, 0, 0)
    waits = sorted(
        backoff_until(ServiceId(f"s{number}"), five, Policy(), NOW) - NOW for number in range(100)
    )
    assert 16 * 0.75 <= waits[0] < waits[-1] <= 16 * 1.25
    assert waits[-1] - waits[0] > 6
    assert len(set(waits)) > 90


def test_the_wait_doubles_with_each_try_and_is_forgotten_in_time() -> None:
    policy = Policy(budget_actions=99)

    def wait_s(count: int, ago_s: float) -> float:
        past = tries(*[ago_s] * count)
        return backoff_until(ServiceId("web"), past, policy, NOW) - (NOW - ago_s)

    assert wait_s(0, 0) == 0
    assert 0.7 < wait_s(1, 0) < 1.3
    assert 1.4 < wait_s(2, 0) < 2.6
    assert 96 * 0.7 < wait_s(8, 0) < 128 * 1.3
    assert wait_s(20, 0) <= policy.backoff_cap_s * 1.25
    assert wait_s(3, 3 * policy.backoff_half_life_s) <= 3 * policy.backoff_half_life_s
