"""A real Docker Engine with a container on it, and the platform in front of both."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.platforms.engine_proxy import EngineProxy, proxied
from tests.real.engine import Engine

from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    Fact,
    FactKind,
    Instance,
    InstanceState,
    ServiceId,
    Status,
)
from prunella.errors import PrunellaError
from prunella.platforms.docker import DockerPlatform, DockerSpec
from prunella.plugins import PlatformContext
from prunella.runtime.clock import SystemClock

SERVICE = ServiceId("web")
EPOCH = Epoch(1)


class DockerBed:
    """One Engine behind a proxy. Platforms come and go; the containers stay."""

    def __init__(self, engine: Engine, proxy: EngineProxy, folder: Path) -> None:
        self.engine = engine
        self.proxy = proxy
        self.folder = folder
        self.facts: list[Fact] = []
        self.platforms: list[DockerPlatform] = []

    async def docker(self, *argv: str) -> str:
        """What a person does at the command line, beside the proxy."""
        return await asyncio.to_thread(self.engine.docker, *argv)

    async def run(self, *options: str, image: str = "shop:1", command: tuple[str, ...] = ()) -> str:
        return await self.docker("run", "--detach", "--name", "shop", *options, image, *command)

    def build(self, **fields: Any) -> DockerPlatform:
        body = {"container": "shop", "host": self.proxy.host, "timeout": 2} | fields
        context = PlatformContext(SERVICE, SystemClock(), self.folder, self.facts.append)
        self.platforms.append(DockerPlatform(DockerSpec.model_validate(body), context))
        return self.platforms[-1]

    async def names(self) -> list[str]:
        return await asyncio.to_thread(self.engine_names)

    def engine_names(self) -> list[str]:
        return sorted(self.engine.docker("ps", "--all", "--format", "{{.Names}}").split())

    async def inspect(self, form: str, name: str = "shop") -> str:
        return await self.docker("inspect", "--format", form, name)

    def told(self) -> list[FactKind]:
        return [fact.kind for fact in self.facts]

    async def until_told(self, kind: FactKind) -> Fact:
        await met(lambda: kind in self.told())
        return next(fact for fact in self.facts if fact.kind is kind)

    async def end(self) -> None:
        for platform in self.platforms:
            await platform.close()


@asynccontextmanager
async def docker_bed(engine: Engine, folder: Path) -> AsyncIterator[DockerBed]:
    async with proxied(engine.socket, folder / "proxy.sock") as proxy:
        bed = DockerBed(engine, proxy, folder)
        yield bed
        await bed.end()


async def met(condition: Callable[[], object], within_s: float = 15) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what other processes do has no event
            await asyncio.sleep(0.005)


async def one_of(platform: DockerPlatform) -> Instance:
    (instance,) = (await platform.observe()).instances
    return instance


async def seen(
    platform: DockerPlatform, state: InstanceState, count: int = 1, within_s: float = 20
) -> Status:
    """What is there once all `count` instances are in that state, whatever happens until then."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                status = await platform.observe()
            except PrunellaError:
                status = Status((), 0)
            if [one.state for one in status.instances] == [state] * count:
                return status
            await asyncio.sleep(0.01)


async def blinded(platform: DockerPlatform, within_s: float = 15) -> PrunellaError:
    """Why it cannot tell any more, once it cannot."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                await platform.observe()
            except PrunellaError as error:
                return error
            await asyncio.sleep(0.02)


def restart_of(instance: Instance) -> Action:
    return Action(ActionKind.RESTART, SERVICE, instance.id, instance.identity)


def rollback_of(instance: Instance, revision: str) -> Action:
    return Action(
        ActionKind.ROLLBACK,
        SERVICE,
        instance.id,
        instance.identity,
        revision=revision,
        before=instance.revision,
    )


def scaling(kind: ActionKind, before: int, replicas: int) -> Action:
    return Action(kind, SERVICE, replicas=replicas, before=str(before))


def kill(instance: Instance) -> None:
    os.kill(instance.pids[0], signal.SIGKILL)
