"""What a remedy that is to be taken back is lent for: how much of it, and until when."""

from __future__ import annotations

from prunella.core.breaker import open_s, opened_count
from prunella.core.ledger import Grant
from prunella.core.model import Action, ActionKind, Debt, InstanceId, Stamp
from prunella.core.snapshot import Decision, Reason, Snapshot
from prunella.core.time import after

_EXTENSIONS = 6  # a mitigation that is needed again and again lasts 2**6 times as long at most


def grant(snap: Snapshot, decision: Decision, action: Action, now: Stamp) -> Grant | None:
    """The lease of a mitigation, longer each time that it was taken back too early.

    None: the action is no mitigation.
    """
    if action.kind is ActionKind.CIRCUIT_BREAK and action.share is not None:
        return _circuit(snap, decision, action, action.share, now)
    if action.kind is ActionKind.SCALE_UP and action.replicas is not None:
        return _replicas(snap, decision, action, action.replicas, now)
    return None


def owed(
    debts: tuple[Debt, ...], kind: ActionKind, instance: InstanceId | None = None
) -> Debt | None:
    """What is to be taken back of that kind, from the service or from one of its instances."""
    return next((d for d in debts if d.kind is kind and d.instance == instance), None)


def _replicas(snap: Snapshot, decision: Decision, action: Action, wanted: int, now: Stamp) -> Grant:
    debt = owed(snap.ledger.debts, action.kind)
    extended = 0 if debt is None else debt.extended_count
    if decision.reason is Reason.PUT_BACK:
        extended = min(extended + 1, _EXTENSIONS)
    present = int(action.before)
    before = present if debt is None else min(debt.before, present)
    return Grant(before, wanted, after(now, snap.policy.debt_ttl_s * 2**extended), extended)


def _circuit(snap: Snapshot, decision: Decision, action: Action, share: int, now: Stamp) -> Grant:
    debt = owed(snap.ledger.debts, action.kind, action.instance)
    if debt is None:
        count = opened_count(snap.ledger.attempts, action.instance, snap.policy, now.instant)
    else:
        count = debt.extended_count + (decision.reason is Reason.PUT_BACK)
    left_s = open_s(snap.policy, count)
    if debt is not None and decision.reason is Reason.ASSERT:
        left_s = debt.due_at - now.instant
    return Grant(100, share, after(now, left_s), count, action.instance)
