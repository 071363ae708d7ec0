"""Two real Prunellas on one store and one Lease: one of them acts, whatever befalls it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.operator.conftest import SOON, Bed, until
from tests.operator.fates import FakeFate, Fate, RealFate
from tests.real.freeze import freeze
from tests.real.kubernetes import OwnKubernetes

from prunella.errors import PrunellaError
from prunella.kube.kinds import HEALING_ACTION, LEASE, POD, Json

TTL_S = 6.0
CONFIG = f"""
api: off
store: sqlite:///prunella.db
state_dir: ./state
operator: {{lease_ttl: {TTL_S:g}s}}
"""
TARGET = {"kind": "Deployment", "name": "web"}


class Daemon:
    """One of them, in a process of its own."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process

    @classmethod
    async def begin(cls, name: str, folder: Path) -> Daemon:
        (folder / "prunella.yaml").write_text(CONFIG)
        log = (folder / f"{name}.log").open("ab")
        with log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "prunella", "run", str(folder / "prunella.yaml")),
                env={**os.environ, "HOSTNAME": name},
                stdout=log,
                stderr=log,
            )
        return cls(name, process)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    async def end(self) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()


@pytest.fixture
def fate(bed: Bed, request: pytest.FixtureRequest) -> Fate:
    if bed.fake is not None:
        return FakeFate(bed, bed.fake)
    own: OwnKubernetes = request.getfixturevalue("own_kubernetes")
    return RealFate(bed, own)


async def lease(bed: Bed) -> Json:
    """Its spec; empty: there is none, or nobody answers."""
    try:
        found: Json = (await bed.cluster.get(LEASE, "prunella", bed.namespace))["spec"]
    except PrunellaError:
        return {}
    return found


async def led_by(bed: Bed, name: str) -> None:
    async def leads() -> bool:
        return str((await lease(bed)).get("holderIdentity")).partition("_")[0] == name

    await until(leads)


@asynccontextmanager
async def pair(bed: Bed, fate: Fate) -> AsyncIterator[tuple[Daemon, Daemon]]:
    """One that leads, with a healthy service, and one that stands by."""
    await fate.deploy()
    await bed.policy("web", target=TARGET, **SOON)
    one = await Daemon.begin("one", bed.folder)
    other: Daemon | None = None
    try:
        await led_by(bed, "one")
        other = await Daemon.begin("two", bed.folder)
        log = bed.folder / "two.log"
        await until(lambda: "standing by: one_" in log.read_text())
        await bed.told("web", "Healthy", "Well")
        yield one, other
    finally:
        await one.end()
        if other is not None:
            await other.end()


async def uids(bed: Bed) -> set[str]:
    return {pod["metadata"]["uid"] for pod in await bed.all(POD)}


async def ours(bed: Bed) -> list[Json]:
    """What Prunella has done, not the kubelet."""
    actions = await bed.all(HEALING_ACTION)
    return [one for one in actions if one["spec"]["actor"] == "prunella"]


@pytest.mark.parametrize("first", ["ruin", "freeze"])
async def test_the_other_one_heals_when_the_leader_is_frozen(
    bed: Bed, fate: Fate, first: str
) -> None:
    async with pair(bed, fate) as (one, other):
        victim, spared = await bed.all(POD)
        if first == "ruin":
            await fate.ruin(victim)
        await asyncio.to_thread(freeze, one.process.pid)
        frozen_at = time.monotonic()
        await led_by(bed, "two")
        print(f"followed after {time.monotonic() - frozen_at:.2f} s")  # noqa: T201 - a figure
        if first == "freeze":
            await fate.ruin(victim)

        async def replaced() -> bool:
            return victim["metadata"]["uid"] not in await uids(bed)

        await until(replaced)
        print(f"replaced after {time.monotonic() - frozen_at:.2f} s")  # noqa: T201 - a figure
        await bed.told("web", "Healthy", "Well")
        pods = await uids(bed)
        assert await fate.evictions() == 1
        one.signal(signal.SIGCONT)
        assert await asyncio.wait_for(one.process.wait(), 30) == 1

        await until(lambda: bed.events("Healed"))
        (action,) = await until(lambda: ours(bed))
        assert action["status"]["outcome"] == "recovered"
        if bed.fake is None:
            rows = [row["Name"] for row in await bed.table(HEALING_ACTION)]
            assert rows.count(action["metadata"]["name"]) == 1
        assert [event["count"] for event in await bed.events("Healed")] == [1]
        assert await fate.evictions() == 1
        assert await uids(bed) == pods
        assert spared["metadata"]["uid"] in pods
        assert other.process.returncode is None
        spec = await lease(bed)
        assert spec["holderIdentity"].startswith("two_")
        assert spec["leaseTransitions"] == 2


async def test_nobody_acts_while_the_api_server_is_away_and_one_leads_afterwards(
    bed: Bed, fate: Fate
) -> None:
    async with pair(bed, fate) as (one, other):
        pods = await uids(bed)
        await fate.stop()
        assert await asyncio.wait_for(one.process.wait(), 30) == 1
        assert other.process.returncode is None
        await fate.start()
        await led_by(bed, "two")
        await bed.told("web", "Healthy", "Well")
        assert await fate.evictions() == 0
        assert await uids(bed) == pods


async def test_a_clean_end_is_followed_at_once_and_a_deleted_lease_by_nobody_else(
    bed: Bed, fate: Fate
) -> None:
    async with pair(bed, fate) as (one, other):
        await bed.cluster.delete(LEASE, "prunella", bed.namespace)
        await led_by(bed, "one")
        one.signal(signal.SIGTERM)
        assert await asyncio.wait_for(one.process.wait(), 30) == 0
        await led_by(bed, "two")
        assert (await lease(bed))["leaseTransitions"] == 2
        other.signal(signal.SIGTERM)
        assert await asyncio.wait_for(other.process.wait(), 30) == 0
        assert (await lease(bed))["holderIdentity"] == ""


async def test_one_that_stands_by_ends_when_told(bed: Bed, fate: Fate) -> None:
    async with pair(bed, fate) as (_, other):
        other.signal(signal.SIGTERM)
        assert await asyncio.wait_for(other.process.wait(), 30) == 0
        await led_by(bed, "one")


async def test_who_has_lost_leaves_no_beat_behind(bed: Bed, fate: Fate) -> None:
    async with bed.living(operator={"lease_ttl": "3s"}) as one:
        await fate.stop()
        await until(lambda: one.home.has_lost)
    names = [thread.name for thread in threading.enumerate()]
    assert "prunella-lease" not in names
    await fate.start()
