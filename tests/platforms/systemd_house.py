"""Units of a real systemd, and platforms in front of them."""

import asyncio
from pathlib import Path
from typing import Any

from tests.real.systemd import Bus, Systemd

from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    Fact,
    FactKind,
    Instance,
    InstanceState,
    ServiceId,
)
from prunella.platforms.systemd import SystemdPlatform, SystemdSpec
from prunella.plugins import PlatformContext
from prunella.runtime.clock import SystemClock

SERVICE = ServiceId("shop")
SLEEP = "[Service]\nExecStart=/bin/sleep infinity\n"
EXITED, RUNNING, STOPPED = InstanceState.EXITED, InstanceState.RUNNING, InstanceState.STOPPED


def shell(script: str, *lines: str) -> str:
    """A unit that runs a shell script, with further lines for its [Service] section."""
    quoted = script.replace('"', '\\"')
    return "\n".join(["[Service]", f'ExecStart=/bin/sh -c "{quoted}"', *lines, ""])


COUNTED = """
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStartPre=/bin/sh -c "echo x >> /tmp/starts"
ExecStart=/bin/sleep infinity
ExecStopPost=/bin/sleep 0.2
"""


class House:
    """A systemd, and the platforms that a test builds on it."""

    def __init__(self, machine: Systemd, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        self.facts: list[Fact] = []
        self.platforms: list[SystemdPlatform] = []

    def build(self, unit: str = "shop.service", **fields: Any) -> SystemdPlatform:
        spec = SystemdSpec.model_validate({"bus": self.machine.address(), "unit": unit} | fields)
        context = PlatformContext(SERVICE, SystemClock(), self.folder, self.facts.append)
        self.platforms.append(SystemdPlatform(spec, context))
        return self.platforms[-1]

    async def write(self, text: str, unit: str = "shop.service", bus: Bus = "system") -> None:
        await asyncio.to_thread(lambda: self.machine.write_unit(unit, text, bus=bus))

    async def systemctl(self, *argv: str, bus: Bus = "system") -> str:
        return await asyncio.to_thread(lambda: self.machine.systemctl(*argv, bus=bus))

    async def show(self, prop: str, unit: str = "shop.service") -> str:
        return await self.systemctl("show", "--value", "--property", prop, unit)

    async def running(self, text: str = SLEEP, **fields: Any) -> SystemdPlatform:
        """A platform in front of a unit that was started, and that it has seen."""
        await self.write(text)
        await self.systemctl("start", "shop.service")
        platform = self.build(**fields)
        await platform.observe()
        return platform

    async def starts(self) -> int:
        """How often COUNTED units were started in this test."""
        return len((await asyncio.to_thread(self.machine.run, "cat", "/tmp/starts")).split())

    async def close(self) -> None:
        for platform in self.platforms:
            await platform.close()

    def told(self) -> list[FactKind]:
        return [fact.kind for fact in self.facts]


async def look(platform: SystemdPlatform) -> Instance:
    (instance,) = (await platform.observe()).instances
    return instance


async def look_until(
    platform: SystemdPlatform, state: InstanceState, detail: str | None = None
) -> Instance:
    """Look until it is so; no detail means any."""
    async with asyncio.timeout(30):
        while (  # noqa: ASYNC110 - systemd is another process
            instance := await look(platform)
        ).state is not state or detail not in (None, instance.detail):
            await asyncio.sleep(0.005)
    return instance


def restart_of(instance: Instance) -> Action:
    return Action(ActionKind.RESTART, SERVICE, instance.id, instance.identity)


async def restart(platform: SystemdPlatform) -> None:
    await platform.execute(restart_of(await look(platform)), epoch=Epoch(1))
