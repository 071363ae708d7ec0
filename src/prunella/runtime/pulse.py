"""Whether this process itself stood still: a verdict that spans a stall is void."""

from __future__ import annotations

from prunella.core.model import Instant
from prunella.ports import Clock

BEAT_S = 0.05


class Pulse:
    """Beats on the event loop and notices when a beat comes late.

    A frozen or starved prober finds all its deadlines passed at once when it wakes up; without
    this it would condemn every target that it had in flight.
    """

    def __init__(self, clock: Clock, tolerance_s: float) -> None:
        self._clock = clock
        self._tolerance_s = tolerance_s
        self._last = clock.now()
        self._stalled_at = Instant(float("-inf"))
        self.stall_count = 0
        self.worst_s = 0.0

    async def run(self) -> None:
        self._last = self._clock.now()
        while True:
            await self._clock.sleep_until(Instant(self._last + BEAT_S))
            self._beat()

    def _beat(self) -> None:
        now = self._clock.now()
        late_s = now - self._last - BEAT_S
        if late_s > self._tolerance_s:
            self._stalled_at = now
            self.stall_count += 1
            self.worst_s = max(self.worst_s, late_s)
        self._last = now

    def stalled_since(self, start: Instant) -> bool:
        """Whether the loop stood still at any time from `start` to now.

        The deadlines of a frozen loop fire before its next beat does, so a beat that is overdue
        now counts as well.
        """
        overdue_s = self._clock.now() - self._last - BEAT_S
        return self._stalled_at >= start or overdue_s > self._tolerance_s
