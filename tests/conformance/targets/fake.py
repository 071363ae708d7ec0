"""The fake platform of ``prunella.testing``: it obeys what the real ones obey."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.targets import SERVICE, Bench

from prunella.core.model import Fact, Instance
from prunella.ports import Platform
from prunella.testing.clock import SimClock
from prunella.testing.platform import FakePlatform


async def target(folder: Path, stack: AsyncExitStack, request: pytest.FixtureRequest) -> Bench:
    facts = list[Fact]()
    platform = FakePlatform(SERVICE, SimClock(), on_fact=facts.append)
    await platform.ensure()

    def blind() -> Platform:
        broken = FakePlatform(SERVICE, SimClock())
        broken.break_observe()
        return broken

    async def kill(instance: Instance) -> None:
        platform.crash(instance.id)

    async def lives(instance: Instance) -> bool:
        return platform.run_of(instance.id) == instance

    async def count() -> int:
        return len((await platform.observe()).instances)

    async def rescale(replicas: int) -> None:
        platform.rescale(replicas)

    async def deploy() -> None:
        platform.deploy("v2")

    return Bench(
        platform,
        kill,
        lives,
        blind,
        tells_facts=True,
        facts=facts,
        count=count,
        rescale=rescale,
        deploy=deploy,
    )
