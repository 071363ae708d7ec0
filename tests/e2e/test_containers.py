"""From a fault in a real container to the history of how it was healed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.platforms.engine_proxy import Fault, proxied
from tests.real.engine import Engine, missing, running
from tests.real.images import Release, make_image

from prunella.config import from_mapping
from prunella.runtime.orchestrator import SelfHealingOrchestrator
from prunella.testing.site import Site, free_port
from prunella.testing.site import until as until_met
from prunella.wire import HealingAction

pytestmark = pytest.mark.e2e

WEB = ("--name", "web", "--stop-timeout", "1")


@asynccontextmanager
async def watched(
    folder: Path, platform: str, *, url: str = "http://{address}:{port}/", **section: Any
) -> AsyncIterator[SelfHealingOrchestrator]:
    """The service ``shop``, watched at a fast pace."""
    service = {
        "platform": platform,
        platform: section,
        "probes": [{"kind": "http", "url": url}],
        "release": {"soak": "2s"},
    }
    defaults = {
        "interval": "100ms",
        "grace": "3s",
        "verify": {"soak": "500ms", "rollback_soak": "500ms", "deadline": "30s"},
        "guards": {"backoff": {"base": "50ms", "cap": "400ms"}, "budget": {"actions": 20}},
    }
    config = from_mapping(
        {
            "store": f"sqlite:///{folder}/prunella.db",
            "state_dir": str(folder / "state"),
            "api": "off",
            "defaults": defaults,
            "services": {"shop": service},
        }
    )
    async with SelfHealingOrchestrator(config) as orchestrator:
        await until(lambda: orchestrator.get_system_health().healthy == 1)
        yield orchestrator


async def until(condition: Callable[[], object], within_s: float = 40) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what containers do has no event here
            await asyncio.sleep(0.02)


def is_proven(orchestrator: SelfHealingOrchestrator) -> bool:
    """Whether the version that runs has soaked, so that it can be rolled back to."""
    versions = orchestrator._ward("shop").engine.record.versions
    return bool(versions) and versions[0].soaked_at is not None


async def ended(orchestrator: SelfHealingOrchestrator, kind: str) -> HealingAction:
    """The first action of that kind, once it has come to its end."""
    async with asyncio.timeout(90):
        while True:
            actions = await orchestrator.get_healing_history(limit=20)
            over = [one for one in actions if one.action == kind and one.success is not None]
            if over:
                return over[-1]
            await asyncio.sleep(0.05)


async def test_a_killed_container_is_started_and_a_stopped_one_is_left(
    docker: Engine, tmp_path: Path
) -> None:
    make_image(docker, "shop:1")
    port = free_port()
    docker.docker("run", "--detach", *WEB, "--publish", f"127.0.0.1:{port}:80", "shop:1")
    section = {"container": "web", "host": f"unix://{docker.socket}"}
    url = f"http://127.0.0.1:{port}/"
    async with watched(tmp_path, "docker", url=url, **section) as orchestrator:
        (pid,) = orchestrator.get_pids("shop")
        os.kill(pid, signal.SIGKILL)
        healed = await ended(orchestrator, "restart")
        assert healed.outcome == "recovered"
        await asyncio.to_thread(docker.docker, "stop", "web")
        await until(lambda: orchestrator.get_system_health().healthy == 0)
        await until(lambda: orchestrator._ward("shop").engine.decision.vetoes)
        assert "on purpose" in str(await orchestrator.why("shop"))
        assert len(await orchestrator.get_healing_history(limit=10)) == 1
        assert docker.docker("inspect", "--format", "{{.State.Running}}", "web") == "false"
        await asyncio.to_thread(docker.docker, "start", "web")
        await until(lambda: orchestrator.get_system_health().healthy == 1)


async def test_a_bad_deploy_of_a_container_is_rolled_back(docker: Engine, tmp_path: Path) -> None:
    good = make_image(docker, "shop:1")
    make_image(docker, "shop:2", Release(version="2", status=500))
    docker.docker("run", "--detach", *WEB, "shop:1")
    section = {"container": "web", "host": f"unix://{docker.socket}"}
    async with watched(tmp_path, "docker", **section) as orchestrator:
        await until(lambda: is_proven(orchestrator))
        await asyncio.to_thread(docker.docker, "rm", "--force", "web")
        await asyncio.to_thread(docker.docker, "run", "--detach", *WEB, "shop:2")
        undone = await ended(orchestrator, "rollback")
        assert (undone.outcome, undone.revision) == ("recovered", good)
    form = "{{.Image}} {{.State.Running}}"
    assert docker.docker("inspect", "--format", form, "web") == f"{good} true"
    assert docker.docker("ps", "--all", "--quiet", "--filter", "name=old") == ""


@pytest.fixture
def new_swarm() -> Iterator[Engine]:
    """Not the one of all tests: after some dozens of services its published ports are refused."""
    if reason := missing():
        pytest.skip(reason)
    with running() as started:
        started.begin_swarm()
        yield started


async def test_a_bad_deploy_of_a_swarm_service_is_rolled_back(
    new_swarm: Engine, tmp_path: Path
) -> None:
    swarm = new_swarm
    make_image(swarm, "shop:1")
    make_image(swarm, "shop:2", Release(version="2", status=500))
    create = ("service", "create", "--detach", "--name", "web", "--stop-grace-period", "1s")
    swarm.docker(*create, "--replicas", "2", "--publish", "mode=host,target=80", "shop:1")
    section = {"service": "web", "host": f"unix://{swarm.socket}"}
    async with watched(tmp_path, "swarm", **section) as orchestrator:
        await until(lambda: is_proven(orchestrator))
        update = ("service", "update", "--detach", "--image", "shop:2", "web")
        await asyncio.to_thread(swarm.docker, *update)
        undone = await ended(orchestrator, "rollback")
        assert (undone.outcome, undone.revision) == ("recovered", "shop:1")
    form = "{{.Spec.TaskTemplate.ContainerSpec.Image}} {{.Spec.Mode.Replicated.Replicas}}"
    assert swarm.docker("service", "inspect", "--format", form, "web") == "shop:1 2"


CONFIG = """
store: sqlite:///prunella.db
state_dir: ./state
api: {{listen: 127.0.0.1:{api}}}
defaults:
  interval: 100ms
  grace: 2s
  verify: {{soak: 500ms, rollback_soak: 500ms, deadline: 5s}}
  guards:
    backoff: {{base: 50ms, cap: 400ms}}
    budget: {{actions: 20}}
    chain: {{ineffective: 9, attempts: 20}}
