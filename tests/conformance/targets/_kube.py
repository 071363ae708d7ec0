"""One Deployment or StatefulSet in a cluster, as a platform is tested on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance.targets import Bench
from tests.platforms.kube_bed import Bed, is_ready, restarts

from prunella.core.model import Instance
from prunella.ports import Platform


async def bench(  # noqa: C901 - the parts of one bench
    bed: Bed, folder: Path, request: pytest.FixtureRequest
) -> Bench:
    # Which pods of a Deployment are taken away is its own choice.
    kind = "StatefulSet" if request.fixturename == "scalable" else "Deployment"
    await bed.apply(kind, replicas=1)
    if request.fixturename == "bench":
        await bed.crash_once((await bed.pods())[0])

    async def pod_of(instance: Instance) -> dict[str, object] | None:
        uid, count = instance.identity.split("@")
        for pod in await bed.pods():
            if pod["metadata"]["uid"] == uid and restarts(pod) == int(count):
                return pod
        return None

    async def kill(instance: Instance) -> None:
        pod = await pod_of(instance)
        assert pod is not None
        await bed.crash(pod)

    async def lives(instance: Instance) -> bool:
        pod = await pod_of(instance)
        return pod is not None and is_ready(pod)

    async def count() -> int:
        return len(await bed.pods())

    async def rescale(replicas: int) -> None:
        await bed.change({"spec": {"replicas": replicas}}, kind)

    async def deploy() -> None:
        await bed.deploy("shop:2", kind)
        await bed.current(1, "shop:2")

    def blind() -> Platform:
        broken = folder / "no-kubeconfig"
        return bed.platform(folder, kubeconfig=broken)

    return Bench(
        bed.platform(folder, kind=kind),
        kill,
        lives,
        blind,
        tells_facts=True,
        facts=bed.facts,
        count=count,
        rescale=rescale,
        deploy=deploy,
    )
