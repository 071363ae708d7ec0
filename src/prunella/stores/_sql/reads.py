"""Every question to the database. Each takes a connection that is within a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    false,
    literal,
    or_,
    select,
)

from prunella.core.holds import in_force, is_live
from prunella.core.ledger import Attempt, Entry, EntryKind, Finish, LedgerView, Page, ServiceRow
from prunella.core.model import (
    ActionId,
    Hold,
    ServiceId,
    Stamp,
)
from prunella.core.policy import BURST
from prunella.stores import _rules as rules
from prunella.stores._sql import deployments, owed, rows
from prunella.stores._sql.prepared import Prepared
from prunella.stores._sql.schema import actions, holder, holds, ledger, services

_LAST: Final = 2**63 - 1  # a cursor behind every line

_ATTEMPTS = Prepared(
    select(
        actions.c.id,
        actions.c.kind,
        actions.c.outcome,
        actions.c.actor,
        actions.c.incident,
        actions.c.instance,
        actions.c.at_wall,
        actions.c.at_instant,
        actions.c.at_boot,
        actions.c.ended_wall,
        actions.c.ended_instant,
        actions.c.ended_boot,
    )
    .where(actions.c.service == bindparam("of"), actions.c.id < bindparam("before"))
    .order_by(actions.c.id.desc())
    .limit(rules.VIEW_CHUNK)
)
_RUNNING_SERVICES = Prepared(select(actions.c.service).where(actions.c.outcome.is_(None)))
_FLEET = Prepared(
    select(actions.c.at_wall, actions.c.at_instant, actions.c.at_boot)
    .where(actions.c.observed == false())
    .order_by(actions.c.id.desc())
    .limit(BURST)
)
_HOLDS = Prepared(select(holds).order_by(holds.c.id))
_RUNNING = select(actions).where(actions.c.outcome.is_(None))
_SERVICES = select(services).order_by(services.c.service)
_ACTION = select(actions).where(actions.c.id == bindparam("of"))


def view(connection: Connection, service: ServiceId, now: Stamp) -> LedgerView:
    return LedgerView(
        attempts=tuple(rules.attempts(_chunks(connection, service, now), now.instant)),
        running=frozenset(ServiceId(row["service"]) for row in _RUNNING_SERVICES.rows(connection)),
        fleet_started=tuple(rows.instant("at", row, now) for row in _FLEET.rows(connection)),
        holds=in_force(live_holds(connection, now), service, now),
        versions=tuple(rules.version(one, now) for one in deployments.of(connection, service)),
        debts=owed.of(connection, service, now),
    )


def _chunks(connection: Connection, service: ServiceId, now: Stamp) -> Iterator[list[Attempt]]:
    before = _LAST
    while True:
        found = _ATTEMPTS.rows(connection, {"of": service, "before": before})
        yield [rows.attempt(row, now) for row in found]
        if len(found) < rules.VIEW_CHUNK:
            return
        before = found[-1]["id"]


def running(connection: Connection, service: ServiceId) -> rows.Row | None:
    """The row of the action on `service` that has no outcome."""
    found = _RUNNING.where(actions.c.service == service)
    return connection.execute(found).mappings().one_or_none()


def live_holds(connection: Connection, now: Stamp) -> list[Hold]:
    found = (rows.hold(row) for row in _HOLDS.rows(connection))
    return [hold for hold in found if is_live(hold, now)]


def load(connection: Connection) -> list[ServiceRow]:
    at_work = {row["service"]: row for row in connection.execute(_RUNNING).mappings()}
    return [
        rows.service_row(row, at_work.get(row["service"]))
        for row in connection.execute(_SERVICES).mappings()
    ]


def history(
    connection: Connection, limit: int, service: ServiceId | None, before: int | None
) -> Page:
    if limit < 1:
        return Page(())
    wanted = select(actions).where(actions.c.id < (_LAST if before is None else before))
    if service is not None:
        wanted = wanted.where(actions.c.service == service)
    wanted = wanted.order_by(actions.c.id.desc()).limit(limit + 1)
    found = connection.execute(wanted).mappings().all()
    items = tuple(rows.record(row) for row in found[:limit])
    return Page(items, items[-1].id if len(found) > limit else None)


def action(connection: Connection, wanted: ActionId) -> Finish | None:
    row = connection.execute(_ACTION, {"of": wanted}).mappings().one_or_none()
    if row is None:
        raise rules.unknown_action(wanted)
    return rows.finish(row)


def entries(
    connection: Connection,
    limit: int,
    service: ServiceId | None,
    kinds: frozenset[EntryKind],
    before: int | None,
) -> list[Entry]:
    """Ledger lines, newest first, by one walk down an index per kind."""
    wanted = select(ledger).where(ledger.c.seq < (_LAST if before is None else before))
    wanted = wanted.order_by(ledger.c.seq.desc()).limit(max(0, limit))
    if service is not None:
        # One service's lines are few: its index is the one to walk, whatever the kinds.
        wanted = wanted.where(ledger.c.service == service)
        if kinds:
            wanted = wanted.where(ledger.c.kind.in_([kind.value for kind in sorted(kinds)]))
        return _entries(connection, wanted)
    if not kinds:
        return _entries(connection, wanted)
    found = [
        _entries(connection, wanted.where(ledger.c.kind == kind.value)) for kind in sorted(kinds)
    ]
    newest = merge(*found, key=lambda line: line.seq, reverse=True)
    return list(islice(newest, max(0, limit)))


def _entries(connection: Connection, wanted: Select[tuple[object, ...]]) -> list[Entry]:
    return [rows.entry(row) for row in connection.execute(wanted).mappings()]


def held(connection: Connection) -> rows.Row | None:
    """The row of the present or last holder; None if there never was one."""
    return connection.execute(select(holder)).mappings().one_or_none()


def present(connection: Connection) -> Stamp | None:
    """The latest moment that the store knows of: a beat or the newest line."""
    row = held(connection)
    beat = None if row is None else rows.stamp_or_none("beat", row)
    newest = connection.execute(select(ledger).order_by(ledger.c.seq.desc()).limit(1))
    line = newest.mappings().one_or_none()
    if line is None:
        return beat
    at = rows.stamp("at", line)
    return at if beat is None else rules.later(beat, at)


def old_lines(
    connection: Connection, keep_from: Stamp, now: Stamp, after: int, limit: int
) -> Sequence[int]:
    """The next lines of the ledger, by sequence, that age alone would let go."""
    wanted = select(ledger.c.seq).where(ledger.c.seq > after, *_old(ledger, "at", keep_from, now))
    return connection.execute(wanted.order_by(ledger.c.seq).limit(limit)).scalars().all()


def old_actions(
    connection: Connection, keep_from: Stamp, now: Stamp, after: int, limit: int
) -> Sequence[int]:
    """The next ended actions, by id, that age alone would let go."""
    wanted = select(actions.c.id).where(
        actions.c.id > after, *_old(actions, "ended", keep_from, now)
    )
    return connection.execute(wanted.order_by(actions.c.id).limit(limit)).scalars().all()


def _old(table: Table, name: str, keep_from: Stamp, now: Stamp) -> list[ColumnElement[bool]]:
    """``rules.is_old`` for the moment `name` of `table`, in the database's own words."""
    wall, instant, boot = (table.c[f"{name}_{part}"] for part in ("wall", "instant", "boot"))

    def before(limit: Stamp, margin_s: float) -> ColumnElement[bool]:
        microseconds = rows.microseconds(limit.wall) - round(margin_s * 1_000_000)
        return or_(
            and_(boot == limit.boot, literal(limit.instant) - instant > margin_s),
            and_(boot != limit.boot, wall < microseconds),
        )

    return [before(keep_from, 0.0), before(now, rules.KEPT_S)]
