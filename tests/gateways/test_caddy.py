"""What is special of Caddy: one configuration for all, changed by several, and what it counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web as web_server
from tests.conformance.gateways import BODY, EPOCH, SERVICE, Bench, context
from tests.conformance.gateways.caddy import target
from tests.gateways.api import api, saying
from tests.gateways.program import ask
from tests.real.web import web

from prunella.core.traffic import OPEN_WIDE, Traffic, Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.gateways._admin import Admin
from prunella.gateways._caddy_config import places, read, write
from prunella.gateways.caddy import CaddyGateway, CaddyRoute, CaddySpec
from prunella.ports import Route

OPEN = Valve(0)
ROUTES = "/config/apps/http/servers/main/routes"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def bench(tmp_path: Path, stack: AsyncExitStack, request: pytest.FixtureRequest) -> Bench:
    return await target(tmp_path, stack, request)


@pytest.fixture
async def operator(bench: Bench, stack: AsyncExitStack) -> Admin:
    """Somebody else, with the same rights as ours."""
    gateway = bench.gateway
    assert isinstance(gateway, CaddyGateway)
    admin = Admin(10.0, gateway.spec.admin)
    stack.push_async_callback(admin.close)
    return admin


async def route_of(bench: Bench, **fields: Any) -> None:
    spec = CaddyRoute(name="edge", id="web")
    await bench.gateway.route([Route(SERVICE, spec, **({"body": BODY} | fields))])


async def counted(bench: Bench, at_least: int) -> Traffic:
    async with asyncio.timeout(30):
        while True:
            traffic = (await bench.gateway.observe())[SERVICE].traffic
            if traffic.requests >= at_least:
                return traffic
            await asyncio.sleep(0.05)


async def test_what_was_set_is_gone_from_the_configuration_afterwards(
    bench: Bench, operator: Admin
) -> None:
    before = await operator.get(ROUTES)
    await bench.turn(Valve(10, frozenset({"a"})))
    assert await operator.get(ROUTES) != before
    await bench.turn(OPEN_WIDE)
    after = await operator.get(ROUTES)
    by_dial = sorted(after[0]["handle"][0].pop("upstreams"), key=str)
    assert by_dial == sorted(before[0]["handle"][0].pop("upstreams"), key=str)
    assert after == before


async def test_a_fault_of_a_server_is_a_failure_and_the_circuit_is_none(bench: Bench) -> None:
    await bench.gateway.observe()
    for server in bench.servers:
        server.status = 500
    await bench.ask()
    await bench.turn(OPEN)
    await bench.ask()
    await bench.turn(OPEN_WIDE)
    traffic = await counted(bench, 1)
    assert (traffic.requests, traffic.failed) == (1, 1)
    assert traffic.p50_s is not None
    assert traffic.p95_s is not None
    assert 0 < traffic.p50_s <= traffic.p95_s <= 0.005


async def test_a_server_that_refuses_is_a_failure(bench: Bench, operator: Admin) -> None:
    upstreams = f"{ROUTES}/0/handle/0/upstreams"
    (await operator.put("PATCH", upstreams, [{"dial": "127.0.0.1:9"}])).require()
    assert (await bench.ask()).status == 502
    traffic = await counted(bench, 1)
    assert (traffic.requests, traffic.failed) == (1, 1)
    (server,) = (await bench.gateway.observe())[SERVICE].servers
    assert (server.name, server.address, server.port) == ("127.0.0.1:9", "127.0.0.1", 9)


async def test_what_is_under_way_is_counted(bench: Bench) -> None:
    for server in bench.servers:
        server.delay_s = 3600
    asking = asyncio.ensure_future(bench.ask())
    try:
        async with asyncio.timeout(30):
            while (await bench.gateway.observe())[SERVICE].traffic.in_flight != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        asking.cancel()


@pytest.mark.parametrize("body", ['say "no" {http.request.host} {"a": 1}', "C:\\new\\{x}", "", "ü"])
async def test_caddy_fills_nothing_into_the_body(bench: Bench, body: str) -> None:
    await route_of(bench, body=body)
    await bench.turn(OPEN)
    assert (await bench.ask()).body == body


async def test_requests_go_to_a_fallback(bench: Bench, stack: AsyncExitStack) -> None:
    (spare,) = await stack.enter_async_context(web("spare"))
    await route_of(bench, fallback=f"127.0.0.1:{spare.port}")
    await bench.turn(OPEN)
    answer = await bench.ask()
    assert (answer.status, answer.server) == (200, "spare")
    traffic = (await bench.gateway.observe())[SERVICE].traffic
    assert traffic.requests == 0


async def test_a_change_by_somebody_else_meanwhile_is_kept(bench: Bench, operator: Admin) -> None:
    """Both of them change the same list, many times."""
    gone = asyncio.Event()

    async def meddle() -> int:
        count = 0
        while not gone.is_set():
            count += 1
            headers = {"handler": "headers", "response": {"set": {"X-Count": [str(count)]}}}
            (await operator.put("PUT", f"{ROUTES}/0/handle/0", headers)).require()
            await asyncio.sleep(0.02)
        return count

    meddling = asyncio.create_task(meddle())
    turned = 0
    for valve in (OPEN, OPEN_WIDE) * 5:
        try:
            await bench.turn(valve)
            turned += 1
        except TransientError:  # it was the slower one each time
            pass
    gone.set()
    count = await meddling
    handlers = [one["handler"] for one in (await operator.get(ROUTES))[0]["handle"]]
    assert handlers.count("headers") == count
    assert handlers.count("reverse_proxy") == 1
    assert turned > 0


async def test_a_tag_of_yesterday_changes_nothing(bench: Bench, operator: Admin) -> None:
    stale = {"If-Match": f'"{ROUTES} 00000000"'}
    assert (await operator.put("PATCH", ROUTES, [], **stale)).status == 412
    assert (await bench.ask()).status == 200


async def test_a_server_that_somebody_put_back_is_not_shut(bench: Bench, operator: Admin) -> None:
    upstreams = [{"dial": f"127.0.0.1:{one.port}"} for one in bench.servers]
    await bench.turn(Valve(shut=frozenset({"a"})))
    (await operator.put("PATCH", "/id/web/upstreams", upstreams)).require()
    flow = (await bench.gateway.observe())[SERVICE]
    assert flow.valve == OPEN_WIDE
    assert sorted(server.name for server in flow.servers) == ["a", "b"]


async def test_a_circuit_that_somebody_rewrote_is_left_alone(bench: Bench, operator: Admin) -> None:
    await bench.turn(OPEN)
    match = "/id/prunella-web/routes/0/match"
    (await operator.put("PATCH", match, [{"expression": "true"}])).require()
    assert await bench.gateway.observe() == {}
    with pytest.raises(ConflictError, match="rewritten"):
        await bench.turn(OPEN_WIDE, before=OPEN)
    (remark,) = await bench.gateway.examine()  # type: ignore[attr-defined]
    assert remark.fault
    assert "somebody else has written its circuit" in remark.message


async def test_a_proxy_beside_others_is_governed_and_not_counted(
    bench: Bench, operator: Admin
) -> None:
    proxy = {"handler": "reverse_proxy", "@id": "deep", "upstreams": [{"dial": "127.0.0.1:9"}]}
    inner = {"handler": "subroute", "routes": [{"handle": [proxy]}]}
    route = {"match": [{"path": ["/deep"]}], "handle": [inner]}
    (await operator.put("PUT", f"{ROUTES}/0", route)).require()
    deep = Route(SERVICE, CaddyRoute(name="edge", id="deep"), "deep down")
    await bench.gateway.route([deep])
    await bench.ask()
    assert (await bench.gateway.observe())[SERVICE].traffic.requests == 0
    (remark,) = await bench.gateway.examine()  # type: ignore[attr-defined]
    assert not remark.fault
    assert "its requests are not counted" in remark.message
    await bench.turn(OPEN)
    assert (await bench.ask()).status == 200
    assert (await ask(f"{bench.ask.args[0]}deep")).body == "deep down"  # type: ignore[attr-defined]


async def test_an_unknown_id_is_left_out_refused_and_said(bench: Bench) -> None:
    await bench.gateway.route([Route(SERVICE, CaddyRoute(name="edge", id="lost"))])
    assert await bench.gateway.observe() == {}
    with pytest.raises(PermanentError, match="no reverse_proxy with the @id lost"):
        await bench.turn(OPEN, before=OPEN_WIDE)
    (remark,) = await bench.gateway.examine()  # type: ignore[attr-defined]
    assert remark.fault
    assert '"@id": "lost"' in remark.message


async def test_an_unknown_server_is_refused(bench: Bench) -> None:
    with pytest.raises(PermanentError, match="no server c there"):
        await bench.turn(Valve(shut=frozenset({"c"})))


async def test_a_well_set_up_caddy_gives_no_remark(bench: Bench) -> None:
    assert await bench.gateway.examine() == []  # type: ignore[attr-defined]


def lose_connections() -> None:
    """In the test's own network."""
    Path("/proc/sys/net/ipv4/tcp_migrate_req").write_text("0")


