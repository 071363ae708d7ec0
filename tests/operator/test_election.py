"""Who leads: on one virtual clock for all, against a fake API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from prunella.errors import StaleEpochError, TransientError
from prunella.kube.client import Cluster, ForbiddenError, MissingError
from prunella.kube.kinds import DEPLOYMENT, EVENT, LEASE, Json
from prunella.operator.election import Election
from prunella.testing.clock import SimClock
from prunella.testing.kube import FakeCluster

TTL_S = 15.0


@pytest.fixture
async def fake() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(controllers=False) as started:
        yield started


@pytest.fixture
def clock() -> SimClock:
    return SimClock()


@pytest.fixture
async def candidate(fake: FakeCluster, clock: SimClock) -> AsyncIterator[Callable[..., Election]]:
    made: list[Election] = []

    def make(identity: str) -> Election:
        made.append(Election(fake.access, clock, name="prunella", identity=identity, ttl_s=TTL_S))
        return made[-1]

    yield make
    for one in made:
        await one.release()


@pytest.fixture
async def leader(candidate: Callable[[str], Election]) -> Election:
    one = candidate("one")
    await one.acquire(lambda _: None)
    return one


def spec(fake: FakeCluster) -> Json:
    lease = fake.find(LEASE, "prunella")
    assert lease is not None
    return dict(lease["spec"])


def leads(one: Election) -> bool:
    try:
        one.require()
    except StaleEpochError:
        return False
    return True


async def test_the_first_one_makes_the_lease(fake: FakeCluster, leader: Election) -> None:
    assert leads(leader)
    assert leader.epoch == 1
    made = spec(fake)
    assert (made["holderIdentity"], made["leaseDurationSeconds"]) == ("one", 15)
    assert made["acquireTime"] == made["renewTime"]


async def test_another_one_waits_until_it_has_seen_no_change_for_the_whole_time(
    leader: Election, candidate: Callable[[str], Election], clock: SimClock, fake: FakeCluster
) -> None:
    other = candidate("two")
    assert await other._try() == "standing by: one leads"
    clock.advance(TTL_S - 0.1)
    assert await other._try() == "standing by: one leads"
    clock.advance(0.1)
    assert not leads(leader)
    assert await other._try() == ""
    assert leads(other)
    assert other.epoch == 2
    assert spec(fake)["leaseTransitions"] == 2


async def test_wall_clocks_are_not_believed(
    leader: Election, candidate: Callable[[str], Election], clock: SimClock
) -> None:
    other = candidate("two")
    clock.wall_offset_s = 86400
    assert await other._try() == "standing by: one leads"
    clock.wall_offset_s = -86400
    clock.advance(TTL_S / 2)
    await leader._try()
    clock.advance(TTL_S / 2)
    assert await other._try() == "standing by: one leads"
    assert leads(leader)


async def test_who_has_not_renewed_for_two_thirds_of_the_time_has_lost(
    leader: Election, clock: SimClock
) -> None:
    clock.advance(TTL_S * 2 / 3)
    assert leads(leader)
    clock.advance(0.1)
    with pytest.raises(StaleEpochError, match=r"not renewed for 10\.1 s"):
        leader.require()
    with pytest.raises(StaleEpochError):
        await leader._try()


async def test_who_has_lost_does_not_lead_again(
    fake: FakeCluster, leader: Election, clock: SimClock
) -> None:
    clock.advance(TTL_S)
    assert not leads(leader)
    with pytest.raises(StaleEpochError):
        await leader.keep()
    assert spec(fake)["leaseTransitions"] == 1


async def test_a_released_lease_is_taken_at_once(
    fake: FakeCluster, leader: Election, candidate: Callable[[str], Election]
) -> None:
    other = candidate("two")
    assert await other._try()
    await leader.release()
    assert spec(fake)["holderIdentity"] == ""
    assert not leads(leader)
    assert await other._try() == ""
    assert other.epoch == 2


async def test_a_lease_that_somebody_has_deleted_is_made_anew_by_its_leader(
    fake: FakeCluster, leader: Election, candidate: Callable[[str], Election], clock: SimClock
) -> None:
    other = candidate("two")
    assert await other._try()
    fake.drop(LEASE, "prunella")
    assert await other._try() == "standing by: there is no lease yet, or not any more"
    clock.advance(TTL_S * 2 / 15)
    assert await leader._try() == ""
    assert leads(leader)
    assert (spec(fake)["holderIdentity"], spec(fake)["leaseTransitions"]) == ("one", 1)
    assert await other._try() == "standing by: one leads"


async def test_a_deleted_lease_of_a_dead_leader_is_followed_by_another_epoch(
    fake: FakeCluster, leader: Election, candidate: Callable[[str], Election], clock: SimClock
) -> None:
    other = candidate("two")
    assert await other._try()
    fake.drop(LEASE, "prunella")
    clock.advance(TTL_S)
    assert await other._try()  # seen to be missing for the first time
    clock.advance(TTL_S / 3)
    assert await other._try() == ""
    assert other.epoch == 2
    assert not leads(leader)


async def test_another_holder_is_believed_at_once(
    fake: FakeCluster, leader: Election, clock: SimClock
) -> None:
    lease = fake.find(LEASE, "prunella")
    assert lease is not None
    fake.put({**lease, "spec": {**lease["spec"], "holderIdentity": "two", "leaseTransitions": 2}})
    with pytest.raises(StaleEpochError, match="two leads"):
        await leader._try()
    assert not leads(leader)


async def test_a_conflict_is_read_anew(
    fake: FakeCluster, leader: Election, candidate: Callable[[str], Election], clock: SimClock
) -> None:
    clock.advance(TTL_S)
    one, two = candidate("two"), candidate("three")
    for each in (one, two):
        await each._try()
    clock.advance(TTL_S)
    assert [await one._try(), await two._try()] == ["", "standing by: two leads"]
    assert spec(fake)["leaseTransitions"] == 2


async def test_a_renewal_whose_answer_was_lost_is_found_to_be_ours(
    fake: FakeCluster, leader: Election, clock: SimClock
) -> None:
    clock.advance(1)
    fake.lose(1)
    with suppress(TransientError):
        await leader._try()
    clock.advance(1)
    assert await leader._try() == ""
    assert leads(leader)
    assert leader.epoch == 1


async def test_a_leader_that_may_not_renew_any_more_ends_by_its_own_clock(
    fake: FakeCluster, leader: Election, clock: SimClock
) -> None:
    fake.deny("update", "leases")
    with pytest.raises(ForbiddenError):
        await leader._try()
    assert leads(leader)
    with pytest.raises(StaleEpochError, match="not renewed"):
        await leader.keep()
    assert clock.now() < 1.2 * TTL_S + TTL_S / 3


async def test_an_api_server_that_is_away_is_waited_for(
    fake: FakeCluster, candidate: Callable[[str], Election]
) -> None:
    one, said = candidate("one"), list[str]()
    await fake.stop()

    def say(reason: str) -> None:
        said.append(reason)
        if "cannot be reached" not in reason:
            return
        back.append(asyncio.ensure_future(fake.start()))

    back: list[asyncio.Future[None]] = []
    await one.acquire(say)
    assert "cannot be reached" in said[0]
    assert leads(one)


class TestFence:
    """What is awaited before each write."""

    @pytest.fixture
    async def cluster(
        self, fake: FakeCluster, leader: Election, clock: SimClock
    ) -> AsyncIterator[Cluster]:
        made = Cluster(fake.access, clock)
        made.fence = leader.fence
        yield made
        await made.close()

    async def test_a_leader_writes_without_asking(
        self, cluster: Cluster, fake: FakeCluster
    ) -> None:
        fake.requests.clear()
        await write(cluster)
        assert [method for method, _ in fake.requests] == ["PATCH"]

    async def test_one_that_has_not_renewed_lately_asks_first(
        self, cluster: Cluster, fake: FakeCluster, clock: SimClock
    ) -> None:
        clock.advance(TTL_S / 3 + 0.1)
        fake.requests.clear()
        await write(cluster)
        assert [method for method, _ in fake.requests] == ["GET", "PATCH"]

    async def test_one_that_was_frozen_writes_nothing(
        self, cluster: Cluster, fake: FakeCluster, clock: SimClock
    ) -> None:
        clock.advance(TTL_S)
        fake.requests.clear()
        with pytest.raises(StaleEpochError):
            await write(cluster)
        assert fake.requests == []

    async def test_one_that_was_followed_writes_nothing(
        self, cluster: Cluster, fake: FakeCluster, clock: SimClock
    ) -> None:
        lease = fake.find(LEASE, "prunella")
        assert lease is not None
        fake.put({**lease, "spec": {**lease["spec"], "leaseTransitions": 2}})
        clock.advance(TTL_S / 3 + 0.1)
        with pytest.raises(StaleEpochError):
            await write(cluster)
        assert fake.find(DEPLOYMENT, "web") is None

    async def test_nothing_is_written_while_nobody_can_tell(
        self, cluster: Cluster, fake: FakeCluster, clock: SimClock
    ) -> None:
        fake.drop(LEASE, "prunella")
        clock.advance(TTL_S / 3 + 0.1)
        with pytest.raises(TransientError, match="nobody can tell who leads"):
            await write(cluster)

    async def test_reading_and_telling_are_free(self, cluster: Cluster, clock: SimClock) -> None:
        clock.advance(TTL_S)
        with pytest.raises(MissingError):
            await cluster.get(DEPLOYMENT, "web", "default")
        assert await cluster.allowed("patch", DEPLOYMENT, "default")
        about = {"kind": "Deployment", "namespace": "default", "name": "web"}
        await cluster.create(
            EVENT, {"metadata": {"name": "web.1"}, "involvedObject": about}, "default"
        )

    async def test_a_namespace_that_is_called_events_is_no_way_around(
        self, cluster: Cluster, clock: SimClock
    ) -> None:
        clock.advance(TTL_S)
        with pytest.raises(StaleEpochError):
            await cluster.delete(DEPLOYMENT, "events", "events")


async def write(cluster: Cluster) -> None:
    with suppress(MissingError):  # it came as far as the server
        await cluster.patch(DEPLOYMENT, "web", "default", {"spec": {"replicas": 2}})
