"""``backoff``: the wait doubles with each try and is forgotten with healthy time."""

from __future__ import annotations

from prunella.core.budget import backoff_until
from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto


def judge(proposal: Proposal) -> Veto | None:
    until = backoff_until(
        proposal.action.service, proposal.ledger.attempts, proposal.policy, proposal.now
    )
    if until <= proposal.now:
        return None
    return Veto("backoff", f"backing off for {until - proposal.now:.1f} s more", until)


GUARD = Guard("backoff", 60, judge, yields=True, remedies=True)
