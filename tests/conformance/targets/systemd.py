"""Platform ``systemd``: a numbered instance of a template, on a real systemd in a container."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.targets import Bench, context
from tests.real.systemd import Systemd

from prunella.core.model import Fact, Instance
from prunella.plugins import platforms
from prunella.ports import Platform

UNIT = "[Service]\nExecStart=/bin/sleep infinity\n[Unit]\nStartLimitIntervalSec=0\n"


async def target(folder: Path, stack: AsyncExitStack, request: pytest.FixtureRequest) -> Bench:
    machine: Systemd = request.getfixturevalue("systemd")
    plugin, facts = platforms()["systemd"], list[Fact]()

    async def systemctl(*argv: str) -> str:
        return await asyncio.to_thread(machine.systemctl, *argv)

    def build(bus: str) -> Platform:
        spec = plugin.spec.model_validate({"unit": "web@1.service", "bus": bus})
        return plugin.build(spec, context(folder, facts))

    async def kill(instance: Instance) -> None:
        await systemctl("kill", "--signal", "KILL", instance.id)

    async def lives(instance: Instance) -> bool:
        return await systemctl("show", "--value", "-p", "InvocationID", instance.id) == (
            instance.identity
        )

    async def count() -> int:
        shown = await systemctl("list-units", "--plain", "--no-legend", "web@*.service")
        return len(shown.splitlines())

    async def rescale(replicas: int) -> None:
        names = [f"web@{number}.service" for number in range(1, replicas + 1)]
        await systemctl("start", *names)

    await asyncio.to_thread(machine.write_unit, "web@.service", UNIT)
    await rescale(1)
    platform = build(machine.address())
    stack.push_async_callback(platform.close)
    await platform.observe()
    return Bench(
        platform,
        kill,
        lives,
        lambda: build(f"unix:path={folder}/no-bus"),
        tells_facts=True,
        facts=facts,
        count=count,
        rescale=rescale,
    )
