"""``scale``: within what is allowed, and not again where it did not help."""

from __future__ import annotations

from prunella.core.budget import INEFFECTIVE, within
from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto
from prunella.core.model import ActionKind


def judge(proposal: Proposal) -> Veto | None:
    kind, replicas, policy = proposal.action.kind, proposal.action.replicas, proposal.policy
    if kind not in (ActionKind.SCALE_UP, ActionKind.SCALE_DOWN):
        return None
    if replicas is None:
        return Veto("scale", "it is not known how many there are")
    if kind is ActionKind.SCALE_DOWN:
        least = policy.scale_min
        return None if replicas >= least else Veto("scale", f"at least {least} must stay")
    status = proposal.status
    if status is not None and replicas <= status.desired:
        return Veto("scale", f"there are {status.desired} already, at most {policy.scale_max}")
    if proposal.takes_back:
        return None
    for attempt in within(proposal.ledger.attempts, policy.chain_window_s, proposal.now):
        if attempt.kind is ActionKind.SCALE_UP and attempt.outcome in INEFFECTIVE:
            hours = policy.chain_window_s / 3600
            return Veto("scale", f"scaling up did not help in the last {hours:g} h")
    return None


GUARD = Guard("scale", 84, judge, sanity=True)
