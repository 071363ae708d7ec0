"""Between values and rows, exactly: what goes in comes out equal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import RowMapping

from prunella.core.ledger import (
    Attempt,
    Entry,
    EntryKind,
    Finish,
    Grant,
    HealingRecord,
    Holder,
    Intent,
    ServiceRow,
)
from prunella.core.machine import Event, Phase
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Epoch,
    Hold,
    IncidentId,
    InstanceId,
    Instant,
    Outcome,
    Run,
    ServiceId,
    Stamp,
    SymptomKind,
)
from prunella.core.time import rebase
from prunella.stores._rules import Deployment

Row = Mapping[str, Any] | RowMapping
Values = dict[str, Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def moment(count: int) -> datetime:
    return _EPOCH + timedelta(microseconds=count)


def text(value: str) -> str:
    """`value` as UTF-8 can carry it: bytes that a target printed may not be UTF-8 at all."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode(errors="backslashreplace").decode()
    return value


def text_or_none(value: str | None) -> str | None:
    return None if value is None else text(value)


def of_stamp(name: str, stamp: Stamp | None) -> Values:
    if stamp is None:
        return {f"{name}_wall": None, f"{name}_instant": None, f"{name}_boot": None}
    return {
        f"{name}_wall": microseconds(stamp.wall),
        f"{name}_instant": stamp.instant,
        f"{name}_boot": stamp.boot,
    }


def stamp(name: str, row: Row | Values) -> Stamp:
    wall, instant = row[f"{name}_wall"], row[f"{name}_instant"]
    return Stamp(moment(wall), Instant(instant), row[f"{name}_boot"])


def stamp_or_none(name: str, row: Row) -> Stamp | None:
    return None if row[f"{name}_wall"] is None else stamp(name, row)


def instant(name: str, row: Row, now: Stamp) -> Instant:
    """A stored moment on the clock of `now`, as ``core.time.rebase`` has it."""
    # Most are of this boot, and need no date: a view has dozens of them.
    if row[f"{name}_boot"] == now.boot:
        return min(Instant(row[f"{name}_instant"]), now.instant)
    return rebase(stamp(name, row), now)


def of_entry(entry: Entry, epoch: Epoch) -> Values:
    return {
        "kind": entry.kind.value,
        "service": entry.service,
        "actor": text(entry.actor),
        **of_stamp("at", entry.at),
        "epoch": epoch,
        "body": dict(entry.body),
    }


def entry(row: Row) -> Entry:
    return Entry(
        EntryKind(row["kind"]),
        stamp("at", row),
        None if row["service"] is None else ServiceId(row["service"]),
        row["actor"],
        row["body"],
        row["seq"],
    )


def of_intent(action: int, intent: Intent) -> Values:
    ended = None if intent.ended is None else intent.at
    return {
        "id": action,
        "service": intent.action.service,
        "kind": intent.action.kind.value,
        "instance": intent.action.instance,
        "identity": text(intent.action.identity),
        "replicas": intent.action.replicas,
        "revision": text_or_none(intent.action.revision),
        "before": text(intent.action.before),
        "share": intent.action.share,
        "runs": [list(run) for run in intent.action.runs],
        "incident": intent.incident,
        "reason": text(intent.reason),
        "symptom": None if intent.symptom is None else intent.symptom.value,
        "actor": text(intent.actor),
        **of_stamp("at", intent.at),
        **of_stamp("failing", intent.failing_since),
        "event": intent.event.value,
        "evidence": text(intent.evidence),
        "observed": intent.ended is not None,
        "outcome": None if intent.ended is None else intent.ended.value,
        "success": None if intent.ended is None else False,
        "detail": "",
        **of_stamp("ended", ended),
        "grant": None if intent.grant is None else of_grant(intent.grant),
    }


def intent(row: Row) -> Intent:
    return Intent(
        action=Action(
            kind=ActionKind(row["kind"]),
            service=ServiceId(row["service"]),
            instance=None if row["instance"] is None else InstanceId(row["instance"]),
            identity=row["identity"],
            replicas=row["replicas"],
            revision=row["revision"],
            before=row["before"],
            share=row["share"],
            runs=tuple(Run(InstanceId(name), identity) for name, identity in row["runs"]),
        ),
        incident=IncidentId(row["incident"]),
        reason=row["reason"],
        symptom=_symptom(row),
        actor=row["actor"],
        at=stamp("at", row),
        failing_since=stamp_or_none("failing", row),
        event=Event(row["event"]),
        evidence=row["evidence"],
        ended=outcome(row) if row["observed"] else None,
        grant=None if row["grant"] is None else grant(row["grant"]),
    )


