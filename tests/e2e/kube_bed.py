"""The whole orchestrator over Deployments of a real cluster, and what a person sees of them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.request import urlopen

from tests.real.images import tell
from tests.real.kubernetes import Kubernetes, OwnKubernetes, brittle, deployment

from prunella.config import from_mapping
from prunella.runtime.orchestrator import SelfHealingOrchestrator
from prunella.wire import HealingAction

HTTP = {"kind": "http", "url": "http://{address}:{port}/"}


@asynccontextmanager
async def watched(
    folder: Path, cluster: Kubernetes, namespace: str, **service: Any
) -> AsyncIterator[SelfHealingOrchestrator]:
    """The Deployment ``shop``, watched at a fast pace."""
    async with watching(folder, cluster, namespace, {"shop": service}) as orchestrator:
        yield orchestrator


@asynccontextmanager
async def watching(
    folder: Path, cluster: Kubernetes, namespace: str, services: Mapping[str, dict[str, Any]]
) -> AsyncIterator[SelfHealingOrchestrator]:
    """Deployments by their names, each with its own settings, at a fast pace, once all are well."""
    defaults = {
        "interval": "100ms",
        "grace": "3s",
        "verify": {"soak": "500ms", "rollback_soak": "500ms", "deadline": "30s"},
        "guards": {"backoff": {"base": "50ms", "cap": "100ms"}, "budget": {"actions": 20}},
    }
    where = {"kubeconfig": str(cluster.kubeconfig), "namespace": namespace}
    config = from_mapping(
        {
            "store": f"sqlite:///{folder}/prunella.db",
            "state_dir": str(folder / "state"),
            "api": "off",
            "defaults": defaults,
            "services": {
                name: {"platform": "kubernetes", "kubernetes": {**where, "name": name}, **settings}
                for name, settings in services.items()
            },
        }
    )
    async with SelfHealingOrchestrator(config) as orchestrator:
        await until(lambda: orchestrator.get_system_health().healthy == len(services))
        yield orchestrator


async def until(condition: Callable[[], object], within_s: float = 40) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what pods do has no event here
            await asyncio.sleep(0.02)


async def eventually(condition: Callable[[], Awaitable[object]], within_s: float = 60) -> None:
    """As `until`, where it has to be asked for."""
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 - a cluster has to be asked
            await asyncio.sleep(0.05)


async def proven(orchestrator: SelfHealingOrchestrator) -> None:
    """Wait until the version that runs has soaked."""
    record = orchestrator._ward("shop").engine.record
    await until(lambda: record.versions and record.versions[0].soaked_at is not None)


async def ended(
    orchestrator: SelfHealingOrchestrator, kind: str, *, outcome: str = ""
) -> HealingAction:
    """The first action of that kind that has come to its end; or to that one."""
    async with asyncio.timeout(60):
        while True:
            actions = await orchestrator.get_healing_history(limit=20)
            over = [one for one in actions if one.action == kind and one.success is not None]
            over = [one for one in over if outcome in ("", one.outcome)]
            if over:
                return over[-1]
            await asyncio.sleep(0.05)


class Cluster:
    """What a person sees of it with kubectl."""

    def __init__(self, cluster: OwnKubernetes, namespace: str) -> None:
        self.cluster = cluster
        self.path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        self.namespace = namespace

    async def create(self, image: str, **settings: Any) -> None:
        await self.apply(deployment("shop", image, **settings))

    async def create_brittle(self) -> None:
        """Two pods that can be ruined."""
        image = await asyncio.to_thread(self.cluster.make_image, "shop:1")
        await self.apply(brittle("shop", image))

    async def apply(self, body: dict[str, Any]) -> None:
        await asyncio.to_thread(self.cluster.call, "POST", self.path, body)
        await self.ready(body["spec"]["replicas"])

    async def deploy(self, image: str) -> None:
        container = {"name": "web", "image": image}
        body = {"spec": {"template": {"spec": {"containers": [container]}}}}
        content = "application/strategic-merge-patch+json"
        await asyncio.to_thread(self.cluster.call, "PATCH", f"{self.path}/shop", body, content)

    async def call(self, method: str, path: str, body: object | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self.cluster.call, method, path, body)

    async def pods(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.cluster.pods, self.namespace)

    async def uids(self) -> set[str]:
        return {one["metadata"]["uid"] for one in await self.pods()}

    async def ruin(self) -> tuple[str, str]:
        """One of two pods; the uids of that one and of the other."""
        victim, spared = await self.pods()
        await asyncio.to_thread(self.cluster.ruin, victim)
        return victim["metadata"]["uid"], spared["metadata"]["uid"]

    async def asked(self, what: str) -> list[str]:
        """Of what Prunella has asked the API server for: what has that in it, in order."""
        asked = await asyncio.to_thread(self.cluster.audit.asked, self.namespace)
        return [one for one in asked if what in one]

    async def healed(self, victim: str, spared: str) -> None:
        """Wait for two ready pods: the spared one, and one in place of the victim."""

        async def replaced() -> bool:
            uids = await self.uids()
            return victim not in uids and len(uids) == 2

        await eventually(replaced)
        await self.ready(2)
        assert spared in await self.uids()

    async def kill_all(self, gap_s: float = 0.0) -> set[str]:
        """End all that runs, in no order; the runs that are over by that."""
        pods = await self.pods()
        pids = await asyncio.to_thread(self.cluster.first_processes, pods)
        for pid in Random(7).sample(pids, len(pids)):
            os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(gap_s)
        return {run_of(pod) for pod in pods}

    async def tell(self, **told: Any) -> None:
        """Change how all of its pods answer, until their containers start again."""
        for pod in await self.pods():
            await asyncio.to_thread(tell, 80, host=pod["status"]["podIP"], **told)

    async def ask(self, pod: Mapping[str, Any], path: str) -> str:
        """What its web server answers."""

        def ask() -> str:
            with urlopen(f"http://{pod['status']['podIP']}{path}", timeout=5) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(ask)

    async def ready(
        self, count: int, *, besides: Container[str] = (), within_s: float = 60
    ) -> dict[str, Any]:
        """Wait for so many ready pods, in other runs than those; one of them."""
        async with asyncio.timeout(within_s):
            while True:
                runs = {run: one for one in await self.pods() if (run := run_of(one))}
                found = [one for run, one in runs.items() if run not in besides]
                if len(found) == count:
                    return found[0]
                await asyncio.sleep(0.02)


def run_of(pod: Mapping[str, Any]) -> str:
    """Names the run of a ready pod; empty: it is not ready."""
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
    if conditions.get("Ready") != "True":
        return ""
    return f"{pod['metadata']['uid']}@{pod['status']['containerStatuses'][0]['restartCount']}"


def shown(actions: list[HealingAction]) -> str:
    """Of actions as the history has them, the newest first: one line for each, as they came."""
    return "\n".join(
        f"{one.action} {one.service_id} {one.instance or ''}: {one.reason} [{one.evidence}] -> "
        f"{one.outcome} {one.detail} ({one.recovery_time} ms, downtime {one.downtime} ms)"
        for one in reversed(actions)
    )


class Clients:
    """So many that ask for the page again as soon as they are answered, spread over the pods.

    Attributes:
        took_s: how long each answer has taken, in the order in which they came.
    """

    def __init__(self, cluster: Cluster, path: str, count: int) -> None:
        self._cluster, self._path, self._count = cluster, path, count
        self._pods: list[dict[str, Any]] = []
        self._ending = False
        self.took_s: list[float] = []

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """They leave when they have been answered: nobody hangs up."""
        self._pods = await self._cluster.pods()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look())
            for turn in range(self._count):
                tasks.create_task(self._ask(turn))
            try:
                yield
            finally:
                self._ending = True

    async def _look(self) -> None:
        while not self._ending:
            self._pods = [one for one in await self._cluster.pods() if run_of(one)] or self._pods
            await asyncio.sleep(0.2)

    async def _ask(self, turn: int) -> None:
        while not self._ending:
            host = self._pods[turn % len(self._pods)]["status"]["podIP"]
            began = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection(host, 80)
                writer.write(f"GET {self._path} HTTP/1.0\r\n\r\n".encode())
                answer = await reader.read()
                writer.close()
            except OSError:
                answer = b""
            if answer:
                self.took_s.append(time.monotonic() - began)
            else:  # it goes away just now
                await asyncio.sleep(0.05)
