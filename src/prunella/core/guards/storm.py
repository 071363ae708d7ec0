"""``storm``: many failing at once share a cause that restarts do not cure."""

from __future__ import annotations

from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto
from prunella.core.model import Instant


def judge(proposal: Proposal) -> Veto | None:
    if proposal.is_circuit:
        return None
    storm, fleet = proposal.fleet.storm, proposal.fleet
    if storm.since is None:
        return None
    calm_at = Instant(storm.quiet_since + proposal.fleet_policy.storm_window_s)
    if proposal.now < calm_at:
        left_s = calm_at - proposal.now
        reason = (
            f"storm: {fleet.unwell} of {fleet.total} services are unwell; {left_s:.0f} s of quiet"
        )
        return Veto("storm", f"{reason} are still needed before one is tried", calm_at)
    if fleet.domain_running >= storm.width:
        return Veto("storm", f"after a storm: {storm.width} at a time until they are verified")
    return None


GUARD = Guard("storm", 110, judge)
