"""Gateways: how soon a circuit is open, what turning loses, and what reading many costs.

The servers behind them are small ones in the same process as the callers, so what is measured of a
busy gateway is its losses, not its speed.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from bench.report import Row, percentile, spread
from tests.conformance.gateways import Bench, context, target_of
from tests.conformance.gateways.envoy import build, end, processes
from tests.real.haproxy import haproxy

from prunella.core.model import InstanceId, ServiceId
from prunella.core.traffic import OPEN_WIDE, Valve
from prunella.gateways.envoy import EnvoyRoute
from prunella.gateways.haproxy import HAProxyGateway, HAProxyRoute, HAProxySpec
from prunella.ports import Endpoint, Gateway, Route
from prunella.testing.site import free_port

_ROUNDS = 200
_CALLERS = 16
_SERVICES = 1000
_READINGS = 20
_LOAD_S = 10
_LINES = 10_000  # that HAProxy logs in a second
_INTERVAL_S = 5.0
_LIMIT_MS = {"envoy": 50, "haproxy": 20, "nginx": 300}
OPEN = Valve(0)


def measure() -> list[Row]:
    rows: list[Row] = []
    for kind, limit_ms in _LIMIT_MS.items():
        rows += asyncio.run(_turning(kind, limit_ms))
    for kind, many in (("envoy", _many_of_envoy), ("haproxy", _many_of_haproxy)):
        rows += asyncio.run(_reading(kind, many))
    return rows + asyncio.run(_reading_logged())


async def _turning(kind: str, limit_ms: float) -> list[Row]:
    with TemporaryDirectory(prefix="bench-") as folder:
        async with AsyncExitStack() as stack:
            request: Any = None  # no target of these three asks for a fixture
            bench = await target_of(kind)(Path(folder), stack, request)
            return [
                await _first_answer(kind, limit_ms, bench),
                await _losses(kind, bench),
                await _losses_of_wrk(kind, bench),
            ]


async def _first_answer(kind: str, limit_ms: float, bench: Bench) -> Row:
    took_ms: list[float] = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        await bench.turn(OPEN, before=OPEN_WIDE)
        answer = await bench.ask()
        took_ms.append((time.perf_counter() - begin) * 1000)
        assert answer.status == 503
        await bench.turn(OPEN_WIDE, before=OPEN)
    found = percentile(took_ms, 0.99)
    figure = f"{kind}: decision to first 503, p99"
    return Row(figure, found, "ms", limit=limit_ms, note=spread(took_ms))


async def _losses(kind: str, bench: Bench) -> Row:
    asked = lost = turned = 0
    done = asyncio.Event()

    async def call() -> None:
        nonlocal asked, lost
        while not done.is_set():
            answer = await bench.ask()
            asked += 1
            lost += answer.status != 200 and answer.body.strip() != "back soon"

    callers = [asyncio.create_task(call()) for _ in range(_CALLERS)]
    steps = [OPEN, Valve(10), Valve(50), Valve(100, frozenset("a")), Valve(100, frozenset("b"))]
    present = OPEN_WIDE
    for step in [*steps, OPEN_WIDE] * 15:
        await bench.turn(step, before=present)
        present, turned = step, turned + 1
        await asyncio.sleep(0.05)
    done.set()
    await asyncio.gather(*callers)
    note = f"{asked:,} requests while it was turned {turned} times"
    return Row(f"{kind}: requests lost by turning", lost, "", limit=0, note=note)


async def _losses_of_wrk(kind: str, bench: Bench) -> Row:
    """The same with connections that are kept, as fast as the small servers answer."""
    figure = f"{kind}: requests lost by turning, of wrk"
    if shutil.which("wrk") is None:
        return Row(figure, None, "", note="wrk is not installed")
    before = (await bench.traffic()).turned_away
    words = ("wrk", "-t1", "-c16", f"-d{_LOAD_S}", f"http://127.0.0.1:{bench.port}/")
    wrk = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    said = asyncio.ensure_future(wrk.communicate())
    steps = [OPEN, Valve(10), Valve(50), Valve(100, frozenset("a")), Valve(100, frozenset("b"))]
    present, turned = OPEN_WIDE, 0
    while not said.done():
        for step in [*steps, OPEN_WIDE]:
            await bench.turn(step, before=present)
            present, turned = step, turned + 1
            await asyncio.sleep(0.1)
    text = (await said)[0].decode()
    requests, away = int(re.findall(r"(\d+) requests in", text)[0]), 0
    odd = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    broken = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
    for _ in range(10):  # a log is written, and read, in pieces
        await asyncio.sleep(0.3)
        away = (await bench.traffic()).turned_away - before
    # What was under way at the end of wrk was turned away and not counted by it.
    lost = max(0, odd - away) + broken
    note = f"{requests:,} requests in {_LOAD_S} s while it was turned {turned} times, {away:,} away"
    return Row(figure, lost, "", limit=0, note=note)


@asynccontextmanager
async def _many_of_envoy(folder: Path) -> AsyncIterator[tuple[Gateway, int]]:
    def route(number: int) -> Route:
        ends = tuple(Endpoint(InstanceId(one), "127.0.0.1", 9) for one in "ab")
        spec = EnvoyRoute.model_validate({"name": "edge", "prefix": f"/s{number}/"})
        return Route(ServiceId(f"s{number}"), spec, endpoints=ends)

    try:
        gateway = build(folder, free_port(), timeout=10.0)
        await gateway.route([route(number) for number in range(_SERVICES)])
        (envoy,) = processes(folder)
        yield gateway, envoy.pid
    finally:
        end(folder)


@asynccontextmanager
async def _many_of_haproxy(
    folder: Path, log: Path | None = None
) -> AsyncIterator[tuple[Gateway, int]]:
    lines = "".join(
        f"backend s{number}\n    server a 127.0.0.1:9\n    server b 127.0.0.1:9\n"
        for number in range(_SERVICES)
    )
    async with haproxy(folder) as program:
        program.write("frontend edge\n    bind 127.0.0.1:{port}\n" + lines)
        await program.start()
        spec = HAProxySpec.model_validate({"socket": program.socket, "log": log})
        gateway = HAProxyGateway(spec, context(folder))
        await gateway.route(
            [
                Route(ServiceId(f"s{n}"), HAProxyRoute(name="edge", backend=f"s{n}"))
                for n in range(_SERVICES)
            ]
        )
        yield gateway, int(await program.worker())


async def _reading(kind: str, many: Any) -> list[Row]:
    with TemporaryDirectory(prefix="bench-") as folder:
        async with many(Path(folder)) as (gateway, pid):
            return await _readings(kind, gateway, psutil.Process(pid))


async def _reading_logged() -> list[Row]:
    """With percentiles of every service and server, from lines as HAProxy's httplog has them."""
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        log = folder / "log.sock"
        async with _many_of_haproxy(folder, log) as (gateway, pid):
            await gateway.observe()
            begin, used = time.perf_counter(), time.thread_time()
            sent = await asyncio.to_thread(_send, log, _LOAD_S)
            share = 100 * (time.thread_time() - used) / (time.perf_counter() - begin)
            flows = await gateway.observe()
            told = sum(flow.traffic.p50_s is not None for flow in flows.values())
            rows = await _readings("haproxy with log", gateway, psutil.Process(pid))
            note = f"{sent / _LOAD_S:,.0f} taken by the kernel, {told:,} services with percentiles"
            figure = f"haproxy: reading {_LINES:,} lines of its log a second"
            return [*rows, Row(figure, share, "% of a core", note=note)]


