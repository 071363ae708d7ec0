"""Platform ``compose``: a project that the real Compose has brought up on a real Engine."""

import asyncio
import json
import os
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.targets import Bench, context
from tests.conformance.targets._docker import kill_process, met, run_lives, running_count
from tests.real.engine import Engine
from tests.real.images import Release, make_image

from prunella.core.model import Fact, FactKind
from prunella.plugins import platforms
from prunella.ports import Platform


class Project:
    """A project ``shop`` with one service ``web``, and its owner at the command line."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._file = folder / "compose.json"

    async def up(self, image: str, replicas: int = 1) -> None:
        content = {"version": "3", "services": {"web": {"image": image, "stop_grace_period": "2s"}}}
        self._file.write_text(json.dumps(content))
        await asyncio.to_thread(self._run, "up", "--detach", "--scale", f"web={replicas}")

    async def down(self) -> None:
        await asyncio.to_thread(self._run, "down", "--timeout", "1")

    def _run(self, *argv: str) -> None:
        done = subprocess.run(
            ["docker-compose", "--project-name", "shop", "--file", str(self._file), *argv],
            env={**os.environ, "DOCKER_HOST": f"unix://{self._engine.socket}"},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()


async def target(folder: Path, stack: AsyncExitStack, request: pytest.FixtureRequest) -> Bench:
    engine: Engine = request.getfixturevalue("docker")
    project = Project(engine, folder)
    stack.push_async_callback(project.down)  # with its network
    make_image(engine, "shop:1")
    await project.up("shop:1")
    plugin, facts = platforms()["compose"], list[Fact]()
    body = {"project": "shop", "service": "web", "host": f"unix://{engine.socket}", "timeout": 5}

    def build(**other: object) -> Platform:
        platform = plugin.build(plugin.spec.model_validate(body | other), context(folder, facts))
        stack.push_async_callback(platform.close)
        return platform

    async def deploy() -> None:
        await asyncio.to_thread(make_image, engine, "shop:2", Release(version="2"))
        await project.up("shop:2")
        await met(lambda: any(fact.kind is FactKind.CHANGED for fact in facts))

    return Bench(
        build(),
        kill_process,
        lambda instance: run_lives(engine, instance),
        lambda: build(host=f"unix://{folder}/no.sock"),
        tells_facts=True,
        facts=facts,
        count=lambda: running_count(engine),
        rescale=lambda replicas: project.up("shop:1", replicas),
        deploy=deploy,
    )
