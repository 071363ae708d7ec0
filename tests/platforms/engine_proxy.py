"""Between Prunella and a real Docker Engine: what is asked takes place, or not, or is not told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

_CHUNK_BYTES = 65536
_CHANGES = ("POST", "DELETE")


@dataclass
class Fault:
    """What becomes of a request.

    Attributes:
        request: a pattern that "METHOD /path" must match, without the version of the API.
        answer: sent in place of the Engine's answer; None: its own; empty: never any.
        takes_effect: the Engine gets the request.
        after: how many such requests pass before.
        times: how often; afterwards everything is as usual.
        first: awaited before anything else.
        done: the Engine has answered; set by the proxy.
    """

    request: str
    answer: bytes | None = None
    takes_effect: bool = True
    after: int = 0
    times: int = 1
    first: Callable[[], Awaitable[None]] | None = None
    done: bool = False


def status(code: int, message: str = "as a test wants it") -> bytes:
    body = f'{{"message":"{message}"}}'.encode()
    head = f"HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class EngineProxy:
    """A socket of its own.

    Attributes:
        heard: every request, in their order.
        asked: those that change something and have reached the Engine.
    """

    engine: Path
    path: Path
    faults: list[Fault] = field(default_factory=list[Fault])
    heard: list[str] = field(default_factory=list[str])
    asked: list[str] = field(default_factory=list[str])
    frozen: bool = False
    _open: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])
    _served: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    @property
    def host(self) -> str:
        return f"unix://{self.path}"

    def cut(self) -> None:
        """Close every connection that there is."""
        for writer in [*self._open]:
            writer.transport.abort()

    async def end(self) -> None:
        self.cut()
        for task in self._served:
            task.cancel()
        if self._served:
            await asyncio.wait(self._served)

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._served.add(task)
        task.add_done_callback(self._served.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b" ", 2)
            request = f"{method.decode()} {re.sub(r'^/v[0-9.]+', '', target.decode())}"
            self.heard.append(request)
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            await self._answer(request, head, body, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side has gone
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(
        self, request: str, head: bytes, body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        while self.frozen:  # noqa: ASYNC110 - a flag that a test sets
            await asyncio.sleep(0.05)
        fault = self._fault(request)
        if fault.first is not None:
            await fault.first()
        if not fault.takes_effect:
            answer: AsyncIterator[bytes] = _nothing()
        else:
            if request.startswith(_CHANGES):
                self.asked.append(request)
            answer = self._ask(head, body)
        async for chunk in answer:
            if fault.answer is None:
                writer.write(chunk)
                await writer.drain()
        fault.done = True
        if fault.answer == b"":
            await asyncio.Event().wait()
        writer.write(fault.answer or b"")
        await writer.drain()

    def _fault(self, request: str) -> Fault:
        for fault in self.faults:
            if fault.times == 0 or not re.match(fault.request, request):
                continue
            if fault.after == 0:
                fault.times -= 1
                return fault
            fault.after -= 1
        return Fault("")

    async def _ask(self, head: bytes, body: bytes) -> AsyncIterator[bytes]:
        reader, writer = await asyncio.open_unix_connection(self.engine)
        self._open.add(writer)
        try:
            writer.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
            while chunk := await reader.read(_CHUNK_BYTES):
                yield chunk
        finally:
            self._open.discard(writer)
            writer.close()


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


@asynccontextmanager
async def proxied(engine: Path, path: Path) -> AsyncIterator[EngineProxy]:
    """A proxy that answers at `path` until the end."""
    proxy = EngineProxy(engine, path)
    server = await asyncio.start_unix_server(proxy.serve, path)
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
