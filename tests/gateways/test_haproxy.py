"""What is special about HAProxy: its Runtime API, its map, its reloads, and other operators."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.conformance.gateways import EPOCH, SERVICE, context
from tests.real import haproxy as real
from tests.real.haproxy import SNIPPET, HAProxy
from tests.real.web import Web, web

from prunella.core.model import ServiceId
from prunella.core.traffic import OPEN_WIDE, Flow, Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.gateways.haproxy import HAProxyGateway, HAProxyRoute, HAProxySpec
from prunella.ports import Route

DOCS = Path(__file__).parents[2] / "docs" / "gateways" / "haproxy.md"
OPEN = Valve(0)
HTTP = """
frontend edge
    bind 127.0.0.1:{port}
    default_backend shop
backend shop
{snippet}
"""
FALLBACK = """\
    http-request set-var(txn.circuit) str(fallback/shop),map({circuits})
    http-request set-var(txn.end) var(txn.circuit),field(1,:)
    http-request set-var(txn.share) var(txn.circuit),field(2,:)
    use_backend %[var(txn.circuit),field(4,:)] \
if { date(0,ms),sub(txn.end) lt 0 } { rand(100),sub(txn.share) ge 0 }
"""


@dataclass
class Bed:
    folder: Path
    haproxy: HAProxy
    webs: list[Web]
    gateway: HAProxyGateway

    async def start(
        self, sections: str, *, mode: str = "http", route: Route | None = None, **spec: object
    ) -> None:
        self.haproxy.write(sections + real.servers(self.webs), mode)
        await self.haproxy.start()
        self.gateway = self.build(**spec)
        await self.gateway.route([route or self.route()])

    def build(self, **spec: object) -> HAProxyGateway:
        settings = {"socket": self.haproxy.socket, "timeout": "1s", **spec}
        return HAProxyGateway(HAProxySpec.model_validate(settings), context(self.folder))

    def route(self, backend: str = "shop", server: str = "", fallback: str = "") -> Route:
        spec = HAProxyRoute(name="edge", backend=backend, server=server)
        return Route(SERVICE, spec, "back soon", fallback)

    async def turn(self, valve: Valve, before: Valve = OPEN_WIDE) -> None:
        await self.gateway.turn(SERVICE, valve, before=before, lease_s=30, epoch=EPOCH)

    async def flow(self) -> Flow:
        return (await self.gateway.observe())[SERVICE]

    async def statuses(self, count: int = 6) -> set[int]:
        return {(await self.haproxy.ask()).status for _ in range(count)}

    async def faults(self) -> str:
        return "\n".join(r.message for r in await self.gateway.examine() if r.fault)


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    if why := real.missing():
        pytest.skip(why)
    async with AsyncExitStack() as stack:
        webs = await stack.enter_async_context(web("a", "b"))
        program = await stack.enter_async_context(real.haproxy(tmp_path))
        made = Bed(tmp_path, program, webs, HAProxyGateway(spec_of(program), context(tmp_path)))
        yield made


def spec_of(program: HAProxy) -> HAProxySpec:
    return HAProxySpec.model_validate({"socket": program.socket})


PLAIN = HTTP.replace("{snippet}\n", "")


async def test_without_a_map_all_servers_are_shut_and_opened_again(bed: Bed) -> None:
    await bed.start(PLAIN)
    assert not bed.gateway.shares
    await bed.turn(OPEN)
    assert await bed.statuses() == {503}
    assert (await bed.flow()).valve == OPEN
    await bed.turn(OPEN_WIDE, before=OPEN)
    assert await bed.statuses() == {200}
    with pytest.raises(PermanentError, match="lets a share through"):
        await bed.turn(Valve(10))


async def test_a_server_that_was_shut_before_stays_so_after(bed: Bed) -> None:
    await bed.start(PLAIN)
    shut = Valve(shut=frozenset({"a"}))
    await bed.turn(shut)
    await bed.turn(Valve(0, shut.shut), before=shut)
    assert await bed.statuses() == {503}
    bed.gateway = bed.build()
    await bed.gateway.route([bed.route()])
    assert (await bed.flow()).valve == Valve(0, shut.shut)
    await bed.turn(shut, before=Valve(0, shut.shut))
    assert (await bed.flow()).valve == shut
    assert await bed.statuses() == {200}


async def test_tcp_is_cut_off_as_well(bed: Bed) -> None:
    await bed.start(PLAIN, mode="tcp")
    assert await bed.statuses() == {200}
    await bed.turn(OPEN)
    assert await bed.statuses() == {0}
    await bed.turn(OPEN_WIDE, before=OPEN)
    assert await bed.statuses() == {200}
    traffic = (await bed.flow()).traffic
    assert traffic.requests + traffic.in_flight >= 12


async def test_one_server_may_be_a_service(bed: Bed) -> None:
    await bed.start(PLAIN, route=bed.route(server="b"))
    await bed.turn(OPEN)
    assert {(await bed.haproxy.ask()).headers["x-server"] for _ in range(6)} == {"a"}
    assert (await bed.flow()).valve == OPEN


async def test_a_fallback_takes_the_requests(bed: Bed) -> None:
    circuits = bed.haproxy.circuits
    asks = FALLBACK.replace("{circuits}", str(circuits))
    front = f"frontend edge\n    bind 127.0.0.1:{{port}}\n{asks}    default_backend shop\n"
    other = f"backend spare\n    server c 127.0.0.1:{bed.webs[1].port}\n"
    bed.haproxy.write(front + other + "backend shop\n" + real.servers(bed.webs[:1]))
    await bed.haproxy.start()
    bed.gateway = bed.build(circuits=circuits)
    await bed.gateway.route([bed.route(fallback="spare")])
    assert (await bed.haproxy.ask()).body == "a"
    await bed.turn(OPEN)
    assert {(await bed.haproxy.ask()).body for _ in range(4)} == {"b"}
    assert (await bed.flow()).traffic.turned_away == 4
    await bed.turn(OPEN_WIDE, before=OPEN)
    assert (await bed.haproxy.ask()).body == "a"


async def test_the_page_for_users_says_what_is_tested() -> None:
    page = await asyncio.to_thread(DOCS.read_text)
    assert SNIPPET.format(circuits="/etc/haproxy/prunella.map") in page
    asks = FALLBACK.replace("{circuits}", "/etc/haproxy/prunella.map")
    assert asks.replace("fallback/shop", "fallback/be_shop") in page
    assert "backend: be_shop" in page


async def test_what_another_operator_drains_is_theirs(bed: Bed) -> None:
    await bed.start(PLAIN)
    await bed.haproxy.command("set server shop/a state drain")
    assert (await bed.flow()).valve == Valve(shut=frozenset({"a"}))
    with pytest.raises(ConflictError, match="a of web drained"):
        await bed.turn(OPEN_WIDE, before=Valve(shut=frozenset({"a"})))
    await bed.turn(OPEN)
    assert (await bed.flow()).valve == Valve(0, frozenset({"a"}))
    await bed.turn(OPEN_WIDE, before=OPEN)
    assert "drain" in (await bed.haproxy.command("show stat")).lower()


async def test_counters_that_are_cleared_begin_anew(bed: Bed) -> None:
    await bed.start(PLAIN)
    await bed.statuses(6)
    assert (await bed.flow()).traffic.requests == 6
    await bed.haproxy.command("clear counters all")
    assert (await bed.flow()).traffic.requests == 0
    await bed.statuses(2)
    assert (await bed.flow()).traffic.requests == 2


async def test_503s_of_the_circuit_are_nobodys_failures_and_those_of_servers_are(bed: Bed) -> None:
    await bed.start(HTTP, circuits=bed.haproxy.circuits)
    bed.webs[0].status = bed.webs[1].status = 503
    await bed.statuses(4)
    await bed.turn(OPEN)
    await bed.statuses(3)
    traffic = (await bed.flow()).traffic
    assert (traffic.requests, traffic.failed, traffic.turned_away) == (4, 4, 3)


async def test_a_server_that_refuses_connections_is_counted(bed: Bed) -> None:
    await bed.start(PLAIN)
    bed.haproxy.write(PLAIN + "    server gone 127.0.0.1:1\n")
    await bed.haproxy.reload()
    assert await bed.statuses(2) == {503}
    traffic = (await bed.flow()).traffic
    assert (traffic.requests, traffic.failed) == (2, 2)
    assert traffic.unconnected >= 2


@pytest.mark.parametrize("says", [b"", b"Unknown command.\n", b"\xff\x00" * 999, b"a,b\n1\n\n2"])
async def test_answers_that_make_no_sense_are_trouble(bed: Bed, says: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(says)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, bed.haproxy.socket)
    try:
        await bed.gateway.route([bed.route()])
        with pytest.raises(TransientError):
            await bed.gateway.observe()
        with pytest.raises(TransientError):
            await bed.turn(OPEN)
    finally:
        server.close()


async def test_a_socket_that_lets_nobody_change_anything_is_named(bed: Bed) -> None:
    bed.haproxy.level = "user"
    await bed.start(PLAIN)
    assert "level admin" in await bed.faults()
    with pytest.raises(PermanentError):
        await bed.turn(OPEN)
    assert await bed.statuses() == {200}


async def test_a_socket_that_is_not_there_is_named(bed: Bed) -> None:
    await bed.gateway.route([bed.route()])
    assert "stats socket" in await bed.faults()
    with pytest.raises(TransientError):
        await bed.gateway.observe()


async def lacking(bed: Bed, *args: object) -> str:
    make: Callable[..., Route] = bed.route
    await bed.start(PLAIN, route=make(*args))
    return await bed.faults()


async def test_an_unknown_backend_is_named(bed: Bed) -> None:
    assert "HAProxy has no backend shops, which is to serve web" in await lacking(bed, "shops")
    assert await bed.gateway.observe() == {}
    with pytest.raises(PermanentError, match="no backend shops"):
        await bed.turn(OPEN)


async def test_an_unknown_server_is_named(bed: Bed) -> None:
    assert "no server c in its backend shop" in await lacking(bed, "shop", "c")
    assert ServiceId("web") not in await bed.gateway.observe()


async def test_a_map_that_its_configuration_does_not_read_is_named(bed: Bed) -> None:
    await bed.start(PLAIN, circuits=bed.haproxy.circuits)
    assert "HAProxy has no map" in await bed.faults()
    with pytest.raises(TransientError, match="has no map"):
        await bed.gateway.observe()


async def test_a_reload_keeps_what_is_set_without_us(bed: Bed) -> None:
    await bed.start(HTTP, circuits=bed.haproxy.circuits, state_file=bed.haproxy.state_file)
    await bed.turn(Valve(0, frozenset({"a"})))
    await bed.haproxy.reload()
    assert await bed.statuses() == {503}
    assert (await bed.flow()).valve == Valve(0, frozenset({"a"}))
    await bed.turn(OPEN_WIDE, before=Valve(0, frozenset({"a"})))
    await bed.haproxy.reload()
    assert {(await bed.haproxy.ask()).body for _ in range(6)} == {"a", "b"}


async def test_what_an_operator_sets_is_kept_over_a_reload_as_well(bed: Bed) -> None:
    await bed.start(PLAIN, state_file=bed.haproxy.state_file)
    await bed.haproxy.command("set server shop/a state drain")
    await bed.flow()
    await bed.haproxy.command("set server shop/a state ready", "set server shop/b state maint")
    await bed.flow()
    await bed.haproxy.reload()
    assert (await bed.flow()).valve == Valve(shut=frozenset({"b"}))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_stops_no_circuit_and_is_named(bed: Bed, small_disk: Path) -> None:
    circuits, ballast = small_disk / "prunella.map", small_disk / "ballast"
    circuits.touch()
    sections = HTTP.replace("{snippet}", SNIPPET.format(circuits=circuits))
    await bed.start(sections, circuits=circuits)
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    await bed.turn(OPEN)
    assert await bed.statuses() == {503}
    assert circuits.read_text() == ""
    assert "No space left" in await bed.faults()
    ballast.unlink()
    await bed.flow()
    assert circuits.read_text().startswith("shop ")
    assert await bed.faults() == ""


async def test_what_fails_half_way_is_undone(bed: Bed) -> None:
    """The second server goes between the look at it and the order."""
    await bed.start(HTTP, circuits=bed.haproxy.circuits)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode().strip()
        there = line.replace("shop/b state maint", "shop/gone state maint")
        writer.write((await bed.haproxy.command(there)).encode())
        await writer.drain()
        writer.close()

    path = bed.folder / "relay.sock"
    server = await asyncio.start_unix_server(relay, path)
    try:
        bed.gateway = bed.build(socket=path, circuits=bed.haproxy.circuits)
        await bed.gateway.route([bed.route()])
        with pytest.raises(PermanentError, match="No such server"):
            await bed.turn(Valve(0, frozenset({"a", "b"})))
        assert (await bed.flow()).valve == OPEN_WIDE
        assert await bed.statuses() == {200}
        await bed.turn(OPEN)
        assert (await bed.flow()).valve == OPEN
    finally:
        server.close()


async def test_many_servers_are_more_than_one_line_of_commands(bed: Bed) -> None:
    lines = "".join(f"    server server-{n:04d} 127.0.0.1:9\n" for n in range(600))
    bed.haproxy.write(PLAIN + lines)
    await bed.haproxy.start()
    bed.gateway = bed.build()
    await bed.gateway.route([bed.route()])
    await bed.turn(OPEN)
    assert (await bed.flow()).valve == OPEN
    await bed.turn(OPEN_WIDE, before=OPEN)
    assert (await bed.flow()).valve == OPEN_WIDE


async def test_an_operators_weight_and_others_are_left(bed: Bed) -> None:
    await bed.start(HTTP, circuits=bed.haproxy.circuits)
    await asyncio.gather(
        bed.turn(Valve(0, frozenset({"a"}))),
        bed.haproxy.command("set server shop/b weight 50%", "set server shop/b state drain"),
    )
    flow = await bed.flow()
    assert flow.valve == Valve(0, frozenset({"a", "b"}))
    await bed.turn(OPEN_WIDE, before=Valve(0, frozenset({"a"})))
    assert (await bed.flow()).valve == Valve(shut=frozenset({"b"}))
    assert {(await bed.haproxy.ask()).body for _ in range(4)} == {"a"}


async def test_one_that_is_too_old_is_named(bed: Bed) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"Name: HAProxy\nVersion: 2.2.9-2\n\nadmin\n\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, bed.haproxy.socket)
    try:
        assert "2.2 is too old, 2.4 is needed" in await bed.faults()
    finally:
        server.close()


@pytest.mark.parametrize("mode", ["http", "tcp"])
async def test_a_try_that_is_repeated_elsewhere_is_one_request(bed: Bed, mode: str) -> None:
    bed.haproxy.write(
        PLAIN
        + "    option redispatch\n    retries 1\n    server gone 127.0.0.1:1\n"
        + real.servers(bed.webs[:1]),
        mode,
    )
    await bed.haproxy.start()
    bed.gateway = bed.build()
    await bed.gateway.route([bed.route()])
    assert await bed.statuses(6) == {200}
    async with asyncio.timeout(30):
        while (traffic := (await bed.flow()).traffic).requests < 6:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (traffic.requests, traffic.failed) == (6, 0)
    assert traffic.unconnected >= 1