async def test_a_kernel_that_loses_connections_at_a_reload_is_said(bench: Bench) -> None:
    lose_connections()
    (remark,) = await bench.gateway.examine()  # type: ignore[attr-defined]
    assert not remark.fault
    assert "sysctl net.ipv4.tcp_migrate_req=1" in remark.message


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"main": 1}', b'{"main": {"routes": 5}}']
)
async def test_something_else_at_its_address_is_trouble(tmp_path: Path, body: bytes) -> None:
    async with saying(body) as url:
        gateway = CaddyGateway(CaddySpec(admin=url), context(tmp_path))
        await gateway.route([Route(SERVICE, CaddyRoute(name="edge", id="web"))])
        try:
            with pytest.raises((TransientError, PermanentError)):
                await gateway.turn(SERVICE, OPEN, before=OPEN_WIDE, lease_s=30, epoch=EPOCH)
        finally:
            await gateway.close()


async def test_counters_that_begin_anew_make_no_negative_times(bench: Bench) -> None:
    await bench.gateway.observe()
    for _ in range(3):
        await bench.ask()
    assert (await counted(bench, 3)).requests == 3
    await bench.restart()
    await bench.ask()
    traffic = await counted(bench, 1)
    assert traffic.requests == 1
    assert traffic.mean_s is not None
    assert traffic.mean_s > 0


