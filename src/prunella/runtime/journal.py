"""The ledger lines that need no fsync of their own: gathered, and written in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice

import structlog

from prunella.core.ledger import Entry
from prunella.core.model import Epoch, Instant
from prunella.errors import TransientError
from prunella.ports import Clock, Store

_log = structlog.get_logger("prunella.journal")
_FLUSH_S = 0.1
_KEPT = 20_000
_BATCH = 1_000


class Journal:
    """Takes entries at once and hands them to the store a moment later.

    While the store cannot write they are kept, up to a bound; beyond it the oldest are dropped
    and counted. Intents and moves of the machine never go this way.
    """

    def __init__(self, store: Store, clock: Clock, epoch: Callable[[], Epoch]) -> None:
        self._store = store
        self._clock = clock
        self._epoch = epoch
        self._entries: deque[Entry] = deque()
        self._writing = asyncio.Lock()
        self.dropped_count = 0

    def note(self, entry: Entry) -> None:
        if len(self._entries) >= _KEPT:
            self._entries.popleft()
            self.dropped_count += 1
        self._entries.append(entry)

    async def flush(self) -> None:
        """Hand over all there is; whoever asks meanwhile waits, so that nothing is written twice.

        Raises:
            TransientError: the store cannot write now; what it did not take is kept.
        """
        async with self._writing:
            while self._entries:
                batch = list(islice(self._entries, _BATCH))
                dropped_count = self.dropped_count
                await self._store.note(batch, epoch=self._epoch())
                for _ in range(len(batch) - (self.dropped_count - dropped_count)):
                    self._entries.popleft()

    async def run(self) -> None:
        while True:
            await self._clock.sleep_until(Instant(self._clock.now() + _FLUSH_S))
            try:
                await self.flush()
            except TransientError as error:
                _log.warning("not-recorded", waiting=len(self._entries), error=str(error))
