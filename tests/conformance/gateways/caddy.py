"""Caddy, with the service as the one route of a server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.gateways import Bench, context, route
from tests.gateways.program import ask, running
from tests.real.network import own_network
from tests.real.web import web

from prunella.gateways.caddy import CaddyGateway, CaddyRoute, CaddySpec
from prunella.testing.site import free_port


def config(port: int, *dials: str) -> dict[str, Any]:
    upstreams = [{"dial": dial} for dial in dials]
    proxy = {"handler": "reverse_proxy", "@id": "web", "upstreams": upstreams}
    server = {
        "listen": [f"127.0.0.1:{port}"],
        "automatic_https": {"disable": True},
        "metrics": {},
        "routes": [{"handle": [proxy]}],
    }
    admin = {"listen": f"127.0.0.1:{port + 1}"}
    return {"admin": admin, "apps": {"http": {"servers": {"main": server}}}}


async def target(folder: Path, stack: AsyncExitStack, _request: pytest.FixtureRequest) -> Bench:
    if shutil.which("caddy") is None:
        pytest.skip("there is no caddy: apt-get install caddy")
    # Caddy opens its ports anew at each reload: without this, connections that wait on the old
    # ones are lost. What is said of it to users is in docs/gateways/caddy.md.
    stack.enter_context(own_network({"ipv4/tcp_migrate_req": "1"}))
    servers = await stack.enter_async_context(web("a", "b"))
    port = free_port(2)
    file = folder / "caddy.json"
    file.write_text(json.dumps(config(port, *(f"127.0.0.1:{one.port}" for one in servers))))
    environ = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    argv = ["caddy", "run", "--config", str(file)]
    program = await running(stack, argv, folder, (port, port + 1), environ)
    admin = f"http://127.0.0.1:{port + 1}"

    async def again() -> CaddyGateway:
        gateway = CaddyGateway(CaddySpec(admin=admin), context(folder))
        stack.push_async_callback(gateway.close)
        await gateway.route([route(CaddyRoute(name="edge", id="web"), servers)])
        return gateway

    async def reload() -> None:
        process = await asyncio.create_subprocess_exec(
            *("caddy", "reload", "--force", "--config", str(file), "--address", admin[7:]),
            env=environ,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        assert process.returncode == 0, errors

    return Bench(
        await again(),
        partial(ask, f"http://127.0.0.1:{port}/"),
        again,
        program.restart,
        program.end,
        ends_by_itself=True,
        servers=servers,
        reload=reload,
        freeze=program.freeze,
        counts_servers=False,
    )
