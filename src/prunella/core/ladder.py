"""From a symptom to the remedies for it, in their order, and to the one whose turn it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from prunella.core.budget import ASIDE
from prunella.core.ledger import LedgerView
from prunella.core.model import ActionKind, Instant, Outcome, Symptom, SymptomKind
from prunella.core.policy import Policy

A, S = ActionKind, SymptomKind

OURSELVES = "prunella"  # who acts when no person has asked for it
_NOT_OURS = (Outcome.FOREIGN, Outcome.CANCELLED)

_RUNGS: dict[SymptomKind, tuple[ActionKind, ...]] = {
    S.DOWN: (A.RESTART, A.CIRCUIT_BREAK),
    S.HUNG: (A.RESTART, A.CIRCUIT_BREAK),
    S.ERRORING: (A.RESTART, A.CIRCUIT_BREAK),
    S.SLOW: (A.RESTART, A.SCALE_UP),
    S.FLAPPING: (),
}
_RUNGS_OF_A_FRESH_VERSION: dict[SymptomKind, tuple[ActionKind, ...]] = {
    **_RUNGS,
    S.DOWN: (A.RESTART, A.ROLLBACK, A.CIRCUIT_BREAK),
    S.HUNG: (A.RESTART, A.ROLLBACK, A.CIRCUIT_BREAK),
    S.ERRORING: (A.ROLLBACK, A.CIRCUIT_BREAK),
}


def refine(symptom: Symptom, ledger: LedgerView, policy: Policy, now: Instant) -> Symptom:
    """Call a fault flapping when recoveries from it did not last."""
    recovered = [
        attempt
        for attempt in ledger.attempts
        if attempt.outcome is Outcome.RECOVERED
        and attempt.kind not in ASIDE
        and now - attempt.at <= policy.incident_window_s
    ]
    if len(recovered) < policy.flapping_recoveries:
        return symptom
    evidence = f"{len(recovered)} recoveries within {policy.incident_window_s:g} s did not last"
    return replace(symptom, kind=SymptomKind.FLAPPING, evidence=f"{evidence}; {symptom.evidence}")


def is_fresh(symptom: Symptom, ledger: LedgerView) -> bool:
    """Whether a version that has not soaked yet is the first suspect.

    It is if the fault began with it or after it, if there was another version before it, and if
    it was not a rollback that brought it.
    """
    versions = ledger.versions
    return (
        len(versions) > 1
        and versions[0].soaked_at is None
        and versions[0].actor != OURSELVES
        and symptom.since >= versions[0].deployed_at
    )


def rungs(
    symptom: Symptom, policy: Policy, capabilities: Collection[ActionKind], *, fresh: bool
) -> tuple[ActionKind, ...]:
    """The remedies for a symptom, in their order, as far as the service can be given them.

    Args:
        fresh: the version that runs is the first suspect, and there is one to go back to.
    """
    wanted = policy.ladder.get(symptom.kind)
    if wanted is None:
        wanted = (_RUNGS_OF_A_FRESH_VERSION if fresh else _RUNGS)[symptom.kind]
        if fresh and symptom.blames_version:  # another run of it would meet the same
            wanted = tuple(kind for kind in wanted if kind is not A.RESTART)
        if symptom.kind is S.SLOW and symptom.saturated and A.SCALE_UP in capabilities:
            wanted = (A.SCALE_UP, A.CIRCUIT_BREAK)
    return tuple(kind for kind in wanted if kind in capabilities)


def failed_count(ledger: LedgerView) -> int:
    """Remedies in a row that did not lead to a recovery: how many rungs up we are."""
    failed = 0
    for attempt in ledger.attempts:
        if attempt.kind in ASIDE or attempt.outcome in _NOT_OURS:
            continue
        if attempt.outcome in (Outcome.RECOVERED, Outcome.OBSERVED):
            break
        failed += 1
    return failed


def turn(able: Sequence[ActionKind], ledger: LedgerView) -> ActionKind | None:
    """The remedy to try now: one rung up for each failed try of this incident.

    The last rung is repeated until a guard ends the chain. None: there is no remedy.
    """
    return able[min(failed_count(ledger), len(able) - 1)] if able else None
