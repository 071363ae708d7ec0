"""A Service of a real cluster, in front of two real pods with a readiness gate."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.gateways import Bench
from tests.conformance.gateways.kubernetes import bench_of
from tests.gateways.kube_world import World
from tests.real.freeze import freeze, thaw
from tests.real.images import Release
from tests.real.kubernetes import OwnKubernetes


async def target(folder: Path, stack: AsyncExitStack, request: pytest.FixtureRequest) -> Bench:
    own: OwnKubernetes = request.getfixturevalue("own_kubernetes")
    namespace = await asyncio.to_thread(own.namespace)
    stack.callback(own.forget, namespace)

    def image(name: str) -> str:
        return own.make_image(f"web:{name}", Release(version=name))

    bench = await bench_of(World(own, namespace, image, own=own), folder, stack, [])

    async def restart() -> None:
        await asyncio.to_thread(own.kill_api)
        await asyncio.to_thread(own.start_api)

    async def dead() -> None:
        await asyncio.to_thread(own.kill_api)
        stack.callback(own.start_api)

    def stand_still(frozen: bool) -> None:  # noqa: FBT001 - as in `Bench`
        pid = own.pid("kube-apiserver")
        if frozen:
            freeze(pid)
        else:
            thaw(pid)

    bench.restart, bench.dead, bench.freeze = restart, dead, stand_still
    return bench
