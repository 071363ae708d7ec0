"""Envoy as a gateway: how soon a circuit is open, what turning loses, and what reading costs.

The servers behind it are small ones in the same process as the callers, so what is measured of a
busy gateway is its losses, not its speed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from bench.report import Row, percentile, spread
from tests.conformance.gateways import EPOCH, SERVICE
from tests.conformance.gateways.envoy import asked, build, end, processes
from tests.real.web import web

from prunella.core.model import InstanceId, ServiceId
from prunella.core.traffic import OPEN_WIDE, Valve
from prunella.gateways.envoy import EnvoyGateway, EnvoyRoute
from prunella.ports import Endpoint, Route
from prunella.testing.site import free_port

_ROUNDS = 200
_CALLERS = 16
_SERVICES = 1000
_INTERVAL_S = 5.0
OPEN = Valve(0)


def measure() -> list[Row]:
    with TemporaryDirectory(prefix="bench-") as folder:
        try:
            return asyncio.run(_measure(Path(folder)))
        finally:
            end(Path(folder))


async def _measure(folder: Path) -> list[Row]:
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(web("a", "b"))
        ports = [one.port for one in servers]
        port = free_port()
        gateway = build(folder, port)
        await gateway.route([_route("web", ports, "/")])
        return [
            await _first_answer(gateway, port),
            await _losses(gateway, port),
            *await _reading(gateway, ports, folder),
        ]


def _route(name: str, ports: list[int], prefix: str) -> Route:
    ends = tuple(
        Endpoint(InstanceId(one), "127.0.0.1", port) for one, port in zip("ab", ports, strict=True)
    )
    spec = EnvoyRoute.model_validate({"name": "edge", "prefix": prefix})
    return Route(ServiceId(name), spec, "back soon", endpoints=ends)


async def _turn(gateway: EnvoyGateway, valve: Valve, before: Valve) -> None:
    await gateway.turn(SERVICE, valve, before=before, lease_s=60, epoch=EPOCH)


async def _first_answer(gateway: EnvoyGateway, port: int) -> Row:
    took_ms: list[float] = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        await _turn(gateway, OPEN, OPEN_WIDE)
        answer = await asked(port)
        took_ms.append((time.perf_counter() - begin) * 1000)
        assert answer.status == 503
        await _turn(gateway, OPEN_WIDE, OPEN)
    found = percentile(took_ms, 0.99)
    return Row("envoy: decision to first 503, p99", found, "ms", limit=50, note=spread(took_ms))


async def _losses(gateway: EnvoyGateway, port: int) -> Row:
    counts = {"asked": 0, "lost": 0}
    done = asyncio.Event()

    async def call() -> None:
        while not done.is_set():
            answer = await asked(port)
            counts["asked"] += 1
            counts["lost"] += answer.status != 200 and answer.body != "back soon"

    callers = [asyncio.create_task(call()) for _ in range(_CALLERS)]
    steps = [OPEN, Valve(10), Valve(50), Valve(100, frozenset("a")), Valve(100, frozenset("b"))]
    present, turned = OPEN_WIDE, 0
    for step in [*steps, OPEN_WIDE] * 15:
        await _turn(gateway, step, present)
        present, turned = step, turned + 1
        await asyncio.sleep(0.05)
    done.set()
    await asyncio.gather(*callers)
    note = f"{counts['asked']:,} requests while it was turned {turned} times"
    return Row("envoy: requests lost by turning", counts["lost"], "", limit=0, note=note)


async def _reading(gateway: EnvoyGateway, ports: list[int], folder: Path) -> list[Row]:
    await gateway.route(
        [_route(f"s{number}", ports, f"/s{number}/") for number in range(_SERVICES)]
    )
    (envoy,) = processes(folder)
    took_ms: list[float] = []
    ours, theirs = time.process_time(), sum(psutil.Process(envoy.pid).cpu_times()[:2])
    for _ in range(20):
        begin = time.perf_counter()
        await gateway.observe()
        took_ms.append((time.perf_counter() - begin) * 1000)
    ours = (time.process_time() - ours) / len(took_ms)
    theirs = (sum(psutil.Process(envoy.pid).cpu_times()[:2]) - theirs) / len(took_ms)
    share = 100 * ours / _INTERVAL_S
    note = f"Envoy itself {100 * theirs / _INTERVAL_S:.1f} % more"
    return [
        Row(
            "envoy: reading 1,000 services",
            percentile(took_ms, 0.5),
            "ms",
            limit=50,
            note=spread(took_ms),
        ),
        Row("envoy: reading 1,000 services each 5 s", share, "% of a core", limit=1, note=note),
    ]
