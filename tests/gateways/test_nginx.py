"""What is special about nginx: its files, its test, its log, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.conformance.gateways import EPOCH, SERVICE, Answer
from tests.conformance.gateways.nginx import asked, build, http_of, location_of
from tests.real.freeze import freeze, thaw
from tests.real.nginx import Nginx, missing, nginx
from tests.real.web import Web, web

from prunella.core.model import InstanceId, ServiceId
from prunella.core.traffic import OPEN_WIDE, Flow, Traffic, Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.gateways._nginx_spec import NginxRoute
from prunella.gateways.nginx import NginxGateway
from prunella.ports import Endpoint, Route
from prunella.testing.site import free_port

OPEN = Valve(0)
A_SHUT = Valve(shut=frozenset({"a"}))


@dataclass
class Scene:
    nginx: Nginx
    gateway: NginxGateway
    servers: list[Web]
    folder: Path

    @property
    def ours(self) -> Path:
        return self.nginx.folder / "prunella"

    def route(self, body: str = "back soon", fallback: str = "", **more: object) -> Route:
        spec = NginxRoute.model_validate({"name": "edge", "upstream": "shop", **more})
        named = tuple(Endpoint(InstanceId(s.name), "127.0.0.1", s.port) for s in self.servers)
        return Route(SERVICE, spec, body, fallback, named)

    async def turn(self, valve: Valve, before: Valve = OPEN_WIDE, lease_s: float = 30) -> None:
        await self.gateway.turn(SERVICE, valve, before=before, lease_s=lease_s, epoch=EPOCH)

    async def flow(self) -> Flow:
        return (await self.gateway.observe())[SERVICE]

    async def ask(self, path: str = "/") -> Answer:
        return await asked(self.nginx.port, path)

    async def counted(self, count: int) -> Traffic:
        async with asyncio.timeout(30):
            while (found := (await self.flow()).traffic).requests + found.turned_away < count:  # noqa: ASYNC110 - a log has no event
                await asyncio.sleep(0.02)
        return found

    async def faults(self) -> str:
        return "\n".join(r.message for r in await self.gateway.examine() if r.fault)

    def files(self) -> dict[str, bytes]:
        return {one.name: one.read_bytes() for one in self.ours.glob("*.conf")}


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """An nginx that runs with our files, in front of servers ``a`` and ``b``."""
    if why := missing():
        pytest.skip(why)
    async with web("a", "b") as servers, nginx(tmp_path) as one:
        one.write(http_of(one.folder / "prunella"), location_of(one.folder / "prunella"))
        made = Scene(one, build(one, tmp_path, reload_timeout=5), servers, tmp_path)
        await made.gateway.route([made.route()])
        await one.start()
        await made.gateway.observe()
        yield made
        await made.gateway.close()


async def test_nothing_is_wrong_with_what_works(scene: Scene) -> None:
    assert await scene.gateway.examine() == []


# What it is told -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", ['say "$host" \\ $$', "<h1>Geduld, später</h1>", "two\nlines", "'"]
)
async def test_the_body_is_said_exactly(scene: Scene, body: str) -> None:
    await scene.gateway.route([scene.route(body)])
    await scene.turn(OPEN)
    assert (await scene.ask()).body == body


async def test_requests_of_an_open_circuit_go_to_the_fallback(scene: Scene) -> None:
    async with web("spare") as (spare,):
        ours = scene.ours
        more = f"\nupstream spare {{ server 127.0.0.1:{spare.port}; }}"
        scene.nginx.write(http_of(ours) + more, location_of(ours))
        await scene.gateway.route([scene.route(fallback="spare")])
        assert (await scene.ask()).server in {"a", "b"}
        await scene.turn(OPEN)
        assert (await scene.ask()).server == "spare"
        found = await scene.counted(2)
        assert (found.requests, found.turned_away) == (1, 1)


async def test_a_fallback_that_nginx_does_not_know_is_refused_and_nothing_is_changed(
    scene: Scene,
) -> None:
    before = scene.files()
    with pytest.raises(PermanentError, match=r"host not found in upstream .nowhere\.invalid"):
        await scene.gateway.route([scene.route(fallback="nowhere.invalid")])
    assert scene.files() == before
    assert (await scene.ask()).status == 200


async def test_two_services_are_not_one_upstream(scene: Scene) -> None:
    other = Route(ServiceId("other"), scene.route().spec)
    with pytest.raises(PermanentError, match="both upstream shop"):
        await scene.gateway.route([scene.route(), other])


async def test_servers_come_from_the_configuration_where_no_endpoints_are_known(
    scene: Scene,
) -> None:
    hosts = [f"localhost:{one.port}" for one in scene.servers]
    spec = scene.route(servers=hosts).spec
    await scene.gateway.route([Route(SERVICE, spec)])
    for _ in range(4):
        assert (await scene.ask()).status == 200
    await scene.counted(4)
    found = (await scene.flow()).servers
    assert [one.name for one in found] == hosts
    assert all(one.traffic and one.traffic.requests for one in found)
    await scene.turn(Valve(shut=frozenset(hosts[:1])))
    assert {(await scene.ask()).server for _ in range(6)} == {"b"}


async def test_a_server_that_moves_keeps_what_stands_on_its_line(scene: Scene) -> None:
    file = scene.ours / "shop.servers.conf"
    port = scene.servers[0].port
    text = file.read_text().replace(f":{port}; # a", f":{port} weight=3; # a")
    file.write_text(f"{text}server 127.0.0.1:{port} backup;\n")
    await scene.turn(A_SHUT)
    assert f"server 127.0.0.1:{port} weight=3 down; # a" in file.read_text()
    spec, moved = scene.route().spec, Endpoint(InstanceId("a"), "127.0.0.1", scene.servers[1].port)
    await scene.gateway.route([Route(SERVICE, spec, endpoints=(moved,))])
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    assert lines == [
        f"server 127.0.0.1:{port} backup;",
        f"server 127.0.0.1:{scene.servers[1].port} weight=3 down; # a",
    ]


async def test_told_the_same_again_nginx_is_left_alone(scene: Scene) -> None:
    workers = scene.nginx.workers()
    await scene.gateway.route([scene.route()])
    assert scene.nginx.workers() == workers


# Turning -------------------------------------------------------------------------------------


async def test_a_circuit_is_turned_and_its_lease_renewed_without_a_reload(scene: Scene) -> None:
    workers = scene.nginx.workers()
    await scene.turn(OPEN, lease_s=2)
    await scene.turn(OPEN, lease_s=600)
    link = scene.ours / "valves" / "shop"
    assert len(list(link.iterdir())) > 500
    await scene.turn(Valve(10), before=OPEN, lease_s=600)
    await scene.turn(OPEN_WIDE, before=Valve(10))
    assert scene.nginx.workers() == workers
    assert not link.exists()
    assert not list((scene.ours / "valves" / ".held").iterdir())


async def test_a_valve_that_an_operator_removes_is_open_wide(scene: Scene) -> None:
    await scene.turn(OPEN)
    (scene.ours / "valves" / "shop").unlink()
    assert (await scene.ask()).status == 200
    assert (await scene.flow()).valve == OPEN_WIDE


async def test_a_circuit_outlives_a_crash_of_nginx_until_its_lease_ends(scene: Scene) -> None:
    await scene.turn(OPEN)
    await scene.nginx.crash()
    with pytest.raises(TransientError, match="does not run"):
        await scene.flow()
    await scene.nginx.start()
    assert (await scene.ask()).status == 503
    assert (await scene.flow()).valve == OPEN


async def test_a_cache_of_open_files_does_not_keep_a_circuit_open(scene: Scene) -> None:
    cache = "open_file_cache max=100; open_file_cache_errors on; open_file_cache_min_uses 1;\n"
    scene.nginx.write(cache + http_of(scene.ours), location_of(scene.ours))
    await scene.nginx.reload()
    for _ in range(3):
        assert (await scene.ask()).status == 200
        await scene.turn(OPEN)
        assert (await scene.ask()).status == 503
        await scene.turn(OPEN_WIDE, before=OPEN)


async def test_a_failed_test_changes_nothing_and_says_nginx_own_words(scene: Scene) -> None:
    before, workers = scene.files(), scene.nginx.workers()
    scene.nginx.config.write_text(scene.nginx.config.read_text() + "nonsense;\n")
    with pytest.raises(PermanentError, match='unknown directive "nonsense"'):
        await scene.turn(Valve(0, frozenset({"a"})))
    assert scene.files() == before
    assert scene.nginx.workers() == workers
    assert (await scene.flow()).valve == OPEN_WIDE
    assert 'unknown directive "nonsense"' in await scene.faults()
    await scene.turn(OPEN)  # needs no test
    assert (await scene.ask()).status == 503


async def test_a_server_that_is_not_there_cannot_be_shut(scene: Scene) -> None:
    with pytest.raises(PermanentError, match="c is no server in"):
        await scene.turn(Valve(shut=frozenset({"c"})))


async def test_a_master_that_stands_still_fails_a_reload_and_all_is_as_before(
    scene: Scene,
) -> None:
    before = scene.files()
    freeze(scene.nginx.pid)
    try:
        with pytest.raises(TransientError, match="no new workers"):
            await scene.turn(A_SHUT)
    finally:
        thaw(scene.nginx.pid)
    assert scene.files() == before
    await scene.turn(A_SHUT)
    assert {(await scene.ask()).server for _ in range(6)} == {"b"}


async def test_a_turn_that_is_given_up_leaves_all_as_it_was(scene: Scene) -> None:
    before = scene.files()
    freeze(scene.nginx.pid)
    turning = asyncio.create_task(scene.turn(Valve(0, frozenset({"a"}))))
    async with asyncio.timeout(30):
        while scene.files() == before:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.005)
    turning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turning
    thaw(scene.nginx.pid)
    assert scene.files() == before
    assert (await scene.flow()).valve == OPEN_WIDE


async def test_callers_that_keep_connections_lose_no_request_to_a_reload(scene: Scene) -> None:
    done, answers = asyncio.Event(), list[int]()

    async def call() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.nginx.port)
        while not done.is_set():
            writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            answers.append(int(head.split()[1]))
            await reader.readexactly(1)
            if b"\r\nconnection: close" in head:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", scene.nginx.port)
        writer.close()

    callers = [asyncio.create_task(call()) for _ in range(8)]
    for name in "abab":
        valve = Valve(shut=frozenset({name}))
        await scene.turn(valve)
        await scene.turn(OPEN_WIDE, before=valve)
    assert not (scene.ours / "valves" / ".leaving").exists()
    done.set()
    await asyncio.gather(*callers)
    assert set(answers) == {200}


# Their files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shop.location.conf", "prunella.http.conf"])
async def test_a_file_of_ours_that_somebody_else_has_changed_is_left(
    scene: Scene, name: str
) -> None:
    file = scene.ours / name
    file.write_text(file.read_text() + "# mine\n")
    assert f"somebody else has changed {file}" in await scene.faults()
    again = build(scene.nginx, scene.folder)
    await again.route([scene.route("other words")])
    assert file.read_text().endswith("# mine\n")
    assert SERVICE in await again.observe()
    await again.close()
    with pytest.raises(ConflictError, match=name):
        await scene.turn(OPEN)
    file.unlink()
    await scene.gateway.route([scene.route()])
    await scene.turn(OPEN)
    assert (await scene.ask()).status == 503


async def test_an_nginx_that_does_not_include_us_is_told_what_is_missing(scene: Scene) -> None:
    upstream = f"upstream shop {{ server 127.0.0.1:{scene.servers[0].port}; }}"
    scene.nginx.write(upstream, "location / { proxy_pass http://shop; }")
    await scene.nginx.reload()
    again = build(scene.nginx, scene.folder)
    await again.route([scene.route()])
    with pytest.raises(PermanentError, match=r"does not include .*shop\.location\.conf;"):
        await again.turn(SERVICE, OPEN, before=OPEN_WIDE, lease_s=30, epoch=EPOCH)
    assert "does not include" in await scene.faults()
    scene.nginx.write(http_of(scene.ours), location_of(scene.ours))
    with pytest.raises(PermanentError, match="reload nginx"):
        await again.turn(SERVICE, OPEN, before=OPEN_WIDE, lease_s=30, epoch=EPOCH)
    await scene.nginx.reload()
    await again.turn(SERVICE, OPEN, before=OPEN_WIDE, lease_s=30, epoch=EPOCH)
    assert (await scene.ask()).status == 503


async def test_an_upstream_of_theirs_can_be_broken_but_not_shut(scene: Scene) -> None:
    upstream = f"upstream shop {{ server 127.0.0.1:{scene.servers[0].port}; }}\n"
    http = upstream + f"include {scene.ours}/prunella.http.conf;"
    scene.nginx.write(http, location_of(scene.ours))
    await scene.nginx.reload()
    again = build(scene.nginx, scene.folder)
    await again.route([scene.route()])
    with pytest.raises(PermanentError, match=r"does not include shop\.servers\.conf"):
        await again.turn(SERVICE, A_SHUT, before=OPEN_WIDE, lease_s=30, epoch=EPOCH)
    assert "no server of web can be shut" in str(await again.examine()) + str(
        await scene.gateway.examine()
    )


@pytest.mark.parametrize("place", ["http", "server", "location"])
async def test_a_log_of_theirs_that_takes_the_place_of_ours_is_found(
    scene: Scene, place: str
) -> None:
    ours = scene.ours
    http, server, inside = http_of(ours), location_of(ours), ""
    log = f"access_log {scene.folder}/theirs.log;"
    if place == "http":
        http = f"access_log off; {http}"
    elif place == "server":
        server = f"{log} {server}"
    else:
        inside = log
    server = server.replace("proxy_pass", f"{inside} proxy_pass")
    scene.nginx.write(http, server)
    await scene.nginx.reload()
    assert "are not counted" in await scene.faults()
    beside = f"include {ours}/prunella.log.conf;"
    if place == "location":
        scene.nginx.write(http, server.replace(inside, f"{inside} {beside}"))
    else:
        scene.nginx.write(http.replace("off", "/dev/null"), f"{beside} {server}")
    await scene.nginx.reload()
    assert await scene.faults() == ""
    await scene.ask()
    assert (await scene.counted(1)).requests >= 1


async def test_what_our_conditions_would_hide_is_found(scene: Scene) -> None:
    ours, server = scene.ours, location_of(scene.ours)
    tried = server.replace("proxy_pass", "try_files $uri =404; proxy_pass")
    scene.nginx.write(http_of(ours), tried)
    assert "has try_files" in await scene.faults()
    (remark,) = await build(scene.nginx, scene.folder).examine()  # told of no service
    assert "has try_files" in remark.message
    scene.nginx.write(http_of(ours), f"add_header X-Frame-Options DENY; {server}")
    (remark,) = await scene.gateway.examine()
    assert not remark.fault
    assert "close_connections: false" in remark.message
    await scene.gateway.route([scene.route(close_connections=False)])
    assert await scene.gateway.examine() == []


# Trouble -------------------------------------------------------------------------------------


async def test_a_program_that_is_not_there_is_named(scene: Scene) -> None:
    gone = build(scene.nginx, scene.folder, program="/nowhere/nginx")
    with pytest.raises(PermanentError, match="command not found: /nowhere/nginx"):
        await gone.route([scene.route()])
    (remark,) = await gone.examine()
    assert remark.fault
    assert "command not found" in remark.message


async def test_a_version_that_is_too_old_is_named(scene: Scene) -> None:
    old = scene.folder / "old-nginx"
    old.write_text("#!/bin/sh\necho 'nginx version: nginx/1.10.3' >&2\n")
    old.chmod(0o755)
    (remark,) = await build(scene.nginx, scene.folder, program=str(old)).examine()
    assert remark.fault
    assert "nginx 1.10 is too old: at least 1.11" in remark.message


@pytest.fixture
def small_disk(scene: Scene) -> Iterator[Path]:
    """The folder of the valves, with room for almost nothing."""
    folder = scene.ours / "valves"
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=150,mode=755", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_lets_all_through_and_is_said(scene: Scene, small_disk: Path) -> None:
    with pytest.raises(TransientError, match="No space left"):
        await scene.turn(OPEN, lease_s=600)
    assert (await scene.ask()).status == 200
    assert (await scene.flow()).valve == OPEN_WIDE
    await scene.turn(OPEN, lease_s=5)
    with pytest.raises(TransientError, match="No space left"):
        await scene.turn(OPEN, before=OPEN, lease_s=600)
    assert (await scene.flow()).valve == OPEN
    await scene.turn(OPEN_WIDE, before=OPEN)
    assert (await scene.ask()).status == 200


async def test_a_folder_that_workers_may_not_look_into_is_named(scene: Scene) -> None:
    if os.geteuid() != 0:
        pytest.skip("workers are somebody else only where nginx is root")
    config = scene.nginx.config
    config.write_text(config.read_text().replace("user root;", "user www-data;"))
    scene.folder.chmod(0o700)
    await scene.nginx.reload()
    with pytest.raises(PermanentError, match="chmod a\\+x"):
        await scene.turn(OPEN)
    assert "may not look into" in await scene.faults()


async def test_a_status_that_is_something_else_is_trouble(scene: Scene) -> None:
    # nginx itself, at a page that is none of its own
    status = f"http://127.0.0.1:{scene.nginx.port}/nginx_status/"
    other = build(scene.nginx, scene.folder, status=status)
    await other.route([scene.route()])
    await scene.turn(OPEN)
    with pytest.raises(TransientError, match=r"no stub_status of nginx: .HTTP/1.1 503"):
        await other.observe()
    nobody = build(scene.nginx, scene.folder, status=f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(TransientError, match="does not answer"):
        await nobody.observe()


# The log -------------------------------------------------------------------------------------


async def test_a_server_that_refuses_is_counted_with_the_one_that_was_asked_next(
    scene: Scene,
) -> None:
    dead = Web("a", port=free_port())
    scene.servers[0] = dead
    await scene.gateway.route([scene.route()])
    for _ in range(6):
        assert (await scene.ask()).server == "b"
    found = await scene.counted(6)
    assert (found.requests, found.failed) == (6, 0)
    assert found.unconnected >= 1
    a, b = (one.traffic for one in (await scene.flow()).servers)
    assert a is not None
    assert b is not None
    assert (a.requests, a.failed, a.unconnected) == (found.unconnected,) * 3
    assert (b.requests, b.failed) == (6, 0)


async def test_how_long_requests_took_is_told(scene: Scene) -> None:
    for one in scene.servers:
        one.delay_s = 0.2
    await asyncio.gather(*(scene.ask() for _ in range(20)))
    found = await scene.counted(20)
    assert found.p50_s is not None
    assert found.p99_s is not None
    assert found.mean_s is not None
    assert 0.15 < found.p50_s <= found.p99_s < 10
    assert found.mean_s > 0.15


async def test_a_log_that_is_renamed_or_emptied_loses_no_request(scene: Scene) -> None:
    log = scene.ours / "requests.log"
    await scene.ask()
    await scene.counted(1)
    log.rename(scene.ours / "requests.log.1")
    await scene.ask()
    scene.nginx.send(signal.SIGUSR1)
    await scene.ask()
    await scene.counted(3)
    async with asyncio.timeout(30):
        while not log.exists():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.01)
    await scene.ask()
    await scene.counted(4)
    os.truncate(log, 0)
    await scene.flow()
    await scene.ask()
    assert (await scene.counted(5)).requests == 5


async def test_a_large_log_is_renamed_by_us(scene: Scene) -> None:
    small = build(scene.nginx, scene.folder, log_limit=300)
    await small.route([scene.route()])
    await small.observe()
    for _ in range(20):
        await scene.ask()
    async with asyncio.timeout(30):
        while (await small.observe())[SERVICE].traffic.requests < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        while not (scene.ours / "requests.log.1").exists():
            await small.observe()
        for _ in range(20):
            await scene.ask()
        while (await small.observe())[SERVICE].traffic.requests < 40:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await small.close()


async def test_a_log_of_garbage_is_trouble_and_single_bad_lines_are_left_out(scene: Scene) -> None:
    log = scene.ours / "requests.log"
    with log.open("ab") as file:
        file.write(b"what is this\n\xff\xfe\n")
    with pytest.raises(TransientError, match="format prunella"):
        await scene.flow()
    with log.open("ab") as file:
        file.write(b"what is this\nshop||200|x|y|z|0\nshop||200|-|-|-|-\n")
    assert (await scene.flow()).traffic.requests == 1


async def test_a_flood_is_read_in_bounded_pieces_and_what_is_behind_is_left_out(
    scene: Scene,
) -> None:
    line = b"shop||200|127.0.0.1:1|200|0.001|0.000\n"
    log = scene.ours / "requests.log"
    count = 40 * 2**20 // len(line)
    with log.open("ab") as file:
        file.write(line * count)
    first = (await scene.flow()).traffic.requests
    assert 0 < first * len(line) <= 4 * 2**20
    second = (await scene.flow()).traffic.requests
    assert second == first
    await scene.ask()
    assert (await scene.counted(first + 1)).requests == first + 1
