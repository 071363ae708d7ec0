"""What is remembered of one service, as far as its next decision needs it.

The store is the memory; this is what was last read of it, so that most decisions ask nobody. What
is decided here is judged again on the store's own view, in the transaction of the intent.
"""

from __future__ import annotations

from prunella.core.ledger import Attempt, EntryKind, Intent, LedgerView, ServiceRow
from prunella.core.machine import Event
from prunella.core.model import Debt, Instant, Outcome, ServiceId, Stamp, Version
from prunella.core.time import rebase
from prunella.ports import Store

_MOVES_READ = 100  # more than a service makes in the 4 h that the guards look back


class Past:
    """Attempts, versions and debts of one service; the newest first."""

    __slots__ = ("_released_at", "_service", "_store", "attempts", "debts", "versions")

    def __init__(self, service: ServiceId, store: Store) -> None:
        self._service = service
        self._store = store
        self._released_at = Instant(float("-inf"))
        self.attempts: tuple[Attempt, ...] = ()
        self.versions: tuple[Version, ...] = ()
        self.debts: tuple[Debt, ...] = ()

    async def recall(self, row: ServiceRow, now: Stamp) -> None:
        """Read everything anew after a start; `row` says that there is something to read."""
        moves = await self._store.entries(
            _MOVES_READ, service=row.service, kinds=frozenset({EntryKind.PHASE})
        )
        for move in moves:
            if move.body.get("event") == Event.RELEASED.value:
                self._released_at = rebase(move.at, now)
                break
        await self.refresh(now)

    async def refresh(self, now: Stamp) -> None:
        view = self.since_release(await self._store.view(self._service, now))
        self.attempts, self.versions, self.debts = view.attempts, view.versions, view.debts

    def since_release(self, view: LedgerView) -> LedgerView:
        """Without what happened before a person ended the last quarantine: a fresh start."""
        kept = tuple(a for a in view.attempts if a.at >= self._released_at or a.outcome is None)
        return view._replace(attempts=kept)

    def release(self, at: Instant) -> None:
        """A person has ended a quarantine."""
        self._released_at, self.attempts = at, ()

    def begin(self, intent: Intent) -> None:
        """An intent has been written."""
        at = intent.at.instant
        attempt = Attempt(intent.action.kind, at, None, None, intent.actor, intent.incident)
        if intent.ended is not None:
            attempt = attempt._replace(ended_at=at, outcome=intent.ended)
        self.attempts = (attempt, *self.attempts)

    def end(self, outcome: Outcome, at: Instant) -> None:
        """The newest attempt has ended."""
        newest = self.attempts[0]._replace(ended_at=at, outcome=outcome)
        self.attempts = (newest, *self.attempts[1:])
