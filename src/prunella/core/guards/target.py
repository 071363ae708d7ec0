"""``target``: an empty or unreadable set of instances is an error, never "all of them"."""

from __future__ import annotations

from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto


def judge(proposal: Proposal) -> Veto | None:
    if proposal.is_circuit:
        return _of_circuit(proposal)
    if proposal.status is None:
        return Veto("target", "the platform cannot say what is running: nothing is touched")
    if not proposal.status.instances:
        return Veto("target", "the platform knows no instance of this service")
    wanted = proposal.action.instance
    if wanted is not None and all(i.id != wanted for i in proposal.status.instances):
        return Veto("target", f"instance {wanted} does not exist")
    return None


def _of_circuit(proposal: Proposal) -> Veto | None:
    flow, wanted = proposal.flow, proposal.action.instance
    if flow is None:
        return Veto("target", "its gateway cannot say what it lets through: nothing is touched")
    if wanted is not None and all(server.name != wanted for server in flow.servers):
        return Veto("target", f"its gateway has no server {wanted}")
    if wanted is None and not flow.shares and proposal.action.share not in (0, 100):
        return Veto("target", "its gateway lets all of its requests through, or none")
    return None


GUARD = Guard("target", 10, judge)
