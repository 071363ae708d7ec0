"""Our half of the conversation with Traefik, against a server with its documented shapes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from tests.conformance.gateways import EPOCH, SERVICE, context
from tests.gateways.api import api, saying

from prunella.core.traffic import OPEN_WIDE, Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.gateways.traefik import TraefikGateway, TraefikRoute, TraefikSpec
from prunella.ports import Route

OPEN = Valve(0)
RULE = "Host(`shop.example`)"
SHOP = {
    "entryPoints": ["web"],
    "middlewares": ["auth", "limit@file"],
    "service": "shop",
    "rule": RULE,
    "status": "enabled",
    "using": ["web"],
}


class Traefik:
    """Serves what a provider called docker says, and what is in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.deaf = False

    async def answer(self, request: web.Request) -> web.Response:
        assert request.path == "/api/rawdata"
        routers: dict[str, Any] = {"shop@docker": SHOP}
        services: dict[str, Any] = {}
        for file in [] if self.deaf else sorted(self.folder.glob("*.yml")):
            http = yaml.safe_load(file.read_text())["http"]
            for name, router in http["routers"].items():
                routers[f"{name}@file"] = {**router, "status": "enabled"}
            services |= {f"{name}@file": one for name, one in http["services"].items()}
        return web.json_response({"routers": routers, "services": services, "middlewares": {}})

    def written(self) -> Any:
        (file,) = self.folder.iterdir()
        return yaml.safe_load(file.read_text())["http"]


@pytest.fixture
def traefik(tmp_path: Path) -> Traefik:
    (tmp_path / "dynamic").mkdir()
    return Traefik(tmp_path / "dynamic")


@pytest.fixture
async def gateway(traefik: Traefik, tmp_path: Path) -> AsyncIterator[TraefikGateway]:
    async with api(traefik.answer) as url:
        spec = TraefikSpec(api=url, folder=traefik.folder, timeout=0.5)
        gateway = TraefikGateway(spec, context(tmp_path))
        await gateway.route([Route(SERVICE, TraefikRoute(name="edge", router="shop@docker"))])
        yield gateway
        await gateway.close()


async def turn(gateway: TraefikGateway, valve: Valve, before: Valve = OPEN_WIDE) -> None:
    await gateway.turn(SERVICE, valve, before=before, lease_s=30, epoch=EPOCH)


async def test_open_a_router_of_higher_priority_has_no_server(
    gateway: TraefikGateway, traefik: Traefik
) -> None:
    assert (await gateway.observe())[SERVICE].valve == OPEN_WIDE
    for _ in range(2):
        await turn(gateway, OPEN)
        assert (await gateway.observe())[SERVICE].valve == OPEN
    http = traefik.written()
    router = http["routers"]["prunella-web"]
    assert router == {
        "rule": RULE,
        "entryPoints": ["web"],
        "priority": len(RULE) + 1,
        "service": "prunella-web-away",
        "middlewares": ["auth@docker", "limit@file", "prunella-web"],
    }
    assert http["services"]["prunella-web-away"]["loadBalancer"]["servers"] == []
    after = http["middlewares"]["prunella-web"]["headers"]["customResponseHeaders"]
    assert after == {"Retry-After": "30"}
    for _ in range(2):
        await turn(gateway, OPEN_WIDE, OPEN)
    assert [*traefik.folder.iterdir()] == []


async def test_a_share_is_a_weight(gateway: TraefikGateway, traefik: Traefik) -> None:
    await turn(gateway, Valve(10))
    assert (await gateway.observe())[SERVICE].valve == Valve(10)
    http = traefik.written()
    assert http["routers"]["prunella-web"]["service"] == "prunella-web-part"
    assert http["services"]["prunella-web-part"]["weighted"]["services"] == [
        {"name": "shop@docker", "weight": 10},
        {"name": "prunella-web-away", "weight": 90},
    ]
    with pytest.raises(ConflictError):
        await turn(gateway, OPEN)


async def test_requests_go_to_a_fallback(gateway: TraefikGateway, traefik: Traefik) -> None:
    route = TraefikRoute(name="edge", router="shop@docker")
    await gateway.route([Route(SERVICE, route, fallback="spare@docker")])
    await turn(gateway, OPEN)
    http = traefik.written()
    assert http["routers"]["prunella-web"]["service"] == "spare@docker"
    assert http["services"] == {}


async def test_what_is_not_taken_up_is_taken_back(
    gateway: TraefikGateway, traefik: Traefik
) -> None:
    traefik.deaf = True
    with pytest.raises(TransientError, match="did not take up"):
        await turn(gateway, OPEN)
    assert [*traefik.folder.iterdir()] == []


async def test_what_it_cannot_do_is_refused(gateway: TraefikGateway, traefik: Traefik) -> None:
    with pytest.raises(PermanentError):
        await turn(gateway, Valve(shut=frozenset({"a"})))
    await gateway.route([Route(SERVICE, TraefikRoute(name="edge", router="lost@docker"))])
    assert await gateway.observe() == {}
    with pytest.raises(PermanentError, match="no router lost@docker"):
        await turn(gateway, OPEN)
    (remark,) = await gateway.examine()
    assert remark.fault
    traefik.folder.rmdir()
    (remark,) = await gateway.examine()
    assert str(traefik.folder) in remark.message


async def test_a_folder_that_has_gone_is_said(gateway: TraefikGateway, traefik: Traefik) -> None:
    traefik.folder.rmdir()
    with pytest.raises(PermanentError, match="cannot be written"):
        await turn(gateway, OPEN)


@pytest.fixture
def full(traefik: Traefik) -> Iterator[None]:
    """There is no room for one more file in the folder, but for what is in the ballast."""
    folder = str(traefik.folder)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # what a quota does
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return
    with suppress(OSError), (traefik.folder / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    yield
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.usefixtures("full")
async def test_a_full_disk_leaves_everything_as_it_was(
    gateway: TraefikGateway, traefik: Traefik
) -> None:
    with pytest.raises(TransientError, match="cannot be written"):
        await turn(gateway, OPEN)
    assert {file.name for file in traefik.folder.iterdir()} <= {"ballast"}
    assert (await gateway.observe())[SERVICE].valve == OPEN_WIDE


@pytest.mark.parametrize("said", [[], 1, {"routers": {"shop@docker": 1, "prunella-web@file": 1}}])
async def test_garbage_is_trouble(tmp_path: Path, said: Any) -> None:
    async with saying(json.dumps(said).encode()) as url:
        gateway = TraefikGateway(TraefikSpec(api=url, folder=tmp_path), context(tmp_path))
        await gateway.route([Route(SERVICE, TraefikRoute(name="edge", router="shop@docker"))])
        with pytest.raises(TransientError):
            await gateway.observe()
        await gateway.close()
