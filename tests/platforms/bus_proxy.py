"""A unix socket in front of a message bus, that breaks in the ways that buses do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_CHUNK_BYTES = 65536


class BusProxy:
    """Forwards bytes both ways, until a test wants otherwise.

    Attributes:
        connection_count: how often somebody has connected; ``open_count``: how many are there now.
        cut_before: hang up when these bytes are on their way to the bus, which does not get them.
        lose: hang up when the bus says these bytes, which the client does not get.
        hang_after: hang from when the bus has got these bytes.
    """

    def __init__(self, target: Path, path: Path) -> None:
        self.address = f"unix:path={path}"
        self.connection_count = 0
        self.open_count = 0
        self.cut_before = self.lose = self.hang_after = b""
        self._target = target
        self._path = path
        self._flows = asyncio.Event()
        self._flows.set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    def cut(self) -> None:
        """Hang up on everybody."""
        for client in self._clients:
            client.transport.abort()

    async def vanish(self) -> None:
        """Hang up, and be nowhere to be found."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink()
        self.cut()

    def hang(self) -> None:
        """Forward nothing more, and hang up on nobody."""
        self._flows.clear()

    def mend(self) -> None:
        """Forward what comes, and what has been held back."""
        self.hang_after = b""
        self._flows.set()

    def send_nonsense(self) -> None:
        for client in self._clients:
            client.write(b"\xff" * 64)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        self.open_count += 1
        self._clients.add(client)
        from_bus, bus = await asyncio.open_unix_connection(self._target)
        try:
            async with asyncio.TaskGroup() as both:
                back = both.create_task(self._backward(from_bus, client))
                await self._forward(reader, bus)
                back.cancel()
        finally:
            self.open_count -= 1
            self._clients.discard(client)
            client.transport.abort()
            bus.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, bus: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                await self._flows.wait()
                if self.cut_before and self.cut_before in chunk:
                    return
                if self.hang_after and self.hang_after in chunk:
                    self.hang()
                bus.write(chunk)
        except OSError:
            return

    async def _backward(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                await self._flows.wait()
                if self.lose and self.lose in chunk:
                    self.lose = b""
                    return
                client.write(chunk)
        finally:
            client.transport.abort()


@asynccontextmanager
async def before_the_bus(target: Path, folder: Path) -> AsyncIterator[BusProxy]:
    """One that listens in `folder` and has gone afterwards."""
    proxy = BusProxy(target, folder / "bus")
    await proxy.listen()
    try:
        yield proxy
    finally:
        proxy.mend()
        await proxy.vanish()
