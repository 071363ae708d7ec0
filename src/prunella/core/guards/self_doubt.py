"""``self-doubt``: samples taken while our own sight was poor condemn nobody."""

from __future__ import annotations

from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto


def judge(proposal: Proposal) -> Veto | None:
    if proposal.factual:
        return None
    fleet = proposal.fleet
    if fleet.doubt:
        return Veto("self-doubt", fleet.doubt)
    if fleet.blind > proposal.fleet_policy.blind_ratio * fleet.total:
        return Veto("self-doubt", f"{fleet.blind} of {fleet.total} services cannot be seen")
    return None


GUARD = Guard("self-doubt", 20, judge)
