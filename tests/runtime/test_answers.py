"""What an orchestrator answers of the past, and of what its platforms say."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from prunella import SelfHealingOrchestrator
from prunella.config import from_mapping
from prunella.core.ledger import Finish, Grant, Holder, Intent, Step
from prunella.core.machine import Event, Phase
from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    IncidentId,
    Instant,
    Outcome,
    ServiceId,
    Stamp,
    SymptomKind,
)
from prunella.plugins import open_store
from prunella.ports import Store
from prunella.runtime.clock import SystemClock
from prunella.wire import Replicas

Eventually = Callable[[Callable[[], Any]], Awaitable[Any]]
SLEEPER = {"platform": "process", "process": {"command": ["sleep", "600"]}}


async def scale_up(store: Store, service: str, due: Stamp, *, epoch: Epoch) -> None:
    """A scale-up from 2 to 4 that has helped, and is to be taken back at `due`."""
    now, id_ = SystemClock().stamp(), ServiceId(service)
    intent = Intent(
        Action(ActionKind.SCALE_UP, id_, replicas=4, before="2"),
        IncidentId("i"),
        "it is slow",
        SymptomKind.SLOW,
        "prunella",
        now,
        now,
        Event.CONFIRMED,
        grant=Grant(2, 4, due),
    )
    begun = await store.begin(intent, lambda _: (), now, epoch=epoch)
    assert isinstance(begun, int)
    finish = Finish(begun, Outcome.RECOVERED)
    await store.advance(Step(id_, Event.EXECUTED, Phase.VERIFYING, now, ""), epoch=epoch)
    recovered = Step(id_, Event.RECOVERED, Phase.WATCHING, now, "", finish=finish)
    await store.advance(recovered, epoch=epoch)


@asynccontextmanager
async def earlier(url: str) -> AsyncIterator[tuple[Store, Epoch]]:
    """The store as an earlier run had it; released at the end."""
    store, now = open_store(url), SystemClock().stamp()
    epoch = await store.claim(Holder("host", os.getpid(), "1", now.boot, "id"), now)
    yield store, epoch
    await store.release(epoch=epoch)
    await store.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/prunella.db"


@pytest.fixture
def config_of(tmp_path: Path) -> Callable[..., Any]:
    def make(**shop: Any) -> Any:
        services = {"shop": SLEEPER | shop}
        return from_mapping({"state_dir": str(tmp_path / "state"), "services": services})

    return make


async def test_debts_of_an_earlier_run_are_listed_and_what_is_due_first_comes_first(
    url: str, config_of: Callable[..., Any]
) -> None:
    now = SystemClock().stamp()
    async with earlier(url) as (store, epoch):
        for name, delay_s in (("later", 900.0), ("sooner", 600.0)):
            due = now._replace(instant=Instant(now.instant + delay_s))
            await scale_up(store, name, due, epoch=epoch)
    async with SelfHealingOrchestrator(config_of(), store=url) as orchestrator:
        sooner, later = await orchestrator.debts()
    assert (sooner.service_id, later.service_id) == ("sooner", "later")
    assert (sooner.kind, sooner.before, sooner.granted) == ("scale-up", 2, 4)
    assert 590 < (sooner.due - now.wall).total_seconds() < 610
    assert sooner.extended_count == 0


async def test_health_says_how_many_replicas_run_and_should(
    url: str, config_of: Callable[..., Any], eventually: Eventually
) -> None:
    pair = config_of(process={"command": ["sleep", "600"], "replicas": 2}, heal="off")
    async with SelfHealingOrchestrator(pair, store=url) as orchestrator:

        def replicas() -> Replicas | None:
            return orchestrator.get_service_health("shop").replicas

        await eventually(lambda: replicas() == Replicas(running=2, desired=2))
        os.kill(orchestrator.get_pids("shop")[0], signal.SIGKILL)
        await eventually(lambda: replicas() == Replicas(running=1, desired=2))
