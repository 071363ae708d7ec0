"""The pulse: a span in which we stood still proves nothing about anybody else."""

from typing import Any

from prunella.runtime.pulse import BEAT_S, Pulse
from prunella.testing.stepped import SteppedClock

TOLERANCE_S = 0.25


async def test_a_loop_that_turns_is_not_doubted(clock: SteppedClock, begin: Any) -> None:
    pulse = Pulse(clock, TOLERANCE_S)
    start = clock.now()
    begin(pulse.run())
    await clock.elapse(10)
    assert pulse.stall_count == 0
    assert not pulse.stalled_since(start)


async def test_a_stall_voids_what_began_before_it_and_nothing_after(
    clock: SteppedClock, begin: Any
) -> None:
    pulse = Pulse(clock, TOLERANCE_S)
    begin(pulse.run())
    await clock.elapse(1)
    before = clock.now()
    clock.advance(3)
    await clock.elapse(BEAT_S)
    assert pulse.stall_count == 1
    assert pulse.stalled_since(before)
    assert pulse.worst_s > 2.5
    await clock.elapse(1)
    assert not pulse.stalled_since(clock.now())


async def test_a_beat_that_is_overdue_now_counts_before_it_is_made(
    clock: SteppedClock, begin: Any
) -> None:
    pulse = Pulse(clock, TOLERANCE_S)
    begin(pulse.run())
    await clock.elapse(1)
    before = clock.now()
    clock.advance(3)
    assert pulse.stalled_since(before)


async def test_being_late_within_the_tolerance_is_no_stall(clock: SteppedClock, begin: Any) -> None:
    pulse = Pulse(clock, TOLERANCE_S)
    begin(pulse.run())
    await clock.elapse(1)
    before = clock.now()
    clock.advance(TOLERANCE_S * 0.9)
    assert not pulse.stalled_since(before)
    await clock.elapse(BEAT_S)
    assert pulse.stall_count == 0
