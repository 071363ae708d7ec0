"""A Service of the fake cluster, in front of two pods with a readiness gate."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.gateways import SERVICE, Answer, Bench, context, route
from tests.gateways.kube_world import GATE, World, eventually
from tests.real.kubernetes import Kubernetes
from tests.real.web import Web, web

from prunella.gateways.kubernetes import KubernetesGateway, KubernetesGatewaySpec
from prunella.kube.kinds import POD
from prunella.testing.kube import FakeCluster


async def target(folder: Path, stack: AsyncExitStack, _request: pytest.FixtureRequest) -> Bench:
    fake = await stack.enter_async_context(FakeCluster())
    servers = await stack.enter_async_context(web("a", "b"))
    world = World(Kubernetes(fake.kubeconfig(folder)), "default", lambda name: f"{name}:1", fake)
    world.addresses = {one.name: f"127.0.0.1:{one.port}" for one in servers}
    bench = await bench_of(world, folder, stack, servers)

    async def restart() -> None:
        await fake.stop()
        await fake.start()

    def freeze(frozen: bool) -> None:  # noqa: FBT001 - as in `Bench`
        if frozen:
            fake.freeze()
        else:
            fake.thaw()

    bench.restart, bench.dead, bench.freeze = restart, fake.stop, freeze
    return bench


async def bench_of(world: World, folder: Path, stack: AsyncExitStack, servers: list[Web]) -> Bench:
    """A bench whose cluster cannot be ended yet."""
    await world.make_service()
    for name in ("a", "b"):
        await world.make_pod(name, gated=True)

    async def again() -> KubernetesGateway:
        section = {"kubeconfig": world.api.kubeconfig, "timeout": "8s"}
        gateway = KubernetesGateway(KubernetesGatewaySpec.model_validate(section), context(folder))
        stack.push_async_callback(gateway.close)
        await gateway.route([route(world.route(service="web"), [])])
        return gateway

    async def ask() -> Answer:
        status, body = await world.ask()
        return Answer(status, body)

    async def shut_by_hand(server: str, shut: bool) -> None:  # noqa: FBT001 - as in `Bench`
        found = (await world.get(POD, server))["status"]["conditions"]
        others = [one for one in found if one["type"] != GATE]
        told = {"type": GATE, "status": "False" if shut else "True", "reason": "Somebody"}
        body = {"status": {"conditions": [*others, told]}}
        await world.merge(POD, server, body, sub="status")

        async def seen() -> bool:  # watches tell it a moment later
            return (server in (await gateway.observe())[SERVICE].valve.shut) == shut

        await eventually(seen)

    async def not_yet() -> None:
        raise NotImplementedError

    gateway = await again()
    await gateway.observe()

    async def served() -> bool:
        return len(await world.endpoints()) == 2

    await eventually(served)
    return Bench(
        gateway,
        ask,
        again,
        not_yet,
        not_yet,
        ends_by_itself=False,
        servers=servers,
        shut_by_hand=shut_by_hand,
        counts=False,
        counts_servers=False,
        answers=False,
        hears=True,
    )
