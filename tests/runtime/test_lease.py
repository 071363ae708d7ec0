"""The lease: without beats we fence ourselves, and a store that was taken over is let go."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from prunella.errors import StoreInUseError, TransientError
from prunella.plugins import stores
from prunella.ports import Store
from prunella.runtime.clock import SystemClock
from prunella.runtime.lease import TTL_S, Lease, this_process
from prunella.testing.clock import SimClock


class Moody:
    """A store that beats only when it feels like it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.trouble = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def beat(self, *args: Any, **keywords: Any) -> Awaitable[None]:
        if self.trouble:
            raise TransientError(self.trouble)
        return self._store.beat(*args, **keywords)


@pytest.fixture
async def store() -> AsyncIterator[Any]:
    readonly = False
    made = Moody(stores()["memory"].open("memory:", readonly))
    yield made
    await made.close()


@pytest.fixture
def sim() -> SimClock:
    return SimClock(SystemClock().boot)


async def test_without_beats_for_its_length_it_is_in_doubt_until_the_next_beat(
    store: Any, sim: SimClock, eventually: Any
) -> None:
    store.trouble = "disk full"
    lease = Lease(store, sim)
    await lease.claim("")
    assert lease.trouble == ""
    sim.advance(TTL_S)
    assert lease.trouble == ""
    sim.advance(1)
    assert lease.trouble == "no beat of our lease for 11 s"
    store.trouble = ""
    await eventually(lambda: lease.trouble == "")
    await lease.release()


async def test_once_another_holds_the_store_it_is_lost_and_does_not_come_back(
    store: Any, sim: SimClock, eventually: Any
) -> None:
    lease = Lease(store, sim)
    await lease.claim("")
    await store.release(epoch=lease.epoch)
    heir = this_process(sim.boot, "elsewhere")
    later = await store.claim(heir, sim.stamp())
    assert later > lease.epoch
    await eventually(lambda: "not ours any more" in lease.trouble)
    await lease.release()
    with pytest.raises(StoreInUseError, match="elsewhere"):
        await Lease(store, sim).claim("")


async def test_released_it_can_be_claimed_by_the_next_with_a_higher_epoch(
    store: Any, sim: SimClock
) -> None:
    first, second = Lease(store, sim), Lease(store, sim)
    await first.claim("")
    with pytest.raises(StoreInUseError):
        await second.claim("")
    await first.release()
    await second.claim("")
    assert second.epoch > first.epoch
    await second.release()
