"""From what the engines and the store know to what users hold (``prunella.wire``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from prunella.core.demand import MIN_REQUESTS
from prunella.core.health import status_word, uptime_ratio
from prunella.core.ledger import Entry, HealingRecord
from prunella.core.machine import Phase
from prunella.core.model import (
    Debt,
    Health,
    Hold,
    InstanceState,
    Instant,
    ServiceId,
    Stamp,
    Status,
)
from prunella.core.traffic import Flow
from prunella.runtime.demand import Demand
from prunella.runtime.engine import Engine
from prunella.wire import (
    CircuitState,
    DebtRecord,
    DecisionRecord,
    HealingAction,
    HoldRecord,
    Replicas,
    ServiceHealth,
    SystemHealth,
    TrafficRecord,
)

UPTIME_WINDOW_S = 86400.0


def wall_of(instant: Instant, now: Stamp) -> datetime:
    """The wall-clock time of an instant of this boot."""
    return now.wall - timedelta(seconds=now.instant - instant)


def to_action(record: HealingRecord) -> HealingAction:
    return HealingAction(
        id=str(record.id),
        service_id=record.service,
        action=record.action.value,
        reason=record.reason,
        timestamp=record.timestamp,
        success=record.success,
        recovery_time=record.recovery_time_ms,
        downtime=record.downtime_ms,
        outcome=record.outcome.value if record.outcome is not None else None,
        detail=record.detail,
        symptom=record.symptom.value if record.symptom is not None else None,
        evidence=record.evidence,
        incident_id=record.incident,
        actor=record.actor,
        instance=record.instance,
        replicas=record.replicas,
        revision=record.revision,
        before=record.before,
        share=record.share,
    )


def to_hold(hold: Hold) -> HoldRecord:
    return HoldRecord(
        service_id=hold.service,
        owner=hold.owner,
        reason=hold.reason,
        placed=hold.placed.wall,
        expires=hold.expires.wall if hold.expires is not None else None,
    )


def to_debts(owed: Mapping[ServiceId, Sequence[Debt]], now: Stamp) -> list[DebtRecord]:
    """All debts in one list; what is due first comes first."""
    found = [
        DebtRecord(
            service_id=service,
            kind=debt.kind.value,
            before=debt.before,
            granted=debt.granted,
            due=wall_of(debt.due_at, now),
            extended_count=debt.extended_count,
            action_id=str(debt.action),
            instance=debt.instance,
        )
        for service, debts in owed.items()
        for debt in debts
    ]
    return sorted(found, key=lambda debt: (debt.due, debt.service_id, debt.kind))


def to_decision(entry: Entry) -> DecisionRecord:
    guards = str(entry.body.get("guards", ""))
    return DecisionRecord(
        id=entry.seq,
        service_id=entry.service or "",
        timestamp=entry.at.wall,
        reason=str(entry.body.get("reason", "")),
        detail=str(entry.body.get("detail", "")),
        symptom=str(entry.body.get("symptom", "")) or None,
        guards=guards.split(", ") if guards else [],
    )


def service_health(engine: Engine, now: Stamp, *, paused: bool) -> ServiceHealth:
    """One service now; reads only values that are replaced whole, so any thread may call it."""
    vitals, diagnosis = tuple(engine.vitals.values()), engine.diagnosis
    seen = [v.last_at for v in vitals if v.last_at is not None]
    latencies = [v.latency_s for v in vitals if v.latency_s]
    uptime = uptime_ratio(tuple(engine.beliefs.changes), now.instant, UPTIME_WINDOW_S)
    symptom = diagnosis.symptom
    quiet = diagnosis.health is Health.HEALTHY and engine.phase is Phase.WATCHING
    detail = "" if quiet else engine.decision.detail
    traffic = to_traffic(engine.beliefs.demand, now.instant)
    error_rate = max((v.error_rate for v in vitals), default=0.0)
    if traffic is not None and traffic.requests >= MIN_REQUESTS:
        error_rate = traffic.error_rate
    return ServiceHealth(
        id=engine.service,
        name=engine.name,
        status=status_word(diagnosis.health, engine.phase),
        uptime=None if uptime is None else round(uptime * 100, 3),
        last_check=wall_of(max(seen), now) if seen else None,
        response_time=round(max(latencies) * 1000, 3) if latencies else None,
        error_rate=error_rate,
        restart_count=engine.record.restart_count,
        last_restart=engine.record.last_restart,
        phase=engine.phase.value,
        detail=symptom.evidence if symptom is not None else detail,
        symptom=symptom.kind.value if symptom is not None else None,
        paused=paused,
        replicas=None if engine.status is None else to_replicas(engine.status),
        revision=_revision(engine),
        circuit=None if engine.flow is None else to_circuit(engine.flow),
        traffic=traffic,
    )


def to_traffic(demand: Demand, now: Instant) -> TrafficRecord | None:
    found = demand.last_minute(now)
    if found is None:
        return None
    rate, last = found
    return TrafficRecord(
        requests=rate.requests,
        error_rate=round(rate.error_ratio, 6),
        in_flight=last.in_flight,
        p50=_ms(last.p50_s),
        p95=_ms(last.p95_s),
        p99=_ms(last.p99_s),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def to_circuit(flow: Flow) -> CircuitState:
    return CircuitState(share=flow.valve.share, shut=sorted(flow.valve.shut))


def _revision(engine: Engine) -> str | None:
    """What the platform says; what was deployed last, where it says nothing."""
    status = engine.status
    return (status.revision if status is not None else None) or engine.record.revision or None


def to_replicas(status: Status) -> Replicas:
    running_count = sum(one.state is InstanceState.RUNNING for one in status.instances)
    return Replicas(running=running_count, desired=status.desired)


def system_health(services: Sequence[ServiceHealth], action_count: int) -> SystemHealth:
    def count(word: str) -> int:
        return sum(service.status == word for service in services)

    times = [s.response_time for s in services if s.response_time is not None]
    healthy = count("healthy")
    return SystemHealth(
        total_services=len(services),
        healthy=healthy,
        degraded=count("degraded"),
        failed=count("failed"),
        recovering=count("recovering"),
        unknown=count("unknown"),
        health_percentage=round(100 * healthy / len(services), 2) if services else 0.0,
        total_restarts=sum(service.restart_count for service in services),
        total_healing_actions=action_count,
        average_response_time=round(sum(times) / len(times), 3) if times else None,
        services=list(services),
    )
