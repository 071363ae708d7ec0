"""``Store`` on one SQLite file: writes on a thread of their own, reads beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine

from prunella.core.ledger import (
    Entry,
    EntryKind,
    Finish,
    Holder,
    Intent,
    LedgerView,
    Mark,
    Page,
    ServiceRow,
    Step,
    Veto,
)
from prunella.core.model import (
    ActionId,
    ActionKind,
    Debt,
    Epoch,
    Hold,
    InstanceId,
    ServiceId,
    Stamp,
)
from prunella.errors import PermanentError
from prunella.stores._sql import owed, reads, writes
from prunella.stores._sqlite import faults, files
from prunella.stores._sqlite.engines import READERS
from prunella.stores._sqlite.journal import Journal
from prunella.stores._sqlite.worker import Worker

T = TypeVar("T")

_GATHER_S = 0.1  # how long a note waits for company
_RETRY_S = 1.0  # how long notes wait for a disk that has refused them
_BATCH_COUNT = 500  # lines forgotten in one transaction


class _Search(Protocol):
    def __call__(self, connection: Connection, /, *, after: int, limit: int) -> Sequence[int]: ...


class _Forget(Protocol):
    def __call__(self, connection: Connection, /, old: Sequence[int]) -> int: ...


class SqliteStore:
    """One file. A write that is cancelled while it waits for its turn is not done; one whose turn
    has come is done, and nobody is told: the next ``load`` shows it.
    """

    def __init__(self, path: Path, readers: Engine, journal: Journal | None) -> None:
        self._path = path
        self._readers = readers
        self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")
        self._journal = journal
        self._writing = Worker("store-write") if journal else None
        self._gathering: asyncio.TimerHandle | None = None
        self._closed = False

    # Writing

    async def claim(self, holder: Holder, now: Stamp, /, *, force: bool = False) -> Epoch:
        def job(journal: Journal) -> Epoch:
            journal.flush()
            name = str(self._path)
            epoch = journal.transact(
                lambda connection: writes.claim(connection, name, holder, now, force=force)
            )
            files.make_room(self._path)
            with suppress(writes.RehearsalError):
                journal.transact(lambda connection: writes.rehearse(connection, now, epoch))
            return epoch

        return await self._submit(job)

    async def beat(self, now: Stamp, /, *, epoch: Epoch) -> None:
        await self._write(lambda connection: writes.beat(connection, now), epoch)

    async def release(self, *, epoch: Epoch) -> None:
        await self._write(writes.release, epoch)

    async def begin(
        self,
        intent: Intent,
        admit: Callable[[LedgerView], Sequence[Veto]],
        now: Stamp,
        /,
        *,
        epoch: Epoch,
    ) -> ActionId | Sequence[Veto]:
        def work(connection: Connection) -> ActionId | Sequence[Veto]:
            return writes.begin(connection, intent, admit, now, epoch)

        def job(journal: Journal) -> ActionId | Sequence[Veto]:
            try:
                return journal.write(work, epoch)
            except writes.LeaseHeldError as refusal:
                veto = journal.transact(
                    lambda connection: writes.lease_veto(connection, intent.action.service)
                )
                if veto is None:
                    raise refusal from None
                return (veto,)

        return await self._submit(job)

    async def advance(self, step: Step, /, *, epoch: Epoch) -> None:
        await self._write(lambda connection: writes.advance(connection, step, epoch), epoch)

    async def mark(self, mark: Mark, /, *, epoch: Epoch) -> None:
        await self._write(lambda connection: writes.mark(connection, mark, epoch), epoch)

    async def settle(
        self,
        service: ServiceId,
        kind: ActionKind,
        now: Stamp,
        /,
        *,
        epoch: Epoch,
        reason: str,
        instance: InstanceId | None = None,
    ) -> None:
        await self._write(
            lambda connection: writes.settle(
                connection, service, kind, instance, now, reason, epoch
            ),
            epoch,
        )

    async def note(self, entries: Sequence[Entry], /, *, epoch: Epoch) -> None:
        await self._submit(lambda journal: journal.note(entries, epoch))
        if self._gathering is None:
            self._gather(_GATHER_S)

    async def place_hold(self, hold: Hold, /, *, epoch: Epoch) -> None:
        await self._write(lambda connection: writes.place_hold(connection, hold, epoch), epoch)

    async def lift_holds(
        self,
        service: ServiceId | None,
        now: Stamp,
        /,
        *,
        epoch: Epoch,
        actor: str,
        owner: str | None = None,
    ) -> int:
        return await self._write(
            lambda connection: writes.lift_holds(connection, service, now, actor, epoch, owner),
            epoch,
        )

    async def compact(self, keep_from: Stamp, /, *, epoch: Epoch) -> int:
        now = await self._read(reads.present)
        # A write comes first, even with nothing to forget: it is what refuses an old epoch.
        at = keep_from if now is None else now
        await self._write(lambda connection: writes.forget_holds(connection, at), epoch)
        ended = partial(reads.old_actions, keep_from=keep_from, now=at)
        said = partial(reads.old_lines, keep_from=keep_from, now=at)
        await self._forget(ended, writes.forget_actions, epoch)
        return await self._forget(said, writes.forget_lines, epoch)

    async def _forget(
        self,
        old: _Search,
        forget: _Forget,
        epoch: Epoch,
    ) -> int:
        """Search beside the writer, and delete so few at a time that nobody waits for it."""
        after, gone = 0, 0
        while True:
            batch = await self._read(partial(old, after=after, limit=_BATCH_COUNT))
            if not batch:
                return gone
            gone += await self._write(partial(forget, old=batch), epoch)
            after = batch[-1]

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._gathering:
            self._gathering.cancel()
        # Readers first: only the writer, as the last to leave, folds the journal into the file.
        self._reading.shutdown()
        self._readers.dispose()
        if self._writing and self._journal:
            try:
                await self._writing.submit(self._journal.close)
            finally:
                self._writing.end()

    # Reading

    async def load(self, /) -> Sequence[ServiceRow]:
        return await self._read(reads.load)

    async def view(self, service: ServiceId, now: Stamp, /) -> LedgerView:
        return await self._read(lambda connection: reads.view(connection, service, now))

    async def holds(self, now: Stamp, /) -> Sequence[Hold]:
        return await self._read(lambda connection: reads.live_holds(connection, now))

    async def debts(self, now: Stamp, /) -> Mapping[ServiceId, Sequence[Debt]]:
        return await self._read(lambda connection: owed.everywhere(connection, now))

    async def history(
        self, limit: int, /, *, service: ServiceId | None = None, before: int | None = None
    ) -> Page:
        return await self._read(
            lambda connection: reads.history(connection, limit, service, before)
        )

    async def action(self, action: ActionId, /) -> Finish | None:
        return await self._read(lambda connection: reads.action(connection, action))

    async def entries(
        self,
        limit: int,
        /,
        *,
        service: ServiceId | None = None,
        kinds: frozenset[EntryKind] = frozenset(),
        before: int | None = None,
    ) -> Sequence[Entry]:
        return await self._read(
            lambda connection: reads.entries(connection, limit, service, kinds, before)
        )

    # Within

    async def _read(self, work: Callable[[Connection], T]) -> T:
        self._require_open()

        def job() -> T:
            with faults.translated(self._path), self._readers.connect() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._reading, job)

    async def _write(self, work: Callable[[Connection], T], epoch: Epoch) -> T:
        return await self._submit(lambda journal: journal.write(work, epoch))

    async def _submit(self, job: Callable[[Journal], T]) -> T:
        self._require_open()
        journal = self._journal
        if journal is None or self._writing is None:
            raise PermanentError(f"store {self._path} was opened for reading only")
        return await self._writing.submit(lambda: job(journal))

    def _require_open(self) -> None:
        if self._closed:
            raise PermanentError(f"store {self._path} is closed")

    def _gather(self, delay_s: float) -> None:
        self._gathering = asyncio.get_running_loop().call_later(delay_s, self._flush)

    def _flush(self) -> None:
        if self._writing is None or self._journal is None:
            return
        self._gathering = None
        self._writing.submit(self._journal.flush).add_done_callback(self._flushed)

    def _flushed(self, written: asyncio.Future[bool]) -> None:
        """Try again later if the disk was full. A doubtful file tells its next writer itself."""
        refused = written.exception() is None and not written.result()
        if refused and self._gathering is None and not self._closed:
            self._gather(_RETRY_S)
