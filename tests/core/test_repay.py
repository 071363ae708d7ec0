"""When more instances are taken back, when they stay, and when nothing is owed any more."""

from dataclasses import replace

import pytest

from prunella.core.decide import decide
from prunella.core.health import Diagnosis
from prunella.core.ledger import LedgerView
from prunella.core.machine import Phase
from prunella.core.model import (
    ActionId,
    ActionKind,
    Debt,
    Health,
    Instance,
    InstanceId,
    InstanceState,
    Instant,
    Scope,
    ServiceId,
    Status,
)
from prunella.core.policy import FleetPolicy, Policy
from prunella.core.snapshot import Reason, Snapshot

NOW = Instant(1000.0)
DEBT = Debt(ActionKind.SCALE_UP, ActionId(1), before=2, granted=4, due_at=NOW)
SNAP = Snapshot(
    ServiceId("web"),
    Policy(scale_min=2, scale_max=4, debt_ttl_s=100.0),
    FleetPolicy(),
    Phase.WATCHING,
    Diagnosis(Health.HEALTHY),
    None,
    {ActionKind.SCALE_UP: Scope.SERVICE, ActionKind.SCALE_DOWN: Scope.SERVICE},
    NOW,
    LedgerView(debts=(DEBT,)),
)


def present(count: int) -> Status:
    numbers = (InstanceId(str(number)) for number in range(count))
    return Status(tuple(Instance(n, InstanceState.RUNNING, f"run {n}") for n in numbers), count)


@pytest.mark.parametrize(
    ("count", "load", "reason", "replicas"),
    [
        (4, None, Reason.TAKE_BACK, 3),
        (3, None, Reason.TAKE_BACK, 2),
        (4, 0.60, Reason.TAKE_BACK, 3),
        (4, 0.61, Reason.OWING, None),  # three would be at more than 80 %
        (3, 0.54, Reason.OWING, None),
        (2, 0.99, Reason.SETTLED, None),
        (1, None, Reason.SETTLED, None),
        (5, None, Reason.SETTLED, None),  # we have never asked for so many
    ],
)
def test_what_is_due_is_taken_back_one_by_one_while_the_load_allows_it(
    count: int, load: float | None, reason: Reason, replicas: int | None
) -> None:
    decision = decide(replace(SNAP, status=present(count), load=load))
    assert decision.reason is reason
    assert (decision.action.replicas if decision.action is not None else None) == replicas
    assert (decision.settles is DEBT) == (reason is Reason.SETTLED)


def test_what_is_not_due_yet_stays_until_then() -> None:
    due_at = Instant(NOW + 7)
    ledger = LedgerView(debts=(DEBT._replace(due_at=due_at),))
    decision = decide(replace(SNAP, status=present(4), ledger=ledger))
    assert (decision.reason, decision.wake_at) == (Reason.OWING, due_at)


def test_what_the_load_does_not_allow_is_looked_at_again_soon() -> None:
    decision = decide(replace(SNAP, status=present(4), load=0.9))
    assert decision.wake_at == NOW + 5
