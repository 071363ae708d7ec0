"""Percentiles from a real HAProxy's log, which must never cost a request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.conformance.gateways import SERVICE, context
from tests.real import haproxy as real
from tests.real.haproxy import HAProxy
from tests.real.web import Web, web

from prunella.core.traffic import Flow
from prunella.gateways.haproxy import HAProxyGateway, HAProxyRoute, HAProxySpec
from prunella.ports import Route

SECTIONS = """
    log unix@{log} format raw local0 info
    option httplog
frontend edge
    bind 127.0.0.1:{port}
    default_backend shop
backend shop
"""


@dataclass
class Scene:
    folder: Path
    haproxy: HAProxy
    webs: list[Web]

    @property
    def log(self) -> Path:
        return self.folder / "log.sock"

    async def gateway(self) -> HAProxyGateway:
        spec = HAProxySpec.model_validate({"socket": self.haproxy.socket, "log": self.log})
        made = HAProxyGateway(spec, context(self.folder))
        await made.route([Route(SERVICE, HAProxyRoute(name="edge", backend="shop"))])
        return made

    async def ask(self, count: int) -> None:
        answers = await asyncio.gather(*(self.haproxy.ask() for _ in range(count)))
        assert {one.status for one in answers} == {200}

    async def told(self, gateway: HAProxyGateway) -> Flow:
        async with asyncio.timeout(30):
            while (flow := await read(gateway)).traffic.p50_s is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return flow


async def read(gateway: HAProxyGateway) -> Flow:
    return (await gateway.observe())[SERVICE]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    if why := real.missing():
        pytest.skip(why)
    async with AsyncExitStack() as stack:
        webs = await stack.enter_async_context(web("a", "b"))
        program = await stack.enter_async_context(real.haproxy(tmp_path))
        made = Scene(tmp_path, program, webs)
        program.write(SECTIONS.replace("{log}", str(made.log)) + real.servers(webs))
        await program.start()
        yield made


async def test_percentiles_are_told_of_the_service_and_of_each_server(scene: Scene) -> None:
    slow, fast = scene.webs
    slow.delay_s, fast.delay_s = 0.3, 0.0
    gateway = await scene.gateway()
    await read(gateway)
    await scene.ask(20)
    flow = await scene.told(gateway)
    async with asyncio.timeout(30):
        while any(s.traffic is None or s.traffic.p50_s is None for s in flow.servers):
            flow = await read(gateway)
    p50_s = {one.name: one.traffic.p50_s or 0.0 for one in flow.servers if one.traffic}
    assert p50_s[slow.name] > 0.25 > p50_s[fast.name] > 0
    assert flow.traffic.p99_s is not None
    assert flow.traffic.p99_s > 0.25
    assert flow.traffic.requests == 20  # counted by the statistics, not by the log
    await gateway.close()


async def test_nobody_reads_and_no_request_is_lost(scene: Scene) -> None:
    await scene.ask(50)
    gateway = await scene.gateway()
    await read(gateway)
    await scene.ask(1)
    await scene.told(gateway)
    await gateway.close()
    assert not scene.log.exists()
    await scene.ask(50)


async def test_a_reader_that_does_not_read_holds_up_nobody(scene: Scene) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wedged:
        wedged.bind(str(scene.log))
        for _ in range(20):  # far more than the kernel keeps for it
            await scene.ask(50)


async def test_another_start_takes_over_the_socket_without_a_reload(scene: Scene) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(scene.log))
    gateway = await scene.gateway()
    await read(gateway)
    await scene.ask(4)
    assert (await scene.told(gateway)).traffic.p50_s is not None
    await gateway.close()


async def test_a_socket_that_another_process_reads_is_left_to_it(scene: Scene) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(scene.log))
        gateway = await scene.gateway()
        await read(gateway)
        (said,) = [m for m in await gateway.examine() if "another process reads" in m.message]
        assert not said.fault  # it may well be Prunella that runs
        await scene.ask(2)
        other.settimeout(30)
        assert b"shop" in other.recv(1024)
        assert (await read(gateway)).traffic.p50_s is None
    scene.log.unlink()
    await read(gateway)  # it is tried again
    assert not [m for m in await gateway.examine() if "another process" in m.message]
    await scene.ask(2)
    await scene.told(gateway)
    await gateway.close()


async def test_lines_of_others_and_garbage_are_passed_over(scene: Scene) -> None:
    gateway = await scene.gateway()
    await read(gateway)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        for line in (
            b"\xff" * 2000,
            b"",
            b" other/a 0/0/0/9/9 200 ",
            b" shop/a 0/0/-1/-1/9 503 ",
            b" shop/<NOSRV> 0/-1/-1/-1/0 503 ",
        ):
            other.sendto(line, str(scene.log))
    await asyncio.sleep(0)
    assert (await read(gateway)).traffic.p50_s is None
    await scene.ask(1)
    await scene.told(gateway)
    await gateway.close()


async def test_lines_of_another_format_are_counted_and_told_once(scene: Scene) -> None:
    gateway = await scene.gateway()
    await read(gateway)

    async def complaints() -> list[str]:
        return [one.message for one in await gateway.examine() if "be read" in one.message]

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, capture_logs() as logged:
        other.connect(str(scene.log))
        for _ in range(30):
            other.send(b"1.2.3.4:5 [25/Nov/2026:10:00:00] edge shop/<NOSRV> 0/-1/-1/-1/0 503 0 ")
        for _ in range(5):
            other.send(b"Server shop/a is DOWN, reason: Layer4 connection problem")
        await scene.ask(1)
        await scene.told(gateway)  # so those before it have been read
        assert await complaints() == []
        async with asyncio.timeout(30):
            while not (found := await complaints()):
                other.send(b"1.2.3.4:5 GET / 200 5ms")
                await asyncio.sleep(0.01)
            for _ in range(100):
                other.send(b"1.2.3.4:5 GET / 200 5ms")
            while (await complaints())[0] == found[0]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert "`option httplog`" in found[0]
        assert "such as '1.2.3.4:5 GET / 200 5ms'" in found[0]
        assert [one["event"] for one in logged] == ["no-times-from-haproxy"]
    await gateway.close()


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = HAProxySpec.model_validate(
        {"socket": tmp_path / "admin.sock", "log": tmp_path / "none/log.sock"}
    )
    gateway = HAProxyGateway(spec, context(tmp_path))
    found = "\n".join(one.message for one in await gateway.examine() if one.fault)
    assert f"no folder {tmp_path / 'none'}" in found
