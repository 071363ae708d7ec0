"""From a URL to a store that can be trusted, or to the reason why not."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

from sqlalchemy import Engine

from prunella.errors import StoreError
from prunella.stores._sql.schema import APPLICATION_ID, SCHEMA
from prunella.stores._sqlite import engines, faults, files
from prunella.stores._sqlite.journal import Journal
from prunella.stores._sqlite.store import SqliteStore

_ALWAYS_CHECKED_BYTES = 64 * 2**20  # 0.2 s of reading


def open_store(url: str, *, readonly: bool) -> SqliteStore:
    """Open, and create or migrate unless `readonly`.

    Raises:
        StoreError: the file must not be used; nothing has been written into it.
        TransientError: it is busy, or the disk is full.
    """
    path = files.path_of(url)
    with faults.translated(path):
        schema = _inspect(path, readonly=readonly)
        if readonly:
            return _reader(path, schema)
        writer = engines.writing(files.uri(path, mode="rwc"))
        with ExitStack() as refused:
            refused.callback(writer.dispose)
            if schema != SCHEMA:
                _upgrade(writer, path)
            journal = Journal(path, writer)
            refused.pop_all()
    return SqliteStore(path, engines.reading(files.uri(path, mode="ro")), journal)


def _inspect(path: Path, *, readonly: bool) -> str | None:
    if not files.require_usable(path, readonly=readonly):
        return None
    journal = files.journal_of(path)
    if journal.exists():
        return _judge(files.uri(path, mode="ro"), path, readonly=readonly)
    try:
        # Nobody has it open: looking at it in this way leaves no file beside it.
        return _judge(files.untouched_uri(path), path, readonly=readonly)
    except (StoreError, sqlite3.Error):
        if not journal.exists():
            raise
        # Somebody has opened it meanwhile, and was changing it while it was read.
        return _judge(files.uri(path, mode="ro"), path, readonly=readonly)


def _judge(address: str, path: Path, *, readonly: bool) -> str | None:
    with closing(sqlite3.connect(address, uri=True)) as connection:
        schema = files.schema_of(connection, path)
        if schema and not readonly and _may_be_torn(path):
            files.require_sound(connection, path)
    return schema


def _may_be_torn(path: Path) -> bool:
    """Whether to read all of it first: a large store that was closed well is not kept waiting.

    A journal with something in it says that its last writer was killed, or is still there.
    """
    if files.size_bytes(files.journal_of(path)):
        return True
    return files.size_bytes(path) <= _ALWAYS_CHECKED_BYTES


def _reader(path: Path, schema: str | None) -> SqliteStore:
    if schema is None:
        raise StoreError(f"store {path} is empty: start the daemon once, or check the path")
    if schema != SCHEMA:
        raise StoreError(
            f"store {path} was written by an older Prunella (schema {int(schema)}, this one knows "
            f"{int(SCHEMA)}): start the daemon once, which brings it up to date"
        )
    return SqliteStore(path, engines.reading(files.reading_uri(path)), None)


def _upgrade(writer: Engine, path: Path) -> None:
    # Starting is when a person waits: these are only paid for when there is something to do.
    from prunella.stores._sql.migrate import migrate  # noqa: PLC0415

    with writer.begin() as connection, engines.transaction(connection):
        # Asked again under the lock: another process may have done it meanwhile.
        if files.schema_of(engines.driver_of(connection), path) != SCHEMA:
            migrate(connection)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
