"""The rows of what each service has run: few, as the surplus goes with each new one."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from prunella.core.ledger import Mark
from prunella.core.model import ServiceId
from prunella.stores import _rules as rules
from prunella.stores._sql import rows
from prunella.stores._sql.prepared import Prepared
from prunella.stores._sql.schema import versions

_DOWN = select(versions).where(versions.c.service == bindparam("of")).order_by(versions.c.id.desc())
_OF = Prepared(_DOWN)
_NEWEST = _DOWN.limit(1)


def of(connection: Connection, service: ServiceId) -> list[rules.Deployment]:
    """Newest first."""
    return [rows.deployment(row) for row in _OF.rows(connection, {"of": service})]


def newest(connection: Connection, service: ServiceId) -> rules.Deployment | None:
    row = connection.execute(_NEWEST, {"of": service}).mappings().one_or_none()
    return None if row is None else rows.deployment(row)


def add(connection: Connection, seq: int, mark: Mark) -> None:
    """Write a deployment, and forget the one that is one too many."""
    deployment = rules.Deployment(seq, mark.revision, mark.at, mark.actor)
    connection.execute(insert(versions), rows.of_deployment(mark.service, deployment))
    if surplus := rules.surplus(of(connection, mark.service)):
        connection.execute(delete(versions).where(versions.c.id == surplus.seq))


def soak(connection: Connection, deployment: rules.Deployment, mark: Mark) -> None:
    found = update(versions).where(versions.c.id == deployment.seq)
    evidence = rows.text(mark.evidence)
    connection.execute(found.values(**rows.of_stamp("soaked", mark.at), evidence=evidence))
