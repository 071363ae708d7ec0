"""What other machines may ask: how Prunella is, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

import httpx
import pytest
from fastapi.routing import APIRoute

import prunella.api
from prunella.api.server import MonitoringServer
from prunella.errors import PermanentError
from prunella.testing.orchestrator import ScriptedOrchestrator, service

OPEN = {"/metrics", "/healthz", "/readyz"}
CLOSED = {
    (method, route.path)
    for module in iter_modules(prunella.api.__path__, "prunella.api.")
    for route in getattr(getattr(import_module(module.name), "ROUTER", None), "routes", ())
    if isinstance(route, APIRoute) and route.path not in OPEN
    for method in route.methods or ()
}


@pytest.fixture
def orchestrator() -> Iterator[ScriptedOrchestrator]:
    orchestrator = ScriptedOrchestrator(service("web"))
    orchestrator.open()
    yield orchestrator
    orchestrator.close()


@pytest.fixture
def client(orchestrator: ScriptedOrchestrator) -> Iterator[httpx.Client]:
    """As the kubelet asks: at an address of the pod, which is what the Host header says."""
    server = MonitoringServer(orchestrator, "0.0.0.0", 0)
    _, port = asyncio.run(server.start())
    headers = {"Host": "10.88.0.7:9110", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        yield client
    asyncio.run(server.stop())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.parametrize("path", sorted(OPEN))
def test_says_how_we_are_to_whoever_asks(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200


def test_says_what_is_amiss(client: httpx.Client, orchestrator: ScriptedOrchestrator) -> None:
    orchestrator.reasons = ["the store is full"]
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["the store is full"])


@pytest.mark.parametrize(("method", "path"), sorted(CLOSED))
def test_gives_no_orders_and_tells_no_history(
    client: httpx.Client, orchestrator: ScriptedOrchestrator, method: str, path: str
) -> None:
    answer = client.request(method, path.format(service="web", action=1), json={})
    assert (answer.status_code, orchestrator.held, orchestrator.actions) == (404, [], [])


@pytest.mark.parametrize("path", ["/", "/docs", "/api/v1/openapi.json", "/openapi.json"])
def test_does_not_describe_itself(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_is_only_read(client: httpx.Client, method: str) -> None:
    assert client.request(method, "/readyz", json={}).status_code == 405


def test_a_port_in_use_is_named_with_where_to_change_it(orchestrator: ScriptedOrchestrator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PermanentError, match=r"choose another port with api: \{monitoring: "):
            asyncio.run(MonitoringServer(orchestrator, "127.0.0.1", port).start())
