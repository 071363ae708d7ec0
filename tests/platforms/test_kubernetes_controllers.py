"""Argo Rollouts and KEDA, as their own controllers do what is written.

Collected only where ``$PRUNELLA_TEST_CONTROLLERS`` names a folder with the programs, and
``$PRUNELLA_TEST_CRDS`` one with their definitions: neither is in a registry that tests may ask.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.platforms.kube_bed import Bed, real_bed, restart_of, rollback, scaled, until
from tests.real.definitions import define, real
from tests.real.kubernetes import OwnKubernetes, deployment

from prunella.core.model import ActionKind, Epoch, Status
from prunella.kube.kinds import HPA, ROLLOUT, Json
from prunella.platforms._kube_scaler import SCALED_OBJECT
from prunella.platforms._kube_view import RAISED
from prunella.platforms.kubernetes import KubernetesPlatform
from prunella.testing.site import free_port

E1 = Epoch(1)
PROGRAMS = Path(os.environ["PRUNELLA_TEST_CONTROLLERS"])
pytestmark = pytest.mark.timeout(200)
ARGO, KEDA = pytest.mark.usefixtures("argo"), pytest.mark.usefixtures("keda")


@pytest.fixture(scope="session")
def argo(own_kubernetes: OwnKubernetes) -> OwnKubernetes:
    define(
        own_kubernetes, [one for one in real().values() if one["spec"]["group"] == ROLLOUT.group]
    )
    own_kubernetes.call("POST", "/api/v1/namespaces", {"metadata": {"name": "argo-rollouts"}})
    own_kubernetes.run(
        PROGRAMS / "rollouts-controller",
        *("--kubeconfig", str(own_kubernetes.kubeconfig), "--leader-elect=false"),
        *("--metricsPort", str(free_port()), "--healthzPort", str(free_port())),
    )
    return own_kubernetes


@pytest.fixture(scope="session")
def keda(own_kubernetes: OwnKubernetes) -> OwnKubernetes:
    own = own_kubernetes
    groups = (SCALED_OBJECT.group, "eventing.keda.sh")
    define(own, [one for one in real().values() if one["spec"]["group"] in groups])
    certificates = own.folder / "keda"
    certificates.mkdir()
    for name, source in (("tls.crt", "crt"), ("ca.crt", "crt"), ("tls.key", "key")):
        shutil.copy(own.folder / f"pki/apiserver.{source}", certificates / name)
    own.run(
        PROGRAMS / "keda-operator",
        *(f"--kubeconfig={own.kubeconfig}", "--leader-elect=false", f"--cert-dir={certificates}"),
        f"--metrics-bind-address=127.0.0.1:{free_port()}",
        f"--health-probe-bind-address=127.0.0.1:{free_port()}",
        f"--metrics-service-bind-address=127.0.0.1:{free_port()}",
        WATCH_NAMESPACE="",
        KEDA_CLUSTER_OBJECT_NAMESPACE="default",
    )
    return own


@pytest.fixture
async def bed(request: pytest.FixtureRequest) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        yield await real_bed(request, stack)


def canary(*steps: Json, **more: Any) -> Json:
    return {"canary": {"steps": [*steps], "maxSurge": 1, "maxUnavailable": 0, **more}}


async def make(bed: Bed, strategy: Json, replicas: int | None = 2) -> None:
    body = deployment("shop", bed.image("shop:1"))
    body |= {"apiVersion": ROLLOUT.api_version, "kind": ROLLOUT.name}
    body["spec"] |= {"strategy": strategy, "replicas": replicas}
    await bed.call("POST", ROLLOUT.path(bed.namespace), body)
    await bed.ready(replicas or 1)


async def rollout(bed: Bed) -> Json:
    return dict(await bed.call("GET", ROLLOUT.path(bed.namespace, "shop")))


async def deploy(bed: Bed, image: str) -> None:
    where = "/spec/template/spec/containers/0/image"
    body = [{"op": "replace", "path": where, "value": bed.image(image)}]
    path = ROLLOUT.path(bed.namespace, "shop")
    await bed.call("PATCH", path, body, content="application/json-patch+json")


async def running(bed: Bed, platform: KubernetesPlatform, count: int) -> Status:
    return await until(platform, lambda now: len(now.instances) == count and now.revision != "")


@ARGO
async def test_its_pods_are_of_its_version_and_one_of_them_is_replaced(
    bed: Bed, tmp_path: Path
) -> None:
    await make(bed, canary())
    platform = bed.platform(tmp_path, kind="Rollout")
    before = await running(bed, platform, 2)
    assert {one.revision for one in before.instances} == {before.revision}
    await platform.execute(restart_of(before.instances[0]), epoch=E1)
    after = await running(bed, platform, 2)
    assert after.revision == before.revision
    assert len({one.identity for one in (*before.instances, *after.instances)}) == 3


@ARGO
async def test_all_its_pods_are_restarted_as_argo_does_it(bed: Bed, tmp_path: Path) -> None:
    await make(bed, canary())
    platform = bed.platform(tmp_path, kind="Rollout", restart="rollout")
    before = await running(bed, platform, 2)
    await platform.execute(restart_of(before.instances[0]), epoch=E1)
    after = await running(bed, platform, 2)
    assert after.revision == before.revision
    assert not {one.identity for one in before.instances} & {
        one.identity for one in after.instances
    }


@ARGO
@pytest.mark.parametrize("replicas", [1, None])
async def test_it_is_scaled_up_and_back(bed: Bed, tmp_path: Path, replicas: int | None) -> None:
    await make(bed, canary(), replicas)
    platform = bed.platform(tmp_path, kind="Rollout")
    await running(bed, platform, 1)
    await platform.execute(scaled(1, 2), epoch=E1)
    await bed.ready(2)
    await platform.execute(scaled(2, 1), epoch=E1)
    await bed.ready(1)
    assert (await rollout(bed))["spec"]["replicas"] == 1


@ARGO
@pytest.mark.parametrize(
    "more",
    [
        {},
        {
            "canaryMetadata": {"labels": {"role": "canary"}},
            "stableMetadata": {"labels": {"role": "stable"}, "annotations": {"by": "argo"}},
        },
    ],
    ids=["plain", "metadata"],
)
async def test_a_canary_that_is_under_way_is_rolled_back_at_once(
    bed: Bed, tmp_path: Path, more: Json
) -> None:
    await make(bed, canary({"setWeight": 50}, {"pause": {}}, **more))
    platform = bed.platform(tmp_path, kind="Rollout")
    good = await running(bed, platform, 2)
    stable = (await rollout(bed))["status"]["stableRS"]
    await deploy(bed, "shop:2")
    bad = await until(platform, lambda now: now.revision != good.revision)
    await _is_paused(bed)
    assert {one.revision for one in (await platform.observe()).instances} == {
        good.revision,
        bad.revision,
    }
    await platform.execute(rollback(good.revision, bad.revision), epoch=E1)
    after = await running(bed, platform, 2)
    assert after.revision == good.revision
    assert {one.revision for one in after.instances} == {good.revision}
    told = (await rollout(bed))["status"]
    assert (told["stableRS"], told["currentPodHash"]) == (stable, stable)
    path = f"/apis/apps/v1/namespaces/{bed.namespace}/replicasets"
    assert len((await bed.call("GET", path))["items"]) == 2


@ARGO
async def test_pods_are_restarted_in_the_midst_of_a_canary(bed: Bed, tmp_path: Path) -> None:
    await make(bed, canary({"setWeight": 50}, {"pause": {}}))
    platform = bed.platform(tmp_path, kind="Rollout", restart="rollout")
    good = await running(bed, platform, 2)
    await deploy(bed, "shop:2")
    await _is_paused(bed)
    before = await until(platform, lambda now: now.revision != good.revision)
    await platform.execute(restart_of(before.instances[0]), epoch=E1)
    after = await platform.observe()
    assert not {one.identity for one in before.instances} & {
        one.identity for one in after.instances
    }
    assert {one.revision for one in after.instances} == {good.revision, before.revision}


@ARGO
async def test_a_version_that_cannot_start_is_to_blame_and_rolled_back(
    bed: Bed, tmp_path: Path
) -> None:
    await make(bed, canary())
    platform = bed.platform(tmp_path, kind="Rollout")
    good = await running(bed, platform, 2)
    await deploy(bed, "absent:1")
    bad = await until(platform, lambda now: any(one.blames_version for one in now.instances))
    assert bad.revision != good.revision
    await platform.execute(rollback(good.revision, bad.revision), epoch=E1)
    after = await running(bed, platform, 2)
    assert {one.revision for one in after.instances} == {good.revision}


@ARGO
async def test_one_that_is_paused_is_not_rolled_back(bed: Bed, tmp_path: Path) -> None:
    await make(bed, canary())
    path = ROLLOUT.path(bed.namespace, "shop")
    await asyncio.to_thread(bed.cluster.merge, path, {"spec": {"paused": True}})
    platform = bed.platform(tmp_path, kind="Rollout")
    await until(platform, lambda _: ActionKind.ROLLBACK not in platform.capabilities)
    assert any("it is paused" in one.message for one in await platform.examine())


async def _is_paused(bed: Bed) -> None:
    """Until Argo waits at a step."""

    async def waits() -> bool:
        return bool((await rollout(bed))["status"].get("pauseConditions"))

    await _eventually(waits)


@KEDA
@pytest.mark.parametrize("least", [None, 0, 1])
async def test_the_least_number_is_raised_where_keda_takes_it_from_and_put_back(
    bed: Bed, tmp_path: Path, least: int | None
) -> None:
    await bed.apply()
    always = {"timezone": "Etc/UTC", "start": "0 0 * * *", "end": "59 23 * * *"}
    spec = {
        "scaleTargetRef": {"name": "shop"},
        "maxReplicaCount": 4,
        "triggers": [{"type": "cron", "metadata": {**always, "desiredReplicas": "1"}}],
        **({} if least is None else {"minReplicaCount": least}),
    }
    metadata = {"name": "shop", "annotations": {"by": "a person"}}
    body = {"apiVersion": SCALED_OBJECT.api_version, "kind": SCALED_OBJECT.name}
    path = SCALED_OBJECT.path(bed.namespace)
    before = await bed.call("POST", path, {**body, "metadata": metadata, "spec": spec})
    platform = bed.platform(tmp_path)
    scaler = HPA.path(bed.namespace, "keda-hpa-shop")

    async def says(words: str) -> bool:
        return any(words in one.message for one in await platform.examine())

    await running(bed, platform, 2)
    await _eventually(lambda: says("keda-hpa-shop sets its number of pods, 1 to 4"))
    await platform.execute(scaled(2, 3), epoch=E1)
    assert (await platform.observe()).desired == 3
    await bed.ready(3)
    assert (await bed.call("GET", scaler))["spec"]["minReplicas"] == 3
    await platform.execute(scaled(3, 2), epoch=E1)
    assert (await platform.observe()).desired == 2
    after = await bed.call("GET", f"{path}/shop")
    assert after["metadata"]["annotations"] == metadata["annotations"]
    assert after["spec"] == before["spec"]

    async def is_put_back() -> bool:
        whole = await bed.call("GET", scaler)
        return whole["spec"]["minReplicas"] == 1 and RAISED not in whole["metadata"]["annotations"]

    await _eventually(is_put_back)


async def _eventually(question: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await question():  # noqa: ASYNC110 - a cluster has to be asked
            await asyncio.sleep(0.05)
