"""Somebody's own gateway, told by templated requests."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.gateways import Bench, context, route
from tests.gateways.program import ask, running
from tests.real.web import web

from prunella.gateways.http import HttpGateway, HttpGatewaySpec, HttpRoute
from prunella.testing.site import free_port

TOKEN = "open-sesame"


def section(admin_port: int, token_file: Path) -> dict[str, Any]:
    """The gateway's part of a config file."""
    circuit = f"http://127.0.0.1:{admin_port}/circuits/{{backend}}"
    return {
        "headers": {"Authorization": "Bearer {token}"},
        "token_file": token_file,
        "open": {
            "url": circuit,
            "headers": {"Content-Type": "application/json"},
            "body": '{"open": true, "seconds": {lease_s}, "share": {share}, "body": "{body}"}',
            "expect": "202",
        },
        "close": {"method": "DELETE", "url": circuit},
        "state": {
            "url": circuit,
            "open": '"open": true',
            "closed": '"open": false',
            "share": r'"share": (\d+)',
            "requests": r'"requests": (\d+)',
            "failed": r'"failed": (\d+)',
            "turned_away": r'"turned_away": (\d+)',
            "in_flight": r'"in_flight": (\d+)',
        },
    }


async def target(
    folder: Path, stack: AsyncExitStack, _request: pytest.FixtureRequest, **environ: str
) -> Bench:
    servers = await stack.enter_async_context(web("a", "b"))
    port = free_port(2)
    behind = "shop=" + ",".join(str(one.port) for one in servers)
    argv = [sys.executable, "-m", "tests.gateways.home_grown", f"{port}", f"{port + 1}", TOKEN]
    ports = (port, port + 1)
    program = await running(stack, [*argv, behind], folder, ports, {**os.environ, **environ})
    token_file = folder / "token"
    token_file.write_text(f"{TOKEN}\n")

    async def again() -> HttpGateway:
        spec = HttpGatewaySpec.model_validate(section(port + 1, token_file))
        gateway = HttpGateway(spec, context(folder))
        stack.push_async_callback(gateway.close)
        await gateway.route([route(HttpRoute(name="edge", backend="shop"), servers)])
        return gateway

    return Bench(
        await again(),
        partial(ask, f"http://127.0.0.1:{port}/shop/"),
        again,
        program.restart,
        program.end,
        ends_by_itself=True,
        servers=servers,
        freeze=program.freeze,
    )
