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
from tests.real.freeze import freeze

from prunella.kube.kinds import LEASE, POD, Json
from prunella.testing.kube import FakeCluster

TTL_S = 6.0
CONFIG = f"""
api: off
store: sqlite:///prunella.db
state_dir: ./state
operator: {{namespaces: [default], lease_ttl: {TTL_S:g}s}}
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
def fake(fake_bed: Bed) -> FakeCluster:
    assert fake_bed.fake is not None
    return fake_bed.fake


def holder(fake: FakeCluster) -> str:
    lease = fake.find(LEASE, "prunella")
    return "" if lease is None else str(lease["spec"]["holderIdentity"]).partition("_")[0]


@asynccontextmanager
async def pair(bed: Bed, fake: FakeCluster) -> AsyncIterator[tuple[Daemon, Daemon]]:
    """One that leads, with a healthy service, and one that stands by."""
    await bed.deploy("web")
    await bed.policy("web", target=TARGET, **SOON)
    one = await Daemon.begin("one", bed.folder)
    other: Daemon | None = None
    try:
        await until(lambda: holder(fake) == "one")
        other = await Daemon.begin("two", bed.folder)
        log = bed.folder / "two.log"
        await until(lambda: "standing by: one_" in log.read_text())
        await bed.told("web", "Healthy", "Well")
        yield one, other
    finally:
        await one.end()
        if other is not None:
            await other.end()


def evictions(fake: FakeCluster) -> int:
    return len([1 for _, path in fake.requests if path.endswith("/eviction")])


@pytest.mark.parametrize("first", ["crash", "freeze"])
async def test_the_other_one_heals_when_the_leader_is_frozen(
    fake_bed: Bed, fake: FakeCluster, first: str
) -> None:
    fake.node.backoff_s = 120.0
    async with pair(fake_bed, fake) as (one, other):
        victim = (await fake_bed.all(POD))[0]["metadata"]["name"]
        if first == "crash":
            fake.crash(victim, times=3)
        await asyncio.to_thread(freeze, one.process.pid)
        frozen_at = time.monotonic()
        await until(lambda: holder(fake) == "two")
        print(f"followed after {time.monotonic() - frozen_at:.2f} s")  # noqa: T201 - a figure
        if first == "freeze":
            fake.crash(victim, times=3)

        async def replaced() -> bool:
            pods = await fake_bed.all(POD)
            return victim not in [pod["metadata"]["name"] for pod in pods]

        await until(replaced)
        await fake_bed.told("web", "Healthy", "Well")
        done = evictions(fake)
        assert done == 1
        one.signal(signal.SIGCONT)
        assert await asyncio.wait_for(one.process.wait(), 30) == 1
        assert evictions(fake) == done
        assert holder(fake) == "two"
        assert other.process.returncode is None
        lease = fake.find(LEASE, "prunella")
        assert lease is not None
        assert lease["spec"]["leaseTransitions"] == 2


async def test_nobody_acts_while_the_api_server_is_away_and_one_leads_afterwards(
    fake_bed: Bed, fake: FakeCluster
) -> None:
    async with pair(fake_bed, fake) as (one, other):
        await fake.stop()
        assert await asyncio.wait_for(one.process.wait(), 30) == 1
        assert other.process.returncode is None
        await fake.start()
        await until(lambda: holder(fake) == "two")
        await fake_bed.told("web", "Healthy", "Well")
        assert evictions(fake) == 0


async def test_a_clean_end_is_followed_at_once_and_a_deleted_lease_by_nobody_else(
    fake_bed: Bed, fake: FakeCluster
) -> None:
    async with pair(fake_bed, fake) as (one, other):
        fake.drop(LEASE, "prunella")
        await until(lambda: holder(fake) == "one")
        one.signal(signal.SIGTERM)
        assert await asyncio.wait_for(one.process.wait(), 30) == 0
        await until(lambda: holder(fake) == "two")
        lease: Json | None = fake.find(LEASE, "prunella")
        assert lease is not None
        assert lease["spec"]["leaseTransitions"] == 2
        other.signal(signal.SIGTERM)
        assert await asyncio.wait_for(other.process.wait(), 30) == 0
        assert holder(fake) == ""


async def test_one_that_stands_by_ends_when_told(fake_bed: Bed, fake: FakeCluster) -> None:
    async with pair(fake_bed, fake) as (_, other):
        other.signal(signal.SIGTERM)
        assert await asyncio.wait_for(other.process.wait(), 30) == 0
        assert holder(fake) == "one"


async def test_who_has_lost_leaves_no_beat_behind(fake_bed: Bed, fake: FakeCluster) -> None:
    async with fake_bed.living(operator={"lease_ttl": "3s"}) as one:
        await fake.stop()
        await until(lambda: one.home.has_lost)
    names = [thread.name for thread in threading.enumerate()]
    assert "prunella-lease" not in names
    await fake.start()
