"""``min-healthy``: with several instances, never take the service below its healthy share."""

from __future__ import annotations

from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto
from prunella.core.model import ActionKind, Health, InstanceState, Scope


def judge(proposal: Proposal) -> Veto | None:
    """Judge by what would be left; a failed service has no healthy instance left to lose."""
    if proposal.is_circuit:
        return None
    status, action, symptom = proposal.status, proposal.action, proposal.diagnosis.symptom
    if status is None or len(status.instances) < 2 or proposal.diagnosis.health is Health.FAILED:
        return None
    sick = symptom.instances if symptom is not None else ()
    healthy = [i.id for i in status.instances if i.state is InstanceState.RUNNING]
    healthy = [instance for instance in healthy if instance not in sick]
    runs_wanted = {i.id for i in status.instances if i.revision and i.revision == action.revision}
    wanted = max(status.desired, len(status.instances))
    match action.kind:
        case ActionKind.SCALE_UP:
            return None
        case ActionKind.SCALE_DOWN:
            wanted = action.replicas or 0
            left = len(healthy) - 1
        case ActionKind.ROLLBACK if runs_wanted.issuperset(healthy):
            return None  # what is well runs that version already, and stays
        case _ if action.instance is not None:
            left = sum(instance != action.instance for instance in healthy)
        case _:
            left = len(healthy) - 1 if proposal.scope is Scope.SERVICE else 0
    if left >= len(healthy) or left >= proposal.policy.min_healthy_ratio * wanted:
        return None
    least = proposal.policy.min_healthy_ratio
    return Veto("min-healthy", f"{left} of {wanted} instances would be left, less than {least:.0%}")


GUARD = Guard("min-healthy", 90, judge)
