"""Platform ``process``: a Python that waits for signals."""

import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.targets import (
    SERVICE,
    Bench,
    context,
    kill_pid_of_identity,
    pid_of_identity_lives,
)

from prunella.core.model import Action, ActionKind, Epoch, Fact
from prunella.platforms._proc import marked_processes
from prunella.plugins import platforms
from prunella.ports import Platform, SupportsLifecycle
from prunella.runtime.clock import SystemClock

LOOP = [sys.executable, "-c", "import signal\nwhile True: signal.pause()"]


async def target(folder: Path, stack: AsyncExitStack, request: pytest.FixtureRequest) -> Bench:
    plugin, facts = platforms()["process"], list[Fact]()
    platform = plugin.build(plugin.spec.model_validate({"command": LOOP}), context(folder, facts))
    assert isinstance(platform, SupportsLifecycle)
    stack.push_async_callback(platform.close)
    stack.push_async_callback(platform.stop)
    await platform.ensure()

    def blind() -> Platform:
        never_looked = plugin.spec.model_validate({"command": LOOP})
        return plugin.build(never_looked, context(folder / "other", facts))

    async def count() -> int:
        mark, boot = (folder / "instance-id").read_text(), SystemClock().boot
        found = (marked_processes(f"PRUNELLA_INSTANCE={mark}:{n}", "", boot) for n in range(9))
        return sum(len(search.marked) for search in found)

    async def rescale(replicas: int) -> None:
        present = len((await platform.observe()).instances)
        theirs = Action(ActionKind.SCALE_UP, SERVICE, replicas=replicas, before=str(present))
        await platform.execute(theirs, epoch=Epoch(1))

    return Bench(
        platform,
        kill_pid_of_identity,
        pid_of_identity_lives,
        blind,
        tells_facts=True,
        facts=facts,
        count=count,
        rescale=rescale,
    )
