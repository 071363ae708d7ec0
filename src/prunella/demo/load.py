"""Clients that keep a service busy, spread over its replicas as a load balancer would do it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from prunella.core.model import Instant
from prunella.ports import Clock

_REQUEST = b"GET /work HTTP/1.0\r\n\r\n"
_PAUSE_S = 0.05  # before the next try, where nobody answers


class Load:
    """So many clients, each of which asks again as soon as it is answered.

    Args:
        ports: where there is a replica, or may be one; each client has one that it likes best.
    """

    def __init__(self, ports: Sequence[int], clients: int, clock: Clock) -> None:
        self._clock = clock
        turns = [n % len(ports) for n in range(clients)]
        self._clients = [
            asyncio.create_task(self._ask((*ports[turn:], *ports[:turn]))) for turn in turns
        ]

    async def end(self) -> None:
        for client in self._clients:
            client.cancel()
        await asyncio.wait(self._clients)

    async def _ask(self, ports: Sequence[int]) -> None:
        while True:
            if not await _answered(ports):
                await self._clock.sleep_until(Instant(self._clock.now() + _PAUSE_S))


async def _answered(ports: Sequence[int]) -> bool:
    """Ask the first one of them where somebody listens."""
    for port in ports:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(_REQUEST)
                return bool(await reader.read())
            finally:
                writer.close()
    return False
