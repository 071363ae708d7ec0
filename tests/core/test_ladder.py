"""Whose turn it is: one rung up for each failed try, and down again after a recovery."""

import pytest
from tests.core.conftest import NOW, tries

from prunella.core.ladder import failed_count, refine, turn
from prunella.core.ledger import Attempt, LedgerView
from prunella.core.model import ActionKind, Health, Instant, Outcome, Symptom, SymptomKind
from prunella.core.policy import Policy

RUNGS = (ActionKind.RESTART, ActionKind.ROLLBACK, ActionKind.CIRCUIT_BREAK)
BY_SIGN = {
    "+": Outcome.RECOVERED,
    "-": Outcome.INEFFECTIVE,
    "e": Outcome.ERROR,
    "i": Outcome.INTERRUPTED,
    "r": Outcome.RELAPSED,
    "o": Outcome.OBSERVED,
    "f": Outcome.FOREIGN,
    "c": Outcome.CANCELLED,
}


def newest_first(script: str) -> LedgerView:
    past = [tries(ago, outcome=BY_SIGN[sign]) for ago, sign in enumerate(script, start=1)]
    return LedgerView(attempts=tuple(one for (one,) in past))


@pytest.mark.parametrize(
    ("script", "failed", "remedy"),
    [
        ("", 0, ActionKind.RESTART),
        ("-", 1, ActionKind.ROLLBACK),
        ("re", 2, ActionKind.CIRCUIT_BREAK),
        ("-ire", 4, ActionKind.CIRCUIT_BREAK),  # the last rung is repeated
        ("-+--", 1, ActionKind.ROLLBACK),
        ("+---", 0, ActionKind.RESTART),
        ("o---", 0, ActionKind.RESTART),
        ("f-c", 1, ActionKind.ROLLBACK),  # what others did says nothing of ours
    ],
)
def test_turns(script: str, failed: int, remedy: ActionKind) -> None:
    ledger = newest_first(script)
    assert failed_count(ledger) == failed
    assert turn(RUNGS, ledger) is remedy


def test_without_a_remedy_it_is_nobodys_turn() -> None:
    assert turn((), LedgerView()) is None


@pytest.mark.parametrize(
    ("past", "kind"),
    [
        (tries(10, 20), SymptomKind.HUNG),
        (tries(10, 20, 30), SymptomKind.FLAPPING),
        (tries(10, 20, 3600), SymptomKind.FLAPPING),
        (tries(10, 20, 3601), SymptomKind.HUNG),
        (tries(10, 20, 30, outcome=Outcome.INEFFECTIVE), SymptomKind.HUNG),
        (tries(10, 20, 30, kind=ActionKind.SCALE_DOWN), SymptomKind.HUNG),
    ],
)
def test_recoveries_that_do_not_last_are_called_flapping(
    past: tuple[Attempt, ...], kind: SymptomKind
) -> None:
    hung = Symptom(SymptomKind.HUNG, Health.FAILED, Instant(NOW - 1), "no answer")
    found = refine(hung, LedgerView(attempts=past), Policy(), NOW)
    assert found.kind is kind
    assert found.evidence.endswith("no answer")
