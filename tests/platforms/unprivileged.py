"""Run as root, becomes a user without rights: what the platform then says and may do."""

import asyncio
import os
import sys
from pathlib import Path

import dbus_fast.aio  # noqa: F401 - what is needed later must be loaded while it can be read

from prunella.core.model import Action, ActionKind, Epoch, ServiceId
from prunella.errors import PermanentError
from prunella.platforms.systemd import SystemdPlatform, SystemdSpec
from prunella.plugins import PlatformContext
from prunella.runtime.clock import SystemClock


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


async def main(bus: str) -> None:
    service = ServiceId("shop")
    context = PlatformContext(service, SystemClock(), Path("/nowhere"), lambda _fact: None)
    platform = SystemdPlatform(SystemdSpec(unit="shop", bus=bus), context)
    (instance,) = (await platform.observe()).instances
    say(instance.state)
    for remark in await platform.examine():
        say(f"{'fault' if remark.fault else 'doubt'} {remark.message}")
    restart = Action(ActionKind.RESTART, service, instance.id, instance.identity)
    try:
        await platform.execute(restart, epoch=Epoch(1))
    except PermanentError as error:
        say(str(error))
    await platform.close()


asyncio.run(asyncio.to_thread(int))  # loads what threads need
os.chdir(Path(sys.argv[1]).parent)  # others than root could not pass the folders above
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
asyncio.run(main(f"unix:path={Path(sys.argv[1]).name}"))
