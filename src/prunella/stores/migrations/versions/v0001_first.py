"""The first schema: ledger, actions, services, holds, holder."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_APPEND_ONLY = {
    "sqlite": (
        """
        CREATE TRIGGER ledger_keeps_lines BEFORE UPDATE ON ledger
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
        """,
        """
        CREATE TRIGGER ledger_loses_no_lines BEFORE DELETE ON ledger
        WHEN NOT EXISTS (SELECT 1 FROM compacting)
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
        """,
    ),
}


def _stamp(name: str, *, nullable: bool = False) -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column(f"{name}_wall", sa.BigInteger, nullable=nullable),
        sa.Column(f"{name}_instant", sa.Double, nullable=nullable),
        sa.Column(f"{name}_boot", sa.Text, nullable=nullable),
    )


def _sequence(name: str, *, autoincrement: bool) -> sa.Column[Any]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, primary_key=True, autoincrement=autoincrement)


def upgrade() -> None:
    _ledger()
    _actions()
    _services()
    _holds()
    _holder()


def _ledger() -> None:
    op.create_table(
        "ledger",
        _sequence("seq", autoincrement=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("service", sa.Text),
        sa.Column("actor", sa.Text, nullable=False),
        *_stamp("at"),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ledger_by_service", "ledger", ["service", "seq"])
    op.create_index("ledger_by_kind", "ledger", ["kind", "seq"])
    op.create_table("compacting", sa.Column("id", sa.Integer, primary_key=True))
    for trigger in _APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(trigger)


def _actions() -> None:
    op.create_table(
        "actions",
        _sequence("id", autoincrement=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("instance", sa.Text),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("replicas", sa.BigInteger),
        sa.Column("revision", sa.Text),
        sa.Column("incident", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("symptom", sa.Text),
        sa.Column("actor", sa.Text, nullable=False),
        *_stamp("at"),
        *_stamp("failing", nullable=True),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("observed", sa.Boolean, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("success", sa.Boolean),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("recovery_time_ms", sa.Double),
        sa.Column("downtime_ms", sa.Double),
        *_stamp("ended", nullable=True),
    )
    running = sa.text("outcome IS NULL")
    op.create_index(
        "actions_running",
        "actions",
        ["service"],
        unique=True,
        sqlite_where=running,
        postgresql_where=running,
    )
    op.create_index("actions_by_service", "actions", ["service", "id"])
    op.create_index(
        "actions_carried_out",
        "actions",
        ["id"],
        sqlite_where=sa.text("observed = 0"),
        postgresql_where=sa.text("NOT observed"),
    )


def _services() -> None:
    op.create_table(
        "services",
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("phase", sa.Text, nullable=False),
        *_stamp("since"),
        *_stamp("wake", nullable=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("restart_count", sa.BigInteger, nullable=False),
        sa.Column("action_count", sa.BigInteger, nullable=False),
        sa.Column("last_restart", sa.BigInteger),
        sa.Column("moved", sa.BigInteger, nullable=False),
    )


def _holds() -> None:
    op.create_table(
        "holds",
        _sequence("id", autoincrement=False),
        sa.Column("service", sa.Text),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        *_stamp("placed"),
        *_stamp("expires", nullable=True),
    )


def _holder() -> None:
    op.create_table(
        "holder",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.Text),
        sa.Column("host", sa.Text),
        sa.Column("pid", sa.BigInteger),
        sa.Column("started", sa.Text),
        sa.Column("boot", sa.Text),
        sa.Column("address", sa.Text),
        *_stamp("since", nullable=True),
        *_stamp("beat", nullable=True),
    )
