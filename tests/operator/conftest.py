"""Prunella at home in a cluster: a fake one, and a real one where there is Kubernetes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
import yaml
from tests.real.kubernetes import deployment

from prunella.config import from_mapping
from prunella.errors import ConflictError
from prunella.kube.access import access
from prunella.kube.client import Cluster, MissingError
from prunella.kube.kinds import (
    DEPLOYMENT,
    EVENT,
    HEALING_ACTION,
    HEALING_POLICY,
    LEASE,
    Json,
    Kind,
)
from prunella.operator.home import Home
from prunella.operator.objects import definitions
from prunella.runtime.clock import SystemClock
from prunella.runtime.orchestrator import SelfHealingOrchestrator
from prunella.testing.kube import FakeCluster

PATIENCE_S = 30.0
CRD = Kind(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
SOON: Mapping[str, Any] = {
    "grace": "200ms",
    "verify": {"soak": "300ms", "deadline": "10s"},
    "guards": {"backoff": {"base": "50ms", "cap": "200ms"}},
}


async def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {PATIENCE_S} s")


class Bed:
    """A cluster with one namespace, and Prunellas that live in it, in this process."""

    def __init__(
        self, cluster: Cluster, namespace: str, folder: Path, fake: FakeCluster | None
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.folder = folder
        self.fake = fake

    async def define(self) -> None:
        for one in yaml.safe_load_all(definitions()):
            try:
                await self.cluster.create(CRD, one)
            except ConflictError:
                continue
        await until(self._serves)
        # Where there is no Lease at all, the first to come waits for others.
        free = {"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 0}
        lease = {"metadata": {"name": "prunella"}, "spec": free}
        with suppress(ConflictError):
            await self.cluster.create(LEASE, lease, self.namespace)

    async def _serves(self) -> bool:
        try:
            await self.all(HEALING_POLICY)
            await self.all(HEALING_ACTION)
        except MissingError:
            return False
        return True

    async def deploy(self, name: str, **labels: str) -> Json:
        # No node has it: other tests make images on the same one.
        made = deployment(name, "docker.io/library/nowhere:1")
        made["metadata"] = {"name": name, "labels": {"app": name, **labels}}
        return await self.cluster.create(DEPLOYMENT, made, self.namespace)

    async def policy(self, name: str, **spec: Any) -> Json:
        body = {"metadata": {"name": name}, "spec": {**SOON, **spec}}
        return await self.cluster.create(HEALING_POLICY, body, self.namespace)

    async def edit(self, kind: Kind, name: str, body: object) -> Json:
        return await self.cluster.patch(kind, name, self.namespace, body)

    async def all(self, kind: Kind) -> list[Json]:
        answer = await self.cluster.ask("GET", kind.path(self.namespace))
        return list(msgspec.json.decode(answer)["items"])

    async def table(self, kind: Kind) -> list[Json]:
        """What `kubectl get` shows, row by row."""
        session, headers = await self.cluster._ready()
        url = self.cluster.access.server + kind.path(self.namespace)
        async with session.get(url, headers={**headers, "Accept": _TABLE}, ssl=False) as answer:
            table = msgspec.json.decode(await answer.read())
        columns = table["columnDefinitions"]
        return [
            {
                column["name"]: cell
                for column, cell in zip(columns, row["cells"], strict=True)
                if column["priority"] == 0
            }
            for row in table["rows"]
        ]

    async def condition(self, policy: str, kind: str) -> tuple[str, str, str]:
        one = await self.cluster.get(HEALING_POLICY, policy, self.namespace)
        for told in one.get("status", {}).get("conditions", ()):
            current = told["observedGeneration"] == one["metadata"]["generation"]
            if told["type"] == kind and current:
                return told["status"], told["reason"], told["message"]
        return "", "", ""

    async def told(self, policy: str, kind: str, reason: str) -> str:
        """Wait for a condition's reason; its message."""

        async def same() -> tuple[str, str, str] | None:
            found = await self.condition(policy, kind)
            return found if found[1] == reason else None

        return str((await until(same))[2])

    async def events(self, reason: str) -> list[Json]:
        return [one for one in await self.all(EVENT) if one.get("reason") == reason]

    def living(self, **changes: Any) -> Living:
        return Living(self, changes)


class Living:
    """One Prunella, as ``app`` runs it."""

    def __init__(self, bed: Bed, changes: Mapping[str, Any]) -> None:
        operator = {"namespaces": [bed.namespace], "lease_ttl": "60s"}  # a busy machine is no loss
        operator |= changes.get("operator", {})
        data = {
            "api": "off",
            "store": f"sqlite:///{bed.folder}/prunella.db",
            "state_dir": str(bed.folder / "state"),
            "operator": operator,
            **{key: value for key, value in changes.items() if key != "operator"},
        }
        self.bed = bed
        self.config = from_mapping(data)
        self.home = Home(self.config, observe=False)
        self.healing = SelfHealingOrchestrator(self.config, tenure=self.home.tenure)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._open.push_async_callback(self.home.leave)
        assert await self.home.lead(self.healing, asyncio.Event())
        await self.healing.open()
        self._open.push_async_callback(self._stop)
        await self.healing.start_monitoring()
        self.home.move_in(self.healing)
        self._open.push_async_callback(self.home.move_out)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()
        if (fake := self.bed.fake) is not None:
            await until(lambda: fake.watches == 0)

    async def _stop(self) -> None:
        await self.healing.stop_monitoring(leave=self.home.has_lost)

    def services(self) -> set[str]:
        prefix = f"{self.bed.namespace}."
        return {one.id.removeprefix(prefix) for one in self.healing.get_system_health().services}

    async def holds(self) -> dict[str, tuple[str, bool]]:
        """By owner: the reason, and whether there is an end."""
        return {
            one.owner: (one.reason, one.expires is not None)
            for one in await self.healing.list_holds()
        }


@pytest.fixture
async def fake_bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    async with FakeCluster() as fake:
        monkeypatch.setenv("KUBECONFIG", str(fake.kubeconfig(tmp_path)))
        cluster = Cluster(access(), SystemClock())
        bed = Bed(cluster, "default", tmp_path, fake)
        await bed.define()
        yield bed
        await cluster.close()


@pytest.fixture
async def real_bed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bed]:
    kubernetes = request.getfixturevalue("kubernetes")
    namespace = request.getfixturevalue("namespace")
    config = yaml.safe_load(kubernetes.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = namespace
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    cluster = Cluster(access(), SystemClock())
    bed = Bed(cluster, namespace, tmp_path, None)
    await bed.define()
    yield bed
    await cluster.close()


@pytest.fixture(params=["fake", "real"])
def bed(request: pytest.FixtureRequest) -> Bed:
    """The same on both."""
    found: Bed = request.getfixturevalue(f"{request.param}_bed")
    return found
