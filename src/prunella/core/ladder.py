"""From a symptom to the remedy whose turn it is."""

from __future__ import annotations

from dataclasses import replace

from prunella.core.ledger import LedgerView
from prunella.core.model import ActionKind, Instant, Outcome, Symptom, SymptomKind
from prunella.core.policy import Policy


def refine(symptom: Symptom, ledger: LedgerView, policy: Policy, now: Instant) -> Symptom:
    """Call a fault flapping when recoveries from it did not last."""
    recovered = [
        attempt
        for attempt in ledger.attempts
        if attempt.outcome is Outcome.RECOVERED and now - attempt.at <= policy.incident_window_s
    ]
    if len(recovered) < policy.flapping_recoveries:
        return symptom
    evidence = f"{len(recovered)} recoveries within {policy.incident_window_s:g} s did not last"
    return replace(symptom, kind=SymptomKind.FLAPPING, evidence=f"{evidence}; {symptom.evidence}")


def next_rung(
    kind: SymptomKind,
    ledger: LedgerView,
    policy: Policy,
    capabilities: frozenset[ActionKind],
) -> ActionKind | None:
    """The remedy to try now: one rung up for each failed try of this incident.

    The last rung is repeated until a guard ends the chain. None: there is no remedy.
    """
    rungs = [rung for rung in policy.ladder.get(kind, ()) if rung in capabilities]
    if not rungs:
        return None
    failed = 0
    for attempt in ledger.attempts:
        if attempt.outcome in (Outcome.RECOVERED, Outcome.OBSERVED):
            break
        failed += 1
    return rungs[min(failed, len(rungs) - 1)]
