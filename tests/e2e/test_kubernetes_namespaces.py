"""A namespace that goes, with all that is watched in it, and comes again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.e2e.kube_bed import Cluster, ended, eventually, shown, until, watching
from tests.real.kubernetes import OwnKubernetes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


async def test_a_namespace_that_goes_is_no_fault_to_heal_and_is_taken_up_again(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    gone = await asyncio.to_thread(own_kubernetes.namespace)
    cluster, passing = Cluster(own_kubernetes, namespace), Cluster(own_kubernetes, gone)
    services = {}
    for name, one in (("stays", cluster), ("goes", passing)):
        await one.create_brittle()
        where = {"namespace": one.namespace, "name": "shop"}
        services[name] = {
            "kubernetes": {"kubeconfig": str(own_kubernetes.kubeconfig), **where},
        }
    async with watching(tmp_path, own_kubernetes, namespace, services) as orchestrator:
        await asyncio.to_thread(own_kubernetes.forget, gone)
        await until(lambda: not exists(own_kubernetes, gone), 60)
        said = f"there is no Deployment shop in namespace {gone}"

        async def told() -> bool:
            return (
                f"what runs cannot be told now: {said}" in (await orchestrator.why("goes")).remarks
            )

        await eventually(told)
        assert (await orchestrator.why("goes")).now.startswith("blind: ")
        victim, spared = await cluster.ruin()
        await cluster.healed(victim, spared)
        first = await ended(orchestrator, "restart", outcome="recovered")
        assert first.service_id == "stays"
        assert await passing.asked(" pods/eviction ") == []

        path = {"metadata": {"name": gone}}
        await cluster.call("POST", "/api/v1/namespaces", path)
        accounts = f"/api/v1/namespaces/{gone}/serviceaccounts"
        await until(lambda: own_kubernetes.items(accounts), 60)
        await passing.create_brittle()
        await until(lambda: orchestrator.get_service_health("goes").status == "healthy")
        victim, spared = await passing.ruin()
        await passing.healed(victim, spared)
        await until(lambda: orchestrator.get_system_health().healthy == 2)
        done = await orchestrator.get_healing_history(limit=20)
        print(shown(done))  # noqa: T201
    ours = [one.service_id for one in reversed(done) if one.actor == "prunella"]
    assert ours == ["stays", "goes"]
    for one in (cluster, passing):
        assert len(await one.asked(" pods/eviction ")) == 1
    await asyncio.to_thread(own_kubernetes.forget, gone)


def exists(cluster: OwnKubernetes, namespace: str) -> bool:
    names = {one["metadata"]["name"] for one in cluster.items("/api/v1/namespaces")}
    return namespace in names
