"""A dependency that hangs, taken out of its Service while others can live without it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.kube_bed import HTTP, Cluster, ended, eventually, shown, until
from tests.real.images import Release, tell
from tests.real.kubernetes import OwnKubernetes, deployment

from prunella.config import from_mapping
from prunella.runtime.orchestrator import SelfHealingOrchestrator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

NOTE = "prunella.dev/circuit"
DEFAULTS = {
    "interval": "100ms",
    "grace": "2s",
    "verify": {"soak": "500ms", "deadline": "30s"},
    "guards": {"backoff": {"base": "50ms", "cap": "100ms"}, "budget": {"actions": 20}},
}


class Recs:
    """The Deployment and the Service ``recs``."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        core = f"/api/v1/namespaces/{cluster.namespace}/services"
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{cluster.namespace}/endpointslices"
        self._services = core
        self._slices = f"{slices}?labelSelector=kubernetes.io/service-name%3Drecs"

    async def create(self, image: str) -> None:
        spec = {"selector": {"app": "recs"}, "ports": [{"port": 80, "targetPort": 80}]}
        meta = {"name": "recs", "annotations": {"team": "recs"}, "labels": {"tier": "back"}}
        await self.cluster.call("POST", self._services, {"metadata": meta, "spec": spec})
        for name in ("shop", "recs"):
            body = deployment(name, image, readinessProbe=None)
            await self.cluster.call("POST", self.cluster.path, body)
        await self.cluster.ready(4)

    async def service(self) -> dict[str, Any]:
        """All of it that people see."""
        found = await self.cluster.call("GET", f"{self._services}/recs")
        for one in ("resourceVersion", "managedFields"):
            del found["metadata"][one]
        return found

    async def endpoints(self) -> set[str]:
        """The uids of the pods that requests are led to."""
        found = (await self.cluster.call("GET", self._slices))["items"]
        return {
            one["targetRef"]["uid"]
            for part in found
            for one in part.get("endpoints") or ()
            if one["conditions"].get("ready") is not False
        }

    async def uids(self) -> set[str]:
        pods = await self.cluster.pods()
        found = [one["metadata"] for one in pods]
        return {one["uid"] for one in found if one["labels"]["app"] == "recs"}


def config_of(folder: Path, cluster: Cluster) -> dict[str, Any]:
    where = {"kubeconfig": str(cluster.cluster.kubeconfig), "namespace": cluster.namespace}

    def service(name: str, **more: Any) -> dict[str, Any]:
        kubernetes = {**where, "name": name}
        probes = [{**HTTP, "timeout": "300ms"}]
        return {"platform": "kubernetes", "kubernetes": kubernetes, "probes": probes, **more}

    return {
        "store": f"sqlite:///{folder}/prunella.db",
        "state_dir": str(folder / "state"),
        "api": "off",
        "defaults": DEFAULTS,
        "gateways": {
            "inside": {"kind": "kubernetes", "kubeconfig": str(cluster.cluster.kubeconfig)}
        },
        "services": {
            "shop": service("shop", depends_on=[{"service": "recs", "optional": True}]),
            "recs": service(
                "recs",
                gateway={"name": "inside", "namespace": cluster.namespace, "service": "recs"},
                circuit={"open_for": "2s", "step": "500ms"},
            ),
        },
    }


async def test_a_dependency_that_hangs_gets_no_requests_and_its_service_is_found_as_it_was(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    recs = Recs(cluster)
    await recs.create(own_kubernetes.make_image("shop:1", Release()))
    before, first = await recs.service(), await recs.uids()
    others = await cluster.uids() - first

    async def all_serve() -> bool:
        return await recs.endpoints() == await recs.uids()

    async def none_serve() -> bool:
        return await recs.endpoints() == set()

    await eventually(all_serve)
    config = from_mapping(config_of(tmp_path, cluster))
    async with SelfHealingOrchestrator(config) as orchestrator:
        await until(lambda: orchestrator.get_system_health().healthy == 2)
        await recs_hang(cluster)
        opened = await ended(orchestrator, "circuit-break", outcome="contained")
        held = await recs.service()
        await eventually(none_serve)
        await ended(orchestrator, "restart", outcome="recovered")
        closed = await ended(orchestrator, "circuit-close", outcome="recovered")
        await until(lambda: orchestrator.get_system_health().healthy == 2)
        await eventually(all_serve)
        done = await orchestrator.get_healing_history(limit=20)
        print(shown(done))  # noqa: T201
    assert NOTE in held["metadata"]["annotations"]
    assert held["spec"]["selector"] != before["spec"]["selector"]
    assert (opened.service_id, closed.service_id) == ("recs", "recs")
    assert {one.service_id for one in done} == {"recs"}
    assert await recs.service() == before
    assert others <= await cluster.uids()  # nobody has touched the shop
    turns = [one for one in done if one.action.startswith("circuit-")]
    assert await cluster.asked(" services ") == ["200 patch services recs"] * len(turns)


async def recs_hang(cluster: Cluster) -> None:
    for pod in await cluster.pods():
        if pod["metadata"]["labels"]["app"] == "recs":
            await asyncio.to_thread(tell, 80, host=pod["status"]["podIP"], delay_s=3600)
