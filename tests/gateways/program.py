"""A gateway as a program of its own: started, frozen, ended; never left behind."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from tests.conformance.gateways import Answer
from tests.real.freeze import freeze, thaw


@dataclass
class Program:
    """One program; ``ports`` are those that accept connections once it is up."""

    argv: Sequence[str]
    folder: Path
    ports: Sequence[int]
    environ: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - a thread has another network
                self.argv, env=self.environ, stdout=log, stderr=log
            )
        async with asyncio.timeout(30):
            for port in self.ports:
                while not await accepts(port):
                    assert self.process.poll() is None, (self.folder / "log").read_text()
                    await asyncio.sleep(0.02)

    async def end(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.wait)

    async def restart(self) -> None:
        await self.end()
        await self.start()

    def freeze(self, still: bool) -> None:  # noqa: FBT001 - as in `Bench`
        assert self.process is not None
        (freeze if still else thaw)(self.process.pid)


async def running(
    stack: AsyncExitStack,
    argv: Sequence[str],
    folder: Path,
    ports: Sequence[int],
    environ: Mapping[str, str],
) -> Program:
    """Started; ended with `stack`."""
    program = Program(argv, folder, ports, environ)
    stack.push_async_callback(program.end)
    await program.start()
    return program


async def accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def ask(url: str) -> Answer:
    """One request of a caller, on a connection of its own."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        body = await response.text()
        server = response.headers.get("x-server", "")
        return Answer(response.status, server, response.headers.get("Retry-After", ""), body)
