"""A Deployment or StatefulSet ``shop`` in a cluster, fake or real, and a person with kubectl."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from tests.real.images import Release
from tests.real.kubernetes import Kubernetes, OwnKubernetes, deployment

from prunella.core.model import (
    Action,
    ActionKind,
    Fact,
    Instance,
    InstanceId,
    Instant,
    ServiceId,
    Status,
)
from prunella.kube.kinds import POD
from prunella.platforms.kubernetes import KubernetesPlatform
from prunella.plugins import PlatformContext, platforms
from prunella.runtime.clock import SystemClock
from prunella.testing.kube import FakeCluster

SHOP = ServiceId("shop")
JSON_PATCH = "application/json-patch+json"
Pod = dict[str, Any]

_APPS = "/apis/apps/v1/namespaces"
_PLURALS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}
_WITHIN_S = 60.0


class MovedClock(SystemClock):
    """The machine's clock, and so many seconds more as a test says."""

    ahead_s = 0.0

    def now(self) -> Instant:
        return Instant(super().now() + self.ahead_s)

    def wall(self) -> datetime:
        return super().wall() + timedelta(seconds=self.ahead_s)


class Bed:
    """What a test may do to the cluster behind Prunella's back.

    Attributes:
        fake: None where the cluster is a real one.
    """

    def __init__(
        self, cluster: Kubernetes, namespace: str, fake: FakeCluster | None, stack: AsyncExitStack
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.fake = fake
        self.facts: list[Fact] = []
        self.clock = MovedClock()
        self._stack = stack

    # Prunella ----------------------------------------------------------------------------------

    def platform(self, folder: Path, **settings: object) -> KubernetesPlatform:
        where = {"kubeconfig": self.cluster.kubeconfig, "namespace": self.namespace, "name": "shop"}
        plugin = platforms()["kubernetes"]
        context = PlatformContext(SHOP, self.clock, folder, self.facts.append)
        built = plugin.build(plugin.spec.model_validate(where | settings), context)
        assert isinstance(built, KubernetesPlatform)
        self._stack.push_async_callback(built.close)
        return built

    # A person ----------------------------------------------------------------------------------

    async def call(self, method: str, path: str, body: object = None, **more: str) -> Any:
        return await asyncio.to_thread(self.cluster.call, method, path, body, **more)

    async def apply(self, kind: str = "Deployment", *, image: str = "shop:1", **more: Any) -> None:
        """Make it, and wait until it runs."""
        body = deployment("shop", self.image(image), **more)
        body["kind"] = kind
        if kind == "StatefulSet":
            body["spec"]["serviceName"] = "shop"
        elif kind == "DaemonSet":
            del body["spec"]["replicas"]
        await self.call("POST", f"{_APPS}/{self.namespace}/{_PLURALS[kind]}", body)
        await self.ready(body["spec"].get("replicas", 1))

    async def change(self, body: object, kind: str = "Deployment") -> None:
        path = f"{_APPS}/{self.namespace}/{_PLURALS[kind]}/shop"
        await asyncio.to_thread(self.cluster.merge, path, body)

    async def deploy(self, image: str, kind: str = "Deployment") -> None:
        path = f"{_APPS}/{self.namespace}/{_PLURALS[kind]}/shop"
        where = "/spec/template/spec/containers/0/image"
        body = [{"op": "replace", "path": where, "value": self.image(image)}]
        await self.call("PATCH", path, body, content=JSON_PATCH)

    async def pods(self) -> list[Pod]:
        return await asyncio.to_thread(self.cluster.pods, self.namespace)

    async def ready(self, count: int) -> list[Pod]:
        """Wait until so many pods are ready, and there are no others."""
        return await self.until(lambda pods: len(pods) == count and all(map(is_ready, pods)))

    async def until(self, done: Callable[[list[Pod]], bool]) -> list[Pod]:
        async with asyncio.timeout(_WITHIN_S):
            while not done(pods := await self.pods()):  # noqa: ASYNC110 - a cluster has to be asked
                await asyncio.sleep(0.05)
        return pods

    async def current(self, count: int, image: str) -> list[Pod]:
        """Wait until so many pods are ready with that image, and there are no others."""
        name = self.image(image)
        return await self.until(
            lambda pods: (
                len(pods) == count
                and all(
                    is_ready(one) and one["spec"]["containers"][0]["image"] == name for one in pods
                )
            )
        )

    async def crash(self, pod: Pod) -> None:
        """End its container."""
        if self.fake is not None:
            self.fake.crash(pod["metadata"]["name"], self.namespace)
            return
        assert isinstance(self.cluster, OwnKubernetes)
        name = pod["metadata"]["name"]
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
        await asyncio.to_thread(self.cluster.kill_container, await self.call("GET", path))

    async def crash_once(self, pod: Pod) -> Pod:
        """From then on its node puts off what crashes; the pod, once it is ready again."""
        uid = pod["metadata"]["uid"]
        await self.crash(pod)

        def again(pods: list[Pod]) -> bool:
            return any(
                one["metadata"]["uid"] == uid and is_ready(one) and restarts(one) == 1
                for one in pods
            )

        pods = await self.until(again)
        return next(one for one in pods if one["metadata"]["uid"] == uid)

    async def spoil(self, pod: Pod) -> None:
        """Its readiness probe fails from a moment after its start on."""
        started = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        age = datetime.now(UTC) - datetime.fromisoformat(started)
        await asyncio.sleep(max(0.0, 2.0 - age.total_seconds()))  # times there have whole seconds
        if self.fake is None:
            url = f"http://{pod['status']['podIP']}/cgi-bin/tell?status=500&delay=0"
            await asyncio.to_thread(_get, url)
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        found = self.fake.find(POD, pod["metadata"]["name"], self.namespace)
        assert found is not None
        unready = {"type": "Ready", "status": "False", "lastTransitionTime": now}
        others = [one for one in found["status"]["conditions"] if one["type"] != "Ready"]
        status = {**found["status"], "conditions": [*others, unready]}
        self.fake.put({**found, "status": status}, self.namespace)

    def image(self, tag: str) -> str:
        return tag if self.fake is not None else f"docker.io/library/{tag}"


def _get(url: str) -> None:
    with urlopen(url, timeout=5) as answer:
        answer.read()


def is_ready(pod: Pod) -> bool:
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True"


def restarts(pod: Pod) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"])


def restart_of(one: Instance) -> Action:
    return Action(ActionKind.RESTART, SHOP, one.id, one.identity)


def rollback(revision: str | None, before: str | None) -> Action:
    return Action(ActionKind.ROLLBACK, SHOP, revision=revision, before=before or "")


def scaled(before: int, replicas: int) -> Action:
    kind = ActionKind.SCALE_UP if replicas > before else ActionKind.SCALE_DOWN
    return Action(kind, SHOP, replicas=replicas, before=str(before))


async def until(platform: KubernetesPlatform, done: Callable[[Status], bool]) -> Status:
    async with asyncio.timeout(_WITHIN_S):
        while not done(status := await platform.observe()):  # noqa: ASYNC110 - a cluster has to be asked
            await asyncio.sleep(0.02)
    return status


def ids(status: Status) -> list[InstanceId]:
    return [one.id for one in status.instances]


async def fake_bed(folder: Path, stack: AsyncExitStack) -> Bed:
    fake = await stack.enter_async_context(FakeCluster())
    return Bed(Kubernetes(fake.kubeconfig(folder)), "default", fake, stack)


async def real_bed(request: pytest.FixtureRequest, stack: AsyncExitStack) -> Bed:
    own: OwnKubernetes = request.getfixturevalue("own_kubernetes")
    namespace: str = request.getfixturevalue("namespace")
    own.make_image("shop:1", Release("1"))
    own.make_image("shop:2", Release("2"))
    own.make_image("crash:1", Release("3", crashes=3))
    return Bed(own, namespace, None, stack)
