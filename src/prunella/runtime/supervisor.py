"""Keeps our own parts running: what crashes is started again, what keeps crashing ends all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

import structlog

from prunella.core.model import Instant
from prunella.errors import StaleEpochError
from prunella.ports import Clock

_log = structlog.get_logger("prunella.supervisor")
INTENSITY = 5  # crashes of one part …
PERIOD_S = 60.0  # … within this period are too many
_DELAY_S = 0.5


class Crashes:
    """Counts crashes against the restart intensity."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at: deque[Instant] = deque(maxlen=INTENSITY + 1)

    def too_many(self) -> bool:
        """Count one more; True when there were more than the intensity allows."""
        now = self._clock.now()
        self._at.append(now)
        return len(self._at) > INTENSITY and now - self._at[0] <= PERIOD_S


class Supervisor:
    """Runs named parts for ever, one for one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.crash_count = 0

    async def run(self, parts: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        """Run until cancelled. Raises an ExceptionGroup when a part crashes too often, or when
        the store has been taken over.
        """
        async with asyncio.TaskGroup() as group:
            for name, part in parts.items():
                group.create_task(self._keep(name, part), name=f"prunella-{name}")

    async def _keep(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        crashes = Crashes(self._clock)
        while True:
            try:
                await part()
            except StaleEpochError:
                raise
            except Exception as error:
                self.crash_count += 1
                if crashes.too_many():
                    raise
                _log.exception("part-crashed", part=name, error=str(error))
            else:
                return
            await self._clock.sleep_until(Instant(self._clock.now() + _DELAY_S))
