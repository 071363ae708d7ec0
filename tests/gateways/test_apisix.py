"""Our half of the conversation with APISIX, against a server with its documented shapes."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.conformance.gateways import BODY, EPOCH, SERVICE, context
from tests.gateways.api import api, saying

from prunella.core.traffic import OPEN_WIDE, Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.gateways.apisix import ApisixGateway, ApisixRoute, ApisixSpec
from prunella.ports import Route

OPEN = Valve(0)


def merged(old: Any, new: Any) -> Any:
    """As APISIX applies a PATCH: objects are merged, null deletes, all else replaces."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    result = {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}
    return {key: value for key, value in result.items() if value is not None}


class Apisix:
    def __init__(self) -> None:
        self.routes: dict[str, Any] = {
            "1": {"id": "1", "uri": "/shop", "plugins": {"cors": {}}, "upstream_id": "7"},
            "2": {"id": "2", "uri": "/other", "upstream_id": "7"},
        }

    async def answer(self, request: web.Request) -> web.Response:
        if request.headers.get("X-API-KEY") != "key":
            return web.json_response({"error_msg": "failed to check token"}, status=401)
        _, _, _, kind, *rest = request.path.split("/")
        assert kind == "routes"
        if not rest:
            listed = [self.wrapped(one) for one in self.routes.values()]
            return web.json_response({"total": len(listed), "list": listed})
        route = self.routes.get(rest[0])
        if route is None:
            return web.json_response({"message": "Key not found"}, status=404)
        if request.method == "PATCH":
            route = self.routes[rest[0]] = merged(route, await request.json())
            for plugin in [route.get("plugins", {}).get("fault-injection")]:
                if plugin is not None:
                    abort = plugin["abort"]
                    assert isinstance(abort["http_status"], int)
                    assert 0 <= abort["percentage"] <= 100
                    assert isinstance(abort["body"], str)
        return web.json_response(self.wrapped(route))

    def wrapped(self, route: Any) -> Any:
        key = f"/apisix/routes/{route['id']}"
        return {"key": key, "value": route, "createdIndex": 1, "modifiedIndex": 2}


@pytest.fixture
def apisix() -> Apisix:
    return Apisix()


@pytest.fixture
async def gateway(apisix: Apisix, tmp_path: Path) -> AsyncIterator[ApisixGateway]:
    (tmp_path / "key").write_text("key\n")
    async with api(apisix.answer) as url:
        spec = ApisixSpec(admin=url, token_file=tmp_path / "key")
        gateway = ApisixGateway(spec, context(tmp_path))
        await gateway.route([Route(SERVICE, ApisixRoute(name="edge", id="1"), BODY)])
        yield gateway
        await gateway.close()


async def turn(
    gateway: ApisixGateway, valve: Valve, before: Valve = OPEN_WIDE, lease_s: float = 30
) -> None:
    await gateway.turn(SERVICE, valve, before=before, lease_s=lease_s, epoch=EPOCH)


async def test_a_circuit_aborts_a_share_until_its_end(
    gateway: ApisixGateway, apisix: Apisix
) -> None:
    untouched = json.loads(json.dumps(apisix.routes))
    for valve, before in ((OPEN, OPEN_WIDE), (Valve(10), OPEN), (Valve(50), Valve(10))):
        await turn(gateway, valve, before)
        assert (await gateway.observe())[SERVICE].valve == valve
    abort = dict(apisix.routes["1"]["plugins"]["fault-injection"]["abort"])
    (((name, how, ends_at),),) = abort.pop("vars")
    assert (name, how) == ("msec", "<")
    assert 0 < ends_at - time.time() < 32
    assert abort == {
        "http_status": 503,
        "body": BODY,
        "headers": {"Retry-After": "30"},
        "percentage": 50,
    }
    await turn(gateway, OPEN_WIDE, Valve(50))
    assert apisix.routes == untouched


async def test_a_lease_begins_anew_and_ends(gateway: ApisixGateway, apisix: Apisix) -> None:
    await turn(gateway, OPEN, lease_s=5)
    await turn(gateway, OPEN, OPEN, lease_s=500)
    rule = apisix.routes["1"]["plugins"]["fault-injection"]["abort"]["vars"][0][0]
    assert rule[2] - time.time() > 400
    rule[2] = int(time.time()) - 1
    assert (await gateway.observe())[SERVICE].valve == OPEN_WIDE


@pytest.mark.parametrize(
    "theirs",
    [
        {"delay": {"duration": 1}},
        {"abort": {"http_status": 503}},
        {"abort": {"http_status": 503, "vars": [[["arg_name", "==", "jack"]]]}},
    ],
)
async def test_a_fault_injection_of_somebody_else_is_left_alone(
    gateway: ApisixGateway, apisix: Apisix, theirs: Any
) -> None:
    apisix.routes["1"]["plugins"]["fault-injection"] = theirs
    assert await gateway.observe() == {}
    with pytest.raises(ConflictError):
        await turn(gateway, OPEN)
    assert apisix.routes["1"]["plugins"]["fault-injection"] == theirs


async def test_what_it_cannot_do_is_refused(gateway: ApisixGateway) -> None:
    with pytest.raises(PermanentError):
        await turn(gateway, Valve(shut=frozenset({"a"})))
    route = ApisixRoute(name="edge", id="3")
    for refused in (Route(SERVICE, route, fallback="x"), Route(SERVICE, route, "a $remote_addr")):
        with pytest.raises(PermanentError):
            await gateway.route([refused])
    await gateway.route([Route(SERVICE, route)])
    assert await gateway.observe() == {}
    with pytest.raises(PermanentError, match="has no 3 among its routes"):
        await turn(gateway, OPEN)
    (remark,) = await gateway.examine()
    assert remark.fault


async def test_a_wrong_key_is_said(gateway: ApisixGateway, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("other")
    (remark,) = await gateway.examine()
    assert remark.fault
    assert "401" in remark.message


@pytest.mark.parametrize("said", [[], {}, {"list": [1]}, {"list": [{"value": []}]}, {"list": None}])
async def test_garbage_is_trouble(tmp_path: Path, said: Any) -> None:
    (tmp_path / "key").write_text("key")
    async with saying(json.dumps(said).encode()) as url:
        spec = ApisixSpec(admin=url, token_file=tmp_path / "key")
        gateway = ApisixGateway(spec, context(tmp_path))
        await gateway.route([Route(SERVICE, ApisixRoute(name="edge", id="1"))])
        with pytest.raises(TransientError):
            await gateway.observe()
        await gateway.close()
