"""What is remembered: the values that go into the store and come out of it.

The ledger is append-only and ordered by a sequence number, never by a timestamp. History,
budgets, holds and quarantine are read from it; nothing of that lives in memory alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from prunella.core.machine import Event, Phase
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Debt,
    Hold,
    IncidentId,
    InstanceId,
    Instant,
    Outcome,
    ServiceId,
    Stamp,
    SymptomKind,
    Version,
)

Scalar = str | int | float | bool | None
Body = Mapping[str, Scalar | list[str] | list[dict[str, str]]]


class EntryKind(StrEnum):
    """Everything that the ledger can say."""

    DECISION = "decision"  # including vetoes: what was deliberately not done, and why
    HEALTH = "health"
    INTENT = "intent"
    PHASE = "phase"
    OUTCOME = "outcome"
    HOLD = "hold"
    HOLD_LIFTED = "hold-lifted"
    LIFECYCLE = "lifecycle"  # started, adopted, stopped, by Prunella and not as a remedy
    VERSION = "version"  # deployed, or soaked
    DEBT = "debt"  # a remedy that is to be taken back: granted, or settled
    STORM = "storm"
    DAEMON = "daemon"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger. ``seq`` is 0 until the store has given it its number."""

    kind: EntryKind
    at: Stamp
    service: ServiceId | None = None
    actor: str = "prunella"
    body: Body = field(default_factory=dict[str, str])
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """The lease of a mitigation, as it is written; ``Debt`` is how it is read.

    Attributes:
        before: the number of replicas or the share that there was; ``granted``: that there may be
            now.
        due: from when on it is to be taken back.
        instance: whose circuit is open; None: the service's.
    """

    before: int
    granted: int
    due: Stamp
    extended_count: int = 0
    instance: InstanceId | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Something learnt about the version that a service runs: deployed, or soaked.

    Attributes:
        soaked: it has run healthy through its soak; else it has been deployed just now.
        actor: who deployed it; empty where that is not known.
    """

    service: ServiceId
    revision: str
    at: Stamp
    soaked: bool = False
    actor: str = ""
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """An action about to be carried out; durable before its effect.

    Attributes:
        failing_since: first failing evidence, where downtime starts; None for a forced action on
            a service that was well.
        event: CONFIRMED or FORCED, the move of the machine that this intent is.
        ended: set for what Prunella does not carry out: OBSERVED, it would have been done, or
            FOREIGN, the platform has done it by itself. The action is stored as ended with this
            outcome, and the service's phase stays.
        grant: a mitigation's lease, written with the intent and in place of an earlier one.
    """

    action: Action
    incident: IncidentId
    reason: str
    symptom: SymptomKind | None
    actor: str
    at: Stamp
    failing_since: Stamp | None
    event: Event
    evidence: str = ""
    ended: Outcome | None = None
    grant: Grant | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """How an action ended. Times in milliseconds, absent when nothing recovered."""

    action: ActionId
    outcome: Outcome
    detail: str = ""
    recovery_time_ms: float | None = None
    downtime_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One move of one service's machine: row, ledger entry and outcome in one transaction."""

    service: ServiceId
    event: Event
    phase: Phase
    at: Stamp
    reason: str
    wake_at: Stamp | None = None
    finish: Finish | None = None
    actor: str = "prunella"


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """Where healing stood for a service when it was last written.

    ``running`` is the action whose outcome is not yet known; ``intent`` is that action's intent.
    ``executed`` says whether its effect was recorded as carried out.
    """

    service: ServiceId
    phase: Phase
    phase_since: Stamp
    wake_at: Stamp | None
    reason: str
    running: ActionId | None
    intent: Intent | None
    restart_count: int
    action_count: int
    last_restart: datetime | None


@dataclass(frozen=True, slots=True)
class HealingRecord:
    """One healing action, as history shows it. ``success`` is None while it runs.

    ``replicas``, ``revision``, ``before`` and ``share`` are those of the action (``Action``).
    """

    id: ActionId
    service: ServiceId
    action: ActionKind
    reason: str
    timestamp: datetime
    success: bool | None
    recovery_time_ms: float | None
    downtime_ms: float | None
    outcome: Outcome | None
    detail: str
    symptom: SymptomKind | None
    evidence: str
    incident: IncidentId
    actor: str
    instance: str | None
    replicas: int | None
    revision: str | None
    before: str
    share: int | None = None


class Attempt(NamedTuple):
    """A past or running action as the guards see it, on this boot's clock."""

    kind: ActionKind
    at: Instant
    ended_at: Instant | None
    outcome: Outcome | None
    actor: str
    incident: IncidentId
    instance: InstanceId | None = None


class LedgerView(NamedTuple):
    """What the guards may know of the past; read inside the transaction that writes the intent.

    Attributes:
        attempts: actions on this service, newest first, at least the last 4 h of them.
        running: services that have an action without an outcome, with it.
        fleet_started: when the fleet's newest actions began, newest first, at most 16.
        holds: live holds on this service and on the whole instance.
        versions: deployments of this service, newest first, at most 32, the last one that soaked
            always among them.
        debts: remedies of this service that are still to be taken back, at most one of a kind for
            the service, and for each instance.
    """

    attempts: tuple[Attempt, ...] = ()
    running: frozenset[ServiceId] = frozenset()
    fleet_started: tuple[Instant, ...] = ()
    holds: tuple[Hold, ...] = ()
    versions: tuple[Version, ...] = ()
    debts: tuple[Debt, ...] = ()


@dataclass(frozen=True, slots=True)
class Veto:
    """A guard's refusal. ``until`` is when asking again may make sense; None: when told."""

    guard: str
    reason: str
    until: Instant | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the store: enough to name it to a person and to see whether it still lives."""

    host: str
    pid: int
    started: str  # kernel start time of the pid, so that a reused pid is not taken for it
    boot: str
    id: str  # new at each start
    address: str = ""  # where its API listens


@dataclass(frozen=True, slots=True)
class Page:
    """Items newest first; ``next`` is the cursor of the following page, None at the end."""

    items: tuple[HealingRecord, ...]
    next: int | None = None
