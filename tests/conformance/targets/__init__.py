"""One module per kind of platform: a running target, and what only a test may do to it.

A module has ``async def target(folder, stack, request) -> Bench``. What it starts it hands to
`stack`; real components come as fixtures by ``request.getfixturevalue``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import psutil
import pytest

from prunella.core.model import Fact, Instance, ServiceId
from prunella.plugins import PlatformContext
from prunella.ports import Platform
from prunella.runtime.clock import SystemClock

SERVICE = ServiceId("web")


@dataclass
class Bench:
    """One platform in front of a target with one running instance.

    Attributes:
        kill: end an instance's process, as if it had crashed.
        lives: whether exactly this run is still there, whatever the platform says.
        blind: the same platform in front of a target that cannot be read.
        tells_facts: it says by itself what happens to its instances.
        shows_each: each replica is an instance; else one instance stands for all of them.
        count: how many instances really run; None: the platform cannot scale.
        rescale: somebody else sets another number of instances.
        deploy: somebody else deploys the other version; it runs when this returns. None: the
            platform knows no versions.
    """

    platform: Platform
    kill: Callable[[Instance], Awaitable[None]]
    lives: Callable[[Instance], Awaitable[bool]]
    blind: Callable[[], Platform]
    tells_facts: bool
    facts: list[Fact] = field(default_factory=list[Fact])
    shows_each: bool = True
    count: Callable[[], Awaitable[int]] | None = None
    rescale: Callable[[int], Awaitable[None]] | None = None
    deploy: Callable[[], Awaitable[None]] | None = None


Target = Callable[[Path, AsyncExitStack, pytest.FixtureRequest], Awaitable[Bench]]


def target_of(kind: str) -> Target:
    """The target for a kind of platform. Raises ModuleNotFoundError: it has none yet."""
    found: Target = import_module(f"{__name__}.{kind.replace('-', '_')}").target
    return found


def context(folder: Path, facts: list[Fact]) -> PlatformContext:
    return PlatformContext(SERVICE, SystemClock(), folder, facts.append)


async def kill_pid_of_identity(instance: Instance) -> None:
    os.kill(int(instance.identity.split("@")[0]), signal.SIGKILL)


async def pid_of_identity_lives(instance: Instance) -> bool:
    return psutil.Process(int(instance.identity.split("@")[0])).status() != psutil.STATUS_ZOMBIE
