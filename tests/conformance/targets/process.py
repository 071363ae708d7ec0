"""Platform ``process``: a Python that waits for signals."""

import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.targets import (
    Bench,
    context,
    kill_pid_of_identity,
    pid_of_identity_lives,
)

from prunella.core.model import Fact
from prunella.plugins import platforms
from prunella.ports import Platform, SupportsLifecycle

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

    return Bench(
        platform, kill_pid_of_identity, pid_of_identity_lives, blind, tells_facts=True, facts=facts
    )
