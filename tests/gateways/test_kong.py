"""Our half of the conversation with Kong, against a server with its documented shapes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.conformance.gateways import BODY, EPOCH, SERVICE, context
from tests.gateways.api import api, saying

from prunella.core.model import ServiceId
from prunella.core.traffic import OPEN_WIDE, Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.gateways.kong import KongGateway, KongRoute, KongSpec
from prunella.ports import Route

OPEN = Valve(0)
SHOP = "9748f662-7711-4a90-8186-dc02f10eb0f5"
TERMINATION = {"status_code", "content_type", "body", "message", "echo", "trigger"}


@dataclass
class Kong:
    """Services and plugins, two to a page."""

    plugins: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    others: int = 3

    async def answer(self, request: web.Request) -> web.Response:
        if request.headers.get("Kong-Admin-Token") != "key":
            return web.json_response({"message": "Invalid credentials"}, status=401)
        path, plugin = request.path, request.path.removeprefix("/plugins/")
        names = [f"other-{number}" for number in range(self.others)]
        services = [{"id": name, "name": name} for name in names] + [{"id": SHOP, "name": "shop"}]
        if path == "/services":
            return self.page(request, services)
        if path in ("/services/shop", f"/services/{SHOP}"):
            return web.json_response(services[-1])
        if path == "/plugins":
            tag = request.query["tags"]
            return self.page(request, [one for one in self.plugins.values() if tag in one["tags"]])
        if request.method == "DELETE":
            self.plugins.pop(plugin, None)
            return web.Response(status=204)
        assert request.method == "PUT"
        told = await request.json()
        assert told["config"].keys() <= TERMINATION
        assert all(told["config"].values()), "Kong takes no empty text"
        service = told["service"]["id"]
        if any(
            one["service"]["id"] == service and one["id"] != plugin for one in self.plugins.values()
        ):
            message = "UNIQUE violation detected on '{name=\"request-termination\",service=...}'"
            return web.json_response({"code": 5, "message": message}, status=409)
        self.plugins[plugin] = {"id": plugin, "created_at": 1, "consumer": None, **told}
        return web.json_response(self.plugins[plugin])

    def page(self, request: web.Request, rows: list[Any]) -> web.Response:
        first = int(request.query.get("offset", "0"))
        more = first + 2 < len(rows)
        query = "&".join(
            f"{key}={value}" for key, value in request.query.items() if key != "offset"
        )
        following = f"{request.path}?{query}&offset={first + 2}" if more else None
        return web.json_response({"data": rows[first : first + 2], "next": following})


@pytest.fixture
def kong() -> Kong:
    return Kong()


@pytest.fixture
async def gateway(kong: Kong, tmp_path: Path) -> AsyncIterator[KongGateway]:
    (tmp_path / "token").write_text("key\n")
    async with api(kong.answer) as url:
        spec = KongSpec(admin=url, token_file=tmp_path / "token")
        gateway = KongGateway(spec, context(tmp_path))
        await gateway.route([Route(SERVICE, KongRoute(name="edge", service="shop"), BODY)])
        yield gateway
        await gateway.close()


async def turn(gateway: KongGateway, valve: Valve, before: Valve) -> None:
    await gateway.turn(SERVICE, valve, before=before, lease_s=30, epoch=EPOCH)


async def test_a_circuit_is_a_plugin_of_ours_on_the_service(
    gateway: KongGateway, kong: Kong
) -> None:
    assert (await gateway.observe())[SERVICE].valve == OPEN_WIDE
    for _ in range(2):
        await turn(gateway, OPEN, OPEN_WIDE)
        assert (await gateway.observe())[SERVICE].valve == OPEN
    (plugin,) = kong.plugins.values()
    assert plugin["name"] == "request-termination"
    assert plugin["service"] == {"id": SHOP}
    assert plugin["tags"] == ["prunella"]
    assert plugin["config"]["status_code"] == 503
    assert plugin["config"]["body"] == BODY
    for _ in range(2):
        await turn(gateway, OPEN_WIDE, OPEN)
    assert kong.plugins == {}


async def test_an_empty_body_is_left_to_kong(gateway: KongGateway, kong: Kong) -> None:
    await gateway.route([Route(SERVICE, KongRoute(name="edge", service=SHOP))])
    await turn(gateway, OPEN, OPEN_WIDE)
    (plugin,) = kong.plugins.values()
    assert plugin["config"] == {"status_code": 503}


async def test_a_plugin_of_somebody_else_is_left_alone(gateway: KongGateway, kong: Kong) -> None:
    theirs = {"id": "x", "name": "request-termination", "service": {"id": SHOP}, "tags": []}
    kong.plugins["x"] = dict(theirs)
    assert (await gateway.observe())[SERVICE].valve == OPEN_WIDE
    with pytest.raises(ConflictError):
        await turn(gateway, OPEN, OPEN_WIDE)
    assert kong.plugins == {"x": theirs}


async def test_one_that_somebody_disabled_stops_nothing(gateway: KongGateway, kong: Kong) -> None:
    await turn(gateway, OPEN, OPEN_WIDE)
    for plugin in kong.plugins.values():
        plugin["enabled"] = False
    assert (await gateway.observe())[SERVICE].valve == OPEN_WIDE
    with pytest.raises(ConflictError):
        await turn(gateway, OPEN, OPEN)


async def test_what_it_cannot_do_is_refused(gateway: KongGateway) -> None:
    for valve in (Valve(50), Valve(shut=frozenset({"a"}))):
        with pytest.raises(PermanentError):
            await turn(gateway, valve, OPEN_WIDE)
    with pytest.raises(PermanentError):
        await gateway.turn(ServiceId("x"), OPEN, before=OPEN_WIDE, lease_s=30, epoch=EPOCH)
    route = KongRoute(name="edge", service="lost")
    await gateway.route([Route(SERVICE, route)])
    assert await gateway.observe() == {}
    (remark,) = await gateway.examine()
    assert remark.fault
    assert "Kong has no service lost" in remark.message
    with pytest.raises(PermanentError, match="fallback"):
        await gateway.route([Route(SERVICE, route, fallback="spare")])


async def test_a_wrong_token_is_said(gateway: KongGateway, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("other")
    (remark,) = await gateway.examine()
    assert remark.fault
    assert "401" in remark.message


@pytest.mark.parametrize("said", [[], {}, {"data": [1]}, {"data": [{}]}, {"data": None}])
async def test_garbage_is_trouble(tmp_path: Path, said: Any) -> None:
    async with saying(json.dumps(said).encode()) as url:
        gateway = KongGateway(KongSpec(admin=url), context(tmp_path))
        await gateway.route([Route(SERVICE, KongRoute(name="edge", service="shop"))])
        with pytest.raises(TransientError):
            await gateway.observe()
        await gateway.close()
