"""A namespace with policies in it that goes, and comes again, on a real cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.operator.conftest import Bed, until
from tests.operator.fates import RealFate
from tests.real.kubernetes import OwnKubernetes

from prunella.kube.client import MissingError
from prunella.kube.kinds import NAMESPACE, POD

TARGET = {"kind": "Deployment", "name": "web"}
pytestmark = pytest.mark.timeout(240)


class Home:
    """A namespace with the Deployment ``web`` and a policy for it."""

    def __init__(self, bed: Bed, own: OwnKubernetes) -> None:
        self.bed = bed
        self.fate = RealFate(bed, own)

    async def settle(self) -> None:
        await self.fate.deploy()
        await self.bed.policy("web", target=TARGET)

    async def well(self) -> None:
        await self.bed.told("web", "Healthy", "Well")

    async def heals(self) -> None:
        """One of its pods is ruined: it is replaced, once, and the other one stays."""
        before = await self._uids()
        victim, spared = await self.bed.all(POD)
        await self.fate.ruin(victim)

        async def replaced() -> bool:
            return victim["metadata"]["uid"] not in await self._uids()

        await until(replaced)
        await self.well()
        assert before & await self._uids() == {spared["metadata"]["uid"]}
        assert await self.fate.evictions() == 1

    async def _uids(self) -> set[str]:
        return {pod["metadata"]["uid"] for pod in await self.bed.all(POD)}


async def test_a_namespace_that_goes_takes_nothing_else_along_and_may_come_again(
    real_bed: Bed, own_kubernetes: OwnKubernetes, tmp_path: Path
) -> None:
    name = await asyncio.to_thread(own_kubernetes.namespace)
    stays = Home(real_bed, own_kubernetes)
    goes = Home(Bed(real_bed.cluster, name, tmp_path, None), own_kubernetes)

    async def is_gone() -> bool:
        try:
            await real_bed.cluster.get(NAMESPACE, name)
        except MissingError:
            return True
        return False

    await stays.settle()
    await goes.settle()
    async with real_bed.living(operator={"namespaces": [real_bed.namespace, name]}):
        await stays.well()
        await goes.well()
        await asyncio.to_thread(own_kubernetes.forget, name)
        await until(is_gone)
        await stays.heals()
        assert await goes.fate.evictions() == 0

        await real_bed.cluster.create(NAMESPACE, {"metadata": {"name": name}})
        accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
        await until(lambda: own_kubernetes.items(accounts))
        await goes.settle()
        await goes.well()
        await goes.heals()
        await stays.well()
        assert await stays.fate.evictions() == 1
    await asyncio.to_thread(own_kubernetes.forget, name)
