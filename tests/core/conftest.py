"""Snapshots to decide on: some with nothing against a remedy, and others made from them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunella.core.breaker import CIRCUIT
from prunella.core.fleet import FleetView
from prunella.core.health import Diagnosis
from prunella.core.ledger import Attempt, LedgerView
from prunella.core.machine import Phase
from prunella.core.model import (
    ActionId,
    ActionKind,
    Debt,
    Health,
    Hold,
    IncidentId,
    Instance,
    InstanceId,
    InstanceState,
    Instant,
    Outcome,
    Scope,
    ServiceId,
    Status,
    Symptom,
    SymptomKind,
    Version,
)
from prunella.core.policy import FleetPolicy, Policy
from prunella.core.snapshot import Snapshot
from prunella.core.traffic import OPEN_WIDE, Flow, Server, Traffic
from prunella.testing.clock import SimClock

NOW = Instant(100_000.0)
HELD = Hold(None, "ops", "deploy", SimClock().stamp())
ONE = Status((Instance(InstanceId("0"), InstanceState.RUNNING, "r0"),), 1)
CLEAR = Snapshot(
    service=ServiceId("web"),
    policy=Policy(),
    fleet_policy=FleetPolicy(),
    phase=Phase.WATCHING,
    diagnosis=Diagnosis(
        Health.FAILED, Symptom(SymptomKind.HUNG, Health.FAILED, NOW, "3 checks in a row failed")
    ),
    status=ONE,
    capabilities={ActionKind.RESTART: Scope.INSTANCE},
    now=NOW,
    fleet=FleetView(total=10),
    grace_until=Instant(NOW - 10),
)


TWO = tuple(Instance(InstanceId(name), InstanceState.RUNNING, name) for name in "ab")
SCALES = {ActionKind.SCALE_UP: Scope.SERVICE, ActionKind.SCALE_DOWN: Scope.SERVICE}
CROWDED = replace(
    CLEAR,
    policy=Policy(scale_max=4),
    diagnosis=Diagnosis(
        Health.DEGRADED,
        Symptom(SymptomKind.SLOW, Health.DEGRADED, NOW, "answers take 2 s", saturated=True),
    ),
    status=Status(TWO, 2),
    capabilities=SCALES,
)
RELEASED = replace(
    CLEAR,
    diagnosis=Diagnosis(
        Health.FAILED, Symptom(SymptomKind.ERRORING, Health.FAILED, NOW, "500 three times")
    ),
    status=ONE._replace(revision="v2"),
    capabilities={ActionKind.ROLLBACK: Scope.SERVICE},
    ledger=LedgerView(
        versions=(
            Version("v2", Instant(NOW - 60)),
            Version("v1", Instant(NOW - 9000), soaked_at=Instant(NOW - 8000)),
        )
    ),
)
OWING = replace(
    CROWDED,
    diagnosis=Diagnosis(Health.HEALTHY),
    ledger=LedgerView(
        debts=(Debt(ActionKind.SCALE_UP, ActionId(1), before=1, granted=2, due_at=NOW),)
    ),
)


FLOW = Flow(OPEN_WIDE, Traffic(NOW), (Server("0"), Server("1")))
SHEDDING = replace(
    CLEAR,
    policy=Policy(ladder={SymptomKind.HUNG: (ActionKind.CIRCUIT_BREAK,)}),
    capabilities=dict.fromkeys(CIRCUIT, Scope.SERVICE),
    flow=FLOW,
)


def but(changes: Mapping[str, Any], base: Snapshot = CLEAR) -> Snapshot:
    """That snapshot with some fields, its own or its ledger's or its fleet's, otherwise."""
    ledger = {name: changes[name] for name in LedgerView._fields if name in changes}
    fleet = {name: changes[name] for name in FleetView._fields if name in changes}
    own = {name: value for name, value in changes.items() if name not in ledger | fleet}
    return replace(
        base,
        ledger=base.ledger._replace(**ledger),
        fleet=base.fleet._replace(**fleet),
        **own,
    )


def tries(
    *ago_s: float, outcome: Outcome = Outcome.RECOVERED, kind: ActionKind = ActionKind.RESTART
) -> tuple[Attempt, ...]:
    """Attempts that began, and ended, so long ago."""
    return tuple(
        Attempt(
            kind,
            Instant(NOW - ago),
            Instant(NOW - ago),
            outcome,
            "prunella",
            IncidentId("i"),
        )
        for ago in ago_s
    )
