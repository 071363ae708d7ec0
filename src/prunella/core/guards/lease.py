"""``lease``: one action per service, and none without a fresh lease on the store."""

from __future__ import annotations

from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto


def judge(proposal: Proposal) -> Veto | None:
    if proposal.fleet.lease:
        return Veto("lease", proposal.fleet.lease)
    if proposal.action.service in proposal.ledger.running:
        return Veto("lease", "another action on this service is not finished")
    return None


GUARD = Guard("lease", 30, judge)
