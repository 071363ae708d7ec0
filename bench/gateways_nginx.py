"""nginx as a gateway: ``python -m bench.gateways_nginx``. Needs nginx and wrk.

How soon a circuit is open, what turning costs callers under load, and what it costs to read 1,000
services. The servers behind it are another nginx, so that they are not what is measured.
"""

from __future__ import annotations

import asyncio
import re
import resource
import shutil
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.report import Row, load_words, percentile, spread, table
from tests.conformance.gateways import EPOCH, SERVICE, context
from tests.conformance.gateways.nginx import asked, build, http_of, location_of
from tests.real.nginx import Nginx, nginx

from prunella.core.model import InstanceId, ServiceId
from prunella.core.traffic import OPEN_WIDE, Valve
from prunella.gateways._nginx_log import READ_BYTES, Tail, Tally
from prunella.gateways._nginx_spec import NginxRoute
from prunella.gateways.nginx import NginxGateway
from prunella.ports import Endpoint, Route
from prunella.testing.site import free_port

_LOAD_S = 10
_CONNECTIONS = 16
_PAUSE_S = 0.004  # before each request of a sound caller: a few thousand a second
_SERVICES = 1000
OPEN = Valve(0)


def route(service: str, upstream: str, ports: list[int]) -> Route:
    endpoints = tuple(
        Endpoint(InstanceId(name), "127.0.0.1", port)
        for name, port in zip("ab", ports, strict=False)
    )
    spec = NginxRoute.model_validate({"name": "edge", "upstream": upstream})
    return Route(ServiceId(service), spec, "back soon", endpoints=endpoints)


async def backend(one: Nginx, ports: list[int]) -> None:
    listens = " ".join(f"listen 127.0.0.1:{port};" for port in ports)
    said = 'location / { return 200 "hello"; }'
    one.write(f"server {{ {listens} keepalive_requests 1000000; {said} }}", "")
    await one.start()


async def front(one: Nginx, folder: Path, ports: list[int]) -> NginxGateway:
    ours = one.folder / "prunella"
    one.write(http_of(ours), location_of(ours))
    gateway = build(one, folder)
    await gateway.route([route(SERVICE, "shop", ports)])
    await one.start()
    return gateway


async def turn(gateway: NginxGateway, valve: Valve, before: Valve) -> None:
    await gateway.turn(SERVICE, valve, before=before, lease_s=60, epoch=EPOCH)


async def first_answers(one: Nginx, gateway: NginxGateway) -> list[Row]:
    """From the decision to the first 503, and to the first answer without a shut server."""
    opened: list[float] = []
    for _ in range(200):
        begin = time.perf_counter()
        await turn(gateway, OPEN, OPEN_WIDE)
        answer = await asked(one.port)
        opened.append((time.perf_counter() - begin) * 1000)
        assert answer.status == 503
        await turn(gateway, OPEN_WIDE, OPEN)
        assert (await asked(one.port)).status == 200
    shut: list[float] = []
    for _ in range(20):
        begin = time.perf_counter()
        await turn(gateway, Valve(shut=frozenset("a")), OPEN_WIDE)
        await asked(one.port)
        shut.append((time.perf_counter() - begin) * 1000)
        await turn(gateway, OPEN_WIDE, Valve(shut=frozenset("a")))
    return [
        Row(
            "decision to first 503, p99",
            percentile(opened, 0.99),
            "ms",
            limit=300,
            note=f"a call of a new connection included; {spread(opened)}",
        ),
        Row(
            "decision to server shut, p99",
            percentile(shut, 0.99),
            "ms",
            limit=300,
            note=f"with nginx -T and a reload; {spread(shut)}",
        ),
    ]


async def under_load(
    one: Nginx,
    what: str,
    act: Callable[[], Awaitable[None]] | None,
    *,
    keep_alive: bool = True,
) -> Row:
    """wrk against it while `act` is done again and again; what it counts.

    It counts every connection that nginx closes between two requests as an error, too.
    """
    wrk = shutil.which("wrk")
    assert wrk is not None
    more = [] if keep_alive else ["-H", "Connection: close"]
    load = await asyncio.create_subprocess_exec(
        *[wrk, "-t1", f"-c{_CONNECTIONS}", f"-d{_LOAD_S}s", *more],
        f"http://127.0.0.1:{one.port}/",
        stdout=asyncio.subprocess.PIPE,
    )
    output, turns = asyncio.create_task(load.communicate()), 0
    while not output.done():
        if act is not None:
            await act()
            turns += 1
        await asyncio.wait([output], timeout=0.1)
    text = (await output)[0].decode()
    requests = int((re.search(r"(\d+) requests in", text) or ["", "0"])[1])
    found = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = sum(int(number) for number in found.groups()) if found else 0
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Row(
        f"failed of {requests:,} requests, {what}",
        errors,
        "",
        limit=0,
        note=f"{requests / _LOAD_S:,.0f} a second, {'kept-alive' if keep_alive else 'new'} "
        f"connections, {turns} rounds, {other[1] if other else 0} answered by the circuit",
    )


