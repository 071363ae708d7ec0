"""What the targets on a Docker Engine have in common."""

import asyncio
import os
import signal
from collections.abc import Callable

from tests.conformance.targets import SERVICE
from tests.real.engine import Engine

from prunella.core.model import Action, ActionKind, Epoch, Instance
from prunella.ports import Platform


async def kill_process(instance: Instance) -> None:
    os.kill(instance.pids[0], signal.SIGKILL)


async def run_lives(engine: Engine, instance: Instance) -> bool:
    container, _, started = instance.identity.partition("@")
    form = "{{.State.Running}} {{.State.StartedAt}}"
    now = await asyncio.to_thread(engine.docker, "inspect", "--format", form, container)
    return now == f"true {started}"


async def running_count(engine: Engine) -> int:
    return len((await asyncio.to_thread(engine.docker, "ps", "--quiet")).split())


async def scale_as_somebody_else(other: Platform, replicas: int) -> None:
    before = (await other.observe()).desired
    kind = ActionKind.SCALE_UP if replicas > before else ActionKind.SCALE_DOWN
    action = Action(kind, SERVICE, replicas=replicas, before=str(before))
    await other.execute(action, epoch=Epoch(1))


async def met(condition: Callable[[], bool]) -> None:
    """Wait until it holds, 30 s at most."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what other processes do has no event
            await asyncio.sleep(0.005)
