"""Somebody's own gateway: a reverse proxy with circuits that are set over HTTP.

``python -m tests.gateways.home_grown PORT ADMIN_PORT TOKEN NAME=SERVER_PORT,SERVER_PORT ...``
serves ``/NAME/...`` from the servers in turn. ``PUT /circuits/NAME`` with ``{"open": true,
"seconds": 30, "share": 10, "body": "..."}`` opens a circuit, ``DELETE`` closes it, ``GET`` says how
it is; ``GET /circuits`` does so for all. The environment's ``LAG_S`` delays what is set, ``DEAF``
ignores it.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import sys
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web

SESSION = web.AppKey("session", ClientSession)
LAG_S = float(os.environ.get("LAG_S", "0"))
DEAF = "DEAF" in os.environ


@dataclass
class Backend:
    ports: list[int]
    share: int = 100
    ends_at: float = 0.0
    body: str = ""
    requests: int = 0
    failed: int = 0
    turned_away: int = 0
    in_flight: int = 0

    def share_now(self) -> int:
        return self.share if time.monotonic() < self.ends_at else 100

    def state(self) -> dict[str, Any]:
        share = self.share_now()
        kinds = ("requests", "failed", "turned_away", "in_flight")
        counts = {kind: getattr(self, kind) for kind in kinds}
        return {"open": share < 100, "share": share, **counts}


class HomeGrown:
    def __init__(self, token: str, backends: dict[str, Backend]) -> None:
        self._token = token
        self._backends = backends
        self._later: set[asyncio.TimerHandle] = set()

    async def serve(self, request: web.Request) -> web.Response:
        backend = self._backends.get(request.match_info["name"])
        if backend is None:
            return web.Response(status=404)
        if random.random() * 100 >= backend.share_now():
            backend.turned_away += 1
            left = max(1, math.ceil(backend.ends_at - time.monotonic()))
            return web.Response(status=503, text=backend.body, headers={"Retry-After": str(left)})
        port = backend.ports[(backend.requests + backend.in_flight) % len(backend.ports)]
        backend.in_flight += 1
        try:
            async with request.app[SESSION].get(f"http://127.0.0.1:{port}/") as answer:
                failed, body = answer.status >= 500, await answer.read()
                server = answer.headers.get("x-server", "")
                response = web.Response(
                    status=answer.status, body=body, headers={"x-server": server}
                )
        except ClientError:
            failed, response = True, web.Response(status=502)
        finally:
            backend.in_flight -= 1
        backend.requests += 1
        backend.failed += failed
        return response

    async def circuit(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.Response(status=401, text="who are you?")
        name = request.match_info.get("name")
        if name is None:
            return web.json_response({one: its.state() for one, its in self._backends.items()})
        backend = self._backends.get(name)
        if backend is None:
            return web.Response(status=404)
        if request.method == "GET":
            return web.json_response(backend.state())
        told = await request.json() if request.method == "PUT" else {}
        if not DEAF:
            asyncio.get_running_loop().call_later(LAG_S, set_to, backend, told)
            if not LAG_S:
                await asyncio.sleep(0)
        return web.Response(status=202)


def set_to(backend: Backend, told: dict[str, Any]) -> None:
    backend.share = told.get("share", 0) if told.get("open") else 100
    backend.ends_at = time.monotonic() + told.get("seconds", 0)
    backend.body = told.get("body", "")


async def client(app: web.Application) -> Any:
    async with ClientSession(timeout=ClientTimeout(total=10)) as session:
        app[SESSION] = session
        yield


async def main(port: str, admin_port: str, token: str, *backends: str) -> None:
    named = dict(one.split("=") for one in backends)
    ports = {name: [int(one) for one in servers.split(",")] for name, servers in named.items()}
    gateway = HomeGrown(token, {name: Backend(one) for name, one in ports.items()})
    front, admin = web.Application(), web.Application()
    front.cleanup_ctx.append(client)
    front.router.add_get("/{name}/{tail:.*}", gateway.serve)
    admin.router.add_route("*", "/circuits/{name}", gateway.circuit)
    admin.router.add_get("/circuits", gateway.circuit)
    for app, where in ((admin, admin_port), (front, port)):
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(where)).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