async def callers(one: Nginx, what: str, act: Callable[[], Awaitable[None]]) -> Row:
    """Kept-alive callers that use no connection again that was closed, or is to be.

    A request fails that was sent and has no answer.
    """
    done = asyncio.Event()
    count = {"requests": 0, "failed": 0, "closed": 0}
    tasks = [asyncio.create_task(_call(one.port, count, done)) for _ in range(_CONNECTIONS)]
    ends_at, turns = time.perf_counter() + _LOAD_S, 0
    while time.perf_counter() < ends_at:
        await act()
        turns += 1
        await asyncio.sleep(0.1)
    done.set()
    await asyncio.gather(*tasks)
    return Row(
        f"failed of {count['requests']:,} requests, {what}, with pauses",
        count["failed"],
        "",
        limit=0,
        note=f"{count['requests'] / _LOAD_S:,.0f} a second, kept-alive connections, {turns} rounds,"
        f" {count['closed']} connections closed between requests",
    )


async def _call(port: int, count: dict[str, int], done: asyncio.Event) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    last = False
    while not done.is_set():
        await asyncio.sleep(_PAUSE_S)
        if last or reader.at_eof():
            count["closed"] += 1
            last = False
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count["requests"] += 1
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            assert length is not None
            await reader.readexactly(int(length[1]))
            last = b"\r\nconnection: close" in head.lower()
        except (ConnectionError, asyncio.IncompleteReadError):
            count["failed"] += 1
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


async def load_rows(one: Nginx, gateway: NginxGateway) -> list[Row]:
    async def circuit() -> None:
        steps = [OPEN_WIDE, OPEN, Valve(10), Valve(50), OPEN_WIDE]
        for before, valve in pairwise(steps):
            await turn(gateway, valve, before)
            await asyncio.sleep(0.02)

    async def shutting() -> None:
        await turn(gateway, Valve(shut=frozenset("a")), OPEN_WIDE)
        await turn(gateway, OPEN_WIDE, Valve(shut=frozenset("a")))

    rows = [await under_load(one, "nothing turned", None)]
    for what, act in {"circuit turned": circuit, "servers shut": shutting}.items():
        rows += [
            await callers(one, what, act),
            await under_load(one, f"{what}, at full speed", act),
            await under_load(one, f"{what}, new connections", act, keep_alive=False),
        ]
    return rows


async def reading_rows(folder: Path) -> list[Row]:
    """1,000 services, each with two servers and some new lines; and how fast lines are read."""
    async with nginx(folder) as one:
        ours = one.folder / "prunella"
        ports = [free_port(), free_port()]
        names = [f"s{number}" for number in range(_SERVICES)]
        places = "".join(
            location_of(ours, name).replace("location /", f"location /{name}/") for name in names
        )
        upstreams = "".join(
            f"upstream {name} {{ include {ours}/{name}.servers.conf; }}\n" for name in names
        )
        one.write(f"include {ours}/prunella.http.conf;\n{upstreams}", places)
        gateway = build(one, folder, reload_timeout=60)
        await gateway.route([route(name, name, ports) for name in names])
        await one.start()
        await gateway.observe()
        took, used = {}, {}
        for lines in (0, 10):
            text = "".join(
                f"{name}||200|127.0.0.1:{ports[n % 2]}|200|0.0{n}1|0.000\n"
                for n in range(lines)
                for name in names
            )
            times: list[float] = []
            begin_s = _used_s()
            for _ in range(20):
                with (ours / "requests.log").open("a") as file:
                    file.write(text)
                begin = time.perf_counter()
                await gateway.observe()
                times.append((time.perf_counter() - begin) * 1000)
            took[lines], used[lines] = times, (_used_s() - begin_s) / 20 / 5 * 100
        await gateway.close()
    rows = [
        Row(
            f"reading 1,000 services, {lines} new lines each, median",
            percentile(times, 0.5),
            "ms",
            limit=50,
            note=f"{used[lines]:.2f} % of a core at 5 s; {spread(times)}",
        )
        for lines, times in took.items()
    ]
    return [*rows, _parsing(folder)]


def _used_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _parsing(folder: Path) -> Row:
    log = folder / "parsing.log"
    log.touch()
    tail, tally, clock = Tail(log), Tally(), context(folder).clock
    tail.read()
    line = "shop||200|127.0.0.1:8001|200|{:.3f}|0.00{}\n"
    text = "".join(line.format((n * 7919 % 400) / 1000, n % 2) for n in range(READ_BYTES // 45))
    with log.open("a") as file:
        file.write(text)
    begin = time.perf_counter()
    tally.add(tail.read(), clock.now(), {"shop": {}})
    took_s = time.perf_counter() - begin
    tail.close()
    return Row(
        "lines of the log a second",
        tally.services["shop"].requests / took_s,
        "",
        note=f"400 different times; {READ_BYTES >> 20} MiB at most are read at once",
    )


async def measure() -> list[Row]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        folders = [folder / one for one in ("front", "back", "many")]
        for one in folders:
            one.mkdir()
        ports = [free_port(), free_port()]
        async with nginx(folders[1]) as back, nginx(folders[0]) as edge:
            await backend(back, ports)
            gateway = await front(edge, folder, ports)
            rows = await first_answers(edge, gateway)
            rows += await load_rows(edge, gateway)
            await gateway.close()
        return rows + await reading_rows(folders[2])


if __name__ == "__main__":
    print(load_words())
    print(table(asyncio.run(measure())))
