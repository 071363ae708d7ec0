"""What an orchestrator answers of the past, and of what its platforms say."""

import os
from pathlib import Path

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


async def test_debts_of_an_earlier_run_are_listed_and_what_is_due_first_comes_first(
    tmp_path: Path,
) -> None:
    url, clock = f"sqlite:///{tmp_path}/prunella.db", SystemClock()
    store, now = open_store(url), clock.stamp()
    epoch = await store.claim(Holder("host", os.getpid(), "1", now.boot, "id"), now)
    for name, delay_s in (("later", 900.0), ("sooner", 600.0)):
        due = now._replace(instant=Instant(now.instant + delay_s))
        await scale_up(store, name, due, epoch=epoch)
    await store.release(epoch=epoch)
    await store.close()
    config = from_mapping({"state_dir": str(tmp_path / "state"), "services": {"shop": SLEEPER}})
    async with SelfHealingOrchestrator(config, store=url) as orchestrator:
        sooner, later = await orchestrator.debts()
    assert (sooner.service, later.service) == ("sooner", "later")
    assert (sooner.kind, sooner.before, sooner.granted) == ("scale-up", 2, 4)
    assert 590 < (sooner.due - now.wall).total_seconds() < 610
    assert sooner.extended_count == 0
