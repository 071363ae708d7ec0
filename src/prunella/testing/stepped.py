"""A clock for tests that run an event loop: time stands still until it is told to pass."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

from prunella.core.model import Instant
from prunella.testing.clock import SimClock

_TURNS = 20  # of the loop, after each moment at which somebody woke up


class SteppedClock(SimClock):
    """``SimClock`` whose sleepers sleep, each until its own moment, while ``elapse`` runs."""

    def __init__(self, boot: str = "boot-1") -> None:
        super().__init__(boot)
        self._order = count()
        self._sleepers: list[tuple[Instant, int, asyncio.Future[None]]] = []

    async def sleep_until(self, at: Instant, /) -> None:
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (at, next(self._order), woken))
        await woken

    async def elapse(self, seconds: float) -> None:
        """Let time pass, and everybody do what is due in it."""
        end = Instant(self.now() + seconds)
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, woken = heapq.heappop(self._sleepers)
            if woken.done():
                continue
            self.move_to(at)
            woken.set_result(None)
            await self.settle()
        self.move_to(end)

    async def settle(self) -> None:
        """Let the loop turn until what is due now has most likely been done."""
        loop = asyncio.get_running_loop()
        for _ in range(_TURNS):
            turned = loop.create_future()
            loop.call_soon(turned.set_result, None)
            await turned
