"""Platform ``swarm``: a service on a real swarm of one node, and a person with Docker's client."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.targets import Bench, context
from tests.conformance.targets._docker import kill_process
from tests.real.engine import Engine
from tests.real.images import Release, make_image

from prunella.core.model import Fact, Instance
from prunella.plugins import platforms
from prunella.ports import Platform


async def target(folder: Path, stack: AsyncExitStack, request: pytest.FixtureRequest) -> Bench:
    engine: Engine = request.getfixturevalue("swarm")
    make_image(engine, "shop:1")
    make_image(engine, "shop:2", Release(version="2"))
    create = ("service", "create", "--detach", "--name", "shop_web", "--stop-grace-period", "2s")
    engine.docker(*create, "--publish", "mode=host,target=80", "shop:1")
    plugin, facts = platforms()["swarm"], list[Fact]()
    body = {"service": "shop_web", "host": f"unix://{engine.socket}", "timeout": 10}

    async def run(*argv: str) -> str:
        return await asyncio.to_thread(engine.docker, "service", *argv)

    async def running(image: str = "") -> list[str]:
        form = "{{.ID}} {{.Image}} {{.CurrentState}}"
        rows = await run("ps", "--no-trunc", "--format", form, "shop_web")
        found = [row.split() for row in rows.splitlines()]
        return [row[0] for row in found if row[2] == "Running" and image in row[1]]

    async def until_running(image: str, count: int) -> None:
        async with asyncio.timeout(30):
            while (  # noqa: ASYNC110 - what a swarm does has no event here
                len(await running(image)) != count or len(await running()) != count
            ):
                await asyncio.sleep(0.1)

    def build(**other: object) -> Platform:
        platform = plugin.build(plugin.spec.model_validate(body | other), context(folder, facts))
        stack.push_async_callback(platform.close)
        return platform

    async def deploy() -> None:
        await run("update", "--detach", "--image", "shop:2", "shop_web")
        await until_running("shop:2", 1)

    async def rescale(replicas: int) -> None:
        await run("scale", "--detach", f"shop_web={replicas}")

    async def lives(instance: Instance) -> bool:
        return instance.identity in await running()

    async def count() -> int:
        return len(await running())

    await until_running("shop:1", 1)
    return Bench(
        build(),
        kill_process,
        lives,
        lambda: build(host=f"unix://{folder}/no.sock"),
        tells_facts=True,
        facts=facts,
        count=count,
        rescale=rescale,
        deploy=deploy,
    )
