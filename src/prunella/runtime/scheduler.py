"""When each check is due: one heap for all services, spread out so that none march in step."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from itertools import count
from random import Random
from typing import NamedTuple

from prunella.core.model import Instant
from prunella.ports import Clock

_JITTER = 0.1
_MAX_IN_FLIGHT = 2000
_GRAIN_S = 0.002  # what is due within it starts together; a loop of whole milliseconds would spin


class Job:
    """Something to run again and again; ``interval_s`` is asked after each run."""

    __slots__ = ("cancelled", "due", "interval_s", "run", "serial")

    def __init__(self, run: Callable[[], Awaitable[None]], interval_s: Callable[[], float]) -> None:
        self.run = run
        self.interval_s = interval_s
        self.due = Instant(0.0)
        self.serial = 0
        self.cancelled = False


class _Slot(NamedTuple):
    due: Instant
    order: int
    job: Job
    serial: int


class Scheduler:
    """Starts each job when it is due, never twice at once.

    Attributes:
        lateness_s: how late the newest starts were, at most 10,000 of them.
    """

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._heap: list[_Slot] = []
        self._order = count()
        self._changed = asyncio.Event()
        self._in_flight: set[asyncio.Task[None]] = set()
        self.started_count = 0
        self.worst_lateness_s = 0.0
        self.on_lateness: Callable[[float], None] | None = None

    def add(self, job: Job) -> None:
        """Run `job` first within its interval, at a moment of chance."""
        self._push(job, self._clock.now() + job.interval_s() * self._random.random())

    def hasten(self, job: Job, at: Instant) -> None:
        """Run `job` at `at` if it was due later; while it runs this changes nothing."""
        if not job.cancelled and job.serial % 2 == 0 and at < job.due:
            self._push(job, at)

    def remove(self, job: Job) -> None:
        job.cancelled = True

    def _push(self, job: Job, at: float) -> None:
        job.due = Instant(at)
        job.serial += 2
        slot = _Slot(job.due, next(self._order), job, job.serial)
        heapq.heappush(self._heap, slot)
        if self._heap[0] is slot:
            self._changed.set()

    async def run(self) -> None:
        """Start jobs for ever; cancelling this cancels what is in flight."""
        try:
            while True:
                self._start_due()
                await self._wait()
        finally:
            tasks = tuple(self._in_flight)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start_due(self) -> None:
        now = self._clock.now()
        loop = asyncio.get_running_loop()
        while self._heap and self._heap[0].due <= now and len(self._in_flight) < _MAX_IN_FLIGHT:
            slot = heapq.heappop(self._heap)
            job = slot.job
            if job.cancelled or job.serial != slot.serial:
                continue
            late_s = now - slot.due
            self.worst_lateness_s = max(self.worst_lateness_s, late_s)
            if self.on_lateness is not None:
                self.on_lateness(late_s)
            self.started_count += 1
            job.serial += 1
            task = loop.create_task(self._run(job))
            self._in_flight.add(task)
            task.add_done_callback(self._ended)

    async def _run(self, job: Job) -> None:
        start = self._clock.now()
        await job.run()
        job.serial += 1
        if not job.cancelled:
            spread = 1 + _JITTER * (2 * self._random.random() - 1)
            self._push(job, max(self._clock.now(), start + job.interval_s() * spread))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        if len(self._in_flight) == _MAX_IN_FLIGHT - 1:
            self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = error
            self._changed.set()

    failure: BaseException | None = None

    async def _wait(self) -> None:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        self._changed.clear()
        if not self._heap or len(self._in_flight) >= _MAX_IN_FLIGHT:
            await self._changed.wait()
            return
        delay_s = self._heap[0].due - self._clock.now()
        if delay_s <= 0:
            return
        timer = asyncio.get_running_loop().call_later(max(delay_s, _GRAIN_S), self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()
