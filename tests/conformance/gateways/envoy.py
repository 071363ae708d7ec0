"""An Envoy of the extra ``envoy``, started by the gateway itself."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest
from tests.conformance.gateways import Answer, Bench, context, route
from tests.real.freeze import freeze, thaw
from tests.real.web import web

from prunella.gateways.envoy import EnvoyGateway, EnvoyRoute, EnvoySpec
from prunella.testing.site import free_port


async def asked(
    port: int, path: str = "/", host: str = "shop", address: str = "127.0.0.1"
) -> Answer:
    """One request on a connection of its own, which Envoy keeps open for a while."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(address, port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *rest = head.strip().split("\r\n")
            headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in rest)}
            body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
        finally:
            writer.close()
    status = int(first.split()[1])
    return Answer(status, headers.get("x-server", ""), headers.get("retry-after", ""), body)


def processes(folder: Path) -> list[psutil.Process]:
    """The Envoys that watch this folder."""
    bootstrap = str(folder / "envoy" / "bootstrap.json")
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if bootstrap in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def end(folder: Path) -> None:
    for process in processes(folder):
        process.kill()
        process.wait(10)


def build(folder: Path, port: int, **more: object) -> EnvoyGateway:
    settings = {"folder": folder / "envoy", "listen": f"127.0.0.1:{port}", "start": True, **more}
    return EnvoyGateway(EnvoySpec.model_validate(settings), context(folder))


async def target(folder: Path, stack: AsyncExitStack, _request: pytest.FixtureRequest) -> Bench:
    servers = await stack.enter_async_context(web("a", "b"))
    port = free_port()
    stack.callback(end, folder)

    async def again(*, start: bool = True) -> EnvoyGateway:
        gateway = build(folder, port, start=start)
        await gateway.route([route(EnvoyRoute(name="edge"), servers)])
        return gateway

    gateway = await again()

    async def ask() -> Answer:
        return await asked(port)

    async def restart() -> None:
        await gateway.stop()

    async def dead() -> None:
        await gateway.stop()
        bench.gateway = await again(start=False)

    def stand_still(still: bool) -> None:  # noqa: FBT001 - as in `Bench`
        (freeze if still else thaw)(*(process.pid for process in processes(folder)))

    bench = Bench(
        gateway,
        ask,
        again,
        restart,
        dead,
        ends_by_itself=True,
        port=port,
        servers=servers,
        freeze=stand_still,
    )
    return bench
