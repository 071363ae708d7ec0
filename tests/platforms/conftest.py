"""Process platforms with real children, all of which are gone when the test is."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.platforms.docker_bed import DockerBed, docker_bed
from tests.platforms.systemd_house import House
from tests.real.engine import Engine
from tests.real.images import make_image
from tests.real.systemd import Systemd

from prunella.core.model import Fact, Instance, InstanceState, ServiceId
from prunella.platforms.process import ProcessPlatform, ProcessSpec
from prunella.plugins import PlatformContext
from prunella.ports import Clock
from prunella.runtime.clock import SystemClock

Until = Callable[[Callable[[], object]], Awaitable[None]]
Lives = Callable[[int], bool]
Only = Callable[[ProcessPlatform], Awaitable[Instance]]

collect_ignore = (
    [] if "PRUNELLA_TEST_CONTROLLERS" in os.environ else ["test_kubernetes_controllers.py"]
)

LOOP = "import signal\nwhile True: signal.pause()"


class Bed:
    """One state folder, and every platform that was built on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: list[Fact] = []
        self.told = asyncio.Event()
        self.platforms: list[ProcessPlatform] = []

    def build(self, *code: str, clock: Clock | None = None, **fields: Any) -> ProcessPlatform:
        """A platform; its command runs the Python `code` unless `fields` say otherwise."""
        command = [sys.executable, "-c", "\n".join(code or (LOOP,))]
        spec = ProcessSpec.model_validate({"command": command, "stop_timeout": 5} | fields)
        context = PlatformContext(
            ServiceId("web"), clock or SystemClock(), self.folder, self._on_fact
        )
        self.platforms.append(ProcessPlatform(spec, context))
        return self.platforms[-1]

    def log(self, number: int = 0) -> str:
        return (self.folder / "log" / f"{number}.log").read_text()

    async def end(self) -> None:
        for platform in self.platforms:
            await platform.close()
        if self.platforms:
            await self.platforms[-1].stop()

    def _on_fact(self, fact: Fact) -> None:
        self.facts.append(fact)
        self.told.set()


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    bed = Bed(tmp_path / "state")
    yield bed
    await bed.end()


@pytest.fixture
async def house(systemd: Systemd, tmp_path: Path) -> AsyncIterator[House]:
    house = House(systemd, tmp_path)
    yield house
    await house.close()
    await asyncio.to_thread(systemd.run, "rm", "-f", "/tmp/starts", "/tmp/end")


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds, 10 s at most."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - what other processes do has no event
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def lives() -> Lives:
    """Whether a pid is there and is no zombie."""

    def alive(pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rsplit(")", 1)[1].split()[0] not in "ZX"

    return alive


@pytest.fixture
def only() -> Only:
    """The one instance of a platform."""

    async def instance(platform: ProcessPlatform) -> Instance:
        (one,) = (await platform.observe()).instances
        assert one.state is not InstanceState.RUNNING or os.getsid(one.pids[0]) == one.pids[0]
        return one

    return instance


@pytest.fixture
async def dock(docker: Engine, tmp_path: Path) -> AsyncIterator[DockerBed]:
    """A Docker Engine behind a proxy, with the image shop:1 and no container yet."""
    make_image(docker, "shop:1")
    async with docker_bed(docker, tmp_path) as bed:
        yield bed
