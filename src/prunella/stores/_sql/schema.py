"""The tables of this version. ``migrations`` leads there; a test compares the two.

Moments take three columns (``core.model.Stamp``): microseconds of wall time since 1970 in UTC,
seconds on the monotonic clock, and the boot that those seconds belong to.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    false,
)

SCHEMA = "0002"  # the newest step in migrations/versions
APPLICATION_ID = 0x50524E4C  # "PRNL": marks the file as a store of ours

metadata = MetaData()
_SEQUENCE = BigInteger().with_variant(Integer(), "sqlite")


def _stamp(name: str, *, nullable: bool = False) -> tuple[Column[Any], ...]:
    return (
        Column(f"{name}_wall", BigInteger, nullable=nullable),
        Column(f"{name}_instant", Double, nullable=nullable),
        Column(f"{name}_boot", Text, nullable=nullable),
    )


ledger = Table(
    "ledger",
    metadata,
    Column("seq", _SEQUENCE, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("service", Text),
    Column("actor", Text, nullable=False),
    *_stamp("at"),
    Column("epoch", BigInteger, nullable=False),
    Column("body", JSON, nullable=False),
    Index("ledger_by_service", "service", "seq"),
    Index("ledger_by_kind", "kind", "seq"),
    sqlite_autoincrement=True,
)

actions = Table(
    "actions",
    metadata,
    Column("id", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("service", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("instance", Text),
    Column("identity", Text, nullable=False),
    Column("replicas", BigInteger),
    Column("revision", Text),
    Column("before", Text, nullable=False, server_default=""),
    Column("share", BigInteger),
    Column("runs", JSON, nullable=False, server_default="[]"),
    Column("incident", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("symptom", Text),
    Column("actor", Text, nullable=False),
    *_stamp("at"),
    *_stamp("failing", nullable=True),
    Column("event", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("observed", Boolean, nullable=False),
    Column("outcome", Text),
    Column("success", Boolean),
    Column("detail", Text, nullable=False),
    Column("recovery_time_ms", Double),
    Column("downtime_ms", Double),
    *_stamp("ended", nullable=True),
    Column("grant", JSON(none_as_null=True)),
)
_running = actions.c.outcome.is_(None)
_carried_out = actions.c.observed == false()
Index(
    "actions_running",
    actions.c.service,
    unique=True,
    sqlite_where=_running,
    postgresql_where=_running,
)
Index("actions_by_service", actions.c.service, actions.c.id)
Index(
    "actions_carried_out",
    actions.c.id,
    sqlite_where=_carried_out,
    postgresql_where=_carried_out,
)

services = Table(
    "services",
    metadata,
    Column("service", Text, primary_key=True),
    Column("phase", Text, nullable=False),
    *_stamp("since"),
    *_stamp("wake", nullable=True),
    Column("reason", Text, nullable=False),
    Column("restart_count", BigInteger, nullable=False),
    Column("action_count", BigInteger, nullable=False),
    Column("last_restart", BigInteger),
    Column("moved", BigInteger, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("id", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("service", Text, nullable=False),
    Column("revision", Text, nullable=False),
    *_stamp("deployed"),
    Column("actor", Text, nullable=False),
    *_stamp("soaked", nullable=True),
    Column("evidence", Text, nullable=False),
    Index("versions_by_service", "service", "id"),
)

debts = Table(
    "debts",
    metadata,
    Column("service", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("instance", Text, primary_key=True),
    Column("action", BigInteger, nullable=False),
    Column("before", BigInteger, nullable=False),
    Column("granted", BigInteger, nullable=False),
    *_stamp("due"),
    Column("extended_count", BigInteger, nullable=False),
)

holds = Table(
    "holds",
    metadata,
    Column("id", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("service", Text),
    Column("owner", Text, nullable=False),
    Column("reason", Text, nullable=False),
    *_stamp("placed"),
    *_stamp("expires", nullable=True),
)

holder = Table(
    "holder",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text),
    Column("host", Text),
    Column("pid", BigInteger),
    Column("started", Text),
    Column("boot", Text),
    Column("address", Text),
    *_stamp("since", nullable=True),
    *_stamp("beat", nullable=True),
)

compacting = Table("compacting", metadata, Column("id", Integer, primary_key=True))
