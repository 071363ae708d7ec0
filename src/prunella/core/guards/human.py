"""``human``: what a person has stopped on purpose stays stopped."""

from __future__ import annotations

from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto
from prunella.core.model import InstanceState


def judge(proposal: Proposal) -> Veto | None:
    if proposal.is_circuit:
        return None
    if proposal.status is None or not proposal.status.instances:
        return None
    stopped = all(i.state is InstanceState.STOPPED for i in proposal.status.instances)
    return Veto("human", "it was stopped on purpose") if stopped else None


GUARD = Guard("human", 15, judge, yields=True)
