"""All that a decision may depend on, and what a decision is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from prunella.core.fleet import FleetView
from prunella.core.health import Diagnosis
from prunella.core.ledger import LedgerView, Veto
from prunella.core.machine import Phase
from prunella.core.model import (
    Action,
    ActionKind,
    Debt,
    Health,
    Instant,
    Scope,
    ServiceId,
    Status,
    Symptom,
)
from prunella.core.policy import FleetPolicy, Policy
from prunella.core.traffic import Flow


class Reason(StrEnum):
    """Why the healer did something, or nothing; a closed set, used as a metric label."""

    WELL = "well"
    BELOW_THRESHOLD = "below-threshold"
    DEGRADED = "degraded"
    BLIND = "blind"
    OFF = "off"
    BUSY = "busy"
    VETOED = "vetoed"
    EXHAUSTED = "exhausted"
    OBSERVED = "observed"
    HEAL = "heal"
    FORCED = "forced"
    OWING = "owing"  # a mitigation stands, and is not to be taken back yet
    TAKE_BACK = "take-back"  # a mitigation has served its time
    PUT_BACK = "put-back"  # it was taken back too early
    ASSERT = "assert"  # what it had set is gone from the gateway
    SETTLED = "settled"  # what a mitigation has changed is as it was
    YIELDED = "yielded"  # somebody else has changed what a mitigation had set: that stands
    WAITING = "waiting"  # for what it depends on: that is healed first


@dataclass(frozen=True, slots=True)
class Forced:
    """A person's order: who, why, and which guards it names as overridden."""

    actor: str
    reason: str
    kind: ActionKind | None = None
    override: frozenset[str] = frozenset()


class Dependency(NamedTuple):
    """Another service that this one needs, as it is believed to be now.

    Attributes:
        optional: this one can live without it, if it fails at once.
        healing: an action on it is under way.
        open_since: since when its circuit is open; None: it is not.
    """

    service: ServiceId
    optional: bool
    health: Health
    healing: bool = False
    open_since: Instant | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a decision may depend on, taken at one instant.

    Attributes:
        status: None when the platform cannot tell: then nothing is done.
        grace_until: until then samples are no evidence against the service; past once it is up.
        ledger: what is remembered; in the store's transaction it is read anew.
        load: share of its limit that the busiest measured resource is at; None: none is measured.
        flow: as its gateway has it; None: it has none, or that cannot tell.
        turned_by_itself: the gateway may have forgotten what we have set, without anybody's doing.
        dependencies: what it needs.
        dispensable_to: services that could live without this one; ``hurt``: those of them that
            are unwell now.
        is_probed: something measures it besides its gateway.
    """

    service: ServiceId
    policy: Policy
    fleet_policy: FleetPolicy
    phase: Phase
    diagnosis: Diagnosis
    status: Status | None
    capabilities: Mapping[ActionKind, Scope]
    now: Instant
    ledger: LedgerView = field(default_factory=LedgerView)
    fleet: FleetView = field(default_factory=FleetView)
    grace_until: Instant = Instant(0.0)
    forced: Forced | None = None
    load: float | None = None
    flow: Flow | None = None
    turned_by_itself: bool = False
    dependencies: tuple[Dependency, ...] = ()
    dispensable_to: tuple[ServiceId, ...] = ()
    hurt: tuple[ServiceId, ...] = ()
    is_probed: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and why.

    Attributes:
        action: None for "nothing now".
        wake_at: when to decide again if nothing happens before; None: on the next change.
        vetoes: the guards that spoke against the action, with their reasons.
        symptom: what the decision answers to.
        settles: the debt that is paid, when that is all there is to do.
    """

    reason: Reason
    detail: str
    action: Action | None = None
    wake_at: Instant | None = None
    vetoes: tuple[Veto, ...] = ()
    symptom: Symptom | None = None
    settles: Debt | None = None
