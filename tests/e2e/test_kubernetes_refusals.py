"""A real API server that refuses, and people who are quicker: nothing is done twice, or to spite
anybody.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from tests.e2e.kube_bed import Cluster, ended, eventually, proven, shown, watched
from tests.e2e.kube_relay import relayed
from tests.real.images import Release
from tests.real.kubernetes import Kubernetes, OwnKubernetes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

LOOK = ("get", "list", "watch")
SEE: Sequence[Mapping[str, Any]] = (
    {"apiGroups": [""], "resources": ["pods"], "verbs": LOOK},
    {"apiGroups": ["apps"], "resources": ["deployments", "replicasets"], "verbs": LOOK},
)
EVICT = {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]}
PATIENT = {"guards": {"backoff": {"base": "1s", "cap": "2s"}, "budget": {"actions": 20}}}
FORETOLD = "restart will fail: we may not create pods/eviction in namespace"
EVICTION = " create pods/eviction "


class Account:
    """A service account of the namespace, which may do what a test says."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        self.kubeconfig = folder / "account"

    async def create(self, *rules: Mapping[str, Any]) -> None:
        call, accounts = self._cluster.call, f"/api/v1/namespaces/{self._namespace}/serviceaccounts"
        name = {"metadata": {"name": "healer"}}
        await call("POST", accounts, name)
        await call("POST", f"{self._roles}/roles", {**name, "rules": rules})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "healer"}
        who = {"kind": "ServiceAccount", "name": "healer", "namespace": self._namespace}
        await call(
            "POST", f"{self._roles}/rolebindings", {**name, "roleRef": role, "subjects": [who]}
        )
        made = await call("POST", f"{accounts}/healer/token", {"spec": {}})
        config = yaml.safe_load(self._cluster.cluster.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": made["status"]["token"]}
        self.kubeconfig.write_text(yaml.safe_dump(config))

    async def allow(self, *rules: Mapping[str, Any]) -> None:
        body = {"metadata": {"name": "healer"}, "rules": rules}
        await self._cluster.call("PUT", f"{self._roles}/roles/healer", body)


async def test_who_may_not_evict_says_so_and_heals_once_it_may(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    await cluster.create_brittle()
    account = Account(cluster, namespace, tmp_path)
    await account.create(*SEE)
    async with watched(
        tmp_path, Kubernetes(account.kubeconfig), namespace, **PATIENT
    ) as orchestrator:

        async def foretold() -> bool:
            return any(FORETOLD in one for one in (await orchestrator.why("shop")).remarks)

        await eventually(foretold)
        pods = await cluster.uids()
        victim, spared = await cluster.ruin()
        refused = await ended(orchestrator, "restart", outcome="error")
        assert await cluster.uids() == pods
        assert all(one.startswith("403") for one in await cluster.asked(EVICTION))
        await account.allow(*SEE, EVICT)
        await cluster.healed(victim, spared)
        await ended(orchestrator, "restart", outcome="recovered")
        print(shown(await orchestrator.get_healing_history(limit=20)))  # noqa: T201
    assert refused.symptom == "down"
    assert "not allowed: " in refused.detail
    assert 'cannot create resource "pods/eviction"' in refused.detail
    asked = await cluster.asked(EVICTION)
    assert [one[:3] for one in asked if not one.startswith("403")] == ["201"]


async def test_a_server_that_puts_us_off_is_not_pressed_and_asked_again(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    await cluster.create_brittle()
    account = Account(cluster, namespace, tmp_path)
    await account.create(*SEE, EVICT)
    async with watched(
        tmp_path, Kubernetes(account.kubeconfig), namespace, **PATIENT
    ) as orchestrator:
        pods = await cluster.uids()
        async with full(cluster, account, namespace):
            victim, spared = await cluster.ruin()
            refused = await ended(orchestrator, "restart", outcome="error")
            assert await cluster.uids() == pods
            asked = await cluster.asked(EVICTION)
        await cluster.healed(victim, spared)
        await ended(orchestrator, "restart", outcome="recovered")
        print(asked, shown(await orchestrator.get_healing_history(limit=20)))  # noqa: T201
    assert "is busy" in refused.detail
    assert {one[:3] for one in asked} == {"429"}
    asked = await cluster.asked(EVICTION)
    assert [one[:3] for one in asked if not one.startswith("429")] == ["201"]


@asynccontextmanager
async def full(cluster: Cluster, account: Account, namespace: str) -> AsyncIterator[None]:
    """No room for evictions by our account, by the server's own fairness."""
    flow = "/apis/flowcontrol.apiserver.k8s.io/v1"
    limits = {
        "nominalConcurrencyShares": 0,
        "borrowingLimitPercent": 0,
        "lendablePercent": 0,
        "limitResponse": {"type": "Reject"},
    }
    who = {"kind": "ServiceAccount", "serviceAccount": {"name": "healer", "namespace": namespace}}
    evictions = {
        "verbs": ["create"],
        "apiGroups": [""],
        "resources": ["pods/eviction"],
        "namespaces": [namespace],
    }
    schema = {
        "priorityLevelConfiguration": {"name": namespace},
        "matchingPrecedence": 2,
        "rules": [{"subjects": [who], "resourceRules": [evictions]}],
    }
    name = {"metadata": {"name": namespace}}
    level = {**name, "spec": {"type": "Limited", "limited": limits}}
    await cluster.call("POST", f"{flow}/prioritylevelconfigurations", level)
    await cluster.call("POST", f"{flow}/flowschemas", {**name, "spec": schema})
    try:
        writers = await occupy(Kubernetes(account.kubeconfig), namespace)
        yield
        for writer in writers:
            writer.transport.abort()
    finally:
        await cluster.call("DELETE", f"{flow}/flowschemas/{namespace}")
        await cluster.call("DELETE", f"{flow}/prioritylevelconfigurations/{namespace}")


async def occupy(api: Kubernetes, namespace: str) -> list[asyncio.StreamWriter]:
    """Evictions whose senders never get to their end, as many as it takes to have another one
    refused.
    """
    path = f"/api/v1/namespaces/{namespace}/pods/nobody/eviction"
    place = urlsplit(api.server)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {api.token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    writers: list[asyncio.StreamWriter] = []

    async def is_refused() -> bool:
        tls = ssl._create_unverified_context()
        _, writer = await asyncio.open_connection(place.hostname, place.port, ssl=tls)
        writer.write(head.encode())
        writers.append(writer)
        body = {"metadata": {"name": "nobody", "namespace": namespace}}
        with pytest.raises(RuntimeError) as refused:  # there is no such pod either
            await asyncio.to_thread(api.call, "POST", path, body)
        return "Too many requests" in str(refused.value)

    await eventually(is_refused)
    return writers


async def test_an_eviction_of_a_pod_that_a_person_has_just_written_on_happens_once(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    await cluster.create_brittle()
    async with (
        relayed(own_kubernetes, tmp_path) as relay,
        watched(tmp_path, Kubernetes(relay.kubeconfig), namespace) as orchestrator,
    ):
        name = (await cluster.pods())[0]["metadata"]["name"]

        async def note() -> None:
            path = f"/api/v1/namespaces/{namespace}/pods/{name}"
            await asyncio.to_thread(
                own_kubernetes.merge, path, {"metadata": {"annotations": {"looked-at-by": "ann"}}}
            )

        relay.before("POST", "/eviction", note)
        victim, spared = await cluster.ruin()
        await ended(orchestrator, "restart", outcome="recovered")
        await cluster.healed(victim, spared)
        print(shown(await orchestrator.get_healing_history(limit=20)))  # noqa: T201
    assert relay.answers == [409]
    assert [one[:3] for one in await cluster.asked(EVICTION)] == ["409", "201"]


async def test_a_rollback_does_not_undo_what_a_person_has_just_deployed(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    await cluster.create(own_kubernetes.make_image("shop:1", Release()))
    bad = own_kubernetes.make_image("shop:bad", Release(crashes=3))
    fixed = own_kubernetes.make_image("shop:fixed", Release("3"))
    async with (
        relayed(own_kubernetes, tmp_path) as relay,
        watched(
            tmp_path,
            Kubernetes(relay.kubeconfig),
            namespace,
            release={"soak": "1s"},
        ) as orchestrator,
    ):
        await proven(orchestrator)
        relay.before("PATCH", "/deployments/shop", lambda: cluster.deploy(fixed))
        await cluster.deploy(bad)
        yielded = await ended(orchestrator, "rollback")

        async def fixed_only() -> bool:
            return {one["spec"]["containers"][0]["image"] for one in await cluster.pods()} == {
                fixed
            }

        await eventually(fixed_only)
        await cluster.ready(2)
        print(shown(await orchestrator.get_healing_history(limit=20)))  # noqa: T201
        done = await orchestrator.get_healing_history(limit=20)
    assert yielded.outcome == "cancelled"
    assert len(relay.answers) == 1
    assert relay.answers[0] in (409, 422)
    assert [one.action for one in done if one.actor == "prunella"] == ["rollback"]
    found = await cluster.call("GET", f"{cluster.path}/shop")
    assert found["metadata"]["generation"] == 3


async def test_versions_that_the_server_has_forgotten_are_no_loss(
    own_kubernetes: OwnKubernetes, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(own_kubernetes, namespace)
    await cluster.create_brittle()
    async with watched(tmp_path, own_kubernetes, namespace) as orchestrator:
        pods = await cluster.uids()
        lists = await cluster.asked("list deployments")
        other = {"metadata": {"name": "a-later-version"}}
        await cluster.call("POST", f"/api/v1/namespaces/{namespace}/configmaps", other)
        await asyncio.to_thread(own_kubernetes.forget_versions)

        async def listed_anew() -> bool:
            return len(await cluster.asked("200 list deployments")) > len(lists)

        await eventually(listed_anew)
        assert await cluster.uids() == pods
        assert await orchestrator.get_healing_history(limit=20) == []
        victim, spared = await cluster.ruin()
        await ended(orchestrator, "restart", outcome="recovered")
        await cluster.healed(victim, spared)
        print(shown(await orchestrator.get_healing_history(limit=20)))  # noqa: T201
    assert [one[:3] for one in await cluster.asked(EVICTION)] == ["201"]
