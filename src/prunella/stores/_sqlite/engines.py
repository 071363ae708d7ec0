"""Connections: one that writes, a few that read."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool, StaticPool

READERS = 2
_BUSY_S = 5.0  # how long a claim waits for another process that writes
_WAL_BYTES = 64 * 2**20  # above it, the journal is cut back when it starts anew


def _connect(address: str) -> sqlite3.Connection:
    # Transactions are begun here and not by the driver, when it sees fit.
    connection = sqlite3.connect(
        address, uri=True, isolation_level=None, timeout=_BUSY_S, check_same_thread=False
    )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def writing(address: str) -> Engine:
    """An engine of one connection, for use within `transaction`."""

    def connect() -> sqlite3.Connection:
        connection = _connect(address)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        return connection

    return create_engine("sqlite://", creator=connect, poolclass=StaticPool, paramstyle="named")


@contextmanager
def transaction(connection: Connection) -> Generator[None]:
    """Make what is done within durable when it ends, or undo it if that raises.

    Said to the driver: the query library's way to a transaction takes longer than an intent's
    statements, and it may believe that it is in one all the time.
    """
    driver = driver_of(connection)
    # The lock is taken at the start: what the guards read stays true until the commit.
    driver.execute("BEGIN IMMEDIATE")
    try:
        yield
        driver.commit()
    except BaseException:
        driver.rollback()
        raise


def driver_of(connection: Connection) -> sqlite3.Connection:
    """The connection below the query library's."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def reading(address: str) -> Engine:
    """An engine of a few connections, each transaction of which sees one state of the store."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: _connect(address),
        poolclass=QueuePool,
        pool_size=READERS,
        max_overflow=0,
        paramstyle="named",
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.exec_driver_sql("BEGIN")

    return engine
