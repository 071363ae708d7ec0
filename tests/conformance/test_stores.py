"""What every store does, whatever it is made of. A third party's store runs here too.

``PRUNELLA_TEST_STORE_<KIND>`` names an empty store of a kind that is not built in.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prunella.core.ledger import (
    Body,
    Entry,
    EntryKind,
    Finish,
    Grant,
    Holder,
    Intent,
    LedgerView,
    Mark,
    Step,
    Veto,
)
from prunella.core.machine import Event, Phase
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Debt,
    Epoch,
    Hold,
    IncidentId,
    InstanceId,
    Instant,
    Outcome,
    Run,
    ServiceId,
    Stamp,
    SymptomKind,
    Version,
)
from prunella.errors import PermanentError, StaleEpochError, StoreInUseError
from prunella.plugins import stores
from prunella.ports import Store
from prunella.testing.clock import SimClock

WEB, DB = ServiceId("web"), ServiceId("db")
DEAD = Holder(host="here", pid=os.getpid(), started="0", boot="boot-1", id="dead")
HOUR = 3600.0


def me(**changes: Any) -> Holder:
    pid = os.getpid()
    alive = Holder("here", pid, started(pid), "boot-1", "alive", "127.0.0.1:7110")
    return replace(alive, **changes)


def started(pid: int) -> str:
    """When the kernel started the process, in its own unit."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return stat.rpartition(")")[2].split()[19]


def opened_from(kind: str, url: str) -> Store:
    readonly = False
    return stores()[kind].open(url, readonly)


def everything(_view: LedgerView) -> Sequence[Veto]:
    return ()


@dataclass
class Bench:
    """A claimed store on a clock of its own."""

    store: Store
    clock: SimClock
    epoch: Epoch
    again: Callable[[], Store]

    def now(self) -> Stamp:
        return self.clock.stamp()

    def intent(self, service: ServiceId = WEB, **changes: Any) -> Intent:
        intent = Intent(
            action=Action(ActionKind.RESTART, service),
            incident=IncidentId("web-1"),
            reason="three failures in a row",
            symptom=SymptomKind.DOWN,
            actor="prunella",
            at=self.now(),
            failing_since=None,
            event=Event.CONFIRMED,
        )
        return replace(intent, **changes)

    async def begin(self, service: ServiceId = WEB, **changes: Any) -> ActionId:
        intent = self.intent(service, **changes)
        answer = await self.store.begin(intent, everything, self.now(), epoch=self.epoch)
        assert isinstance(answer, int), answer
        return answer

    async def finish(
        self, action: ActionId, service: ServiceId = WEB, outcome: Outcome = Outcome.RECOVERED
    ) -> None:
        finish = Finish(action, outcome, "it answers", 1500.25, 3000.5)
        step = Step(service, Event.RECOVERED, Phase.WATCHING, self.now(), "well", finish=finish)
        await self.store.advance(step, epoch=self.epoch)

    async def act(self, service: ServiceId = WEB, **changes: Any) -> ActionId:
        action = await self.begin(service, **changes)
        await self.finish(action, service)
        return action

    async def hold(self, service: ServiceId | None, owner: str = "ann", **changes: Any) -> Hold:
        hold = replace(Hold(service, owner, "deploy", self.now()), **changes)
        await self.store.place_hold(hold, epoch=self.epoch)
        return hold

    async def deploy(self, revision: str, service: ServiceId = WEB, actor: str = "") -> None:
        mark = Mark(service, revision, self.now(), actor=actor)
        await self.store.mark(mark, epoch=self.epoch)

    async def soak(self, revision: str, evidence: str = "", service: ServiceId = WEB) -> None:
        mark = Mark(service, revision, self.now(), soaked=True, evidence=evidence)
        await self.store.mark(mark, epoch=self.epoch)

    async def versions(self, service: ServiceId = WEB) -> tuple[Version, ...]:
        return (await self.again().view(service, self.now())).versions

    async def scale_up(
        self, before: int, granted: int, due_s: float, service: ServiceId = WEB, **changes: Any
    ) -> ActionId:
        grant = Grant(before, granted, self.at(due_s), **changes)
        action = Action(ActionKind.SCALE_UP, service, replicas=granted, before=str(before))
        return await self.act(service, action=action, grant=grant)

    async def settle(self, service: ServiceId = WEB) -> None:
        await self.store.settle(
            service, ActionKind.SCALE_UP, self.now(), epoch=self.epoch, reason="calm"
        )

    async def flushed(self) -> None:
        """Any later write carries the notes before it."""
        await self.store.beat(self.now(), epoch=self.epoch)

    async def kinds(self) -> list[EntryKind]:
        """What the ledger says, oldest first."""
        await self.flushed()
        return [entry.kind for entry in reversed(await self.store.entries(1000))]

    def at(self, seconds: float) -> Stamp:
        now = self.now()
        return Stamp(
            now.wall + timedelta(seconds=seconds), Instant(now.instant + seconds), now.boot
        )


