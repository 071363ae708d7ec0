"""SQLite's errors in Prunella's words: what may pass, and what ends the trust in a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from prunella.errors import PermanentError, StoreError, TransientError

_FSYNC = frozenset({"SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"})
_PASSING = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_LOST = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_AUTH,
    }
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})


def damaged(path: Path, what: str) -> StoreError:
    return StoreError(
        f"store {path} is damaged ({what}): stop Prunella, move the file aside together with "
        f"{path.name}-wal and {path.name}-shm, and put a copy in its place or start with a new one"
    )


def named(error: sqlite3.Error, path: Path) -> PermanentError | TransientError | None:
    """What `error` means for the store at `path`; None for a defect in a query."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    if error.sqlite_errorname in _FSYNC:
        return StoreError(
            f"store {path}: the disk did not confirm a write ({error}): what it holds is unsure. "
            "Check the disk, then start Prunella again"
        )
    if primary in _PASSING:
        return TransientError(f"store {path} cannot be used now: {error}")
    if primary in _LOST:
        return StoreError(
            f"store {path} cannot be opened or written ({error}): "
            f"check that {path.parent} and the file belong to Prunella's user"
        )
    if primary in _DAMAGED:
        return damaged(path, str(error))
    return None


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Raise SQLite's errors within as StoreError or TransientError; a defect stays as it is."""
    try:
        yield
    except DBAPIError as error:
        trouble = named(error.orig, path) if isinstance(error.orig, sqlite3.Error) else None
        if trouble is None:
            raise
        raise trouble from error
    except sqlite3.Error as error:
        trouble = named(error, path)
        if trouble is None:
            raise
        raise trouble from error
