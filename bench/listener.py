"""A target in a process of its own: answers 200 on every loopback address, one port.

``python -m bench.listener`` prints the port and serves until killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple, cast

import uvloop
from bench.machine import ROOT

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert data.endswith(b"\r\n\r\n"), data
        self._transport.write(_ANSWER)
        self._transport.close()


class Listener(NamedTuple):
    port: int
    process: subprocess.Popen[bytes]

    def end(self) -> None:
        """From now on connections are refused."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def listener() -> Iterator[Listener]:
    argv = [sys.executable, "-m", "bench.listener"]
    child = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        yield Listener(int(child.stdout.readline()), child)
    finally:
        child.kill()
        child.communicate()


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "0.0.0.0", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
