"""Whether a file may be used as a store: judged before anything is written into it."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from prunella.errors import StoreError
from prunella.stores._sql.schema import APPLICATION_ID, SCHEMA
from prunella.stores._sqlite import faults

_PREFIX = "sqlite:///"
_JOURNAL_BYTES = 1100 * (24 + 4096)  # SQLite takes it up from its start after 1000 pages
_MAGIC = b"SQLite format 3\0"


def path_of(url: str) -> Path:
    """The file that `url` names: ``sqlite:///relative/path`` or ``sqlite:////absolute/path``."""
    name = url.removeprefix(_PREFIX)
    if name == url or name in {"", ":memory:"}:
        raise StoreError(f"{url} names no file: write {_PREFIX} and the path of the store")
    return Path(name).absolute()


def uri(path: Path, *, mode: str) -> str:
    """SQLite's address of the file; `mode` is ``ro``, ``rw`` or ``rwc``."""
    return f"file:{quote(str(path))}?mode={mode}"


def untouched_uri(path: Path) -> str:
    """An address to read a file by that nobody changes meanwhile; makes no files beside it."""
    return f"{uri(path, mode='ro')}&immutable=1"


def journal_of(path: Path) -> Path:
    """Where SQLite keeps what is not yet in the file; there while somebody has it open."""
    return path.with_name(f"{path.name}-wal")


def size_bytes(path: Path) -> int:
    """How large a file is; 0 when there is none.

    Asked once: a journal goes away when the last reader closes the store, which may be now.
    """
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def make_room(path: Path) -> None:
    """Give the journal its usual length at once, if that can be done now.

    A commit that makes it longer waits for the file system's own journal, and so for everybody
    who writes to that disk; one that finds its place waits for its own pages. What is behind the
    last commit SQLite takes for leftovers. To be called by the writer, between two writes.
    """
    with suppress(OSError), journal_of(path).open("r+b", buffering=0) as journal:
        length = journal.seek(0, os.SEEK_END)
        try:
            while (missing := _JOURNAL_BYTES - journal.tell()) > 0:
                journal.write(bytes(missing))
            os.fsync(journal.fileno())
        except OSError:
            journal.truncate(length)


def reading_uri(path: Path) -> str:
    """An address to read from, whatever a reader may do to the folder.

    Beside a store that nobody has open, a reader makes SQLite's index files. Where it may not,
    nobody who may is writing either, if no journal is there.
    """
    address = uri(path, mode="ro")
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        refused = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN
        if not refused or journal_of(path).exists():
            raise
        return untouched_uri(path)
    return address


def require_usable(path: Path, *, readonly: bool) -> bool:
    """Say whether there is anything in the file yet.

    Raises:
        StoreError: it is not a store and never became one here: it is left as it is.
    """
    try:
        about = path.stat()
    except FileNotFoundError:
        _require_folder(path, readonly=readonly)
        return False
    except OSError as error:
        raise StoreError(f"store {path} cannot be reached: {error.strerror}") from error
    if stat.S_ISDIR(about.st_mode):
        raise StoreError(f"store {path} is a folder: name a file within it")
    if not stat.S_ISREG(about.st_mode):
        raise StoreError(f"store {path} is not an ordinary file: name another")
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as error:
        raise StoreError(
            f"store {path} cannot be read ({error.strerror}): let Prunella's user own it"
        ) from error
    if head and head != _MAGIC:
        raise StoreError(
            f"store {path} is not a database, and is left as it is: "
            "move it aside, or name another file"
        )
    return bool(head)


def _require_folder(path: Path, *, readonly: bool) -> None:
    if readonly:
        raise StoreError(f"store {path} does not exist: start the daemon once, or check the path")
    if not path.parent.is_dir():
        raise StoreError(f"store {path}: the folder {path.parent} does not exist: create it")


def schema_of(connection: sqlite3.Connection, path: Path) -> str | None:
    """The schema that the file holds; None for a database in which there is nothing at all.

    Raises:
        StoreError: somebody else's database, or a newer Prunella's.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if application != APPLICATION_ID:
        if tables or application:
            raise StoreError(
                f"store {path} is the database of another program, and is left as it is: "
                "name another file"
            )
        return None
    if "alembic_version" not in tables:
        raise faults.damaged(path, "its schema is gone")
    found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    schema = found[0] if found else ""
    if not (schema.isascii() and schema.isdigit()):
        raise faults.damaged(path, f"its schema {schema!r} has never been one")
    if int(schema) > int(SCHEMA):
        raise StoreError(
            f"store {path} was written by a newer Prunella (schema {int(schema)}, "
            f"this one knows {int(SCHEMA)}): upgrade Prunella, or restore an older copy"
        )
    return str(schema)


def require_sound(connection: sqlite3.Connection, path: Path) -> None:
    """Read all pages, and compare them with each other.

    Raises: StoreError: something does not fit.
    """
    (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise faults.damaged(path, " ".join(answer.split()))