@pytest.mark.parametrize("tag", ['"/config/x 1234"', ""])
async def test_newer_versions_send_the_tag_before_and_old_ones_have_none(
    tmp_path: Path, tag: str
) -> None:
    handles = [{"handler": "reverse_proxy", "@id": "web", "upstreams": [{"dial": "x:1"}]}]
    changed: list[str] = []

    async def handler(request: web_server.Request) -> web_server.Response:
        if request.method == "PATCH":
            changed.append(request.headers["If-Match"])
            return web_server.Response()
        deep = request.path.endswith("/handle")
        servers = {"main": {"routes": [{"handle": handles}]}}
        headers = {"ETag": tag} if tag else {}
        return web_server.json_response(handles if deep else servers, headers=headers)

    async with api(handler) as url:
        gateway = CaddyGateway(CaddySpec(admin=url), context(tmp_path))
        await gateway.route([Route(SERVICE, CaddyRoute(name="edge", id="web"))])
        try:
            if tag:
                await gateway.turn(SERVICE, OPEN, before=OPEN_WIDE, lease_s=30, epoch=EPOCH)
            else:
                with pytest.raises(TransientError, match="has no tag"):
                    await gateway.turn(SERVICE, OPEN, before=OPEN_WIDE, lease_s=30, epoch=EPOCH)
        finally:
            await gateway.close()
    assert changed == [tag] * bool(tag)


@pytest.mark.parametrize("share", range(100))
def test_each_share_is_read_as_it_was_written(share: int) -> None:
    proxy = {"handler": "reverse_proxy", "@id": "web", "upstreams": [{"dial": "x:1"}]}
    circuit = read("web", [proxy])
    assert circuit is not None
    wanted = circuit._replace(share=share, ends_ms=5)
    handles = write("web", [proxy], wanted, lease_s=30, body="", fallback="")
    assert read("web", handles) == wanted
    assert [*places({"main": {"routes": [{"handle": handles}]}})] == ["web"]
