"""What the tests of one store share: opening, and the smallest things to put in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from prunella.core.ledger import Finish, Holder, Intent, Step
from prunella.core.machine import Event, Phase
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Epoch,
    IncidentId,
    Outcome,
    ServiceId,
    SymptomKind,
)
from prunella.plugins import stores
from prunella.ports import Store
from prunella.testing.clock import SimClock

DEAD = Holder("here", 1, "0", "boot-1", "dead")


class Desk:
    """Opens stores, and closes them in the end; acts on them on a clock of its own."""

    def __init__(self) -> None:
        self.clock = SimClock()
        self.opened: list[Store] = []

    def open(self, path: Path | str, *, readonly: bool = False) -> Store:
        self.opened.append(stores()["sqlite"].open(f"sqlite:///{path}", readonly))
        return self.opened[-1]

    async def claim(self, store: Store) -> Epoch:
        return await store.claim(DEAD, self.clock.stamp())

    async def begin(self, store: Store, epoch: Epoch, service: str = "web") -> ActionId:
        now = self.clock.stamp()
        intent = Intent(
            action=Action(ActionKind.RESTART, ServiceId(service)),
            incident=IncidentId("web-1"),
            reason="three failures in a row",
            symptom=SymptomKind.DOWN,
            actor="prunella",
            at=now,
            failing_since=None,
            event=Event.CONFIRMED,
        )
        answer = await store.begin(intent, lambda _: (), now, epoch=epoch)
        assert isinstance(answer, int), answer
        return answer

    async def finish(
        self, store: Store, epoch: Epoch, action: ActionId, service: str = "web"
    ) -> None:
        finish = Finish(action, Outcome.RECOVERED)
        now = self.clock.stamp()
        step = Step(ServiceId(service), Event.RECOVERED, Phase.WATCHING, now, "well", finish=finish)
        await store.advance(step, epoch=epoch)

    async def act(self, store: Store, epoch: Epoch, service: str = "web") -> ActionId:
        action = await self.begin(store, epoch, service)
        await self.finish(store, epoch, action, service)
        return action


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    for store in reversed(made.opened):
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a folder, to be compared with itself later."""

    def read(folder: Path) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}

    return read
