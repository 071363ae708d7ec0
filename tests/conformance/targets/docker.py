"""Platform ``docker``: one container of a real Engine, and a person with Docker's own client."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.targets import Bench, context
from tests.conformance.targets._docker import (
    kill_process,
    met,
    run_lives,
    running_count,
    scale_as_somebody_else,
)
from tests.real.engine import Engine
from tests.real.images import Release, make_image

from prunella.core.model import Fact, FactKind
from prunella.plugins import platforms
from prunella.ports import Platform


async def target(folder: Path, stack: AsyncExitStack, request: pytest.FixtureRequest) -> Bench:
    engine: Engine = request.getfixturevalue("docker")
    run = ("run", "--detach", "--name", "shop")
    make_image(engine, "shop:1")
    engine.docker(*run, "shop:1")
    plugin, facts = platforms()["docker"], list[Fact]()
    body = {"container": "shop", "host": f"unix://{engine.socket}", "timeout": 5}

    def build(facts: list[Fact], **other: object) -> Platform:
        platform = plugin.build(plugin.spec.model_validate(body | other), context(folder, facts))
        stack.push_async_callback(platform.close)
        return platform

    async def deploy() -> None:
        await asyncio.to_thread(make_image, engine, "shop:2", Release(version="2"))
        await asyncio.to_thread(engine.docker, "rm", "--force", "shop")
        await asyncio.to_thread(engine.docker, *run, "shop:2")
        await met(
            lambda: any(f.kind is FactKind.CHANGED and "removed" not in f.detail for f in facts)
        )

    return Bench(
        build(facts),
        kill_process,
        lambda instance: run_lives(engine, instance),
        lambda: build([], host=f"unix://{folder}/no.sock"),
        tells_facts=True,
        facts=facts,
        count=lambda: running_count(engine),
        rescale=lambda replicas: scale_as_somebody_else(build([]), replicas),
        deploy=deploy,
    )
