"""What exactly an action aims at: absolute targets, that can be read back and adopted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from prunella.core.breaker import CIRCUIT, SHARES, opening, share_of
from prunella.core.budget import INEFFECTIVE
from prunella.core.ledger import LedgerView
from prunella.core.model import (
    Action,
    ActionKind,
    Instance,
    InstanceId,
    InstanceState,
    Run,
    Scope,
    ServiceId,
    Status,
    Symptom,
    Version,
)
from prunella.core.policy import Policy
from prunella.core.traffic import Flow


class _Known(Protocol):
    """What of a snapshot an aim needs."""

    @property
    def status(self) -> Status | None: ...
    @property
    def flow(self) -> Flow | None: ...
    @property
    def ledger(self) -> LedgerView: ...
    @property
    def policy(self) -> Policy: ...
    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]: ...


def aim(kind: ActionKind, service: ServiceId, known: _Known, symptom: Symptom | None) -> Action:
    """The target of a remedy of `kind`; what cannot be known stays empty, for the guards to see."""
    status = known.status
    if kind in CIRCUIT:
        share = opening(symptom) if kind is ActionKind.CIRCUIT_BREAK else SHARES[-1]
        return turned(kind, service, known.flow, None, share)
    if status is None:
        return Action(kind, service)
    rolling = known.capabilities.get(kind) is not Scope.SERVICE
    match kind:
        case ActionKind.RESTART if not rolling:
            return Action(kind, service, identity=status.identity)
        case ActionKind.RESTART:
            chosen = restarted(status, symptom, known.ledger)
            if not chosen and symptom is not None and symptom.instances:
                return Action(kind, service, symptom.instances[0])
            return _rolling(Action(kind, service), chosen)
        case ActionKind.ROLLBACK:
            good = last_good(known.ledger, status.revision)
            action = Action(
                kind,
                service,
                revision=None if good is None else good.revision,
                before=status.revision or "",
            )
            return _rolling(action, status.instances) if rolling else action
        case ActionKind.SCALE_UP:
            # At most half as many again, so that what they depend on can follow.
            wanted = min(known.policy.scale_max, status.desired + max(1, status.desired // 2))
            return scale(kind, service, status.desired, wanted)
        case ActionKind.SCALE_DOWN:
            return scale(kind, service, status.desired, status.desired - 1)
        case _:
            raise AssertionError(f"{kind} is a circuit's")


def turned(
    kind: ActionKind, service: ServiceId, flow: Flow | None, instance: InstanceId | None, share: int
) -> Action:
    """The circuit of the service, or of one of its servers, at another share."""
    before = "" if flow is None else str(share_of(flow.valve, instance))
    return Action(kind, service, instance, share=share, before=before)


def scale(kind: ActionKind, service: ServiceId, present: int, wanted: int) -> Action:
    return Action(kind, service, replicas=wanted, before=str(present))


def restarted(status: Status, symptom: Symptom | None, ledger: LedgerView) -> tuple[Instance, ...]:
    """Those to restart: what is gone, else what is sick, else all, beginning with another one."""
    gone = tuple(i for i in status.instances if i.state is InstanceState.EXITED)
    if gone:
        return gone
    running = tuple(i for i in status.instances if i.state is InstanceState.RUNNING)
    sick = symptom.instances if symptom is not None else ()
    known = tuple(i for i in running if i.id in sick)
    if sick and not known:
        return ()  # nothing that its platform could restart
    pool = known or running or status.instances
    first = len(ledger.attempts) % len(pool) if pool else 0
    return pool[first:] + pool[:first]


def last_good(ledger: LedgerView, present: str | None) -> Version | None:
    """The version that last ran healthy through its soak, other than the present one."""
    soaked = (v for v in ledger.versions if v.soaked_at is not None and v.revision != present)
    return next(soaked, None)


def put_back(service: ServiceId, status: Status | None, ledger: LedgerView) -> Action | None:
    """The number that a mitigation had granted, if taking some of it back was too early."""
    last = next((one for one in ledger.attempts if one.kind not in CIRCUIT), None)
    if status is None or last is None or last.kind is not ActionKind.SCALE_DOWN:
        return None
    if last.outcome not in INEFFECTIVE:
        return None
    for debt in ledger.debts:
        if debt.kind is ActionKind.SCALE_UP and status.desired < debt.granted:
            return scale(debt.kind, service, status.desired, debt.granted)
    return None


def _rolling(action: Action, instances: Sequence[Instance]) -> Action:
    """The action on these instances, one after the other; the first one is the canary."""
    runs = tuple(Run(instance.id, instance.identity) for instance in instances)
    if not runs:
        return action
    canary = replace(action, instance=runs[0].instance, identity=runs[0].identity)
    return replace(canary, runs=runs) if len(runs) > 1 else canary
