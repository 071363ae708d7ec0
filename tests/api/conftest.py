from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from prunella.api.server import ApiServer
from prunella.testing.orchestrator import ScriptedOrchestrator, service
from prunella.wire import ServiceHealth


@dataclass(frozen=True)
class Served:
    """A scripted orchestrator, and where its API listens."""

    orchestrator: ScriptedOrchestrator
    server: ApiServer
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def example_services() -> tuple[ServiceHealth, ServiceHealth]:
    return service("web"), service(
        "db", "failed", symptom="down", restart_count=2, detail="refused"
    )


@pytest.fixture(scope="session")
def serving() -> Iterator[Served]:
    orchestrator = ScriptedOrchestrator()
    orchestrator.open()
    server = ApiServer(orchestrator, "127.0.0.1", 0)
    try:
        _, port = asyncio.run(server.start())
        yield Served(orchestrator, server, port)
        asyncio.run(server.stop())
    finally:
        orchestrator.close()


@pytest.fixture
def served(serving: Served) -> Served:
    serving.orchestrator.begin_anew(*example_services())
    return serving


@pytest.fixture(scope="session")
def connected(serving: Served) -> Iterator[httpx.Client]:
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=serving.url, headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture
def client(connected: httpx.Client, served: Served) -> httpx.Client:
    assert connected.base_url.port == served.port
    return connected
