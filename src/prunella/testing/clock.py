"""A clock that only moves when it is told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prunella.core.model import Instant, Stamp

_START = datetime(2026, 1, 1, tzinfo=UTC)


class SimClock:
    """``Clock`` in virtual time. Sleeping moves it; ``wall_offset_s`` makes the wall clock jump."""

    def __init__(self, boot: str = "boot-1") -> None:
        self._now = 0.0
        self._boot = boot
        self.wall_offset_s = 0.0

    @property
    def boot(self) -> str:
        return self._boot

    def now(self) -> Instant:
        return Instant(self._now)

    def wall(self) -> datetime:
        return _START + timedelta(seconds=self._now + self.wall_offset_s)

    def stamp(self) -> Stamp:
        return Stamp(self.wall(), self.now(), self._boot)

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def move_to(self, at: Instant) -> None:
        self._now = max(self._now, at)

    async def sleep_until(self, at: Instant, /) -> None:
        self.move_to(at)
