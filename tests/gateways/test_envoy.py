"""What is special about Envoy: files that it watches, and a program that outlives us."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conformance.gateways import EPOCH, SERVICE, Answer, context
from tests.conformance.gateways.envoy import asked, build, end, processes
from tests.real.web import Web, web

from prunella.core.model import InstanceId, ServiceId
from prunella.core.traffic import OPEN_WIDE, Flow, Valve
from prunella.errors import PermanentError, TransientError
from prunella.gateways.envoy import EnvoyGateway, EnvoyRoute, EnvoySpec
from prunella.ports import Endpoint, Route
from prunella.testing.site import free_port

OPEN = Valve(0)


class Bed:
    """Three servers, and a gateway whose Envoy is started with the first route."""

    def __init__(self, folder: Path, servers: list[Web]) -> None:
        self.folder = folder
        self.servers = servers
        self.port = free_port()
        self.gateway = build(folder, self.port)

    async def route(self, *names: str, gateway: EnvoyGateway | None = None, **more: str) -> None:
        await (gateway or self.gateway).route([self.one(SERVICE, *names, **more)])

    def one(
        self, service: ServiceId, *names: str, body: str = "", fallback: str = "", **spec: object
    ) -> Route:
        ends = tuple(
            Endpoint(InstanceId(one.name), "127.0.0.1", one.port)
            for one in self.servers
            if one.name in names
        )
        return Route(
            service, EnvoyRoute.model_validate({"name": "edge", **spec}), body, fallback, ends
        )

    async def turn(self, valve: Valve, before: Valve = OPEN_WIDE) -> None:
        await self.gateway.turn(SERVICE, valve, before=before, lease_s=30, epoch=EPOCH)

    async def flow(self) -> Flow:
        return (await self.gateway.observe())[SERVICE]

    async def ask(self, path: str = "/", host: str = "shop") -> Answer:
        return await asked(self.port, path, host)

    async def asked(self, count: int) -> set[str]:
        return {(await self.ask()).server for _ in range(count)}

    def pid(self) -> int:
        (process,) = processes(self.folder)
        return process.pid


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(web("a", "b", "c"))
        stack.callback(end, tmp_path)
        yield Bed(tmp_path, servers)


async def test_instances_come_and_go_and_no_request_is_lost(bed: Bed) -> None:
    await bed.route("a", "b")
    answers: list[Answer] = []
    done = asyncio.Event()

    async def keep_asking() -> None:
        while not done.is_set():
            answers.append(await bed.ask())

    callers = [asyncio.create_task(keep_asking()) for _ in range(6)]
    for names in ("abc", "bc", "c", "ca", "abc", "a") * 3:
        await bed.route(*names)
        assert await bed.asked(12) == set(names)
    done.set()
    await asyncio.gather(*callers)
    assert {answer.status for answer in answers} == {200}


async def test_what_was_counted_and_what_is_set_stays_when_instances_change(bed: Bed) -> None:
    await bed.route("a", "b")
    await bed.asked(10)
    await bed.turn(Valve(0, frozenset({"a"})))
    await bed.route("a", "b", "c")
    flow = await bed.flow()
    assert flow.valve == Valve(0, frozenset({"a"}))
    assert flow.traffic.requests == 10
    assert [server.name for server in flow.servers] == ["a", "b", "c"]


async def test_services_share_an_address_by_host_and_by_path(bed: Bed) -> None:
    await bed.gateway.route(
        [
            bed.one(SERVICE, "a"),
            bed.one(ServiceId("api"), "b", prefix="/api"),
            bed.one(ServiceId("other.site"), "c", domains=["other"]),
        ]
    )
    assert (await bed.ask()).server == "a"
    assert (await bed.ask("/api/x")).server == "b"
    assert (await bed.ask(host="other")).server == "c"
    api = ServiceId("api")
    await bed.gateway.turn(api, OPEN, before=OPEN_WIDE, lease_s=30, epoch=EPOCH)
    assert (await bed.ask("/api")).status == 503
    assert (await bed.ask()).server == "a"
    flows = await bed.gateway.observe()
    assert {name: flow.traffic.requests for name, flow in flows.items()} == {
        "web": 2,
        "api": 1,
        "other.site": 1,
    }
    assert flows[api].traffic.turned_away == 1


async def test_a_service_may_have_an_address_of_its_own(bed: Bed) -> None:
    port = free_port()
    await bed.gateway.route(
        [
            bed.one(SERVICE, "a"),
            bed.one(ServiceId("api"), "b", listen=f"127.0.0.1:{port}"),
        ]
    )
    assert (await asked(port)).server == "b"
    assert (await bed.ask()).server == "a"


async def test_what_two_services_want_is_refused_and_all_stays(bed: Bed) -> None:
    await bed.route("a")
    with pytest.raises(PermanentError, match="web and api both want \\*/"):
        await bed.gateway.route([bed.one(SERVICE, "b"), bed.one(ServiceId("api"), "c")])
    assert await bed.asked(3) == {"a"}


async def test_a_host_may_be_shared_by_services_that_have_others_besides(bed: Bed) -> None:
    api = bed.one(ServiceId("api"), "b", domains=["one", "two"], prefix="/api")
    await bed.gateway.route([bed.one(SERVICE, "a", domains=["one"]), api])
    assert (await bed.ask("/", "one")).server == "a"
    assert (await bed.ask("/api", "one")).server == "b"
    assert (await bed.ask("/api", "two")).server == "b"


async def test_one_port_of_two_addresses_is_two_places(bed: Bed) -> None:
    port = free_port()
    await bed.gateway.route(
        [
            bed.one(SERVICE, "a", listen=f"127.0.0.1:{port}"),
            bed.one(ServiceId("api"), "b", listen=f"127.0.0.2:{port}"),
        ]
    )
    assert (await asked(port)).server == "a"
    assert (await asked(port, address="127.0.0.2")).server == "b"


async def test_a_port_that_is_taken_is_said_so_and_tried_again(bed: Bed) -> None:
    with (
        socket.create_server(("127.0.0.1", bed.port)),
        pytest.raises(PermanentError, match="refuses what was written"),
    ):
        await bed.route("a")
    await bed.route("a")
    assert await bed.asked(3) == {"a"}


async def test_an_address_that_is_refused_leaves_all_as_it_was(bed: Bed) -> None:
    await bed.route("a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PermanentError, match="refuses what was written"):
            await bed.gateway.route(
                [bed.one(SERVICE, "b"), bed.one(ServiceId("api"), "c", listen=other)]
            )
        assert list(await bed.gateway.observe()) == [SERVICE]
        assert await bed.asked(3) == {"a"}


async def test_two_gateways_do_not_share_a_port_unasked(bed: Bed) -> None:
    await bed.route("a")
    other = build(bed.folder / "other", bed.port)
    try:
        with pytest.raises(PermanentError, match="refuses what was written"):
            await bed.route("b", gateway=other)
        assert await bed.asked(10) == {"a"}
    finally:
        end(bed.folder / "other")


async def test_a_gateway_keeps_off_the_folder_of_another(bed: Bed) -> None:
    await bed.route("a")
    spec = EnvoySpec.model_validate({"folder": bed.folder / "envoy", "start": True})
    other = EnvoyGateway(spec, replace(context(bed.folder), name="other"))
    (remark,) = await other.examine()
    assert remark.fault
    assert "not ours but 'prunella-edge'" in remark.message
    before = texts(bed.folder / "envoy")
    with pytest.raises(PermanentError, match="not ours"):
        await bed.route("b", gateway=other)
    assert texts(bed.folder / "envoy") == before
    assert await bed.asked(3) == {"a"}


async def test_a_share_is_a_matter_of_chance_at_the_first_request_already(bed: Bed) -> None:
    await bed.route("a")
    before, answers = OPEN_WIDE, list[int]()
    for _ in range(40):
        await bed.turn(Valve(50), before=before)
        before = Valve(50)
        answers.append((await bed.ask()).status)
    assert 5 < answers.count(200) < 35


async def test_what_a_server_is_at_is_not_ended(bed: Bed) -> None:
    await bed.gateway.route([bed.one(SERVICE, "a", request_timeout="1s")])
    bed.servers[0].delay_s = 60
    asking = asyncio.create_task(bed.ask())
    async with asyncio.timeout(30):
        while not (flow := await bed.flow()).traffic.in_flight:  # noqa: ASYNC110 - Envoy's pace
            await asyncio.sleep(0.01)
    assert flow.servers[0].traffic is not None
    assert flow.servers[0].traffic[1:6] == (0, 0, 0, 0, 1)
    assert (await asking).status == 504
    (server,) = (await bed.flow()).servers
    assert server.traffic is not None
    assert server.traffic[1:6] == (1, 1, 0, 0, 0)


async def test_there_is_never_a_second_one_that_nobody_knows(bed: Bed) -> None:
    await bed.route("a")
    pid = bed.pid()
    (bed.folder / "envoy" / "admin.sock").unlink()
    bed.gateway = build(bed.folder, bed.port)
    with pytest.raises(TransientError, match=f"runs \\(pid {pid}\\) and does not listen"):
        await bed.route("a")
    assert bed.pid() == pid


async def test_workers_that_do_not_answer_are_trouble(bed: Bed) -> None:
    await bed.route("a")
    place = bed.folder / "envoy" / "workers.sock"

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()

    for serve in (hang_up, say_nothing):
        place.unlink()
        server = await asyncio.start_unix_server(serve, place)
        with pytest.raises(TransientError):
            await bed.turn(OPEN)
        server.close()
        assert (await bed.flow()).valve == OPEN_WIDE


async def test_a_fallback_answers_in_place_of_the_service(bed: Bed) -> None:
    fallback = f"127.0.0.1:{bed.servers[2].port}"
    await bed.route("a", fallback=fallback)
    assert (await bed.ask()).server == "a"
    await bed.turn(OPEN)
    assert (await bed.ask()).server == "c"
    flow = await bed.flow()
    assert (flow.traffic.requests, flow.traffic.turned_away) == (1, 1)


async def test_the_body_is_said_exactly(bed: Bed) -> None:
    body = 'Back "soon" \\ ]]\nwith Grüßen, 100 % $sure'
    await bed.route("a", body=body)
    await bed.turn(OPEN)
    answer = await bed.ask()
    assert (answer.status, answer.body) == (503, body)


async def test_times_and_failures_are_told(bed: Bed) -> None:
    await bed.route("a", "b")
    bed.servers[0].status = 500
    bed.servers[1].delay_s = 0.1
    await asyncio.gather(*(bed.ask() for _ in range(20)))
    flow = await bed.flow()
    assert (flow.traffic.requests, flow.traffic.failed) == (20, 10)
    by_name = {one.name: one.traffic for one in flow.servers}
    assert by_name["a"] is not None
    assert (by_name["a"].requests, by_name["a"].failed) == (10, 10)
    async with asyncio.timeout(30):
        while (p95_s := (await bed.flow()).traffic.p95_s) is None:  # noqa: ASYNC110 - Envoy's pace
            await asyncio.sleep(0.1)
    assert 0.05 < p95_s < 5


async def test_a_server_that_refuses_connections_is_counted(bed: Bed) -> None:
    gone = Endpoint(InstanceId("gone"), "127.0.0.1", free_port())
    route = bed.one(SERVICE)
    await bed.gateway.route([Route(SERVICE, route.spec, endpoints=(gone,))])
    assert (await bed.ask()).status == 503
    traffic = (await bed.flow()).traffic
    assert (traffic.requests, traffic.failed, traffic.unconnected) == (1, 1, 1)


async def test_the_next_one_takes_over_the_envoy_that_runs(bed: Bed) -> None:
    await bed.route("a", "b")
    await bed.turn(OPEN)
    pid = bed.pid()
    await bed.gateway.close()
    bed.gateway = build(bed.folder, bed.port)
    await bed.route("a", "b")
    assert bed.pid() == pid
    assert (await bed.flow()).valve == OPEN
    await bed.turn(OPEN_WIDE, before=OPEN)
    assert await bed.asked(6) == {"a", "b"}


async def test_killed_it_is_started_again_with_what_was_set(bed: Bed) -> None:
    await bed.route("a", "b")
    await bed.turn(Valve(0, frozenset({"a"})))
    pid = bed.pid()
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        while True:
            try:
                flow = await bed.flow()
                break
            except TransientError:
                await asyncio.sleep(0.05)
    assert bed.pid() != pid
    assert flow.valve == Valve(0, frozenset({"a"}))
    assert flow.traffic.requests == 0
    assert (await bed.ask()).status == 503


async def test_it_serves_on_when_prunella_is_killed(bed: Bed) -> None:
    """Another process starts the Envoy and dies."""
    code = f"""
