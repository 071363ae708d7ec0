"""The rows of what is still to be taken back: at most one of a kind for each that has it."""

from __future__ import annotations

from sqlalchemy import Connection, and_, bindparam, delete, insert, select

from prunella.core.ledger import Grant
from prunella.core.model import ActionId, ActionKind, Debt, InstanceId, ServiceId, Stamp
from prunella.stores import _rules as rules
from prunella.stores._sql import rows
from prunella.stores._sql.prepared import Prepared
from prunella.stores._sql.schema import debts

_ALL = select(debts).order_by(debts.c.service, debts.c.kind, debts.c.instance)
_OF = Prepared(
    select(debts).where(debts.c.service == bindparam("of")).order_by(debts.c.kind, debts.c.instance)
)
_THIS = and_(
    debts.c.service == bindparam("of"),
    debts.c.kind == bindparam("as"),
    debts.c.instance == bindparam("at"),
)


def of(connection: Connection, service: ServiceId, now: Stamp) -> tuple[Debt, ...]:
    return tuple(_debt(row, now) for row in _OF.rows(connection, {"of": service}))


def everywhere(connection: Connection, now: Stamp) -> dict[ServiceId, tuple[Debt, ...]]:
    owed: dict[ServiceId, tuple[Debt, ...]] = {}
    for row in connection.execute(_ALL).mappings():
        service = ServiceId(row["service"])
        owed[service] = (*owed.get(service, ()), _debt(row, now))
    return owed


def put(
    connection: Connection, service: ServiceId, kind: ActionKind, action: ActionId, grant: Grant
) -> Grant:
    """Put the grant in place of an earlier one; returns what is owed now."""
    struck = strike(connection, service, kind, grant.instance)
    owed = rules.renewed(grant, None if struck is None else struck[1])
    row = {"service": service, "kind": kind.value, "action": action, **rows.of_grant(owed)}
    connection.execute(insert(debts), row)
    return owed


def strike(
    connection: Connection, service: ServiceId, kind: ActionKind, instance: InstanceId | None
) -> tuple[ActionId, Grant] | None:
    """Delete a debt; returns what it was and which action granted it, None if there is none."""
    this = {"of": service, "as": kind.value, "at": instance or ""}
    row = connection.execute(select(debts).where(_THIS), this).mappings().one_or_none()
    if row is None:
        return None
    connection.execute(delete(debts).where(_THIS), this)
    return ActionId(row["action"]), rows.grant(row)


def _debt(row: rows.Row, now: Stamp) -> Debt:
    kind, action = ActionKind(row["kind"]), ActionId(row["action"])
    return rules.debt(kind, action, rows.grant(row), now)
