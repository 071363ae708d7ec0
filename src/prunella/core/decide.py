"""The decision: from a whole snapshot to what should happen next, and why. Total and pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from prunella.core.fleet import FleetView
from prunella.core.guards import Guard, Proposal, guards
from prunella.core.health import Diagnosis
from prunella.core.ladder import next_rung, refine
from prunella.core.ledger import LedgerView, Veto
from prunella.core.machine import Phase
from prunella.core.model import (
    Action,
    ActionKind,
    Health,
    Instance,
    InstanceState,
    Instant,
    Mode,
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
    """

    service: ServiceId
    policy: Policy
    fleet_policy: FleetPolicy
    phase: Phase
    diagnosis: Diagnosis
    status: Status | None
    capabilities: frozenset[ActionKind]
    now: Instant
    ledger: LedgerView = field(default_factory=LedgerView)
    fleet: FleetView = field(default_factory=FleetView)
    grace_until: Instant = Instant(0.0)
    forced: Forced | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and why.

    Attributes:
        action: None for "nothing now".
        wake_at: when to decide again if nothing happens before; None: on the next change.
        vetoes: the guards that spoke against the action, with their reasons.
        symptom: what the decision answers to.
    """

    reason: Reason
    detail: str
    action: Action | None = None
    wake_at: Instant | None = None
    vetoes: tuple[Veto, ...] = ()
    symptom: Symptom | None = None


_NO_SYMPTOM = {
    Health.UNKNOWN: Decision(Reason.BLIND, "no conclusive evidence: never act on unknown"),
    Health.HEALTHY: Decision(Reason.WELL, "nothing is wrong"),
    Health.SUSPECT: Decision(Reason.BELOW_THRESHOLD, "suspicion, not confirmed yet"),
}
_LEAST_WAIT_S = 0.001
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
    )
    found: list[Veto] = []
    for guard in guards() if chain is None else chain:
        if snap.forced is not None and (guard.yields or guard.name in snap.forced.override):
            continue
        if (veto := guard.judge(proposal)) is not None:
            found.append(veto)
    return tuple(found)


def target(snap: Snapshot, kind: ActionKind) -> Action:
    """The absolute target: the instance that is gone, else the next running one in turn."""
    instances = snap.status.instances if snap.status is not None else ()
    if kind is not ActionKind.RESTART or not instances:
        return Action(kind, snap.service)
    gone = [i for i in instances if i.state is InstanceState.EXITED]
    alive = [i for i in instances if i.state is InstanceState.RUNNING]
    pool: list[Instance] = gone or alive or list(instances)
    chosen = pool[0] if gone else pool[len(snap.ledger.attempts) % len(pool)]
    return Action(kind, snap.service, instance=chosen.id, identity=chosen.identity)


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
        return _NO_SYMPTOM[snap.diagnosis.health]
    symptom = refine(snap.diagnosis.symptom, snap.ledger, snap.policy, snap.now)
    if snap.policy.mode is Mode.OFF:
        return _OFF
    if not _worth_healing(symptom):
        return Decision(Reason.DEGRADED, f"degraded, not failed: {symptom.evidence}")
    kind = next_rung(symptom.kind, snap.ledger, snap.policy, snap.capabilities)
    if kind is None:
        detail = f"no remedy left for {symptom.kind}: {symptom.evidence}"
        return Decision(Reason.EXHAUSTED, detail, symptom=symptom)
    action = target(snap, kind)
    vetoes = vet(snap, action, chain)
    if vetoes:
        exhausting = {g.name for g in guards() if g.exhausts}
        final = next((v for v in vetoes if v.guard in exhausting), None)
        if final is not None:
            return Decision(Reason.EXHAUSTED, final.reason, None, None, vetoes, symptom)
        detail = "; ".join(veto.reason for veto in vetoes)
        return Decision(Reason.VETOED, detail, None, wake_after(vetoes, snap.now), vetoes, symptom)
    reason = Reason.OBSERVED if snap.policy.mode is Mode.OBSERVE else Reason.HEAL
    return Decision(reason, f"{symptom.kind}: {symptom.evidence}", action, None, (), symptom)


def _worth_healing(symptom: Symptom) -> bool:
    """A rate between the two thresholds is told, not treated; everything else is treated."""
    return symptom.kind is not SymptomKind.ERRORING or symptom.severity is Health.FAILED


def _forced(snap: Snapshot, forced: Forced, chain: tuple[Guard, ...] | None) -> Decision:
    symptom = snap.diagnosis.symptom
    kind = forced.kind or ActionKind.RESTART
    if kind not in snap.capabilities:
        able = ", ".join(sorted(snap.capabilities)) or "nothing"
        veto = Veto("capability", f"this platform cannot {kind}; it can do: {able}")
        return Decision(Reason.VETOED, veto.reason, None, None, (veto,), symptom)
    action = target(snap, kind)
    vetoes = vet(snap, action, chain)
    if vetoes:
        detail = "; ".join(veto.reason for veto in vetoes)
        return Decision(Reason.VETOED, detail, None, None, vetoes, symptom)
    return Decision(Reason.FORCED, forced.reason, action, None, (), symptom)