import asyncio, os, signal
from pathlib import Path
from tests.gateways.test_envoy import Bed
from tests.real.web import Web
bed = Bed(Path({str(bed.folder)!r}), [Web("a", port={bed.servers[0].port})])
from tests.conformance.gateways.envoy import build
bed.gateway = build(bed.folder, {bed.port})
asyncio.run(bed.route("a"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert (await bed.ask()).server == "a"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder that Envoy watches, on a disk that has a few blocks only."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "envoy"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    yield folder
    end(tmp_path)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def filled(folder: Path) -> Path:
    """A file that takes all the room there is."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    return filler


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.json")}


async def test_on_a_full_disk_nothing_is_changed(small_disk: Path, bed: Bed) -> None:
    await bed.route("a", "b")
    before = texts(small_disk)
    filler = filled(small_disk)
    with pytest.raises(TransientError, match="No space left"):
        await bed.turn(OPEN)
    filler.unlink()
    after = texts(small_disk)
    assert after.keys() == before.keys()
    assert after["valves.json"] == before["valves.json"]
    assert await bed.asked(6) == {"a", "b"}
    await bed.turn(OPEN)
    assert (await bed.ask()).status == 503


async def test_statistics_that_make_no_sense_are_trouble(bed: Bed, tmp_path: Path) -> None:
    await bed.route("a")
    await bed.gateway.stop()
    answers = {"/server_info": json.dumps({"node": {"id": "prunella-edge"}}), "/stats": "[1, 2"}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked_for = (await reader.readline()).decode().split()[1].partition("?")[0]
        body = answers.get(asked_for, "{}").encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "envoy" / "admin.sock")
    try:
        with pytest.raises(TransientError, match="makes no sense"):
            await bed.gateway.observe()
        answers["/stats"] = json.dumps({"stats": [{"name": 3}]})
        with pytest.raises(TransientError, match="makes no sense"):
            await bed.gateway.observe()
        for nonsense in ("what?", "[]", '{"node": 1}'):
            answers["/server_info"] = nonsense
            with pytest.raises(TransientError, match=r"makes? no sense"):
                await bed.gateway.observe()
        old = {"node": {"id": "prunella-edge"}, "version": "9e5/1.29.4/Clean/RELEASE/BoringSSL"}
        answers["/server_info"] = json.dumps(old)
        with pytest.raises(PermanentError, match=r"Envoy 1.29.4, and 1.37 or newer is needed"):
            await bed.gateway.observe()
        answers["/server_info"] = json.dumps({"node": {"id": "front-proxy"}})
        with pytest.raises(PermanentError, match="not ours but 'front-proxy'"):
            await bed.gateway.observe()
    finally:
        server.close()


async def test_it_is_examined(tmp_path: Path) -> None:
    def spec(**more: object) -> EnvoySpec:
        return EnvoySpec.model_validate({"folder": tmp_path / "envoy", **more})

    (remark,) = await EnvoyGateway(spec(), context(tmp_path)).examine()
    assert remark.fault
    assert "no Envoy watches" in remark.message
    assert await EnvoyGateway(spec(start=True), context(tmp_path)).examine() == []
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho 'envoy  version: 9e5/1.29.4/Clean/RELEASE/BoringSSL'\n")
    old.chmod(0o755)
    for program, words in ((old, "1.37 or newer"), (tmp_path / "none", "none")):
        (remark,) = await EnvoyGateway(
            spec(start=True, program=str(program)), context(tmp_path)
        ).examine()
        assert remark.fault
        assert words in remark.message
    (tmp_path / "file").write_text("")
    wrong = spec(start=True, folder=tmp_path / "file")
    (remark,) = await EnvoyGateway(wrong, context(tmp_path)).examine()
    assert "no file can be written" in remark.message


async def test_a_program_that_is_none_is_said_so(bed: Bed) -> None:
    bed.gateway = build(bed.folder, bed.port, program="/no/such/envoy")
    with pytest.raises(PermanentError, match="/no/such/envoy cannot be started"):
        await bed.route("a")
    bed.gateway = build(bed.folder, bed.port, program="/bin/false")
    with pytest.raises(TransientError, match="ended at once"):
        await bed.route("a")
