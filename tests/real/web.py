"""Small real web servers that say who they are, fail when told, and count what reaches them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Web:
    """One server on a port of its own.

    Attributes:
        status: what it answers with; ``delay_s``: after how long.
        count: requests that it has answered.
    """

    name: str
    status: int = 200
    delay_s: float = 0.0
    count: int = 0
    port: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                self.count += 1
                body = self.name.encode()
                writer.write(
                    b"HTTP/1.1 %d Said\r\ncontent-length: %d\r\nx-server: %s\r\n\r\n%s"
                    % (self.status, len(body), body, body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has gone, as it may between two requests
        finally:
            self._writers.discard(writer)
            writer.close()

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def web(*names: str) -> AsyncIterator[list[Web]]:
    """Servers of these names, that listen until the end."""
    webs = [Web(name) for name in names]
    listening = [await one.listen() for one in webs]
    try:
        yield webs
    finally:
        for server in listening:
            server.close()
        for one in webs:
            one.hang_up()
        for server in listening:
            await server.wait_closed()
