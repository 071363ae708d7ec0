"""The ledger lines that stores write by themselves: the same words in every store."""

from __future__ import annotations

from prunella.core.ledger import Entry, EntryKind, Intent, Step
from prunella.core.model import Hold, Outcome, ServiceId, Stamp


def of_intent(intent: Intent) -> Entry:
    action = intent.action
    return Entry(
        EntryKind.INTENT,
        intent.at,
        action.service,
        intent.actor,
        {
            "action": action.kind.value,
            "event": intent.event.value,
            "symptom": None if intent.symptom is None else intent.symptom.value,
            "reason": intent.reason,
            "evidence": intent.evidence,
            "incident": intent.incident,
            "instance": action.instance,
            "replicas": action.replicas,
            "revision": action.revision,
            "observed": intent.observed,
        },
    )


def of_step(step: Step) -> Entry:
    return Entry(
        EntryKind.PHASE,
        step.at,
        step.service,
        step.actor,
        {"event": step.event.value, "phase": step.phase.value, "reason": step.reason},
    )


def of_outcome(step: Step) -> Entry | None:
    """How the step's action ended; None when it ends none."""
    finish = step.finish
    if finish is None:
        return None
    return Entry(
        EntryKind.OUTCOME,
        step.at,
        step.service,
        step.actor,
        {
            "action": finish.action,
            "outcome": finish.outcome.value,
            "success": finish.outcome is Outcome.RECOVERED,
            "detail": finish.detail,
            "recovery_time_ms": finish.recovery_time_ms,
            "downtime_ms": finish.downtime_ms,
        },
    )


def of_hold(hold: Hold) -> Entry:
    until = None if hold.expires is None else hold.expires.wall.isoformat()
    return Entry(
        EntryKind.HOLD,
        hold.placed,
        hold.service,
        hold.owner,
        {"owner": hold.owner, "reason": hold.reason, "expires": until},
    )


def of_lift(service: ServiceId | None, hold: Hold, now: Stamp, actor: str) -> Entry:
    body = {"owner": hold.owner, "reason": hold.reason}
    return Entry(EntryKind.HOLD_LIFTED, now, service, actor, body)
