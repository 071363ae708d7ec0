"""Fixtures for probes: contexts, servers, a way to build any probe, and a wait with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from prunella import plugins
from prunella.core.model import ServiceId
from prunella.plugins import ProbeContext
from prunella.ports import Probe
from prunella.runtime.clock import SystemClock
from prunella.testing.toxic import Behaviour, ToxicServer

Build = Callable[..., Probe]
Serve = Callable[[Behaviour], Awaitable[ToxicServer]]


@pytest.fixture
def clock() -> SystemClock:
    return SystemClock()


@pytest.fixture
async def build(clock: SystemClock) -> AsyncIterator[Build]:
    """Build a probe of a kind from its keys; it is closed at the end."""
    made: list[Probe] = []

    def make(kind: str, pids: tuple[int, ...] = (), **keys: Any) -> Probe:
        plugin = plugins.probes()[kind]
        context = ProbeContext(ServiceId("web"), clock, lambda _of: pids)
        made.append(plugin.build(plugin.spec.model_validate(keys), context))
        return made[-1]

    yield make
    for probe in made:
        await probe.close()


@pytest.fixture
async def serve(clock: SystemClock) -> AsyncIterator[Serve]:
    """Start a server with one behaviour; it ends with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(behaviour: Behaviour) -> ToxicServer:
            return await stack.enter_async_context(ToxicServer(behaviour, clock).listening())

        yield start


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait until a condition holds, at most 5 s."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - any condition, also of other processes
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def descriptors() -> Callable[[], int]:
    """How many file descriptors this process has open."""
    return lambda: sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def states() -> Callable[[int], Mapping[int, str]]:
    """The kernel's state letter of each process of a session, by pid."""

    def read(session: int) -> Mapping[int, str]:
        found: dict[int, str] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    found[int(stat.parent.name)] = fields[0]
        return found

    return read


@pytest.fixture
def out_of_descriptors() -> Iterator[Callable[[], None]]:
    """Leave this process no file descriptor to open, until the end of the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def exhaust() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))

    yield exhaust
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for fd in taken:
        os.close(fd)


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
