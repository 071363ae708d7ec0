"""``target``: an empty or unreadable set of instances is an error, never "all of them"."""

from __future__ import annotations

from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto


def judge(proposal: Proposal) -> Veto | None:
    if proposal.status is None:
        return Veto("target", "the platform cannot say what is running: nothing is touched")
    if not proposal.status.instances:
        return Veto("target", "the platform knows no instance of this service")
    wanted = proposal.action.instance
    if wanted is not None and all(i.id != wanted for i in proposal.status.instances):
        return Veto("target", f"instance {wanted} does not exist")
    return None


GUARD = Guard("target", 10, judge)
