"""The ledger lines that stores write by themselves: the same words in every store."""

from __future__ import annotations

from prunella.core.ledger import Body, Entry, EntryKind, Grant, Intent, Mark, Step
from prunella.core.model import ActionId, ActionKind, Hold, ServiceId, Stamp


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
            "share": action.share,
            "revision": action.revision,
            "before": action.before,
            "ended": None if intent.ended is None else intent.ended.value,
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
            "success": finish.outcome.is_success,
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


def of_mark(mark: Mark) -> Entry:
    body = {
        "event": "soaked" if mark.soaked else "deployed",
        "revision": mark.revision,
        "evidence": mark.evidence,
    }
    actor = "prunella" if mark.soaked else mark.actor
    return Entry(EntryKind.VERSION, mark.at, mark.service, actor, body)


def of_grant(action: ActionId, intent: Intent, grant: Grant) -> Entry:
    """`grant` is what is owed now, which may be more than what the intent asked for."""
    kind, service = intent.action.kind, intent.action.service
    body = {**_of_debt(kind, action, grant), "event": "granted", "reason": intent.reason}
    return Entry(EntryKind.DEBT, intent.at, service, intent.actor, body)


def of_settlement(
    service: ServiceId, kind: ActionKind, action: ActionId, grant: Grant, now: Stamp, reason: str
) -> Entry:
    body = {**_of_debt(kind, action, grant), "event": "settled", "reason": reason}
    return Entry(EntryKind.DEBT, now, service, body=body)


def _of_debt(kind: ActionKind, action: ActionId, grant: Grant) -> Body:
    return {
        "action": kind.value,
        "id": action,
        "before": grant.before,
        "granted": grant.granted,
        "instance": grant.instance,
        "due": grant.due.wall.isoformat(),
        "extended_count": grant.extended_count,
    }
