"""``chain``: remedies that do not help, or are needed again and again, are stopped for good."""

from __future__ import annotations

from prunella.core.budget import INEFFECTIVE, within
from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto


def judge(proposal: Proposal) -> Veto | None:
    policy = proposal.policy
    recent = within(proposal.ledger.attempts, policy.chain_window_s, proposal.now)
    useless = sum(attempt.outcome in INEFFECTIVE for attempt in recent)
    hours = policy.chain_window_s / 3600
    if useless >= policy.ineffective_limit:
        return Veto("chain", f"{useless} actions in {hours:g} h did not help")
    if len(recent) >= policy.attempts_limit:
        return Veto("chain", f"{len(recent)} actions in {hours:g} h, and it is unwell again")
    return None


GUARD = Guard("chain", 80, judge, yields=True, remedies=True, exhausts=True)
