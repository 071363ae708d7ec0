"""Whatever is done to them, a store on disk and one in memory answer alike."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from prunella.core.ledger import (
    Entry,
    EntryKind,
    Finish,
    Grant,
    Holder,
    Intent,
    LedgerView,
    Mark,
    Page,
    Step,
    Veto,
)
from prunella.core.machine import Event, Phase
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Epoch,
    Hold,
    IncidentId,
    InstanceId,
    Outcome,
    Run,
    ServiceId,
    Stamp,
    SymptomKind,
)
from prunella.errors import PrunellaError
from prunella.plugins import stores
from prunella.ports import Store
from prunella.testing.clock import SimClock

EXAMPLES = int(os.environ.get("PRUNELLA_TEST_EXAMPLES", "8"))
SERVICES = [ServiceId(name) for name in ("web", "db", "queue")]
services = st.sampled_from(SERVICES)
anywhere = st.none() | services
words = st.text(max_size=8)
millis = st.none() | st.floats(0, 1e9)
HOLDER = Holder("here", 1, "0", "boot-1", "one")


async def _page(limit: int, service: ServiceId | None, before: int | None, store: Store) -> Page:
    return await store.history(limit, service=service, before=before)


async def _mark(mark: Mark, epoch: Epoch, store: Store) -> None:
    await store.mark(mark, epoch=epoch)


async def _ending(action: ActionId, store: Store) -> Finish | None:
    return await store.action(action)


def opened(kind: str, url: str) -> Store:
    readonly = False
    return stores()[kind].open(url, readonly)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables, to be copied: the tables are made once for all examples."""
    path = tmp_path_factory.mktemp("empty") / "store.db"
    asyncio.run(opened("sqlite", f"sqlite:///{path}").close())
    return path


