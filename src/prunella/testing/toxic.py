"""A small server that behaves as badly as servers do, to try probes on. Loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import MappingProxyType

from prunella.core.model import Instant
from prunella.ports import Clock

_HEAD = b"HTTP/1.1 200 OK\r\n"
_BLOCK = bytes(16384)
_SEND_BUFFER_BYTES = 16384


class Victim:
    """One connection as a behaviour sees it. ``send`` returns when the bytes have left us."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server: ToxicServer,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._server = server
        self.url = server.url
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        writer.transport.set_write_buffer_limits(high=0)

    async def request(self) -> bytes:
        """What was asked, up to the empty line."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def receive(self, size_bytes: int) -> bytes:
        """So much of what follows the request's head."""
        return await self._reader.readexactly(size_bytes)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
        self._server.sent_bytes += len(data)

    async def pause(self, seconds: float) -> None:
        clock = self._server.clock
        await clock.sleep_until(Instant(clock.now() + seconds))

    async def wait_for_goodbye(self) -> None:
        """Read until the other side closes."""
        while await self._reader.read(65536):
            pass

    def stop_sending(self) -> None:
        self._writer.write_eof()

    def reset(self) -> None:
        """Close with a reset instead of a goodbye."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Behaviour = Callable[[Victim], Awaitable[None]]


class ToxicServer:
    """Listens on a free port of 127.0.0.1 while its context lasts.

    Attributes:
        sent_bytes: how much the system took from all behaviours together.
        connection_count: how many connections were accepted.
    """

    def __init__(self, behaviour: Behaviour, clock: Clock) -> None:
        self.clock = clock
        self.sent_bytes = 0
        self.connection_count = 0
        self.port = 0
        self._behaviour = behaviour
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncGenerator[ToxicServer]:
        """Serve until the block ends; whoever is still connected is cut off."""
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            serving = list(self._serving)
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
            await server.wait_closed()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._behaviour(Victim(reader, writer, self))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the victim has left, which is what it should do
        finally:
            writer.close()


def reply(head: bytes, body: bytes = b"") -> Behaviour:
    """An ordinary server: one answer per request, `head` without its last empty line."""

    async def behaviour(victim: Victim) -> None:
        while True:
            await victim.request()
            await victim.send(
                head + b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
            )

    return behaviour


async def tarpit(victim: Victim) -> None:
    """A good answer at one byte per second."""
    for byte in _HEAD + b"Content-Length: 0\r\n\r\n":
        await victim.send(bytes([byte]))
        await victim.pause(1.0)


async def slow_headers(victim: Victim) -> None:
    """One more header every 50 ms, for ever."""
    await victim.send(_HEAD)
    while True:
        await victim.send(b"X-More: yes\r\n")
        await victim.pause(0.05)


async def endless_body(victim: Victim) -> None:
    await victim.request()
    await victim.send(_HEAD + b"\r\n")
    while True:
        await victim.send(_BLOCK)


async def endless_chunks(victim: Victim) -> None:
    await victim.request()
    await victim.send(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        await victim.send(b"4000\r\n" + _BLOCK + b"\r\n")


async def gzip_bomb(victim: Victim) -> None:
    """64 KiB or so that would unpack to 64 MiB."""
    bomb = gzip.compress(bytes(2**20)) * 64
    await victim.request()
    await victim.send(_HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb))
    await victim.send(bomb)


async def huge_header(victim: Victim) -> None:
    """10 MiB of one header."""
    await victim.request()
    await victim.send(_HEAD + b"X-Huge: ")
    for _ in range(640):
        await victim.send(b"x" * len(_BLOCK))
    await victim.send(b"\r\n\r\n")


async def endless_interim(victim: Victim) -> None:
    """Interim answers, for ever."""
    await victim.request()
    while True:
        await victim.send(b"HTTP/1.1 100 Continue\r\n\r\n")


async def garbage(victim: Victim) -> None:
    await victim.send(bytes(range(256)) * 4)
    await victim.wait_for_goodbye()


async def reset_at_accept(victim: Victim) -> None:
    victim.reset()


async def reset_in_body(victim: Victim) -> None:
    await victim.request()
    await victim.send(_HEAD + b"Content-Length: 1000\r\n\r\nten bytes.")
    victim.reset()


async def reset_in_headers(victim: Victim) -> None:
    await victim.request()
    await victim.send(_HEAD + b"Content-")
    await victim.pause(0.05)  # a reset overtakes what was not read yet
    victim.reset()


async def half_close(victim: Victim) -> None:
    """Says nothing more and keeps listening."""
    victim.stop_sending()
    await victim.wait_for_goodbye()


async def redirect_loop(victim: Victim) -> None:
    await victim.request()
    location = victim.url.encode()
    await victim.send(
        b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
    )


async def endless_chatter(victim: Victim) -> None:
    """Bytes without asking, for ever."""
    while True:
        await victim.send(_BLOCK)


async def silent(victim: Victim) -> None:
    await victim.wait_for_goodbye()


BEHAVIOURS: Mapping[str, Behaviour] = MappingProxyType(
    {
        behaviour.__name__: behaviour
        for behaviour in (
            tarpit,
            slow_headers,
            endless_body,
            endless_chunks,
            gzip_bomb,
            huge_header,
            endless_interim,
            garbage,
            reset_at_accept,
            reset_in_body,
            reset_in_headers,
            half_close,
            redirect_loop,
            silent,
        )
    }
)
