"""What is to be done about circuits: when to open one at once, and how to close those that are."""

from __future__ import annotations

from prunella.core.breaker import (
    SHARES,
    circuits,
    is_panic,
    last_of,
    next_share,
    share_of,
    sick_servers,
)
from prunella.core.budget import INEFFECTIVE
from prunella.core.model import Action, ActionKind, Debt, Health, InstanceId, Mode, Outcome, Symptom
from prunella.core.snapshot import Decision, Reason, Snapshot
from prunella.core.targets import turned


def shielding(snap: Snapshot, symptom: Symptom) -> Action | None:
    """The circuit to break before the fault itself is treated; None: there is none.

    A sick server among healthy ones gets no more requests, and a service that others could live
    without gets none at all once it takes them down, or would: what has died is restarted sooner
    than they notice.
    """
    flow = snap.flow
    if flow is None or ActionKind.CIRCUIT_BREAK not in snap.capabilities:
        return None
    for server in sick_servers(symptom, snap.status, flow) if symptom.partial else ():
        if len(flow.servers) > 1:
            return turned(ActionKind.CIRCUIT_BREAK, snap.service, flow, server, 0)
    harmful = snap.hurt or (snap.dispensable_to and not symptom.factual)
    if harmful and symptom.severity is Health.FAILED and flow.valve.share:
        return turned(ActionKind.CIRCUIT_BREAK, snap.service, flow, None, 0)
    return None


def duty(snap: Snapshot) -> Decision | None:
    """What is due on the circuits that stand open; None: there are none."""
    found = [_duty(snap, debt) for debt in circuits(snap.ledger.debts)]
    if not found:
        return None
    urgent = next((one for one in found if one.action is not None), None)
    settled = next((one for one in found if one.settles is not None), None)
    if urgent is not None or settled is not None:
        return urgent or settled
    return min(found, key=lambda one: one.wake_at or float("inf"))


def _duty(snap: Snapshot, debt: Debt) -> Decision:
    flow, instance = snap.flow, debt.instance
    name = "the circuit" if instance is None else f"the circuit of {instance}"
    if flow is None:
        return Decision(Reason.OWING, f"{name} is open, and its gateway cannot be asked")
    if instance is not None and all(server.name != instance for server in flow.servers):
        return Decision(Reason.SETTLED, f"{instance} is gone", settles=debt)
    present = share_of(flow.valve, instance)
    last = last_of(snap.ledger.attempts, instance)
    if last is not None and last.outcome is Outcome.CANCELLED:
        return Decision(Reason.YIELDED, f"somebody else has changed {name}", settles=debt)
    if last is not None and last.kind is not ActionKind.CIRCUIT_CLOSE:
        last = None
    if last is not None and last.outcome in INEFFECTIVE and present > debt.granted:
        return _turn(snap, debt, debt.granted, "it was closed too early")
    if present >= debt.before:
        closed = last is not None and last.outcome is Outcome.RECOVERED
        return _closed(snap, debt, closed=closed)
    if present not in (debt.granted, *SHARES):
        detail = f"somebody else has set {name} to {present} %"
        return Decision(Reason.YIELDED, detail, settles=debt)
    if (hurry := _hurry(snap, instance)) is not None:
        return _turn(snap, debt, SHARES[-1], hurry)
    if snap.now < debt.due_at and last is None:
        left_s = debt.due_at - snap.now
        detail = f"{name} lets through {present} %, for {left_s:.0f} s more"
        return Decision(Reason.OWING, detail, wake_at=debt.due_at)
    return _half_open(snap, debt, name, present)


def _hurry(snap: Snapshot, instance: InstanceId | None) -> str | None:
    """Why it is to be closed at once; None: it is not."""
    if snap.policy.mode is not Mode.AUTO:
        return "healing is not automatic any more"
    if instance is not None and snap.flow is not None and is_panic(snap.flow):
        return "too few servers are left: all are let in"
    return None


def _half_open(snap: Snapshot, debt: Debt, name: str, present: int) -> Decision:
    """It has been open for its time: the next share, unless what is behind it is still ill."""
    if _is_sick(snap, debt.instance):
        symptom = snap.diagnosis.symptom
        why = "it is still unwell" if symptom is None else symptom.evidence
        return _turn(snap, debt, debt.granted, why)
    if snap.diagnosis.health is Health.UNKNOWN and snap.is_probed:
        return Decision(Reason.OWING, f"{name} is due, and nothing is known of the service")
    in_steps = debt.instance is None and snap.flow is not None and snap.flow.shares
    step = next_share(present) if in_steps else SHARES[-1]
    return _turn(snap, debt, step, f"{name} has been open for its time")


def _closed(snap: Snapshot, debt: Debt, *, closed: bool) -> Decision:
    """It is closed: by us, by somebody else, or by a gateway that began anew or was left alone."""
    if closed:
        return Decision(Reason.SETTLED, "the circuit is closed", settles=debt)
    if not snap.turned_by_itself:
        return Decision(Reason.YIELDED, "somebody else has closed the circuit", settles=debt)
    if snap.now >= debt.due_at:
        return Decision(Reason.SETTLED, "the gateway has closed it by itself", settles=debt)
    kind = ActionKind.CIRCUIT_BREAK
    action = turned(kind, snap.service, snap.flow, debt.instance, debt.granted)
    return Decision(Reason.ASSERT, "the gateway has begun anew without it", action)


def _is_sick(snap: Snapshot, instance: InstanceId | None) -> bool:
    symptom = snap.diagnosis.symptom
    if symptom is None or instance is None or snap.flow is None:
        return symptom is not None and instance is None
    # A server that is shut is judged by what measures it directly.
    valve = snap.flow.valve
    asked = snap.flow._replace(valve=valve._replace(shut=frozenset()))
    return instance in sick_servers(symptom, snap.status, asked)


def _turn(snap: Snapshot, debt: Debt, share: int, why: str) -> Decision:
    closing = share > debt.granted
    kind = ActionKind.CIRCUIT_CLOSE if closing else ActionKind.CIRCUIT_BREAK
    action = turned(kind, snap.service, snap.flow, debt.instance, share)
    return Decision(Reason.TAKE_BACK if closing else Reason.PUT_BACK, why, action)