services:
  shop:
    platform: docker
    docker: {{container: web, host: "{host}", timeout: 5s}}
    probes: [{{kind: http, url: "http://{{address}}:{{port}}/"}}]
    release: {{soak: 1s}}
"""


@pytest.mark.parametrize(
    ("change", "after"),
    [("create", 0), ("[^/]+/stop", 0), ("[^/]+/rename", 1), ("[^/]+/start", 0)],
    ids=["made", "stopped", "renamed", "started"],
)
async def test_a_rollback_comes_to_its_end_though_prunella_is_killed_in_the_middle(
    docker: Engine, site: Site, tmp_path: Path, change: str, after: int
) -> None:
    good = make_image(docker, "shop:1")
    make_image(docker, "shop:2", Release(version="2", status=500))
    docker.docker("run", "--detach", *WEB, "shop:1")
    async with proxied(docker.socket, tmp_path / "proxy.sock") as proxy:
        (site.folder / "prunella.yaml").write_text(CONFIG.format(api=site.api, host=proxy.host))
        await asyncio.to_thread(site.start)
        soaked = "SELECT 1 FROM versions WHERE soaked_wall IS NOT NULL"
        await until(lambda: site.rows(soaked))
        fault = Fault(f"POST /containers/{change}", b"", after=after)
        proxy.faults.append(fault)
        await asyncio.to_thread(docker.docker, "rm", "--force", "web")
        await asyncio.to_thread(docker.docker, "run", "--detach", *WEB, "shop:2")
        await until(lambda: fault.done)
        assert await asyncio.to_thread(site.end, signal.SIGKILL) == -signal.SIGKILL
        proxy.faults.clear()
        await asyncio.to_thread(site.launch)
        await asyncio.to_thread(until_met, lambda: is_back(docker, good), 90)
        last = (await asyncio.to_thread(site.history))[0]
        assert last["outcome"] in ("recovered", None), last
        assert await asyncio.to_thread(site.end) == 0


def is_back(engine: Engine, image: str) -> bool:
    """Whether that image runs, and nothing is left of what was tried before."""
    rows = engine.docker("ps", "--all", "--no-trunc", "--format", "{{.Names}} {{.State}}")
    if rows != "web running":
        return False
    return engine.docker("inspect", "--format", "{{.Image}}", "web") == image


SWARM_CONFIG = """
store: sqlite:///prunella.db
state_dir: ./state
api: {{listen: 127.0.0.1:{api}}}
defaults:
  interval: 100ms
  grace: 2s
  verify: {{soak: 500ms, deadline: 30s}}
services:
  shop:
    platform: swarm
    swarm: {{service: web, host: "{host}", timeout: 5s}}
    scale: {{min: 1, max: 3}}
"""


@pytest.mark.parametrize(
    ("action", "before", "after"), [("restart", "0 1", "1 1"), ("scale-up", "0 1", "0 2")]
)
@pytest.mark.parametrize("takes_effect", [True, False], ids=["done", "not-done"])
async def test_a_swarm_service_is_changed_once_though_prunella_is_killed_meanwhile(
    swarm: Engine,
    site: Site,
    tmp_path: Path,
    action: str,
    before: str,
    after: str,
    takes_effect: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    make_image(swarm, "shop:1")
    swarm.docker("service", "create", "--name", "web", "--replicas", "1", "shop:1")
    form = "{{.Spec.TaskTemplate.ForceUpdate}} {{.Spec.Mode.Replicated.Replicas}}"
    async with proxied(swarm.socket, tmp_path / "proxy.sock") as proxy:
        text = SWARM_CONFIG.format(api=site.api, host=proxy.host)
        (site.folder / "prunella.yaml").write_text(text)
        await asyncio.to_thread(site.start)
        fault = Fault("POST /services/[^/]+/update", b"", takes_effect)
        proxy.faults.append(fault)
        order = {"action": action, "reason": "a test", "wait": False}
        told = await asyncio.to_thread(site.ask, "POST", "/api/v1/services/shop/heal", order)
        assert told is not None
        await until(lambda: fault not in proxy.faults or fault.done)
        assert await asyncio.to_thread(site.end, signal.SIGKILL) == -signal.SIGKILL
        proxy.faults.clear()
        await asyncio.to_thread(site.launch)

        def over() -> list[dict[str, Any]]:
            return [one for one in site.history() if one["outcome"] is not None]

        (one,) = await asyncio.to_thread(until_met, over, 90)
        there = swarm.docker("service", "inspect", "--format", form, "web")
        assert (one["outcome"], there) == (
            ("recovered", after) if takes_effect else ("interrupted", before)
        )
        assert await asyncio.to_thread(site.end) == 0
