"""The writing connection. All of it runs on the store's one writing thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine

from prunella.core.ledger import Entry
from prunella.core.model import Epoch
from prunella.errors import StaleEpochError, StoreError, TransientError
from prunella.stores._sql import writes
from prunella.stores._sqlite import engines, faults

T = TypeVar("T")

NOTES_COUNT = 10_000  # lines that wait for a disk that does not take them


class Journal:
    """Writes, one transaction each, preceded in it by the notes that were gathered before.

    After trouble that makes the file doubtful every further write is refused with the same words.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self._path = path
        self._engine = engine
        self._connection = engine.connect()
        self._file = self._identity()
        self._notes: list[Entry] = []
        self._notes_epoch = Epoch(0)
        self._lost: str = ""

    def write(self, work: Callable[[Connection], T], epoch: Epoch) -> T:
        """Do `work` and make it durable, or raise and change nothing."""

        def with_notes(connection: Connection) -> T:
            writes.require(connection, str(self._path), epoch)
            if self._notes and self._notes_epoch == epoch:
                writes.note(connection, self._notes, epoch)
            return work(connection)

        result = self.transact(with_notes)
        self._notes.clear()
        return result

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Like `write`, but whatever the epoch, and without the notes."""
        self._require_trust()
        try:
            with faults.translated(self._path), engines.transaction(self._connection):
                return work(self._connection)
        except StoreError as error:
            if error.__cause__ is not None:  # the file's trouble, not somebody else's claim
                self._lost = str(error)
            raise

    def note(self, entries: Sequence[Entry], epoch: Epoch) -> None:
        """Gather `entries` for the next write or `flush`."""
        self.transact(lambda connection: writes.require(connection, str(self._path), epoch))
        if self._notes_epoch != epoch:
            self._notes, self._notes_epoch = [], epoch
        if len(self._notes) + len(entries) > NOTES_COUNT:
            raise TransientError(f"store {self._path} cannot take more notes until it can write")
        self._notes.extend(entries)

    def flush(self) -> bool:
        """Write what was gathered; False if the disk does not take it now.

        The notes of an epoch that has ended are dropped: their writer has been replaced, and
        learns it from its next call.
        """
        if not self._notes:
            return True
        try:
            self.write(lambda _: None, self._notes_epoch)
        except TransientError:
            return False
        except StaleEpochError:
            self._notes.clear()
        return True

    def close(self) -> None:
        """Write what was gathered, and let go of the file.

        Raises: TransientError: the last notes could not be written.
        """
        try:
            if not self._lost and not self.flush():
                raise TransientError(f"store {self._path}: the last notes could not be written")
        finally:
            self._connection.close()
            self._engine.dispose()

    def _identity(self) -> tuple[int, int]:
        about = os.stat(self._path)  # noqa: PTH116 - before every write: a third of the time
        return about.st_dev, about.st_ino

    def _require_trust(self) -> None:
        if self._lost:
            raise StoreError(self._lost)
        try:
            there = self._identity() == self._file
        except OSError:
            there = False
        if not there:
            self._lost = (
                f"store {self._path} has been moved or deleted while in use: "
                "stop Prunella, put the file back, and start again"
            )
            raise StoreError(self._lost)
