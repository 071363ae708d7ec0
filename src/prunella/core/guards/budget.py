"""``budget``: so many actions on one service in a window, and no more."""

from __future__ import annotations

from prunella.core.budget import within
from prunella.core.guards import Guard, Proposal
from prunella.core.ledger import Veto
from prunella.core.model import Instant


def judge(proposal: Proposal) -> Veto | None:
    policy = proposal.policy
    spent = within(proposal.ledger.attempts, policy.budget_window_s, proposal.now)
    if len(spent) < policy.budget_actions:
        return None
    until = Instant(spent[policy.budget_actions - 1].at + policy.budget_window_s)
    window_min = policy.budget_window_s / 60
    return Veto("budget", f"{len(spent)} actions in the last {window_min:g} min", until)


GUARD = Guard("budget", 70, judge, yields=True, remedies=True)