def address(kind: str, folder: Path) -> str:
    built_in = {"memory": "memory:", "sqlite": f"sqlite:///{folder / 'store.db'}"}
    url = built_in.get(kind) or os.environ.get(f"PRUNELLA_TEST_STORE_{kind.upper()}")
    if url is None:
        pytest.fail(f"say where an empty store is: PRUNELLA_TEST_STORE_{kind.upper()}")
    return url


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with its tables, to be copied: making them takes longer than most tests."""
    folder = tmp_path_factory.mktemp("made")
    asyncio.run(opened_from("sqlite", address("sqlite", folder)).close())
    return folder / "store.db"


@pytest.fixture(params=sorted(stores()))
async def bench(
    request: pytest.FixtureRequest, tmp_path: Path, made_once: Path
) -> AsyncIterator[Bench]:
    kind: str = request.param
    url = address(kind, tmp_path)
    if kind == "sqlite":
        shutil.copy(made_once, tmp_path)
    opened = [opened_from(kind, url)]

    def again() -> Store:
        if kind == "memory":
            return opened[0]  # there is no other way into the same memory
        opened.append(opened_from(kind, url))
        return opened[-1]

    clock = SimClock()
    epoch = await opened[0].claim(DEAD, clock.stamp())
    yield Bench(opened[0], clock, epoch, again)
    for store in reversed(opened):
        await store.close()


@pytest.fixture
def zombie() -> Iterator[int]:
    """A child that has ended, and that nobody has asked how."""
    child = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    yield child
    os.waitpid(child, 0)


# Intents and outcomes


async def test_an_intent_is_in_the_history_before_its_effect_and_without_success(
    bench: Bench,
) -> None:
    action = await bench.begin(evidence="exit 137", actor="ann")
    (record,) = (await bench.again().history(10)).items
    assert (record.id, record.success, record.outcome) == (action, None, None)
    assert (record.evidence, record.actor, record.detail) == ("exit 137", "ann", "")
    assert await bench.store.action(action) is None


async def test_a_finish_completes_the_record(bench: Bench) -> None:
    action = await bench.begin()
    bench.clock.advance(3)
    await bench.finish(action)
    (record,) = (await bench.again().history(10)).items
    assert (record.success, record.outcome) == (True, Outcome.RECOVERED)
    assert (record.recovery_time_ms, record.downtime_ms) == (1500.25, 3000.5)
    assert await bench.store.action(action) == Finish(
        action, Outcome.RECOVERED, "it answers", 1500.25, 3000.5
    )


@pytest.mark.parametrize(
    ("action", "wanted"),
    [
        (Action(ActionKind.RESTART, WEB), (None, None, "")),
        (Action(ActionKind.SCALE_UP, WEB, replicas=5, before="4"), (5, None, "4")),
        (Action(ActionKind.ROLLBACK, WEB, revision="v1", before="v2"), (None, "v1", "v2")),
    ],
    ids=lambda value: str(getattr(value, "kind", "")),
)
async def test_a_record_says_from_what_to_what(
    bench: Bench, action: Action, wanted: tuple[object, ...]
) -> None:
    await bench.begin(action=action)
    (record,) = (await bench.again().history(1)).items
    assert (record.replicas, record.revision, record.before) == wanted


@pytest.mark.parametrize("outcome", Outcome)
async def test_only_recovered_and_contained_are_success(bench: Bench, outcome: Outcome) -> None:
    await bench.finish(await bench.begin(), outcome=outcome)
    good = outcome in (Outcome.RECOVERED, Outcome.CONTAINED)
    assert (await bench.store.history(1)).items[0].success is good


async def test_the_id_of_an_action_is_the_sequence_number_of_its_intent(bench: Bench) -> None:
    await bench.hold(None)
    action = await bench.begin()
    (entry,) = await bench.store.entries(1, kinds=frozenset({EntryKind.INTENT}))
    assert entry.seq == action
    assert entry.body["action"] == "restart"


async def test_vetoes_come_back_and_leave_no_trace(bench: Bench) -> None:
    await bench.act()
    before = await bench.kinds()
    vetoes = (Veto("budget", "3 of 3 used", Instant(99.5)), Veto("held", "by ann"))
    answer = await bench.store.begin(
        bench.intent(), lambda _: vetoes, bench.now(), epoch=bench.epoch
    )
    assert answer == vetoes
    assert await bench.kinds() == before
    assert len((await bench.store.history(10)).items) == 1
    (row,) = await bench.store.load()
    assert (row.phase, row.action_count) == (Phase.WATCHING, 1)


async def test_a_guard_that_crashes_leaves_no_trace(bench: Bench) -> None:
    def broken(_view: LedgerView) -> Sequence[Veto]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await bench.store.begin(bench.intent(), broken, bench.now(), epoch=bench.epoch)
    assert await bench.kinds() == []
    assert await bench.begin()


async def test_a_second_action_on_a_service_is_refused_whatever_the_guards_say(
    bench: Bench,
) -> None:
    first = await bench.begin()
    answer = await bench.store.begin(bench.intent(), everything, bench.now(), epoch=bench.epoch)
    assert not isinstance(answer, int)
    (veto,) = answer
    assert veto.guard == "lease"
    assert f"restart {first} of web runs" in veto.reason
    assert await bench.begin(DB)
    assert await bench.kinds() == [EntryKind.INTENT, EntryKind.INTENT]


async def test_of_intents_that_race_one_wins(bench: Bench) -> None:
    other = bench.again()
    answers = await asyncio.gather(
        *(
            store.begin(bench.intent(), everything, bench.now(), epoch=bench.epoch)
            for store in [bench.store, other] * 5
        )
    )
    won = [answer for answer in answers if isinstance(answer, int)]
    assert len(won) == 1
    assert all(answer[0].guard == "lease" for answer in answers if not isinstance(answer, int))
    assert len((await bench.store.history(20)).items) == 1


async def test_a_service_can_act_again_once_its_action_has_ended(bench: Bench) -> None:
    assert await bench.act() < await bench.act()


async def test_an_action_that_does_not_run_cannot_end(bench: Bench) -> None:
    action = await bench.act()
    before = await bench.kinds()
    with pytest.raises(PermanentError, match="does not run"):
        await bench.finish(action)
    running = await bench.begin(DB)
    with pytest.raises(PermanentError, match="does not run"):
        await bench.finish(running, WEB)
    assert await bench.kinds() == [*before, EntryKind.INTENT]
    assert await bench.store.action(running) is None


async def test_an_unknown_action_is_said_to_be_unknown(bench: Bench) -> None:
    with pytest.raises(PermanentError, match="no action 77"):
        await bench.store.action(ActionId(77))


@pytest.mark.parametrize("outcome", [Outcome.OBSERVED, Outcome.FOREIGN])
async def test_what_prunella_does_not_carry_out_has_ended_at_once_and_moves_nothing(
    bench: Bench, outcome: Outcome
) -> None:
    running = await bench.begin()
    ended = await bench.begin(ended=outcome, grant=Grant(2, 4, bench.at(600)))
    assert await bench.store.action(ended) == Finish(ended, outcome)
    record = (await bench.store.history(1)).items[0]
    assert (record.id, record.success, record.outcome) == (ended, False, outcome)
    (row,) = await bench.store.load()
    assert (row.running, row.action_count, row.restart_count) == (running, 1, 1)
    view = await bench.store.view(WEB, bench.now())
    assert len(view.fleet_started) == 1
    assert [attempt.outcome for attempt in view.attempts] == [outcome, None]
    assert view.debts == ()


async def test_a_service_that_was_only_observed_has_never_left_watching(bench: Bench) -> None:
    await bench.begin(ended=Outcome.OBSERVED)
    assert list(await bench.store.load()) == []


# Where healing stands


async def test_a_begun_action_is_loaded_again_with_all_that_was_intended(bench: Bench) -> None:
    runs = (Run(InstanceId("web-0"), "pid 7 @ 12"), Run(InstanceId("web \N{SNOWMAN}"), ""))
    intent = bench.intent(
        action=Action(
            ActionKind.SCALE_UP, WEB, InstanceId("web-0"), "pid 7 @ 12", 6, "abc", "4", runs
        ),
        failing_since=bench.at(-12.5),
        evidence="exit 137\n\N{SNOWMAN}\x00 'quoted'",
        event=Event.FORCED,
        symptom=None,
        grant=Grant(3, 6, bench.at(600.1), 2),
    )
    action = await bench.store.begin(intent, everything, bench.now(), epoch=bench.epoch)
    (row,) = await bench.again().load()
    assert (row.service, row.phase, row.phase_since) == (WEB, Phase.ACTING, intent.at)
    assert (row.running, row.intent) == (action, intent)
    assert (row.restart_count, row.action_count, row.last_restart) == (0, 1, None)


async def test_an_intent_comes_back_as_it_was_whatever_was_owed_before(bench: Bench) -> None:
    await bench.scale_up(2, 4, 600)
    intent = bench.intent(
        action=Action(ActionKind.SCALE_UP, WEB, replicas=6), grant=Grant(4, 6, bench.at(60))
    )
    await bench.store.begin(intent, everything, bench.now(), epoch=bench.epoch)
    (row,) = await bench.again().load()
    assert row.intent == intent


async def test_a_step_moves_the_service_and_says_so(bench: Bench) -> None:
    await bench.begin()
    bench.clock.advance(2)
    step = Step(
        WEB, Event.EXECUTED, Phase.VERIFYING, bench.now(), "restarted", bench.at(60), actor="ann"
    )
    await bench.store.advance(step, epoch=bench.epoch)
    (row,) = await bench.again().load()
    assert (row.phase, row.phase_since, row.wake_at) == (Phase.VERIFYING, step.at, step.wake_at)
    assert row.reason == "restarted"
    (entry, _) = await bench.store.entries(9)
    assert (entry.kind, entry.at, entry.actor) == (EntryKind.PHASE, step.at, "ann")
    assert entry.body == {"event": "executed", "phase": "verifying", "reason": "restarted"}


async def test_a_service_may_move_without_any_action(bench: Bench) -> None:
    step = Step(WEB, Event.EXHAUSTED, Phase.QUARANTINED, bench.now(), "no remedy left")
    await bench.store.advance(step, epoch=bench.epoch)
    (row,) = await bench.again().load()
    assert (row.phase, row.running, row.action_count) == (Phase.QUARANTINED, None, 0)


async def test_restarts_and_actions_are_counted_per_service(bench: Bench) -> None:
    await bench.act()
    bench.clock.advance(60)
    restarted = bench.clock.wall()
    await bench.act()
    bench.clock.advance(60)
    await bench.act(action=Action(ActionKind.SCALE_UP, WEB, replicas=2))
    await bench.act(DB)
    rows = {row.service: row for row in await bench.again().load()}
    web = rows[WEB]
    assert (web.restart_count, web.action_count, web.last_restart) == (2, 3, restarted)
    assert rows[DB].action_count == 1


# What the guards see


async def test_guards_see_the_past_as_it_is_when_the_intent_is_written(bench: Bench) -> None:
    action = await bench.begin()
    bench.clock.advance(5)
    await bench.finish(action)
    await bench.begin(DB, incident=IncidentId("db-1"), actor="ann")
    everywhere = await bench.hold(None)
    here = await bench.hold(WEB, "bob")
    await bench.hold(DB, "bob")
    seen: list[LedgerView] = []

    def look(view: LedgerView) -> Sequence[Veto]:
        seen.append(view)
        return ()

    bench.clock.advance(10)
    await bench.store.begin(bench.intent(), look, bench.now(), epoch=bench.epoch)
    (view,) = seen
    (attempt,) = view.attempts
    assert (attempt.at, attempt.ended_at) == (0.0, 5.0)
    assert (attempt.outcome, attempt.incident) == (Outcome.RECOVERED, "web-1")
    assert view.running == {DB}
    assert view.fleet_started == (5.0, 0.0)
    assert view.holds == (everywhere, here)


async def test_a_view_has_all_attempts_of_four_hours_newest_first(bench: Bench) -> None:
    for _ in range(50):
        bench.clock.advance(600)
        await bench.act()
    view = await bench.store.view(WEB, bench.now())
    assert [attempt.at for attempt in view.attempts] == [600.0 * n for n in range(50, 25, -1)]
    assert len(view.fleet_started) == 16
    assert view.fleet_started[0] == 30_000.0


async def test_an_action_that_runs_is_in_the_view_however_old(bench: Bench) -> None:
    await bench.begin()
    bench.clock.advance(9 * HOUR)
    (attempt,) = (await bench.store.view(WEB, bench.now())).attempts
    assert (attempt.at, attempt.ended_at) == (0.0, None)


async def test_a_jump_of_the_wall_clock_changes_no_age(bench: Bench) -> None:
    await bench.act()
    bench.clock.advance(60)
    for jump_s in (-86_400.0, 86_400.0):
        bench.clock.wall_offset_s = jump_s
        view = await bench.store.view(WEB, bench.now())
        assert view.attempts[0].at == 0.0


async def test_after_a_reboot_ages_are_taken_from_the_wall_clock(bench: Bench) -> None:
    bench.clock.advance(1000)
    await bench.act()
    rebooted = SimClock("boot-2")
    rebooted.advance(10)
    rebooted.wall_offset_s = 1290
    (attempt,) = (await bench.store.view(WEB, rebooted.stamp())).attempts
    assert attempt.at == -290.0


# Versions


async def test_a_deployment_is_remembered_with_who_made_it_and_since_when(bench: Bench) -> None:
    bench.clock.advance(5)
    await bench.deploy("abc", actor="ann")
    bench.clock.advance(600)
    assert await bench.versions() == (Version("abc", Instant(5.0), "ann"),)
    assert await bench.versions(DB) == ()
    (line,) = await bench.store.entries(9)
    assert (line.kind, line.service, line.actor) == (EntryKind.VERSION, WEB, "ann")
    assert (line.body["event"], line.body["revision"]) == ("deployed", "abc")


async def test_a_version_has_soaked_with_its_evidence(bench: Bench) -> None:
    await bench.deploy("abc", actor="ann")
    bench.clock.advance(600)
    await bench.soak("abc", "120 passes")
    version = Version("abc", Instant(0.0), "ann", Instant(600.0), "120 passes")
    assert await bench.versions() == (version,)
    line = (await bench.store.entries(1))[0]
    assert (line.kind, line.actor) == (EntryKind.VERSION, "prunella")
    assert (line.body["event"], line.body["evidence"]) == ("soaked", "120 passes")


async def test_marks_that_say_nothing_new_change_nothing(bench: Bench) -> None:
    await bench.soak("abc")
    assert await bench.versions() == ()
    await bench.deploy("abc", actor="ann")
    await bench.soak("abc", "first")
    before = await bench.versions()
    bench.clock.advance(9)
    await bench.deploy("abc", actor="bob")
    await bench.soak("abc", "second")
    await bench.soak("def")
    assert await bench.versions() == before
    assert await bench.kinds() == [EntryKind.VERSION, EntryKind.VERSION]


async def test_only_the_newest_deployment_soaks_and_only_while_it_is_there(bench: Bench) -> None:
    for revision in ("abc", "def", "abc"):
        await bench.deploy(revision)
        bench.clock.advance(1)
    await bench.soak("def")
    await bench.soak("abc")
    found = [(one.revision, one.deployed_at, one.soaked_at) for one in await bench.versions()]
    assert found == [("abc", 2.0, 3.0), ("def", 1.0, None), ("abc", 0.0, None)]


@pytest.mark.parametrize("newest_that_soaked", [None, 0, 5, 39])
async def test_thirty_two_versions_are_kept_newest_first_and_always_the_last_that_soaked(
    bench: Bench, newest_that_soaked: int | None
) -> None:
    for number in range(40):
        await bench.deploy(str(number))
        await bench.deploy("other", DB)
        if newest_that_soaked is not None and number <= newest_that_soaked:
            await bench.soak(str(number))
    found = await bench.versions()
    kept = [str(number) for number in range(39, 7, -1)]
    if newest_that_soaked in (0, 5):
        kept[-1] = str(newest_that_soaked)
    assert [one.revision for one in found] == kept
    assert next((one.revision for one in found if one.soaked_at is not None), None) == (
        None if newest_that_soaked is None else str(newest_that_soaked)
    )
    assert len(await bench.versions(DB)) == 1


async def test_versions_outlive_a_reboot(bench: Bench) -> None:
    bench.clock.advance(1000)
    await bench.deploy("abc")
    bench.clock.advance(600)
    await bench.soak("abc")
    rebooted = SimClock("boot-2")
    rebooted.advance(10)
    rebooted.wall_offset_s = 1690
    (version,) = (await bench.again().view(WEB, rebooted.stamp())).versions
    assert (version.deployed_at, version.soaked_at) == (-690.0, -90.0)


# Debts


async def test_a_grant_is_a_debt_as_soon_as_its_intent_is_written(bench: Bench) -> None:
    grant = Grant(2, 4, bench.at(600))
    scale_up = Action(ActionKind.SCALE_UP, WEB, replicas=4, before="2")
    action = await bench.begin(action=scale_up, grant=grant)
    debt = Debt(ActionKind.SCALE_UP, action, 2, 4, Instant(600.0))
    assert await bench.again().debts(bench.now()) == {WEB: (debt,)}
    assert (await bench.again().view(WEB, bench.now())).debts == (debt,)
    assert (await bench.again().view(DB, bench.now())).debts == ()
    line = (await bench.store.entries(1))[0]
    assert (line.kind, line.service) == (EntryKind.DEBT, WEB)
    assert (line.body["event"], line.body["id"], line.body["granted"]) == ("granted", action, 4)


async def test_a_refused_intent_leaves_no_debt(bench: Bench) -> None:
    intent = bench.intent(grant=Grant(2, 4, bench.at(600)))
    vetoes = (Veto("budget", "used up"),)
    await bench.store.begin(intent, lambda _: vetoes, bench.now(), epoch=bench.epoch)
    await bench.begin()
    await bench.store.begin(intent, everything, bench.now(), epoch=bench.epoch)
    assert await bench.store.debts(bench.now()) == {}


async def test_a_further_grant_replaces_the_debt_and_keeps_the_lower_number_before(
    bench: Bench,
) -> None:
    await bench.scale_up(2, 4, 600)
    bench.clock.advance(100)
    second = await bench.scale_up(4, 6, 600, extended_count=3)
    debt = Debt(ActionKind.SCALE_UP, second, 2, 6, Instant(700.0), 3)
    assert await bench.store.debts(bench.now()) == {WEB: (debt,)}
    assert (await bench.store.entries(1, kinds=frozenset({EntryKind.DEBT})))[0].body["before"] == 2
    third = await bench.scale_up(1, 6, 600)
    assert await bench.store.debts(bench.now()) == {
        WEB: (Debt(ActionKind.SCALE_UP, third, 1, 6, Instant(700.0)),)
    }


async def test_debts_of_different_services_and_kinds_are_different_debts(bench: Bench) -> None:
    scaled = await bench.scale_up(2, 4, 600)
    broken = await bench.act(
        action=Action(ActionKind.CIRCUIT_BREAK, WEB), grant=Grant(1, 0, bench.at(60))
    )
    other = await bench.scale_up(1, 2, 30, DB)
    before = await bench.store.debts(bench.now())
    assert {service: [debt.action for debt in owed] for service, owed in before.items()} == {
        DB: [other],
        WEB: [broken, scaled],
    }
    await bench.settle()
    after = await bench.store.debts(bench.now())
    assert {service: [debt.action for debt in owed] for service, owed in after.items()} == {
        DB: [other],
        WEB: [broken],
    }


async def test_a_settled_debt_is_gone_and_settling_none_says_nothing(bench: Bench) -> None:
    await bench.settle()
    assert await bench.kinds() == []
    action = await bench.scale_up(2, 4, 600)
    await bench.settle()
    assert await bench.again().debts(bench.now()) == {}
    assert (await bench.store.view(WEB, bench.now())).debts == ()
    line = (await bench.store.entries(1))[0]
    assert (line.kind, line.service) == (EntryKind.DEBT, WEB)
    said = {name: line.body[name] for name in ("event", "id", "reason")}
    assert said == {"event": "settled", "id": action, "reason": "calm"}
    before = await bench.kinds()
    await bench.settle()
    assert await bench.kinds() == before
    again = await bench.scale_up(4, 6, 600)
    (debt,) = (await bench.store.debts(bench.now()))[WEB]
    assert (debt.action, debt.before) == (again, 4)


async def test_a_debt_that_is_overdue_is_due_now_and_outlives_a_reboot(bench: Bench) -> None:
    bench.clock.advance(1000)
    await bench.scale_up(2, 4, 600)
    rebooted = SimClock("boot-2")
    rebooted.advance(10)
    rebooted.wall_offset_s = 1490
    (debt,) = (await bench.again().debts(rebooted.stamp()))[WEB]
    assert debt.due_at == 110.0
    rebooted.advance(200)
    (debt,) = (await bench.store.debts(rebooted.stamp()))[WEB]
    assert debt.due_at == rebooted.now()


# History


async def test_history_is_ordered_by_sequence_under_equal_timestamps_and_jumps(
    bench: Bench,
) -> None:
    made = [await bench.act(), await bench.act()]
    bench.clock.wall_offset_s = -7200
    made.append(await bench.act(DB))
    assert [record.id for record in (await bench.store.history(10)).items] == made[::-1]
    assert made == sorted(made)


async def test_pages_follow_each_other_while_new_actions_arrive(bench: Bench) -> None:
    made = [await bench.act() for _ in range(7)]
    page = await bench.store.history(3)
    found = [record.id for record in page.items]
    while page.next is not None:
        await bench.act()
        page = await bench.store.history(3, before=page.next)
        found += [record.id for record in page.items]
    assert found == made[::-1]


async def test_a_page_that_ends_with_the_oldest_has_no_next(bench: Bench) -> None:
    made = [await bench.act() for _ in range(4)]
    page = await bench.store.history(2)
    assert page.next == made[2]
    assert (await bench.store.history(2, before=page.next)).next is None
    assert (await bench.store.history(4)).next is None
    assert (await bench.store.history(0)).items == ()


async def test_history_of_one_service_has_only_its_own(bench: Bench) -> None:
    made = [await bench.act(service) for service in (WEB, DB, WEB, DB, WEB)]
    page = await bench.store.history(2, service=WEB)
    assert [record.id for record in page.items] == [made[4], made[2]]
    page = await bench.store.history(2, service=WEB, before=page.next)
    assert [record.id for record in page.items] == [made[0]]
    assert page.next is None
    assert (await bench.store.history(5, service=ServiceId("none"))).items == ()


# The ledger


async def test_notes_keep_the_order_of_calls_among_other_writes(bench: Bench) -> None:
    def note(kind: EntryKind) -> Awaitable[None]:
        return bench.store.note([Entry(kind, bench.now())], epoch=bench.epoch)

    await note(EntryKind.DAEMON)
    await note(EntryKind.HEALTH)
    action = await bench.begin()
    await note(EntryKind.DECISION)
    await bench.finish(action)
    await note(EntryKind.STORM)
    assert await bench.kinds() == [
        EntryKind.DAEMON,
        EntryKind.HEALTH,
        EntryKind.INTENT,
        EntryKind.DECISION,
        EntryKind.OUTCOME,
        EntryKind.PHASE,
        EntryKind.STORM,
    ]


async def test_notes_are_written_soon_without_any_other_write(bench: Bench) -> None:
    await bench.store.note([Entry(EntryKind.DAEMON, bench.now())], epoch=bench.epoch)
    async with asyncio.timeout(30):
        while not await bench.store.entries(1):  # noqa: ASYNC110 - a store tells nobody
            await asyncio.sleep(0.005)


async def test_notes_are_written_when_the_store_is_given_up(bench: Bench) -> None:
    await bench.store.note([Entry(EntryKind.DAEMON, bench.now())], epoch=bench.epoch)
    await bench.store.release(epoch=bench.epoch)
    assert len(await bench.again().entries(5)) == 1


async def test_notes_are_kept_when_their_holder_claims_again(bench: Bench) -> None:
    await bench.store.note([Entry(EntryKind.DAEMON, bench.now())], epoch=bench.epoch)
    bench.epoch = await bench.store.claim(DEAD, bench.now())
    assert await bench.kinds() == [EntryKind.DAEMON]


async def test_a_line_comes_out_as_it_went_in(bench: Bench) -> None:
    at = Stamp(datetime(2031, 5, 6, 7, 8, 9, 123_457, tzinfo=UTC), Instant(0.1 + 0.2), "b")
    body: Body = {
        "text": "\N{SNOWMAN} \x00 \n",
        "count": 2**62,
        "ratio": 0.1,
        "no": None,
        "yes": True,
        "list": ["a", "b"],
        "rows": [{"guard": "budget"}],
    }
    entry = Entry(EntryKind.DECISION, at, WEB, "ann", body)
    await bench.store.note([entry], epoch=bench.epoch)
    await bench.flushed()
    (found,) = await bench.again().entries(1)
    assert found == replace(entry, seq=found.seq)
    assert found.at.wall.utcoffset() == timedelta(0)


async def test_lines_are_found_by_service_kind_and_cursor(bench: Bench) -> None:
    lines = [
        Entry(kind, bench.now(), service)
        for service in (WEB, None, DB)
        for kind in (EntryKind.HEALTH, EntryKind.DECISION, EntryKind.STORM)
    ]
    await bench.store.note(lines, epoch=bench.epoch)
    await bench.flushed()
    find = bench.store.entries
    newest = [entry.seq for entry in await find(99)]
    assert newest == sorted(newest, reverse=True)
    assert len(newest) == 9
    assert [e.kind for e in await find(9, service=WEB)] == [e.kind for e in lines[2::-1]]
    two = frozenset({EntryKind.HEALTH, EntryKind.STORM})
    found = await find(3, kinds=two)
    assert [(e.kind, e.service) for e in found] == [
        (EntryKind.STORM, DB),
        (EntryKind.HEALTH, DB),
        (EntryKind.STORM, None),
    ]
    found = await find(9, kinds=two, before=found[-1].seq)
    assert [(e.kind, e.service) for e in found] == [
        (EntryKind.HEALTH, None),
        (EntryKind.STORM, WEB),
        (EntryKind.HEALTH, WEB),
    ]
    assert [e.kind for e in await find(9, service=DB, kinds=two)] == [
        EntryKind.STORM,
        EntryKind.HEALTH,
    ]
    assert list(await find(0)) == []


# Holds


async def test_a_hold_stays_until_it_is_lifted(bench: Bench) -> None:
    hold = await bench.hold(WEB)
    bench.clock.advance(1000 * HOUR)
    assert list(await bench.again().holds(bench.now())) == [hold]
    lifted = await bench.store.lift_holds(WEB, bench.now(), epoch=bench.epoch, actor="bob")
    assert lifted == 1
    assert list(await bench.store.holds(bench.now())) == []
    line = (await bench.store.entries(1))[0]
    assert (line.kind, line.service, line.actor) == (EntryKind.HOLD_LIFTED, WEB, "bob")


async def test_lifting_ends_exactly_the_holds_of_that_service(bench: Bench) -> None:
    await bench.hold(WEB)
    await bench.hold(WEB, "bob")
    whole = await bench.hold(None)
    lift = bench.store.lift_holds
    assert await lift(WEB, bench.now(), epoch=bench.epoch, actor="bob") == 2
    assert list(await bench.store.holds(bench.now())) == [whole]
    assert await lift(None, bench.now(), epoch=bench.epoch, actor="bob") == 1
    assert await lift(None, bench.now(), epoch=bench.epoch, actor="bob") == 0
    assert await bench.kinds() == [EntryKind.HOLD] * 3 + [EntryKind.HOLD_LIFTED] * 3


async def test_lifting_can_end_the_hold_of_one_owner_alone(bench: Bench) -> None:
    await bench.hold(WEB)
    bobs = await bench.hold(WEB, "bob")
    lift, at = bench.store.lift_holds, bench.now()
    assert await lift(WEB, at, epoch=bench.epoch, actor="ann", owner="ann") == 1
    assert list(await bench.store.holds(bench.now())) == [bobs]
    assert await lift(WEB, at, epoch=bench.epoch, actor="ann", owner="ann") == 0


@pytest.mark.parametrize("service", [WEB, None])
async def test_a_hold_replaces_that_of_the_same_owner(
    bench: Bench, service: ServiceId | None
) -> None:
    await bench.hold(service)
    other = await bench.hold(DB)
    second = await bench.hold(service, reason="still deploying", expires=bench.at(60))
    assert list(await bench.store.holds(bench.now())) == [other, second]


async def test_a_hold_ends_when_its_time_has_passed_whatever_the_wall_clock_does(
    bench: Bench,
) -> None:
    hold = await bench.hold(WEB, expires=bench.at(60))
    bench.clock.advance(59)
    bench.clock.wall_offset_s = 7200
    assert list(await bench.store.holds(bench.now())) == [hold]
    bench.clock.advance(1)
    bench.clock.wall_offset_s = -7200
    assert list(await bench.store.holds(bench.now())) == []
    assert (await bench.store.view(WEB, bench.now())).holds == ()
    lifted = await bench.store.lift_holds(WEB, bench.now(), epoch=bench.epoch, actor="bob")
    assert lifted == 0


async def test_a_hold_outlives_a_reboot(bench: Bench) -> None:
    bench.clock.advance(5000)
    hold = await bench.hold(WEB, expires=bench.at(60))
    rebooted = SimClock("boot-2")
    rebooted.wall_offset_s = 5059
    assert list(await bench.store.holds(rebooted.stamp())) == [hold]
    rebooted.advance(1)
    assert list(await bench.store.holds(rebooted.stamp())) == []


# Who holds the store


async def test_a_living_holder_is_named_to_the_next_one(bench: Bench) -> None:
    await bench.store.claim(me(), bench.now())
    with pytest.raises(StoreInUseError) as refusal:
        await bench.again().claim(me(id="second"), bench.now())
    assert f"held by prunella pid {os.getpid()} on here (API 127.0.0.1:7110)" in str(refusal.value)
    assert "since 2026-01-01 00:00:00" in str(refusal.value)


async def test_a_forced_claim_ends_the_epoch_of_a_holder_that_lives(bench: Bench) -> None:
    first = await bench.store.claim(me(), bench.now())
    assert await bench.again().claim(me(id="second"), bench.now(), force=True) > first
    with pytest.raises(StaleEpochError):
        await bench.store.beat(bench.now(), epoch=first)


async def test_each_claim_gets_a_higher_epoch(bench: Bench) -> None:
    epochs = [bench.epoch, await bench.store.claim(replace(DEAD, id="2"), bench.now())]
    await bench.store.release(epoch=epochs[-1])
    epochs.append(await bench.store.claim(me(), bench.now()))
    await bench.store.release(epoch=epochs[-1])
    epochs.append(await bench.again().claim(me(), bench.now()))
    assert epochs == sorted(set(epochs))


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param({"started": "1"}, id="its pid has been given to another process"),
        pytest.param({"pid": 2**22 + 1}, id="its process has ended"),
        pytest.param({"boot": "boot-0"}, id="the machine has been rebooted"),
    ],
)
async def test_a_dead_holder_is_replaced_at_once(bench: Bench, gone: dict[str, Any]) -> None:
    first = await bench.store.claim(me(**gone), bench.now())
    assert await bench.again().claim(me(id="second"), bench.now()) > first


async def test_a_zombie_holds_nothing(bench: Bench, zombie: int) -> None:
    await bench.store.claim(me(pid=zombie, started=started(zombie)), bench.now())
    assert await bench.store.claim(me(id="second"), bench.now())


async def test_a_holder_on_another_host_lives_by_its_beats(bench: Bench) -> None:
    await bench.store.release(epoch=bench.epoch)
    far = me(host="there", id="far")
    epoch = await bench.store.claim(far, bench.now())
    bench.clock.advance(9)
    await bench.store.beat(bench.now(), epoch=epoch)
    bench.clock.advance(9)
    with pytest.raises(StoreInUseError, match="on there"):
        await bench.store.claim(me(), bench.now())
    bench.clock.advance(2)
    assert await bench.store.claim(me(), bench.now()) > epoch


def writers() -> list[str]:
    return sorted(
        name
        for name, method in inspect.getmembers(Store, inspect.isfunction)
        if "epoch" in inspect.signature(method).parameters
    )


def arguments(bench: Bench, method: str) -> tuple[list[object], dict[str, object]]:
    """What the method takes besides the epoch, made from the names and types it declares."""
    known: dict[str, object] = {
        "now": bench.now(),
        "keep_from": bench.now(),
        "intent": bench.intent(),
        "admit": everything,
        "step": Step(WEB, Event.COOLED, Phase.WATCHING, bench.now(), "cool"),
        "entries": [Entry(EntryKind.DAEMON, bench.now())],
        "hold": Hold(WEB, "ann", "deploy", bench.now()),
        "service": WEB,
        "actor": "ann",
        "mark": Mark(WEB, "abc", bench.now()),
        "kind": ActionKind.SCALE_UP,
        "reason": "calm",
        "instance": None,
        "owner": None,
    }
    parameters = list(inspect.signature(getattr(Store, method)).parameters.values())[1:]
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "epoch"]
    placed = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    return [known[name] for name in placed], {name: known[name] for name in named}


@pytest.mark.parametrize("method", writers())
@pytest.mark.parametrize("ended", ["claimed by another", "given up"])
async def test_no_write_passes_under_an_epoch_that_has_ended(
    bench: Bench, method: str, ended: str
) -> None:
    if ended == "claimed by another":
        await bench.again().claim(me(), bench.now())
    else:
        await bench.store.release(epoch=bench.epoch)
    placed, named = arguments(bench, method)
    with pytest.raises(StaleEpochError, match=f"epoch {bench.epoch} "):
        await getattr(bench.store, method)(*placed, **named, epoch=bench.epoch)
    assert list(await bench.store.entries(10)) == []
    assert list(await bench.store.load()) == []
    assert list(await bench.store.holds(bench.now())) == []
    assert await bench.versions() == ()


async def test_a_debt_is_not_settled_under_an_epoch_that_has_ended(bench: Bench) -> None:
    await bench.scale_up(2, 4, 600)
    await bench.again().claim(me(), bench.now())
    with pytest.raises(StaleEpochError):
        await bench.settle()
    assert set(await bench.store.debts(bench.now())) == {WEB}


async def test_a_store_that_was_never_claimed_takes_no_writes(bench: Bench) -> None:
    await bench.store.release(epoch=bench.epoch)
    for epoch in (Epoch(0), Epoch(bench.epoch + 1)):
        with pytest.raises(StaleEpochError):
            await bench.store.beat(bench.now(), epoch=epoch)


async def test_a_closed_store_says_so(bench: Bench) -> None:
    await bench.store.close()
    await bench.store.close()
    with pytest.raises(PermanentError, match="closed"):
        await bench.store.history(1)
    with pytest.raises(PermanentError, match="closed"):
        await bench.store.beat(bench.now(), epoch=bench.epoch)


# Forgetting


async def test_compaction_forgets_what_is_older_and_keeps_the_counters(bench: Bench) -> None:
    for _ in range(3):
        await bench.act()
    bench.clock.advance(10 * HOUR)
    kept = await bench.act()
    bench.clock.advance(10 * HOUR)
    gone = await bench.store.compact(bench.at(-15 * HOUR), epoch=bench.epoch)
    assert gone == 9
    assert [record.id for record in (await bench.store.history(10)).items] == [kept]
    assert len(await bench.store.entries(99)) == 3
    (row,) = await bench.store.load()
    assert (row.restart_count, row.action_count) == (4, 4)


async def test_compaction_keeps_all_of_the_last_four_hours(bench: Bench) -> None:
    await bench.act()
    bench.clock.advance(3.9 * HOUR)
    await bench.act()
    assert await bench.store.compact(bench.now(), epoch=bench.epoch) == 0
    assert len((await bench.store.history(10)).items) == 2


async def test_compaction_keeps_what_runs_what_holds_and_the_newest_move(bench: Bench) -> None:
    running = await bench.begin()
    hold = await bench.hold(WEB)
    await bench.hold(DB, expires=bench.at(60))
    await bench.act(DB)
    bench.clock.advance(100 * HOUR)
    await bench.flushed()
    assert await bench.store.compact(bench.now(), epoch=bench.epoch) == 3
    assert await bench.kinds() == [EntryKind.INTENT, EntryKind.HOLD, EntryKind.PHASE]
    assert list(await bench.store.holds(bench.now())) == [hold]
    assert [record.id for record in (await bench.store.history(9)).items] == [running]
    await bench.finish(running)
    assert await bench.store.action(running)


async def test_compaction_keeps_what_is_deployed_and_what_is_owed(bench: Bench) -> None:
    await bench.deploy("abc")
    await bench.soak("abc")
    settled = await bench.scale_up(1, 2, 600)
    await bench.settle()
    owing = await bench.scale_up(2, 4, 600)
    versions, debts = await bench.versions(), await bench.store.debts(bench.now())
    bench.clock.advance(100 * HOUR)
    await bench.flushed()
    # Gone are the lines of the soak, of what was settled, of the outcome and of the grant.
    assert await bench.store.compact(bench.now(), epoch=bench.epoch) == 8
    assert await bench.kinds() == [EntryKind.VERSION, EntryKind.INTENT, EntryKind.PHASE]
    assert await bench.versions() == versions
    kept = (await bench.store.debts(bench.now()))[WEB]
    assert [debt._replace(due_at=Instant(600.0)) for debt in kept] == list(debts[WEB])
    assert await bench.store.action(owing)
    with pytest.raises(PermanentError):
        await bench.store.action(settled)


async def test_compaction_of_many_lines_lets_other_writes_pass(bench: Bench) -> None:
    await bench.store.note([Entry(EntryKind.HEALTH, bench.now())] * 3000, epoch=bench.epoch)
    bench.clock.advance(9 * HOUR)
    await bench.flushed()
    compaction = asyncio.ensure_future(bench.store.compact(bench.now(), epoch=bench.epoch))
    action = await bench.begin()
    assert await compaction == 3000
    assert await bench.store.action(action) is None


async def test_numbers_are_not_used_twice_after_everything_was_forgotten(bench: Bench) -> None:
    await bench.store.note([Entry(EntryKind.HEALTH, bench.now())] * 5, epoch=bench.epoch)
    await bench.flushed()
    newest = (await bench.store.entries(1))[0].seq
    bench.clock.advance(9 * HOUR)
    await bench.flushed()
    assert await bench.store.compact(bench.now(), epoch=bench.epoch) == 5
    assert await bench.begin() > newest
