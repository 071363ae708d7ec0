"""The supervisor: what crashes is started again, what keeps crashing ends all."""

import asyncio
from typing import Any

import pytest

from prunella.errors import StaleEpochError
from prunella.runtime.supervisor import INTENSITY, PERIOD_S, Supervisor
from prunella.testing.stepped import SteppedClock


class Part:
    """A part that crashes at each start, as often as it is told to."""

    def __init__(self, crash_count: int, error: Exception | None = None) -> None:
        self.start_count = 0
        self._left = crash_count
        self._error = error or ValueError("a defect")

    async def __call__(self) -> None:
        self.start_count += 1
        if self._left:
            self._left -= 1
            raise self._error
        await asyncio.Event().wait()


async def test_a_part_that_crashes_is_started_again_and_others_are_left_alone(
    clock: SteppedClock, begin: Any
) -> None:
    supervisor, frail, sound = Supervisor(clock), Part(INTENSITY), Part(0)
    running = begin(supervisor.run({"frail": frail, "sound": sound}))
    await clock.elapse(PERIOD_S / 2)
    assert (frail.start_count, sound.start_count) == (INTENSITY + 1, 1)
    assert supervisor.crash_count == INTENSITY
    assert not running.done()


async def test_a_part_that_crashes_too_often_ends_all(clock: SteppedClock, begin: Any) -> None:
    frail = Part(INTENSITY + 1)
    running = begin(Supervisor(clock).run({"frail": frail, "sound": Part(0)}))
    await clock.elapse(PERIOD_S / 2)
    with pytest.raises(ExceptionGroup) as caught:
        await running
    assert [str(error) for error in caught.value.exceptions] == ["a defect"]


async def test_crashes_that_are_far_apart_are_not_too_many(clock: SteppedClock, begin: Any) -> None:
    crashes = asyncio.Queue[None]()

    async def frail() -> None:
        await crashes.get()
        raise ValueError("a defect")

    supervisor = Supervisor(clock)
    running = begin(supervisor.run({"frail": frail}))
    for _ in range(3 * INTENSITY):
        crashes.put_nowait(None)
        await clock.elapse(PERIOD_S / INTENSITY + 1)
    assert supervisor.crash_count == 3 * INTENSITY
    assert not running.done()


async def test_a_store_that_was_taken_over_ends_all_at_once(
    clock: SteppedClock, begin: Any
) -> None:
    part = Part(1, StaleEpochError("another holder"))
    running = begin(Supervisor(clock).run({"journal": part, "sound": Part(0)}))
    await clock.elapse(1)
    with pytest.raises(ExceptionGroup):
        await running
    assert part.start_count == 1


async def test_cancelled_it_ends_all_its_parts(clock: SteppedClock, begin: Any) -> None:
    ended: list[int] = []

    async def part() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    running = begin(Supervisor(clock).run({"one": part, "other": part}))
    await clock.settle()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == [1, 1]
