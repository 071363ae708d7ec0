"""``grace``: what has not come up yet is not condemned on samples; an exit counts at once."""

from __future__ import annotations

from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto


def judge(proposal: Proposal) -> Veto | None:
    if proposal.factual or proposal.now >= proposal.grace_until:
        return None
    left_s = proposal.grace_until - proposal.now
    return Veto("grace", f"still starting, {left_s:.0f} s of grace left", proposal.grace_until)


GUARD = Guard("grace", 50, judge, yields=True)