def _symptom(row: Row) -> SymptomKind | None:
    return None if row["symptom"] is None else SymptomKind(row["symptom"])


def outcome(row: Row) -> Outcome | None:
    return None if row["outcome"] is None else Outcome(row["outcome"])


def attempt(row: Row, now: Stamp) -> Attempt:
    return Attempt(
        ActionKind(row["kind"]),
        instant("at", row, now),
        None if row["ended_wall"] is None else instant("ended", row, now),
        outcome(row),
        row["actor"],
        IncidentId(row["incident"]),
        None if row["instance"] is None else InstanceId(row["instance"]),
    )


def of_finish(finish: Finish, ended: Stamp) -> Values:
    return {
        "outcome": finish.outcome.value,
        "success": finish.outcome.is_success,
        "detail": text(finish.detail),
        "recovery_time_ms": finish.recovery_time_ms,
        "downtime_ms": finish.downtime_ms,
        **of_stamp("ended", ended),
    }


def finish(row: Row) -> Finish | None:
    ending = outcome(row)
    if ending is None:
        return None
    return Finish(
        ActionId(row["id"]), ending, row["detail"], row["recovery_time_ms"], row["downtime_ms"]
    )


def record(row: Row) -> HealingRecord:
    return HealingRecord(
        id=ActionId(row["id"]),
        service=ServiceId(row["service"]),
        action=ActionKind(row["kind"]),
        reason=row["reason"],
        timestamp=moment(row["at_wall"]),
        success=row["success"],
        recovery_time_ms=row["recovery_time_ms"],
        downtime_ms=row["downtime_ms"],
        outcome=outcome(row),
        detail=row["detail"],
        symptom=_symptom(row),
        evidence=row["evidence"],
        incident=IncidentId(row["incident"]),
        actor=row["actor"],
        instance=row["instance"],
        replicas=row["replicas"],
        revision=row["revision"],
        before=row["before"],
        share=row["share"],
    )


def service_row(row: Row, running: Row | None) -> ServiceRow:
    last = row["last_restart"]
    return ServiceRow(
        service=ServiceId(row["service"]),
        phase=Phase(row["phase"]),
        phase_since=stamp("since", row),
        wake_at=stamp_or_none("wake", row),
        reason=row["reason"],
        running=None if running is None else ActionId(running["id"]),
        intent=None if running is None else intent(running),
        restart_count=row["restart_count"],
        action_count=row["action_count"],
        last_restart=None if last is None else moment(last),
    )


def of_hold(seq: int, hold: Hold) -> Values:
    return {
        "id": seq,
        "service": hold.service,
        "owner": text(hold.owner),
        "reason": text(hold.reason),
        **of_stamp("placed", hold.placed),
        **of_stamp("expires", hold.expires),
    }


def hold(row: Row) -> Hold:
    return Hold(
        None if row["service"] is None else ServiceId(row["service"]),
        row["owner"],
        row["reason"],
        stamp("placed", row),
        stamp_or_none("expires", row),
    )


def of_holder(holder: Holder) -> Values:
    return {
        "holder": holder.id,
        "host": holder.host,
        "pid": holder.pid,
        "started": holder.started,
        "boot": holder.boot,
        "address": holder.address,
    }


def holder(row: Row) -> Holder:
    return Holder(
        host=row["host"],
        pid=row["pid"],
        started=row["started"],
        boot=row["boot"],
        id=row["holder"],
        address=row["address"],
    )


def of_deployment(service: ServiceId, deployment: Deployment) -> Values:
    return {
        "id": deployment.seq,
        "service": service,
        "revision": text(deployment.revision),
        **of_stamp("deployed", deployment.deployed),
        "actor": text(deployment.actor),
        **of_stamp("soaked", deployment.soaked),
        "evidence": text(deployment.evidence),
    }


def deployment(row: Row) -> Deployment:
    return Deployment(
        seq=row["id"],
        revision=row["revision"],
        deployed=stamp("deployed", row),
        actor=row["actor"],
        soaked=stamp_or_none("soaked", row),
        evidence=row["evidence"],
    )


def of_grant(grant: Grant) -> Values:
    return {
        "before": grant.before,
        "granted": grant.granted,
        **of_stamp("due", grant.due),
        "extended_count": grant.extended_count,
        "instance": grant.instance or "",
    }


def grant(row: Row | Values) -> Grant:
    return Grant(
        row["before"],
        row["granted"],
        stamp("due", row),
        row["extended_count"],
        InstanceId(row["instance"]) if row["instance"] else None,
    )
