"""``min-healthy``: with several instances, never take the service below its healthy share."""

from __future__ import annotations

from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto
from prunella.core.model import Health, InstanceState


def judge(proposal: Proposal) -> Veto | None:
    """Judge by what would be left; a failed service has no healthy instance left to lose."""
    status, action = proposal.status, proposal.action
    if status is None or len(status.instances) < 2 or proposal.diagnosis.health is Health.FAILED:
        return None
    running = [i for i in status.instances if i.state is InstanceState.RUNNING]
    if action.instance is None:
        left = 0
    else:
        left = sum(i.id != action.instance for i in running)
        if left == len(running):
            return None
    wanted = max(status.desired, len(status.instances))
    share = left / wanted
    if share >= proposal.policy.min_healthy_ratio:
        return None
    least = proposal.policy.min_healthy_ratio
    return Veto("min-healthy", f"{left} of {wanted} instances would be left, less than {least:.0%}")


GUARD = Guard("min-healthy", 90, judge)
