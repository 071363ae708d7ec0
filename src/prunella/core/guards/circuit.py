"""``circuit``: open only what does harm, and never so much that traffic stops because of us."""

from __future__ import annotations

from prunella.core.breaker import circuits, last_of, may_shut, share_of
from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto
from prunella.core.model import ActionKind, Health, Instant, Outcome, SymptomKind

_LASTING = {  # for as long as an incident lasts
    Outcome.FOREIGN: "somebody else has closed it: it is theirs now",
    Outcome.OBSERVED: "it would have been broken already",
}


def judge(proposal: Proposal) -> Veto | None:
    action, flow = proposal.action, proposal.flow
    if action.kind is not ActionKind.CIRCUIT_BREAK or flow is None or action.share is None:
        return None
    present = share_of(flow.valve, action.instance)
    if any(debt.instance == action.instance for debt in circuits(proposal.ledger.debts)):
        return None  # it stands open already, and is kept or put back
    if present <= action.share:
        return Veto("circuit", f"its circuit lets through {present} % already")
    last = last_of(proposal.ledger.attempts, action.instance)
    if last is not None and last.outcome is not None and last.outcome in _LASTING:
        until = Instant(last.at + proposal.policy.incident_window_s)
        if proposal.now < until:
            return Veto("circuit", _LASTING[last.outcome], until)
    if action.instance is not None:
        reason = may_shut(flow, action.instance, circuits(proposal.ledger.debts))
        return Veto("circuit", reason) if reason else None
    symptom = proposal.diagnosis.symptom
    if symptom is None or symptom.kind is SymptomKind.SLOW:
        return None
    if proposal.diagnosis.health is not Health.FAILED:
        return Veto("circuit", "a part of its requests is served")
    return None


GUARD = Guard("circuit", 85, judge, sanity=True)
