"""What remedies other than a restart need: versions, debts, and where an action starts from."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def _stamp(name: str, *, nullable: bool = False) -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column(f"{name}_wall", sa.BigInteger, nullable=nullable),
        sa.Column(f"{name}_instant", sa.Double, nullable=nullable),
        sa.Column(f"{name}_boot", sa.Text, nullable=nullable),
    )


def upgrade() -> None:
    op.add_column("actions", sa.Column("before", sa.Text, nullable=False, server_default=""))
    op.add_column("actions", sa.Column("share", sa.BigInteger))
    op.add_column("actions", sa.Column("runs", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("actions", sa.Column("grant", sa.JSON))
    _versions()
    _debts()


def _versions() -> None:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "versions",
        sa.Column("id", kind, primary_key=True, autoincrement=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        *_stamp("deployed"),
        sa.Column("actor", sa.Text, nullable=False),
        *_stamp("soaked", nullable=True),
        sa.Column("evidence", sa.Text, nullable=False),
    )
    op.create_index("versions_by_service", "versions", ["service", "id"])


def _debts() -> None:
    op.create_table(
        "debts",
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("instance", sa.Text, primary_key=True),
        sa.Column("action", sa.BigInteger, nullable=False),
        sa.Column("before", sa.BigInteger, nullable=False),
        sa.Column("granted", sa.BigInteger, nullable=False),
        *_stamp("due"),
        sa.Column("extended_count", sa.BigInteger, nullable=False),
    )
