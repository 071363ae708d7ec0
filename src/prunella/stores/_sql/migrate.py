"""From the schema that is there to this version's, by the steps in ``migrations``."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations"))
    made.attributes["connection"] = connection
    return made


def migrate(connection: Connection) -> None:
    """Bring the schema up to date within the transaction that `connection` is in."""
    command.upgrade(config(connection), "head")