def _send(log: Path, span_s: float) -> int:
    """So many lines each second, and none waits; how many were taken."""
    taken, begin = 0, time.perf_counter()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.setblocking(False)  # noqa: FBT003 - its only argument
        for number in range(int(_LINES * span_s)):
            if (early_s := begin + number / _LINES - time.perf_counter()) > 0:
                time.sleep(early_s)
            took, server = number * 7919 % 400, "ab"[number // _SERVICES % 2]
            line = (
                f"127.0.0.1:40000 [25/Nov/2026:09:00:00.000] edge s{number % _SERVICES}/{server} "
                f'0/0/1/{took}/{took + 1} 200 150 - - ---- 9/9/8/4/0 0/0 "GET / HTTP/1.1"'
            )
            try:
                ours.sendto(line.encode(), str(log))
            except BlockingIOError:
                continue
            taken += 1
    return taken


async def _readings(kind: str, gateway: Gateway, program: psutil.Process) -> list[Row]:
    took_ms: list[float] = []
    ours, theirs = time.process_time(), sum(program.cpu_times()[:2])
    for _ in range(_READINGS):
        begin = time.perf_counter()
        assert len(await gateway.observe()) == _SERVICES
        took_ms.append((time.perf_counter() - begin) * 1000)
    percent = 100 / _READINGS / _INTERVAL_S
    share = percent * (time.process_time() - ours)
    more = percent * (sum(program.cpu_times()[:2]) - theirs)
    found, note = percentile(took_ms, 0.5), f"{kind} itself {more:.1f} % more"
    return [
        Row(f"{kind}: reading 1,000 services", found, "ms", limit=50, note=spread(took_ms)),
        Row(f"{kind}: reading them each 5 s", share, "% of a core", limit=1, note=note),
    ]
