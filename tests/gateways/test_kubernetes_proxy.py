"""Requests to the address of a Service, as kube-proxy leads them: do they follow a circuit?

Collected only where the folder of ``$KUBEBUILDER_ASSETS`` holds a kube-proxy as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.gateways.kube_world import World, eventually
from tests.real.images import Release
from tests.real.kubernetes import OwnKubernetes
from tests.real.proxy import Caller

from prunella.core.model import Epoch, ServiceId
from prunella.core.traffic import OPEN_WIDE, Valve
from prunella.kube.kinds import SERVICE
from prunella.ports import Route

WEB = ServiceId("web")


@pytest.fixture(scope="module")
def caller(own_kubernetes: OwnKubernetes) -> Caller:
    return Caller(own_kubernetes)


@pytest.fixture
async def world(own_kubernetes: OwnKubernetes) -> AsyncIterator[World]:
    own = own_kubernetes
    namespace = await asyncio.to_thread(own.namespace)
    yield World(
        own, namespace, lambda name: own.make_image(f"web:{name}", Release(version=name)), own=own
    )
    await asyncio.to_thread(own.forget, namespace)


async def test_requests_follow_a_circuit_and_a_pod_that_is_shut(
    world: World, caller: Caller, tmp_path: Path
) -> None:
    await world.make_service()
    for name in ("a", "b"):
        await world.make_pod(name, gated=True)
    gateway = world.gateway(tmp_path)
    await gateway.route([Route(WEB, world.route(service="web"))])
    address = (await world.get(SERVICE, "web"))["spec"]["clusterIP"]
    present = OPEN_WIDE

    async def answers() -> set[str]:
        """Of so many requests that one of two pods is hardly ever left out."""
        return {await asyncio.to_thread(caller.ask, address) for _ in range(16)}

    async def comes_to(valve: Valve, expected: set[str]) -> None:
        nonlocal present
        if valve != present:
            await gateway.turn(WEB, valve, before=present, lease_s=60, epoch=Epoch(1))
        present = valve

        async def so() -> bool:
            await gateway.observe()
            return await answers() == expected

        await eventually(so)
        assert await answers() == expected, "and it stays so"

    both = {"a", "b"}
    await comes_to(OPEN_WIDE, both)
    await comes_to(Valve(0), {""})
    await comes_to(OPEN_WIDE, both)
    await comes_to(Valve(shut=frozenset({"a"})), {"b"})
    await comes_to(OPEN_WIDE, both)
    await gateway.close()
