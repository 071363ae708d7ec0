"""Users of a storefront over two more tiers, once watched and once not.

Both are asked equally often, so that what its callers meet can be counted side by side.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from prunella.core.model import Instant
from prunella.ports import Clock

_EVERY_S = 0.06
_PATIENCE_S = 0.5


class Callers:
    """Ask two ports again and again, each so often and with so much patience."""

    def __init__(self, watched: int, unwatched: int, clock: Clock) -> None:
        self.failed = {watched: 0, unwatched: 0}
        self.asked = 0
        self._clock = clock
        self._asking: set[asyncio.Task[None]] = set()
        self._rush = asyncio.create_task(self._go_on())

    async def end(self) -> None:
        self._rush.cancel()
        await asyncio.wait({self._rush, *self._asking})

    async def _go_on(self) -> None:
        while True:
            self.asked += 1
            for port in self.failed:
                task = asyncio.create_task(self._ask(port))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
            await self._clock.sleep_until(Instant(self._clock.now() + _EVERY_S))

    async def _ask(self, port: int) -> None:
        served = False
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                served = await _is_served(port)
        self.failed[port] += not served


async def _is_served(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        return b" 200 " in await reader.readline()
    finally:
        writer.close()
