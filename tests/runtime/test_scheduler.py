"""The scheduler: on time, spread out, and never twice at once."""

import asyncio
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from prunella.core.model import Instant
from prunella.runtime.clock import SystemClock
from prunella.runtime.scheduler import Job, Scheduler
from prunella.testing.stepped import SteppedClock

CLOCK = SystemClock()


@pytest.fixture
async def scheduler(begin: Any) -> Scheduler:
    made = Scheduler(CLOCK, Random(7))
    begin(made.run())
    return made


class Counted:
    """Work that counts itself, and waits if it is told to."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.running = self.most_at_once = 0
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self) -> None:
        self.starts.append(CLOCK.now())
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        await self.may_end.wait()
        self.running -= 1


async def test_a_job_runs_again_and_again(scheduler: Scheduler, eventually: Any) -> None:
    work = Counted()
    scheduler.add(Job(work, lambda: 0.01))
    await eventually(lambda: len(work.starts) >= 10)
    assert work.most_at_once == 1


async def test_a_job_that_outlasts_its_interval_never_runs_twice_at_once(
    scheduler: Scheduler, eventually: Any
) -> None:
    slow, other = Counted(), Counted()
    slow.may_end.clear()
    job = Job(slow, lambda: 0.005)
    scheduler.add(job)
    scheduler.add(Job(other, lambda: 0.005))
    await eventually(lambda: slow.starts)
    scheduler.hasten(job, CLOCK.now())
    others = len(other.starts)
    await eventually(lambda: len(other.starts) > others + 10)
    assert len(slow.starts) == 1
    slow.may_end.set()
    await eventually(lambda: len(slow.starts) > 3)
    assert slow.most_at_once == 1


async def test_a_hastened_job_runs_at_once_and_then_at_its_interval(
    scheduler: Scheduler, eventually: Any
) -> None:
    work = Counted()
    job = Job(work, lambda: 3600.0)
    scheduler.add(job)
    for count in (1, 2, 3):
        scheduler.hasten(job, CLOCK.now())
        await eventually(lambda count=count: len(work.starts) == count and work.running == 0)
        assert job.due > CLOCK.now() + 3000


async def test_a_job_is_never_put_off_by_hastening(scheduler: Scheduler) -> None:
    job = Job(Counted(), lambda: 1.0)
    scheduler.add(job)
    due = job.due
    scheduler.hasten(job, Instant(due + 100))
    assert job.due == due


async def test_a_removed_job_does_not_run_again(scheduler: Scheduler, eventually: Any) -> None:
    gone, other = Counted(), Counted()
    job = Job(gone, lambda: 0.005)
    scheduler.add(job)
    scheduler.add(Job(other, lambda: 0.005))
    await eventually(lambda: gone.starts)
    scheduler.remove(job)
    others = len(other.starts)
    await eventually(lambda: len(other.starts) > others)  # what had been started has run
    ran, others = len(gone.starts), len(other.starts)
    await eventually(lambda: len(other.starts) > others + 10)
    assert len(gone.starts) == ran
    scheduler.hasten(job, CLOCK.now())
    others = len(other.starts)
    await eventually(lambda: len(other.starts) > others + 10)
    assert len(gone.starts) == ran


async def test_removed_while_it_runs_it_ends_and_is_not_run_again(
    scheduler: Scheduler, eventually: Any
) -> None:
    work, other = Counted(), Counted()
    work.may_end.clear()
    job = Job(work, lambda: 0.005)
    scheduler.add(job)
    await eventually(lambda: work.running)
    scheduler.remove(job)
    work.may_end.set()
    scheduler.add(Job(other, lambda: 0.005))
    await eventually(lambda: len(other.starts) > 10)
    assert len(work.starts) == 1
    assert work.running == 0


async def test_pauses_are_within_a_tenth_of_the_interval_and_do_not_march_in_step(
    clock: SteppedClock,
) -> None:
    scheduler = Scheduler(clock, Random(7))
    jobs = [Job(Counted(), lambda: 100.0) for _ in range(200)]
    for job in jobs:
        await scheduler._run(job)
    pauses = [job.due for job in jobs]
    assert 90 <= min(pauses) < 92
    assert 108 < max(pauses) <= 110
    assert len(set(pauses)) > 150


async def test_first_runs_are_spread_over_one_interval(clock: SteppedClock) -> None:
    scheduler = Scheduler(clock, Random(7))
    jobs = [Job(Counted(), lambda: 100.0) for _ in range(500)]
    for job in jobs:
        scheduler.add(job)
    due = sorted(job.due for job in jobs)
    assert due[0] >= 0
    assert due[-1] <= 100
    assert max(later - sooner for sooner, later in pairwise(due)) < 5


async def test_a_job_that_fails_is_not_swallowed() -> None:
    scheduler = Scheduler(CLOCK, Random(7))

    async def broken() -> None:
        raise ZeroDivisionError("a defect")

    scheduler.add(Job(broken, lambda: 0.005))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        async with asyncio.timeout(30):
            await scheduler.run()


async def test_cancelled_it_cancels_what_is_in_flight(eventually: Any) -> None:
    scheduler = Scheduler(CLOCK, Random(7))
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    job = Job(endless, lambda: 0.005)
    scheduler.add(job)
    running = asyncio.create_task(scheduler.run())
    await eventually(lambda: scheduler.started_count)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == ["ended"]