class Agreement(RuleBasedStateMachine):
    """Two stores, one clock, and every answer twice."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.url = f"sqlite:///{self.folder / 'store.db'}"
        shutil.copy(self.template, self.folder / "store.db")
        self.runner = asyncio.Runner()
        self.clock = SimClock()
        self.boots = 1
        self.pair = [opened("memory", "memory:"), opened("sqlite", self.url)]
        self.epoch = Epoch(0)
        self.acted: list[ActionId] = []

    def teardown(self) -> None:
        self.runner.run(self.pair[1].close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def both(self, ask: Callable[[Store], Awaitable[Any]]) -> Any:
        async def answer(store: Store) -> Any:
            try:
                return await ask(store)
            except PrunellaError as error:
                return type(error)

        one, other = (self.runner.run(answer(store)) for store in self.pair)
        if isinstance(one, list | tuple) and isinstance(other, list | tuple):
            one, other = tuple(one), tuple(other)
        assert one == other
        return one

    @initialize()
    def claim(self) -> None:
        holder = replace(HOLDER, id=f"boot {self.boots} at {self.clock.now()}")
        self.epoch = self.both(lambda store: store.claim(holder, self.clock.stamp()))

    @rule()
    def restart(self) -> None:
        self.runner.run(self.pair[1].close())
        self.pair[1] = opened("sqlite", self.url)
        self.claim()

    @rule(seconds=st.sampled_from([0.0, 0.001, 30.0, 3600.0, 50_000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-90_000.0, -3.5, 0.0, 7200.0]))
    def set_the_wall_clock(self, seconds: float) -> None:
        self.clock.wall_offset_s = seconds

    @rule(seconds=st.sampled_from([0.0, 100.0, 100_000.0]))
    def reboot(self, seconds: float) -> None:
        self.boots += 1
        before = self.clock
        self.clock = SimClock(f"boot-{self.boots}")
        self.clock.wall_offset_s = before.wall_offset_s + before.now() + seconds

    @rule(
        service=services,
        kind=st.sampled_from(ActionKind),
        symptom=st.none() | st.sampled_from(SymptomKind),
        reason=words,
        instance=st.none() | words.map(InstanceId),
        ended=st.sampled_from([None, None, Outcome.OBSERVED, Outcome.FOREIGN]),
        runs=st.lists(st.builds(Run, words.map(InstanceId), words), max_size=3).map(tuple),
        granted=st.none() | st.tuples(st.integers(0, 9), st.sampled_from([0.0, 60.0, 1e5])),
        vetoed=st.booleans(),
        since_s=st.none() | st.floats(0, 1e6),
    )
    def begin(
        self,
        service: ServiceId,
        kind: ActionKind,
        symptom: SymptomKind | None,
        reason: str,
        instance: InstanceId | None,
        ended: Outcome | None,
        runs: tuple[Run, ...],
        granted: tuple[int, float] | None,
        vetoed: bool,  # noqa: FBT001
        since_s: float | None,
    ) -> None:
        now = self.clock.stamp()
        since = None if since_s is None else self._after(-since_s)
        action = Action(kind, service, instance, reason, 3, None, reason, runs)
        intent = Intent(
            action=action,
            incident=IncidentId("i-1"),
            reason=reason,
            symptom=symptom,
            actor="ann",
            at=now,
            failing_since=since,
            event=Event.FORCED,
            ended=ended,
            grant=None if granted is None else Grant(granted[0], 3, self._after(granted[1])),
        )
        seen: list[LedgerView] = []

        def admit(view: LedgerView) -> Sequence[Veto]:
            seen.append(view)
            return (Veto("budget", reason),) if vetoed else ()

        answer = self.both(lambda store: store.begin(intent, admit, now, epoch=self.epoch))
        assert seen[0] == seen[1]
        if isinstance(answer, int):
            self.acted.append(ActionId(answer))

    @rule(
        service=services,
        phase=st.sampled_from(Phase),
        outcome=st.none() | st.sampled_from(Outcome),
        detail=words,
        recovery=millis,
        wake_s=st.none() | st.floats(0, 1e6),
        pick=st.randoms(use_true_random=False),
    )
    def advance(
        self,
        service: ServiceId,
        phase: Phase,
        outcome: Outcome | None,
        detail: str,
        recovery: float | None,
        wake_s: float | None,
        pick: Any,
    ) -> None:
        now = self.clock.stamp()
        finish = None
        if outcome and self.acted:
            finish = Finish(pick.choice(self.acted), outcome, detail, recovery, recovery)
        wake = None if wake_s is None else self._after(wake_s)
        step = Step(service, Event.COOLED, phase, now, detail, wake, finish)
        self.both(lambda store: store.advance(step, epoch=self.epoch))

    @rule(service=services, outcome=st.sampled_from(Outcome))
    def finish_what_runs(self, service: ServiceId, outcome: Outcome) -> None:
        rows = {row.service: row for row in self.both(lambda store: store.load())}
        if service in rows and rows[service].running:
            finish = Finish(rows[service].running, outcome, "", 1.5)
            now = self.clock.stamp()
            step = Step(service, Event.RECOVERED, Phase.WATCHING, now, "", None, finish)
            self.both(lambda store: store.advance(step, epoch=self.epoch))

    @rule(
        service=services,
        revisions=st.lists(st.sampled_from("abc"), max_size=40),
        soaked=st.booleans(),
        actor=words,
    )
    def mark(
        self,
        service: ServiceId,
        revisions: list[str],
        soaked: bool,  # noqa: FBT001
        actor: str,
    ) -> None:
        for revision in revisions:
            mark = Mark(service, revision, self.clock.stamp(), soaked, actor, actor)
            self.both(partial(_mark, mark, self.epoch))

    @rule(service=services, kind=st.sampled_from(ActionKind), reason=words)
    def settle(self, service: ServiceId, kind: ActionKind, reason: str) -> None:
        now = self.clock.stamp()
        self.both(lambda store: store.settle(service, kind, now, epoch=self.epoch, reason=reason))

    @rule(
        service=anywhere,
        kinds=st.lists(st.sampled_from(EntryKind), max_size=4),
        body=st.dictionaries(words, st.none() | words | st.booleans() | st.floats(-1e9, 1e9)),
    )
    def note(self, service: ServiceId | None, kinds: list[EntryKind], body: Any) -> None:
        now = self.clock.stamp()
        entries = [Entry(kind, now, service, "ann", body) for kind in kinds]
        self.both(lambda store: store.note(entries, epoch=self.epoch))

    @rule(
        service=anywhere,
        owner=st.sampled_from(["ann", "bob"]),
        lasts_s=st.none() | st.sampled_from([0.0, 60.0, 9000.0]),
    )
    def hold(self, service: ServiceId | None, owner: str, lasts_s: float | None) -> None:
        now = self.clock.stamp()
        until = None if lasts_s is None else self._after(lasts_s)
        hold = Hold(service, owner, "deploy", now, until)
        self.both(lambda store: store.place_hold(hold, epoch=self.epoch))

    @rule(service=anywhere)
    def lift(self, service: ServiceId | None) -> None:
        now = self.clock.stamp()
        self.both(lambda store: store.lift_holds(service, now, epoch=self.epoch, actor="bob"))

    @rule(age_s=st.sampled_from([0.0, 20_000.0, 100_000.0]))
    def compact(self, age_s: float) -> None:
        self.both(lambda store: store.beat(self.clock.stamp(), epoch=self.epoch))
        keep_from = self._after(-age_s)
        self.both(lambda store: store.compact(keep_from, epoch=self.epoch))

    @rule(
        limit=st.integers(0, 4), service=anywhere, kinds=st.frozensets(st.sampled_from(EntryKind))
    )
    def leaf_through(
        self, limit: int, service: ServiceId | None, kinds: frozenset[EntryKind]
    ) -> None:
        self.both(lambda store: store.beat(self.clock.stamp(), epoch=self.epoch))
        before: int | None = None
        for _ in range(5):
            page = self.both(partial(_page, limit, service, before))
            before = page.next
            if before is None:
                break
        newest = self.both(lambda store: store.entries(limit, service=service, kinds=kinds))
        if newest:
            before = newest[-1].seq
            self.both(
                lambda store: store.entries(limit, service=service, kinds=kinds, before=before)
            )

    @invariant()
    def all_answers_agree(self) -> None:
        if not self.epoch:
            return
        now = self.clock.stamp()
        self.both(lambda store: store.load())
        self.both(lambda store: store.holds(now))
        self.both(lambda store: store.view(SERVICES[0], now))
        self.both(lambda store: store.debts(now))
        self.both(lambda store: store.history(100))
        for action in self.acted[-3:]:
            self.both(partial(_ending, action))

    def _after(self, seconds: float) -> Stamp:
        later = SimClock(self.clock.boot)
        later.wall_offset_s = self.clock.wall_offset_s
        later.advance(self.clock.now() + seconds)
        return later.stamp()


def test_a_store_on_disk_and_one_in_memory_answer_alike(empty: Path) -> None:
    Agreement.template = empty
    run_state_machine_as_test(
        Agreement,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
