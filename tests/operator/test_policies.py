"""HealingPolicy objects and what becomes of them, on a fake API server and on a real one."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import yaml
from tests.operator.conftest import SOON, Bed, until
from tests.real.kubernetes import deployment

from prunella.core.model import Mode
from prunella.kube.access import access
from prunella.kube.kinds import DEPLOYMENT, HEALING_POLICY, NAMESPACE
from prunella.kube.shared import cluster_at, leave
from prunella.operator.drafts import written
from prunella.operator.policies import Policies
from prunella.operator.resolve import Resolver, Verdict
from prunella.plugins import Draft
from prunella.runtime.clock import SystemClock

TARGET = {"kind": "Deployment", "name": "web"}
WEB = {"kind": "Deployment", "matchLabels": {"tier": "web"}}


async def test_a_policy_is_accepted_edited_and_deleted(bed: Bed) -> None:
    await bed.deploy("web")
    await bed.policy("web", target=TARGET)
    async with bed.living() as one:
        await bed.told("web", "Accepted", "Accepted")
        assert await bed.told("web", "Resolved", "Resolved") == "1 workload(s)"
        assert one.services() == {"web"}
        await bed.edit(HEALING_POLICY, "web", {"spec": {"thresholds": {"response_time": "2s"}}})
        config = one.healing.config
        assert config is not None

        def slower() -> bool:
            now = one.healing.config
            assert now is not None
            return [s.policy.response_time_s for s in now.services.values()] == [2.0]

        await until(slower)
        await bed.cluster.delete(HEALING_POLICY, "web", bed.namespace)
        await until(lambda: one.services() == set())


async def test_what_is_written_from_what_runs_is_accepted(bed: Bed) -> None:
    await bed.deploy("web")
    section = {"namespace": bed.namespace, "context": "any", **TARGET}
    probe = {"kind": "http", "url": "http://{address}:{port}/"}
    drafts = [Draft("web", section, [probe], {"min": 2, "max": 4}, "a note: with # signs")]
    for policy in yaml.safe_load_all(written(drafts, "policies.yaml")):
        await bed.cluster.create(HEALING_POLICY, policy, bed.namespace)
    async with bed.living() as one:
        await bed.told("web", "Resolved", "Resolved")
        assert one.services() == {"web"}
        assert one.healing.config is not None
        (service,) = one.healing.config.services.values()
        assert service.policy.mode is Mode.OBSERVE
        assert [probe.kind for probe in service.probes] == ["http"]


async def test_a_bad_policy_says_why_and_takes_no_other_one_down(bed: Bed) -> None:
    await bed.deploy("web")
    await bed.policy("web", target=TARGET)
    await bed.policy("everything", selector={"matchLabels": {}})
    await bed.policy("misspelt", target=TARGET, thresholds={"respons_time": "1s"})
    await bed.policy("commands", target=TARGET, probes=[{"kind": "exec", "command": ["true"]}])
    async with bed.living() as one:
        await until(lambda: one.services() == {"web"})
        assert "would match everything" in await bed.told("everything", "Accepted", "Invalid")
        assert "did you mean 'response_time'" in await bed.told("misspelt", "Accepted", "Invalid")
        assert "run where Prunella does" in await bed.told("commands", "Accepted", "Invalid")


async def test_what_was_good_last_stays_in_force_also_over_a_restart(bed: Bed) -> None:
    await bed.deploy("web")
    await bed.policy("web", target=TARGET)
    async with bed.living() as one:
        await bed.told("web", "Resolved", "Resolved")
        await bed.edit(HEALING_POLICY, "web", {"spec": {"thresholds": {"slo": "none"}}})
        said = await bed.told("web", "Accepted", "Invalid")
        assert "(generation 1 stays in force)" in said
        assert one.services() == {"web"}
    async with bed.living() as one:
        await until(lambda: one.services() == {"web"})
        await bed.edit(HEALING_POLICY, "web", {"spec": {"thresholds": None}})
        await bed.told("web", "Accepted", "Accepted")


async def test_a_selector_follows_the_workloads_that_there_are(bed: Bed) -> None:
    await bed.policy("all", selector=WEB)
    async with bed.living() as one:
        said = await bed.told("all", "Resolved", "NoTarget")
        assert "no Deployment with these labels" in said
        assert (await bed.condition("all", "Accepted"))[0] == "True"
        for name in ("one", "two"):
            await bed.deploy(name, tier="web")
        await bed.deploy("other", tier="db")
        await until(lambda: one.services() == {"one", "two"})
        await bed.cluster.delete(DEPLOYMENT, "one", bed.namespace)
        await until(lambda: one.services() == {"two"})


async def test_the_older_one_of_two_policies_wins(bed: Bed) -> None:
    await bed.deploy("web", tier="web")
    await bed.deploy("more", tier="web")
    await bed.policy("a-first", target=TARGET)
    await bed.policy("b-second", selector=WEB)
    async with bed.living() as one:
        said = await bed.told("b-second", "Resolved", "Conflicted")
        assert said.endswith(f"is healed by HealingPolicy {bed.namespace}/a-first")
        assert one.services() == {"web", "more"}
        await bed.cluster.delete(HEALING_POLICY, "a-first", bed.namespace)
        await bed.told("b-second", "Resolved", "Resolved")
        assert one.services() == {"web", "more"}


async def test_needs_are_found_beside_it_and_never_go_in_a_circle(bed: Bed) -> None:
    for name in ("web", "db"):
        await bed.deploy(name)
    await bed.policy("a-web", target=TARGET, depends_on=["db"])
    async with bed.living() as one:
        assert "no service db" in await bed.told("a-web", "Resolved", "NoDependency")
        await bed.policy("b-db", target={"name": "db"}, depends_on=["web"])
        await bed.told("a-web", "Resolved", "Resolved")
        assert "depend on each other" in await bed.told("b-db", "Resolved", "NoDependency")
        config = one.healing.config
        assert config is not None
        needs = {id_: [n.service for n in s.policy.needs] for id_, s in config.services.items()}
        prefix = bed.namespace
        assert needs == {f"{prefix}.web": [f"{prefix}.db"], f"{prefix}.db": []}


async def test_a_watch_that_cannot_tell_removes_nothing(fake_bed: Bed) -> None:
    bed, fake = fake_bed, fake_bed.fake
    assert fake is not None
    await bed.deploy("web")
    await bed.policy("web", target=TARGET)
    async with bed.living() as one:
        await bed.told("web", "Resolved", "Resolved")
        for plural in ("healingpolicies", "deployments"):
            for verb in ("list", "watch"):
                fake.deny(verb, plural)
        fake.expire()
        fake.drop(HEALING_POLICY, "web")
        fake.put({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}})
        policies = one.home._policies
        assert policies is not None
        await until(lambda: policies._blind)
        assert one.services() == {"web"}
        for plural in ("healingpolicies", "deployments"):
            for verb in ("list", "watch"):
                fake.allow(verb, plural)
        await until(lambda: one.services() == set())


async def test_a_namespace_that_is_deleted_takes_its_policies_with_it(fake_bed: Bed) -> None:
    bed, fake = fake_bed, fake_bed.fake
    assert fake is not None
    for name in ("shop", "other"):
        fake.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, "")
        body = {"spec": {**SOON, "target": {"name": "web"}}, "metadata": {"name": "web"}}
        await bed.cluster.create(HEALING_POLICY, body, name)
        await bed.cluster.create(DEPLOYMENT, deployment("web", "web:1"), name)
    async with bed.living(operator={"namespaces": ["shop", "other"]}) as one:
        await until(lambda: one.services() == {"shop.web", "other.web"})
        await bed.cluster.delete(NAMESPACE, "shop")
        await until(lambda: one.services() == {"other.web"})


@pytest.mark.parametrize("trouble", ["expired", "throttled", "cut"])
async def test_what_befalls_watches_changes_nothing(fake_bed: Bed, trouble: str) -> None:
    bed, fake = fake_bed, fake_bed.fake
    assert fake is not None
    await bed.deploy("web")
    await bed.policy("web", target=TARGET)
    async with bed.living() as one:
        await bed.told("web", "Resolved", "Resolved")
        if trouble == "throttled":
            fake.throttle(3)
        else:
            (fake.expire if trouble == "expired" else fake.cut)()
        await bed.deploy("more")
        await bed.policy("more", target={"name": "more"})
        await bed.told("more", "Resolved", "Resolved")
        assert one.services() == {"web", "more"}


async def test_a_status_is_written_once(fake_bed: Bed) -> None:
    bed, fake = fake_bed, fake_bed.fake
    assert fake is not None
    await bed.deploy("web")
    await bed.policy("web", target=TARGET)
    async with bed.living():
        await bed.told("web", "Healthy", "Well")
        fake.requests.clear()
        await bed.policy("next", target={"name": "nothing"})
        await bed.told("next", "Resolved", "NoTarget")
        writes = [path for method, path in fake.requests if method == "PATCH"]
        assert [path for path in writes if "/web/" in path] == []


async def test_an_annotation_holds_until_it_goes(bed: Bed) -> None:
    await bed.deploy("web")
    pause = {"prunella.dev/pause": "a migration"}
    await bed.edit(DEPLOYMENT, "web", {"metadata": {"annotations": pause}})
    await bed.policy("web", target=TARGET)
    async with bed.living() as one:
        assert await bed.told("web", "Paused", "Annotation") == "a migration"
        assert await one.holds() == {"annotation:Deployment/web": ("a migration", False)}
        until_then = {**pause, "prunella.dev/pause-until": "2999-01-01T00:00:00Z"}
        await bed.edit(HEALING_POLICY, "web", {"metadata": {"annotations": until_then}})
        owners = {"annotation:Deployment/web", "annotation:HealingPolicy/web"}

        async def both() -> bool:
            return set(await one.holds()) == owners

        await until(both)
        assert (await one.holds())["annotation:HealingPolicy/web"] == ("a migration", True)
        gone = {"prunella.dev/pause": None, "prunella.dev/pause-until": None}
        for kind in (DEPLOYMENT, HEALING_POLICY):
            await bed.edit(kind, "web", {"metadata": {"annotations": gone}})
        await bed.told("web", "Paused", "NoAnnotation")
        assert await one.holds() == {}


async def test_an_end_that_cannot_be_read_is_none(fake_bed: Bed) -> None:
    bed = fake_bed
    await bed.deploy("web")
    end = {"prunella.dev/pause": "x", "prunella.dev/pause-until": "tomorrow"}
    await bed.edit(DEPLOYMENT, "web", {"metadata": {"annotations": end}})
    await bed.policy("web", target=TARGET)
    async with bed.living() as one:
        said = await bed.told("web", "Paused", "Annotation")
        assert "'tomorrow' is no time such as 2026-01-31T18:00:00Z" in said
        assert await one.holds() == {"annotation:Deployment/web": ("x", False)}


class Beside(Resolver):
    """One that only goes on when the event loop has."""

    loop: asyncio.AbstractEventLoop

    def resolve(self, *of: Any) -> list[Verdict]:
        went_on = threading.Event()
        self.loop.call_soon_threadsafe(went_on.set)
        assert went_on.wait(10), "the event loop stands still meanwhile"
        return super().resolve(*of)


async def test_healing_goes_on_while_policies_are_resolved(fake_bed: Bed) -> None:
    async with fake_bed.living() as one:
        cluster = cluster_at(access(), SystemClock())
        resolver = Beside(one.config, observe=False)
        resolver.loop = asyncio.get_running_loop()
        try:
            await Policies(cluster, one.healing, SystemClock(), resolver).take_file(one.config)
        finally:
            await leave(cluster)


async def test_there_is_one_watch_for_each_kind_whoever_looks(fake_bed: Bed) -> None:
    bed, fake = fake_bed, fake_bed.fake
    assert fake is not None
    ports = [{"port": 80, "targetPort": 80}]
    spec = {"selector": {"app": "web"}, "ports": ports}
    fake.put({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
    for name in ("web", "next"):
        await bed.deploy(name)
    await bed.policy("web", target=TARGET, gateway={"name": "cluster", "service": "web"})
    await bed.policy("next", target={"name": "next"})
    async with bed.living(gateways={"cluster": {"kind": "kubernetes"}}):
        await bed.told("web", "Healthy", "Well")
        await bed.told("next", "Healthy", "Well")
        await until(lambda: "endpointslices" in fake.watched)
        assert fake.watched == [
            "deployments",
            "endpointslices",
            "healingpolicies",
            "horizontalpodautoscalers",
            "nodes",
            "pods",
            "replicasets",
            "services",
        ]
