"""The decision: from a whole snapshot to what should happen next, and why. Total and pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from prunella.core import targets
from prunella.core.fleet import FleetView
from prunella.core.guards import Guard, Proposal, guards
from prunella.core.health import Diagnosis
from prunella.core.ladder import is_fresh, refine, rungs, turn
from prunella.core.ledger import LedgerView, Veto
from prunella.core.machine import Phase
from prunella.core.model import (
    Action,
    ActionKind,
    Debt,
    Health,
    Instant,
    Mode,
    Scope,
    ServiceId,
    Status,
    Symptom,
    SymptomKind,
)
from prunella.core.policy import FleetPolicy, Policy


class Reason(StrEnum):
    """Why the healer did something, or nothing; a closed set, used as a metric label."""

    WELL = "well"
    BELOW_THRESHOLD = "below-threshold"
    DEGRADED = "degraded"
    BLIND = "blind"
    OFF = "off"
    BUSY = "busy"
    VETOED = "vetoed"
    EXHAUSTED = "exhausted"
    OBSERVED = "observed"
    HEAL = "heal"
    FORCED = "forced"
    OWING = "owing"  # a mitigation stands, and is not to be taken back yet
    TAKE_BACK = "take-back"  # a mitigation has served its time
    PUT_BACK = "put-back"  # it was taken back too early
    SETTLED = "settled"  # what a mitigation has changed is as it was


@dataclass(frozen=True, slots=True)
class Forced:
    """A person's order: who, why, and which guards it names as overridden."""

    actor: str
    reason: str
    kind: ActionKind | None = None
    override: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a decision may depend on, taken at one instant.

    Attributes:
        status: None when the platform cannot tell: then nothing is done.
        grace_until: until then samples are no evidence against the service; past once it is up.
        ledger: what is remembered; in the store's transaction it is read anew.
        load: share of its limit that the busiest measured resource is at; None: none is measured.
    """

    service: ServiceId
    policy: Policy
    fleet_policy: FleetPolicy
    phase: Phase
    diagnosis: Diagnosis
    status: Status | None
    capabilities: Mapping[ActionKind, Scope]
    now: Instant
    ledger: LedgerView = field(default_factory=LedgerView)
    fleet: FleetView = field(default_factory=FleetView)
    grace_until: Instant = Instant(0.0)
    forced: Forced | None = None
    load: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and why.

    Attributes:
        action: None for "nothing now".
        wake_at: when to decide again if nothing happens before; None: on the next change.
        vetoes: the guards that spoke against the action, with their reasons.
        symptom: what the decision answers to.
        settles: the debt that is paid, when that is all there is to do.
    """

    reason: Reason
    detail: str
    action: Action | None = None
    wake_at: Instant | None = None
    vetoes: tuple[Veto, ...] = ()
    symptom: Symptom | None = None
    settles: Debt | None = None


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
    )
    takes_back = proposal.takes_back
    found: list[Veto] = []
    for guard in guards() if chain is None else chain:
        if snap.forced is not None and (guard.yields or guard.name in snap.forced.override):
            continue
        if guard.remedies and takes_back:
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
    if snap.diagnosis.symptom is None:
        owing = snap.ledger.debts and snap.diagnosis.health is Health.HEALTHY
        return _repay(snap, chain) if owing else _NO_SYMPTOM[snap.diagnosis.health]
    symptom = refine(snap.diagnosis.symptom, snap.ledger, snap.policy, snap.now)
    if snap.policy.mode is Mode.OFF:
        return _OFF
    if not _worth_healing(symptom):
        return Decision(Reason.DEGRADED, f"degraded, not failed: {symptom.evidence}")
    if (restored := targets.put_back(snap.service, snap.status, snap.ledger)) is not None:
        detail = f"taken back too early: {symptom.evidence}"
        return _propose(snap, restored, Reason.PUT_BACK, detail, symptom, chain)
    return _heal(snap, symptom, chain)


def _heal(snap: Snapshot, symptom: Symptom, chain: tuple[Guard, ...] | None) -> Decision:
    """Propose the remedy whose turn it is, among those that make sense for this service now."""
    fresh = is_fresh(symptom, snap.ledger)
    able = rungs(symptom, snap.policy, snap.capabilities, fresh=fresh)
    ruled_out = _ruled_out(snap, able, symptom, chain)
    if fresh and ActionKind.ROLLBACK in ruled_out:
        able = (*able, *rungs(symptom, snap.policy, snap.capabilities, fresh=False))
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
    if snap.policy.mode is Mode.OBSERVE:
        reason = Reason.OBSERVED
    return Decision(reason, detail, action, None, (), symptom)


def _repay(snap: Snapshot, chain: tuple[Guard, ...] | None) -> Decision:
    """Take a mitigation back, one instance at a time, once it is due and the load allows it."""
    debt = snap.ledger.debts[0]
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
    return symptom.kind is not SymptomKind.ERRORING or symptom.severity is Health.FAILED


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
