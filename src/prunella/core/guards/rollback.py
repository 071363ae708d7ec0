"""``rollback``: only from a young version to one that has proved itself, and never to and fro."""

from __future__ import annotations

from fnmatch import fnmatchcase

from prunella.core.guards import Guard, Proposal
from prunella.core.ladder import OURSELVES
from prunella.core.ledger import Veto
from prunella.core.model import ActionKind, Outcome

_NO_EFFECT = (Outcome.ERROR, Outcome.INTERRUPTED, Outcome.CANCELLED, Outcome.OBSERVED)


def judge(proposal: Proposal) -> Veto | None:
    reason = _objection(proposal) if proposal.action.kind is ActionKind.ROLLBACK else ""
    return Veto("rollback", reason) if reason else None


def _objection(proposal: Proposal) -> str:
    action, policy, versions = proposal.action, proposal.policy, proposal.ledger.versions
    if not versions or not action.before:
        return "it is not known which version runs"
    now = versions[0]
    if now.revision != action.before:
        return f"{now.revision} was deployed last, and {action.before} is there"
    if action.revision is None:
        soak_min = policy.release_soak_s / 60
        return f"no other version has run healthy through its soak of {soak_min:g} min"
    if now.actor == OURSELVES:
        return f"{now.revision} is there by a rollback, and an undo is not undone"
    if any(fnmatchcase(now.revision, pattern) for pattern in policy.irreversible):
        return f"{now.revision} is marked irreversible"
    symptom = proposal.diagnosis.symptom
    if symptom is not None and symptom.since < now.deployed_at:
        return f"the fault is older than {now.revision}"
    for attempt in proposal.ledger.attempts:
        carried_out = attempt.kind is ActionKind.ROLLBACK and attempt.outcome not in _NO_EFFECT
        if carried_out and attempt.at >= now.deployed_at:
            return f"a rollback from {now.revision} was tried already"
    return ""


GUARD = Guard("rollback", 82, judge, sanity=True)
