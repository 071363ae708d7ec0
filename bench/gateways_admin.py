"""``python -m bench.gateways_admin``: 1,000 services behind Caddy, and behind one `http` gateway.

What one reading of all of them takes, in time and of our own processor, and how long it is from
the decision until the first request is answered by the circuit.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import web
from tests.conformance.gateways import EPOCH
from tests.gateways.api import api
from tests.gateways.program import ask, running

from prunella.core.model import ServiceId
from prunella.core.traffic import OPEN_WIDE, Valve
from prunella.gateways.caddy import CaddyGateway, CaddyRoute, CaddySpec
from prunella.gateways.http import HttpGateway, HttpGatewaySpec, HttpRoute
from prunella.plugins import GatewayContext
from prunella.ports import Gateway, Route
from prunella.runtime.clock import SystemClock
from prunella.testing.site import free_port

SERVICES = 1000
RUNS = 30
INTERVAL_S = 5.0


def context(folder: Path) -> GatewayContext:
    return GatewayContext("edge", SystemClock(), folder)


async def reading(name: str, gateway: Gateway) -> None:
    took: list[float] = []
    used = 0.0
    for _ in range(RUNS):
        start, cpu = time.perf_counter(), time.process_time()
        assert len(await gateway.observe()) == SERVICES
        took.append(1000 * (time.perf_counter() - start))
        used += time.process_time() - cpu
    share = 100 * used / RUNS / INTERVAL_S
    print(f"{name}: median {median(took):.1f} ms, max {max(took):.1f} ms, {share:.2f} % of a core")


async def opening(name: str, gateway: Gateway, caller: Callable[[], Awaitable[Any]]) -> None:
    took: list[float] = []
    service = ServiceId("s0")
    for _ in range(RUNS):
        start = time.perf_counter()
        await gateway.turn(service, Valve(0), before=OPEN_WIDE, lease_s=60, epoch=EPOCH)
        assert (await caller()).status == 503
        took.append(1000 * (time.perf_counter() - start))
        await gateway.turn(service, OPEN_WIDE, before=Valve(0), lease_s=60, epoch=EPOCH)
    print(f"{name}: median {median(took):.1f} ms, p95 {quantiles(took, n=20)[-1]:.1f} ms")


def config(port: int, *, alone: bool) -> dict[str, Any]:
    """All services in one server of Caddy's, or each in one of its own, where it counts them."""
    routes = [
        {
            "match": [{"path": [f"/s{number}"]}],
            "handle": [
                {
                    "handler": "reverse_proxy",
                    "@id": f"s{number}",
                    "upstreams": [{"dial": f"127.0.0.1:{9 + number % 100}"}] * 2,
                }
            ],
        }
        for number in range(SERVICES)
    ]
    common = {"automatic_https": {"disable": True}, "metrics": {}}
    servers = {"main": {"listen": [f"127.0.0.1:{port}"], "routes": routes, **common}}
    if alone:
        servers = {
            f"s{number}": {"listen": [f"127.0.0.1:{port + number}"], "routes": [route], **common}
            for number, route in enumerate(routes)
        }
    admin = {"listen": f"127.0.0.1:{port - 1}"}
    return {"admin": admin, "apps": {"http": {"servers": servers}}}


async def caddy(folder: Path, *, alone: bool) -> None:
    async with AsyncExitStack() as stack:
        port = 1 + free_port(SERVICES + 1 if alone else 2)
        file = folder / "caddy.json"
        file.write_text(json.dumps(config(port, alone=alone)))
        environ = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        argv = ["caddy", "run", "--config", str(file)]
        await running(stack, argv, folder, (port - 1, port), environ)
        gateway = CaddyGateway(CaddySpec(admin=f"http://127.0.0.1:{port - 1}"), context(folder))
        stack.push_async_callback(gateway.close)
        ids = [f"s{number}" for number in range(SERVICES)]
        routes = [Route(ServiceId(id_), CaddyRoute(name="edge", id=id_), "x") for id_ in ids]
        await gateway.route(routes)
        where = "in servers of their own" if alone else "in one server"
        if alone:
            for number in range(SERVICES):
                await ask(f"http://127.0.0.1:{port + number}/s{number}")
        await reading(f"caddy, 1,000 services {where}, one reading", gateway)
        if not alone:
            await opening(
                f"caddy, 1,000 services {where}, decision to first 503",
                gateway,
                lambda: ask(f"http://127.0.0.1:{port}/s0"),
            )


async def http(folder: Path) -> None:
    one = {"open": False, "share": 100, "requests": 123456, "failed": 12, "turned_away": 3}
    body = json.dumps({f"s{number}": one for number in range(SERVICES)}).encode()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/all":
            return web.Response(body=body)
        return web.json_response(one)

    async with api(answer) as url:
        order = {"url": f"{url}/{{backend}}"}
        state = {"open": '"open": true', "closed": '"open": false', "share": r'"share": (\d+)'}
        state |= {kind: rf'"{kind}": (\d+)' for kind in ("requests", "failed", "turned_away")}
        each = r'"(?P<backend>\w+)": (?P<state>\{[^}]*\})'
        for name, where in (
            ("one answer for all", {"url": f"{url}/all", "each": each}),
            ("an answer for each (its server in the same process)", order),
        ):
            given = {"open": order, "close": order, "state": state | where, "timeout": 30}
            gateway = HttpGateway(HttpGatewaySpec.model_validate(given), context(folder))
            names = [f"s{number}" for number in range(SERVICES)]
            routes = [Route(ServiceId(n), HttpRoute(name="edge", backend=n)) for n in names]
            await gateway.route(routes)
            await reading(f"http, 1,000 services, {name}, one reading", gateway)
            await gateway.close()


async def main() -> None:
    with TemporaryDirectory() as folder:
        await http(Path(folder))
        await caddy(Path(folder), alone=False)
        await caddy(Path(folder), alone=True)


if __name__ == "__main__":
    asyncio.run(main())
