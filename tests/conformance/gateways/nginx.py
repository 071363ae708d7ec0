"""Debian's nginx, with include files in a temporary folder."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.gateways import Answer, Bench, context, route
from tests.real.nginx import Nginx, missing, nginx
from tests.real.web import web

from prunella.gateways._nginx_spec import NginxSpec
from prunella.gateways.nginx import NginxGateway
from prunella.plugins import gateways


def http_of(ours: Path, upstream: str = "shop") -> str:
    return (
        f"include {ours}/prunella.http.conf;\n"
        f"upstream {upstream} {{ include {ours}/{upstream}.servers.conf; }}"
    )


def location_of(ours: Path, upstream: str = "shop") -> str:
    return (
        f"location / {{ include {ours}/{upstream}.location.conf; proxy_pass http://{upstream}; }}"
    )


def build(one: Nginx, folder: Path, **more: object) -> NginxGateway:
    settings = {
        "folder": one.folder / "prunella",
        "program": one.program,
        "config": one.config,
        "status": one.status,
        **more,
    }
    return NginxGateway(NginxSpec.model_validate(settings), context(folder))


async def asked(port: int, path: str = "/") -> Answer:
    """One request on a connection of its own."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: shop\r\n\r\n".encode())
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        finally:
            writer.close()
    first, *rest = head.split("\r\n")
    headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in rest)}
    status = int(first.split()[1])
    return Answer(status, headers.get("x-server", ""), headers.get("retry-after", ""), body)


async def target(folder: Path, stack: AsyncExitStack, _request: pytest.FixtureRequest) -> Bench:
    if why := missing():
        pytest.skip(why)
    servers = await stack.enter_async_context(web("a", "b"))
    one = await stack.enter_async_context(nginx(folder))
    ours = folder / "prunella"
    spec = gateways()["nginx"].route.model_validate({"name": "edge", "upstream": "shop"})
    one.write(http_of(ours), location_of(ours))

    async def again() -> NginxGateway:
        gateway = build(one, folder)
        stack.push_async_callback(gateway.close)
        await gateway.route([route(spec, servers)])
        return gateway

    gateway = await again()  # writes the files that nginx includes
    await one.start()
    await gateway.observe()  # counts from here on

    async def ask() -> Answer:
        return await asked(one.port)

    async def restart() -> None:
        await one.stop()
        await one.start()

    async def shut_by_hand(server: str, shut: bool) -> None:  # noqa: FBT001 - as in `Bench`
        file = ours / "shop.servers.conf"
        old, new = (f"; # {server}", f" down; # {server}")
        text = file.read_text()
        file.write_text(text.replace(old, new) if shut else text.replace(new, old))
        await one.reload()

    return Bench(
        gateway,
        ask,
        again,
        restart,
        one.stop,
        ends_by_itself=True,
        port=one.port,
        servers=servers,
        shut_by_hand=shut_by_hand,
        reload=one.reload,
        freeze=one.freeze,
    )
