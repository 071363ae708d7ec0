"""``hold``: a pause that somebody has placed is respected until it ends."""

from __future__ import annotations

from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto


def judge(proposal: Proposal) -> Veto | None:
    if proposal.is_circuit:
        return None
    for hold in proposal.ledger.holds:
        scope = "this service" if hold.service is not None else "everything"
        until = f" until {hold.expires.wall:%Y-%m-%d %H:%M:%S} UTC" if hold.expires else ""
        reason = f" ({hold.reason})" if hold.reason else ""
        return Veto("hold", f"{hold.owner} has paused {scope}{until}{reason}")
    return None


GUARD = Guard("hold", 40, judge, yields=True)
