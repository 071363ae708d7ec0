"""The decision: from a whole snapshot to what should happen next, and why. Total and pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prunella.core import targets
from prunella.core.breaker import circuits
from prunella.core.circuits import duty, shielding
from prunella.core.guards import Guard, Proposal, guards
from prunella.core.ladder import is_fresh, refine, rungs, turn
from prunella.core.ledger import Veto
from prunella.core.machine import Phase
from prunella.core.model import (
    Action,
    ActionKind,
    Debt,
    Health,
    Instant,
    Mode,
    Scope,
    Symptom,
    SymptomKind,
)
from prunella.core.snapshot import Decision, Dependency, Forced, Reason, Snapshot

_NO_SYMPTOM = {
    Health.UNKNOWN: Decision(Reason.BLIND, "no conclusive evidence: never act on unknown"),
    Health.HEALTHY: Decision(Reason.WELL, "nothing is wrong"),
    Health.SUSPECT: Decision(Reason.BELOW_THRESHOLD, "suspicion, not confirmed yet"),
}
_LEAST_WAIT_S = 0.001
_HEADROOM = 0.8  # an instance is taken away if the others stay below this share of their limit
_LOOK_AGAIN = 0.05  # of a mitigation's time, between looks at the load once it is due
_BUSY = Decision(Reason.BUSY, "an earlier action is not finished")
_OFF = Decision(Reason.OFF, "healing is off for this service")


def vet(snap: Snapshot, action: Action, chain: tuple[Guard, ...] | None = None) -> tuple[Veto, ...]:
    """Ask every guard. Called in memory to spare the store, and in its transaction to decide."""
    proposal = Proposal(
        action=action,
        policy=snap.policy,
        fleet_policy=snap.fleet_policy,
        diagnosis=snap.diagnosis,
        status=snap.status,
        ledger=snap.ledger,
        fleet=snap.fleet,
        grace_until=snap.grace_until,
        now=snap.now,
        scope=snap.capabilities.get(action.kind, Scope.INSTANCE),
        flow=snap.flow,
    )
    is_no_repair = proposal.takes_back or proposal.is_circuit
    found: list[Veto] = []
    for guard in guards() if chain is None else chain:
        if snap.forced is not None and (guard.yields or guard.name in snap.forced.override):
            continue
        if guard.remedies and is_no_repair:
            continue
        if (veto := guard.judge(proposal)) is not None:
            found.append(veto)
    return tuple(found)


def wake_after(vetoes: Sequence[Veto], now: Instant) -> Instant | None:
    """When the last of the vetoes that will lift by themselves has lifted, always after `now`.

    A guard may add and subtract the same window and differ in the last bit; asking again at the
    very instant it names would then never end.
    """
    until = [veto.until for veto in vetoes if veto.until is not None]
    return Instant(max(*until, now + _LEAST_WAIT_S)) if until else None


def decide(snap: Snapshot, chain: tuple[Guard, ...] | None = None) -> Decision:
    """Choose the next action for one service, or say why there is none. Never raises."""
    if snap.phase in (Phase.ACTING, Phase.VERIFYING):
        return _BUSY
    if snap.forced is not None:
        return _forced(snap, snap.forced, chain)
    if snap.phase is not Phase.WATCHING:
        return Decision(Reason.BUSY, f"the service is {snap.phase}")
    owed = duty(snap)
    if owed is None:
        return _of_service(snap, chain)
    if owed.action is not None:
        return _propose(snap, owed.action, owed.reason, owed.detail, snap.diagnosis.symptom, chain)
    if owed.settles is not None:
        return owed
    return _besides(_of_service(snap, chain), owed)


def _of_service(snap: Snapshot, chain: tuple[Guard, ...] | None) -> Decision:
    """What is to be done for the service itself."""
    if snap.diagnosis.symptom is None:
        owing = _scalings(snap) and snap.diagnosis.health is Health.HEALTHY
        return _repay(snap, chain) if owing else _NO_SYMPTOM[snap.diagnosis.health]
    symptom = refine(snap.diagnosis.symptom, snap.ledger, snap.policy, snap.now)
    if snap.policy.mode is Mode.OFF:
        return _OFF
    shield = shielding(snap, symptom)
    if shield is None:
        return _treat(snap, symptom, chain)
    shielded = _propose(
        snap, shield, Reason.HEAL, f"{symptom.kind}: {symptom.evidence}", symptom, chain
    )
    if shielded.action is not None:
        return shielded
    treated = _treat(snap, symptom, chain)
    # There is something to try yet: it is only not to be done now.
    return shielded if treated.reason is Reason.EXHAUSTED else treated


def _treat(snap: Snapshot, symptom: Symptom, chain: tuple[Guard, ...] | None) -> Decision:
    """What is to be done about the fault itself."""
    if not _worth_healing(symptom):
        return Decision(Reason.DEGRADED, f"degraded, not failed: {symptom.evidence}")
    if (culprit := _culprit(snap, symptom)) is not None:
        detail = f"{culprit.service}, which it needs, is {culprit.health}: that is healed first"
        return Decision(Reason.WAITING, detail, symptom=symptom)
    if (restored := targets.put_back(snap.service, snap.status, snap.ledger)) is not None:
        detail = f"taken back too early: {symptom.evidence}"
        return _propose(snap, restored, Reason.PUT_BACK, detail, symptom, chain)
    return _heal(snap, symptom, chain)


def _besides(decision: Decision, owed: Decision) -> Decision:
    """A decision while a circuit stands: it is not forgotten, nor is the service given up."""
    if decision.action is not None or decision.settles is not None:
        return decision
    wakes = [at for at in (decision.wake_at, owed.wake_at) if at is not None]
    wake_at = min(wakes, default=None)
    if decision.symptom is None:
        return replace(owed, wake_at=wake_at)
    if decision.reason is Reason.EXHAUSTED:
        detail = f"{owed.detail}; {decision.detail}"
        return replace(decision, reason=Reason.VETOED, detail=detail, wake_at=wake_at)
    return replace(decision, wake_at=wake_at)


def _culprit(snap: Snapshot, symptom: Symptom) -> Dependency | None:
    """A dependency whose trouble explains this one's, and that is not out of the way yet.

    One that is suspected is waited for: soon it is confirmed, or over.
    """
    for needed in snap.dependencies:
        trouble = needed.health is Health.FAILED or (
            needed.health in (Health.DEGRADED, Health.SUSPECT) and not symptom.factual
        )
        if not trouble and not (needed.healing and needed.health is not Health.HEALTHY):
            continue
        if not needed.optional:
            return needed
        open_since = needed.open_since
        if symptom.factual or (
            open_since is not None and snap.now - open_since >= snap.policy.grace_s
        ):
            continue  # it has had the time to do without
        return needed
    return None


def _heal(snap: Snapshot, symptom: Symptom, chain: tuple[Guard, ...] | None) -> Decision:
    """Propose the remedy whose turn it is, among those that make sense for this service now."""
    fresh = is_fresh(symptom, snap.ledger)
    can = set(snap.capabilities)
    if any(debt.instance is None for debt in circuits(snap.ledger.debts)):
        can.discard(ActionKind.CIRCUIT_BREAK)  # it stands open, and is looked after
    able = rungs(symptom, snap.policy, can, fresh=fresh)
    ruled_out = _ruled_out(snap, able, symptom, chain)
    if fresh and ActionKind.ROLLBACK in ruled_out:
        able = (*able, *rungs(symptom, snap.policy, can, fresh=False))
    able = tuple(kind for kind in dict.fromkeys(able) if kind not in ruled_out)
    kind = turn(able, snap.ledger)
    unfit = "".join(f"; no {other}: {veto.reason}" for other, veto in ruled_out.items())
    if kind is None:
        detail = f"no remedy left for {symptom.kind}: {symptom.evidence}{unfit}"
        vetoes = tuple(ruled_out.values())
        return Decision(Reason.EXHAUSTED, detail, vetoes=vetoes, symptom=symptom)
    action = targets.aim(kind, snap.service, snap, symptom)
    detail = f"{symptom.kind}: {symptom.evidence}{unfit}"
    return _propose(snap, action, Reason.HEAL, detail, symptom, chain)


def _ruled_out(
    snap: Snapshot,
    kinds: Sequence[ActionKind],
    symptom: Symptom,
    chain: tuple[Guard, ...] | None,
) -> dict[ActionKind, Veto]:
    """Remedies that make no sense here, whatever the time; each with its reason."""
    sane = {guard.name for guard in (guards() if chain is None else chain) if guard.sanity}
    found: dict[ActionKind, Veto] = {}
    for kind in kinds:
        for veto in vet(snap, targets.aim(kind, snap.service, snap, symptom), chain):
            if veto.guard in sane:
                found.setdefault(kind, veto)
    return found


def _propose(
    snap: Snapshot,
    action: Action,
    reason: Reason,
    detail: str,
    symptom: Symptom | None,
    chain: tuple[Guard, ...] | None,
) -> Decision:
    vetoes = vet(snap, action, chain)
    if vetoes:
        exhausting = {g.name for g in guards() if g.exhausts}
        final = next((v for v in vetoes if v.guard in exhausting), None)
        if final is not None:
            return Decision(Reason.EXHAUSTED, final.reason, None, None, vetoes, symptom)
        said = "; ".join(veto.reason for veto in vetoes)
        return Decision(Reason.VETOED, said, None, wake_after(vetoes, snap.now), vetoes, symptom)
    if snap.policy.mode is Mode.OBSERVE and action.kind is not ActionKind.CIRCUIT_CLOSE:
        reason = Reason.OBSERVED
    return Decision(reason, detail, action, None, (), symptom)


def _scalings(snap: Snapshot) -> tuple[Debt, ...]:
    return tuple(debt for debt in snap.ledger.debts if debt.kind is ActionKind.SCALE_UP)


def _repay(snap: Snapshot, chain: tuple[Guard, ...] | None) -> Decision:
    """Take a mitigation back, one instance at a time, once it is due and the load allows it."""
    debt = _scalings(snap)[0]
    if snap.status is None or snap.policy.mode is not Mode.AUTO:
        return _NO_SYMPTOM[Health.HEALTHY]
    present = snap.status.desired
    if present <= debt.before:
        return Decision(Reason.SETTLED, f"back to {present} instances", settles=debt)
    if present > debt.granted:
        detail = f"somebody else wants {present} instances, which is more than {debt.granted}"
        return Decision(Reason.SETTLED, detail, settles=debt)
    if snap.now < debt.due_at:
        left_s = debt.due_at - snap.now
        detail = f"{present} instances in place of {debt.before} for {left_s:.0f} s more"
        return Decision(Reason.OWING, detail, wake_at=debt.due_at)
    if snap.load is not None and snap.load * present / (present - 1) > _HEADROOM:
        again = Instant(snap.now + _LOOK_AGAIN * snap.policy.debt_ttl_s)
        detail = f"{present} instances stay: they are at {snap.load:.0%} of their limit"
        return Decision(Reason.OWING, detail, wake_at=again)
    action = targets.scale(ActionKind.SCALE_DOWN, snap.service, present, present - 1)
    detail = f"{debt.granted} instances have served their time"
    return _propose(snap, action, Reason.TAKE_BACK, detail, None, chain)


def _worth_healing(symptom: Symptom) -> bool:
    """A rate between the two thresholds is told, not treated; everything else is treated."""
    return (
        symptom.kind is not SymptomKind.ERRORING
        or symptom.severity is Health.FAILED
        or symptom.partial
    )


def _forced(snap: Snapshot, forced: Forced, chain: tuple[Guard, ...] | None) -> Decision:
    symptom = snap.diagnosis.symptom
    kind = forced.kind or ActionKind.RESTART
    if kind not in snap.capabilities:
        able = ", ".join(sorted(snap.capabilities)) or "nothing"
        veto = Veto("capability", f"this service cannot be given {kind}; it can: {able}")
        return Decision(Reason.VETOED, veto.reason, None, None, (veto,), symptom)
    action = targets.aim(kind, snap.service, snap, symptom)
    vetoes = vet(snap, action, chain)
    if vetoes:
        detail = "; ".join(veto.reason for veto in vetoes)
        return Decision(Reason.VETOED, detail, None, None, vetoes, symptom)
    return Decision(Reason.FORCED, forced.reason, action, None, (), symptom)
