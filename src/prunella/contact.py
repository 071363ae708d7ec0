"""Something that is told from elsewhere for as long as the connection lasts, and then again.

A connection that was lost is taken up after a pause, which doubles with each failure. While it is
away, what is known may be old: whoever asks waits for the try that is under way, and no longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from prunella.core.model import Instant
from prunella.errors import PrunellaError, TransientError
from prunella.ports import Clock

_FIRST_PAUSE_S = 0.05


class Contact:
    """One lasting connection. It begins when somebody asks, and ends with `close`.

    Args:
        name: of the other side, for people.
        converse: one connection, from its beginning to its end; calls `up` as soon as what is
            known is up to date. Returns why it has ended, None if ends are its usual way.
        longest_pause_s: between two tries; what has lasted longer is no failure.
    """

    def __init__(
        self,
        clock: Clock,
        name: str,
        converse: Callable[[], Awaitable[PrunellaError | None]],
        *,
        longest_pause_s: float,
    ) -> None:
        self._clock = clock
        self._name = name
        self._converse = converse
        self._longest_pause_s = longest_pause_s
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()  # the present try to connect has succeeded or failed
        self._trouble: PrunellaError | None = None

    async def ready(self) -> None:
        """Wait until what is known is up to date.

        Raises: TransientError, PermanentError: it cannot be, and why.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._attend())
        if not self._settled.is_set():
            waits = [asyncio.create_task(self._settled.wait()), self._task]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waits[0].cancel()
        if self._task.done():
            self._task.result()  # a defect
        if self._trouble is not None:
            raise type(self._trouble)(str(self._trouble))

    def up(self) -> None:
        """What is known is up to date from now on."""
        self._trouble = None
        self._settled.set()

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _attend(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            began = self._clock.now()
            trouble = await self._converse()
            if (us := asyncio.current_task()) is not None and us.cancelling():
                raise asyncio.CancelledError  # it came while a group of tasks was failing
            was_up = self._settled.is_set() and self._trouble is None
            if was_up and self._clock.now() - began > self._longest_pause_s:
                pause_s = _FIRST_PAUSE_S
                if trouble is None:
                    continue
            if was_up:  # whoever asks now waits for the next try
                self._settled.clear()
            else:
                self._trouble = trouble or TransientError(f"{self._name} ends what it tells")
                self._settled.set()
            await self._clock.sleep_until(Instant(self._clock.now() + pause_s))
            pause_s = min(self._longest_pause_s, pause_s * 2)
