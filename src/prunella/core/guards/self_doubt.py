"""``self-doubt``: samples taken while our own sight was poor condemn nobody."""

from __future__ import annotations

from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto
from prunella.core.model import Instant

_ASK_AGAIN_S = 0.5  # doubt passes sooner than the next check of the service comes


def judge(proposal: Proposal) -> Veto | None:
    if proposal.factual:
        return None
    fleet = proposal.fleet
    if fleet.doubt:
        return Veto("self-doubt", fleet.doubt, Instant(proposal.now + _ASK_AGAIN_S))
    if fleet.blind > proposal.fleet_policy.blind_ratio * fleet.total:
        return Veto("self-doubt", f"{fleet.blind} of {fleet.total} services cannot be seen")
    return None


GUARD = Guard("self-doubt", 20, judge)
