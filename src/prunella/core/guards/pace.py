"""``pace``: when much is unwell, the fleet is healed one at a time and not all at once."""

from __future__ import annotations

from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto
from prunella.core.model import Instant


def judge(proposal: Proposal) -> Veto | None:
    fleet, policy = proposal.fleet, proposal.fleet_policy
    started = proposal.ledger.fleet_started
    if len(started) >= policy.burst:
        until = Instant(started[policy.burst - 1] + policy.pace_s)
        if until > proposal.now:
            reason = f"{policy.burst} actions in the last {policy.pace_s:g} s over the whole fleet"
            return Veto("pace", reason, until)
    if not started or fleet.unwell < 2 or fleet.unwell <= policy.pace_unwell_ratio * fleet.total:
        return None
    until = Instant(started[0] + policy.pace_s)
    if until <= proposal.now:
        return None
    share = f"{fleet.unwell} of {fleet.total} services are unwell"
    return Veto("pace", f"{share}: one action per {policy.pace_s:g} s", until)


GUARD = Guard("pace", 100, judge, yields=True, remedies=True)
