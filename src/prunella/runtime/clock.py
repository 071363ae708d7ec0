"""The real clock: the only module that asks the operating system for the time."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from prunella.core.model import Instant, Stamp

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """The kernel's name for this boot; where it has none, one that no later start shares."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return uuid4().hex


class SystemClock:
    """``Clock`` of the machine. Instants are comparable between processes of one boot."""

    def __init__(self) -> None:
        self._boot = boot_id()

    @property
    def boot(self) -> str:
        return self._boot

    def now(self) -> Instant:
        return Instant(time.monotonic())

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def stamp(self) -> Stamp:
        return Stamp(self.wall(), self.now(), self._boot)

    async def sleep_until(self, at: Instant, /) -> None:
        await asyncio.sleep(max(0.0, at - self.now()))
