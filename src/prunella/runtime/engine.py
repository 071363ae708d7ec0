"""One service: its beliefs, and one step of its healing per call.

The engine gathers a snapshot, asks the core, writes what is about to happen, lets it happen and
writes how it ended. It never sleeps: it says when it wants to be called again. Whoever drives it
calls `observe` with each observation, `fact` with each fact, and `advance` until that has nothing
more to do at once. On a virtual clock it is driven by the simulator, in the daemon by the runner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from prunella.core.budget import backoff_until
from prunella.core.decide import Decision, Forced, Reason, Snapshot, decide, vet, wake_after
from prunella.core.guards import Guard
from prunella.core.health import FRESH, Diagnosis, Vitals, diagnose, fold
from prunella.core.ledger import (
    Attempt,
    Entry,
    EntryKind,
    Finish,
    Intent,
    LedgerView,
    ServiceRow,
    Step,
    Veto,
)
from prunella.core.machine import Event, Phase, step
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Epoch,
    Health,
    Hold,
    IncidentId,
    InstanceState,
    Instant,
    Mode,
    Observation,
    Outcome,
    ServiceId,
    Stamp,
    Status,
    Verdict,
)
from prunella.core.policy import Policy
from prunella.core.time import rebase, remaining_s
from prunella.core.verify import has_come_up, judge
from prunella.errors import PermanentError, StaleEpochError, TransientError
from prunella.ports import Clock, Platform, Store
from prunella.runtime.fleet import Fleet
from prunella.runtime.notices import Bus, Notice, Topic

_log = structlog.get_logger("prunella.engine")
_RETRY_S = 1.0  # after trouble with the store or the platform
_CHANGES_KEPT = 512
_MOVES_READ = 100  # more than a service makes in the 4 h that the guards look back
_TOPIC_OF = {
    Health.DEGRADED: Topic.SERVICE_DEGRADED,
    Health.FAILED: Topic.SERVICE_FAILED,
    Health.HEALTHY: Topic.SERVICE_RECOVERED,
}


@dataclass(frozen=True, slots=True)
class World:
    """What all engines of one instance share."""

    clock: Clock
    store: Store
    fleet: Fleet
    bus: Bus
    holds: Callable[[ServiceId], tuple[Hold, ...]]
    note: Callable[[Entry], None]  # written in order, a little later
    epoch: Callable[[], Epoch]
    chain: tuple[Guard, ...] | None = None  # the guards; None: all there are


@dataclass(frozen=True, slots=True)
class Running:
    """The action that is being carried out or verified."""

    id: ActionId
    intent: Intent
    started: Instant
    executed: Instant | None = None
    had_recovered: bool = False


class Engine:
    """Heals one service. Not for concurrent use: one `advance` at a time (the driver's duty)."""

    __slots__ = (
        "_attempts",
        "_health_since",
        "_noted",
        "_pending",
        "_platform",
        "_released_at",
        "_running",
        "_told",
        "_world",
        "action_count",
        "changes",
        "decision",
        "diagnosis",
        "grace_until",
        "last_restart",
        "name",
        "phase",
        "phase_since",
        "policy",
        "restart_count",
        "service",
        "status",
        "vitals",
        "wake_at",
    )

    def __init__(
        self,
        service: ServiceId,
        name: str,
        policy: Policy,
        probe_count: int,
        platform: Platform,
        world: World,
    ) -> None:
        now = world.clock.now()
        self.service = service
        self.name = name
        self.policy = policy
        self.vitals: list[Vitals] = [FRESH] * probe_count
        self.status: Status | None = None
        self.diagnosis = Diagnosis(Health.UNKNOWN)
        self.phase = Phase.WATCHING
        self.phase_since = now
        self.wake_at: Instant | None = None
        self.grace_until = Instant(now + policy.grace_s)
        self.decision = Decision(Reason.BLIND, "nothing seen yet")
        self.restart_count = 0
        self.action_count = 0
        self.last_restart: datetime | None = None
        self.changes: deque[tuple[Instant, Health]] = deque(maxlen=_CHANGES_KEPT)
        self._health_since = now
        self._world = world
        self._platform = platform
        self._running: Running | None = None
        self._attempts: tuple[Attempt, ...] = ()
        self._pending: Step | None = None
        self._noted: tuple[object, ...] = ()
        self._told = False
        self._released_at = Instant(float("-inf"))
        world.fleet.join(service, policy.domain)

    @property
    def cadence_since(self) -> Instant:
        """Since when the phase (while verifying) or the belief (otherwise) has lasted."""
        return self.phase_since if self.phase is Phase.VERIFYING else self._health_since

    @property
    def running(self) -> Running | None:
        return self._running

    # What is seen ------------------------------------------------------------------------------

    def observe(self, index: int, seen: Observation) -> bool:
        """Take in an observation of probe `index`. True: `advance` has something to judge."""
        before = self.vitals[index]
        if (
            seen.verdict is Verdict.FAIL
            and before.samples == 0
            and seen.at < self.grace_until
            and self.diagnosis.symptom is None
        ):
            seen = seen._replace(verdict=Verdict.INCONCLUSIVE, cause=None)
        after = fold(before, seen, self.policy)
        self.vitals[index] = after
        if seen.at < self.grace_until and has_come_up(self.vitals, self.policy):
            self.grace_until = seen.at
        if (
            self.diagnosis.health is Health.HEALTHY
            and after.bad_since is None
            and not after.blind_in_a_row
            and self.phase is Phase.WATCHING
        ):
            return False
        return self._reassess()

    def tell(self) -> None:
        """Say that a fact has come in: the next step asks the platform before it decides."""
        self._told = True

    def look(self, status: Status | None) -> bool:
        """Take in what the platform says. True: `advance` has something to judge."""
        self.status = status
        return self._reassess()

    def _reassess(self) -> bool:
        now = self._world.clock.now()
        before, self.diagnosis = (
            self.diagnosis,
            diagnose(self.vitals, self.status, self.policy, now),
        )
        health = self.diagnosis.health
        if health is not before.health:
            self._health_since = now
            self._world.fleet.sight(self.service, blind=self._is_blind())
            if health is not Health.SUSPECT:
                self._changed(health, now)
        return (
            self.diagnosis.symptom is not None
            or self.phase is Phase.VERIFYING
            or self.decision.symptom is not None
            or (self.decision.reason is Reason.BLIND and health is Health.HEALTHY)
        )

    def _is_blind(self) -> bool:
        return self.diagnosis.health is Health.UNKNOWN and any(
            vitals.blind_in_a_row >= self.policy.fall for vitals in self.vitals
        )

    def _changed(self, health: Health, now: Instant) -> None:
        last = self.changes[-1][1] if self.changes else Health.UNKNOWN
        if health is last:
            return
        self.changes.append((now, health))
        storm_began = self._world.fleet.believe(self.service, health, now)
        evidence = self.diagnosis.symptom.evidence if self.diagnosis.symptom else ""
        body = {"from": last.value, "to": health.value, "evidence": evidence}
        if (topic := _TOPIC_OF.get(health)) and not (
            health is Health.HEALTHY and last is Health.UNKNOWN
        ):
            self._publish(topic, body)
        self._outbox(EntryKind.HEALTH, body)
        if storm_began:
            self._outbox(EntryKind.STORM, {"domain": self.policy.domain})
            _log.warning("storm", domain=self.policy.domain, service=self.service)

    # What is done ------------------------------------------------------------------------------

    async def advance(self) -> Instant | None:
        """Do one step. Returns when to call again: now or earlier for at once, None for never
        before something changes.
        """
        if self._pending is not None and not await self._flush():
            return self._later(_RETRY_S)
        match self.phase:
            case Phase.WATCHING:
                return await self._consider(None)
            case Phase.ACTING:
                return await self._act()
            case Phase.VERIFYING:
                return await self._verify()
            case Phase.COOLING:
                return await self._cool()
            case Phase.QUARANTINED:
                return None

    async def force(self, forced: Forced) -> ActionId | tuple[Veto, ...]:
        """Begin an action on a person's order; the following `advance` calls carry it out.

        Returns: the action's id, or the vetoes of the guards that a person must name to pass.
        """
        before = self._running
        await self._consider(forced)
        if self._running is not None and self._running is not before:
            return self._running.id
        return self.decision.vetoes or (Veto("lease", self.decision.detail),)

    async def restore(self, row: ServiceRow) -> None:
        """Take up where an earlier run of Prunella was, by observing and never by replaying."""
        now = self._world.clock.stamp()
        self.restart_count, self.action_count = row.restart_count, row.action_count
        self.last_restart = row.last_restart
        self.phase, self.phase_since = row.phase, rebase(row.phase_since, now)
        if row.wake_at is not None:
            self.wake_at = Instant(now.instant + remaining_s(row.wake_at, now))
        if row.phase is Phase.QUARANTINED:
            self.decision = Decision(Reason.EXHAUSTED, row.reason)
        await self._recall_release(now)
        await self._remember()
        if row.running is None or row.intent is None:
            return
        began = rebase(row.intent.at, now)
        self._world.fleet.resumed(self.service, began)
        self._running = Running(row.running, row.intent, began, executed=self.phase_since)
        if row.phase is not Phase.ACTING:
            return
        status = await self._observe_platform()
        if status is not None and achieved(row.intent.action, status):
            await self._move(Event.INTERRUPTED, "the effect was there after a restart of Prunella")
            self._begin_verifying()
            return
        detail = "Prunella ended in the middle of it, and the effect was not there"
        await self._finish(Event.LOST, Outcome.INTERRUPTED, detail)

    async def release(self, actor: str) -> bool:
        """End a quarantine. False when there is none."""
        if self.phase is not Phase.QUARANTINED:
            return False
        await self._move(Event.RELEASED, f"released by {actor}", actor=actor)
        self._released_at, self._attempts = self.phase_since, ()
        return True

    async def _consider(self, forced: Forced | None) -> Instant | None:
        told, self._told = self._told, False
        if self.diagnosis.symptom is None and forced is None and not told:
            return await self._conclude(decide(self._snapshot(None), self._world.chain))
        self.look(await self._observe_platform())
        snap = self._snapshot(forced)
        decision = decide(snap, self._world.chain)
        if decision.action is None:
            return await self._conclude(decision)
        return await self._begin(snap, decision, decision.action)

    async def _begin(self, snap: Snapshot, decision: Decision, action: Action) -> Instant | None:
        now = self._world.clock.stamp()
        symptom = decision.symptom
        failing_since = symptom.since if symptom is not None else None
        intent = Intent(
            action=action,
            incident=self._incident(now),
            reason=decision.detail,
            symptom=symptom.kind if symptom is not None else None,
            actor=snap.forced.actor if snap.forced is not None else "prunella",
            at=now,
            failing_since=None
            if failing_since is None
            else now._replace(wall=now.wall, instant=failing_since),
            event=Event.FORCED if snap.forced is not None else Event.CONFIRMED,
            evidence=symptom.evidence if symptom is not None else "",
            observed=decision.reason is Reason.OBSERVED,
        )

        def admit(view: LedgerView) -> tuple[Veto, ...]:
            return vet(replace(snap, ledger=self._since_release(view)), action, self._world.chain)

        try:
            begun = await self._world.store.begin(intent, admit, now, epoch=self._world.epoch())
        except StaleEpochError:
            raise
        except (TransientError, PermanentError) as error:
            veto = Veto("record", f"nothing is done that cannot be recorded: {error}")
            refused = replace(
                decision, reason=Reason.VETOED, detail=veto.reason, action=None, vetoes=(veto,)
            )
            await self._conclude(refused)
            return self._later(_RETRY_S)
        if not isinstance(begun, int):
            vetoes = tuple(begun)
            detail = "; ".join(veto.reason for veto in vetoes)
            await self._remember()
            return await self._conclude(
                replace(
                    decision,
                    reason=Reason.VETOED,
                    detail=detail,
                    action=None,
                    vetoes=vetoes,
                    wake_at=wake_after(vetoes, now.instant),
                )
            )
        self.decision = decision
        self._attempts = (
            Attempt(action.kind, now.instant, None, None, intent.actor, intent.incident),
            *self._attempts,
        )
        if intent.observed:
            self._attempts = (
                self._attempts[0]._replace(ended_at=now.instant, outcome=Outcome.OBSERVED),
                *self._attempts[1:],
            )
            return await self._conclude(decision)
        self._world.fleet.acting(self.service, now.instant)
        self._running = Running(begun, intent, now.instant)
        self.phase, self.phase_since = step(self.phase, intent.event), now.instant
        self.action_count += 1
        if action.kind is ActionKind.RESTART:
            self.restart_count, self.last_restart = self.restart_count + 1, now.wall
        self._publish(Topic.HEALING_STARTED, self._about(intent))
        return now.instant

    async def _act(self) -> Instant | None:
        running = self._current()
        action = running.intent.action
        try:
            await self._platform.execute(action, epoch=self._world.epoch())
        except (TransientError, PermanentError) as error:
            return await self._finish(Event.ACTION_FAILED, Outcome.ERROR, str(error))
        await self._move(Event.EXECUTED, "carried out")
        self._begin_verifying()
        return self._world.clock.now()

    def _begin_verifying(self) -> None:
        now = self._world.clock.now()
        self._running = replace(self._current(), executed=now)
        self.vitals = [FRESH] * len(self.vitals)
        self.status = None
        self.diagnosis = Diagnosis(Health.UNKNOWN)
        self._health_since = now
        self.grace_until = Instant(now + self.policy.grace_s)

    async def _verify(self) -> Instant | None:
        running = self._current()
        self.look(await self._observe_platform())
        now = self._world.clock.now()
        executed = running.executed if running.executed is not None else now
        judgement = judge(
            self.diagnosis, self.vitals, executed, running.had_recovered, now, self.policy
        )
        if judgement.outcome is None:
            if judgement.recovered_at is not None and not running.had_recovered:
                self._running = replace(running, had_recovered=True)
            return judgement.wake_at
        if judgement.outcome is Outcome.RECOVERED:
            return await self._finish(
                Event.RECOVERED, judgement.outcome, judgement.detail, judgement.recovered_at
            )
        return await self._finish(Event.RELAPSED, judgement.outcome, judgement.detail)

    async def _cool(self) -> Instant | None:
        now = self._world.clock.now()
        if self.wake_at is not None and now < self.wake_at:
            return self.wake_at
        await self._move(Event.COOLED, "cooled down")
        return now

    async def _conclude(self, decision: Decision) -> Instant | None:
        """Remember a decision that changes nothing in the world; record it when it is news."""
        self.decision = decision
        news = (
            decision.reason,
            tuple(veto.guard for veto in decision.vetoes),
            decision.symptom.kind if decision.symptom is not None else None,
        )
        if news != self._noted:
            was_quiet = not self._noted or self._noted[0] in (Reason.WELL, Reason.BELOW_THRESHOLD)
            quiet = decision.reason in (Reason.WELL, Reason.BELOW_THRESHOLD, Reason.BUSY)
            self._noted = news
            if not (quiet and was_quiet):
                self._outbox(EntryKind.DECISION, _decision_body(decision))
            if decision.vetoes:
                self._publish(Topic.HEALING_VETOED, _decision_body(decision))
        if (
            decision.reason is Reason.EXHAUSTED
            and self.phase is Phase.WATCHING
            and self.policy.mode is Mode.AUTO
        ):
            await self._move(Event.EXHAUSTED, decision.detail)
            self._publish(Topic.SERVICE_QUARANTINED, _decision_body(decision))
            _log.error("service-quarantined", service=self.service, reason=decision.detail)
            return None
        return decision.wake_at

    async def _finish(
        self, event: Event, outcome: Outcome, detail: str, recovered_at: Instant | None = None
    ) -> Instant | None:
        running, now = self._current(), self._world.clock.stamp()
        failing = running.intent.failing_since
        finish = Finish(
            running.id,
            outcome,
            detail,
            None if recovered_at is None else (recovered_at - running.started) * 1000,
            None
            if recovered_at is None or failing is None
            else (recovered_at - rebase(failing, now)) * 1000,
        )
        self._attempts = (
            self._attempts[0]._replace(ended_at=now.instant, outcome=outcome),
            *self._attempts[1:],
        )
        success = outcome is Outcome.RECOVERED
        until = backoff_until(self.service, self._attempts, self.policy, now.instant)
        self._running = None
        self._world.fleet.ended(self.service, now.instant, success=success)
        await self._move(
            event, detail, finish=finish, wake_in_s=None if success else until - now.instant
        )
        topic = Topic.SERVICE_HEALED if success else Topic.HEALING_FAILED
        about = {**self._about(running.intent), "outcome": outcome.value, "detail": detail}
        self._publish(topic, {**about, "recoveryTime": finish.recovery_time_ms})
        return now.instant

    # What is remembered ------------------------------------------------------------------------

    async def _move(
        self,
        event: Event,
        reason: str,
        *,
        finish: Finish | None = None,
        wake_in_s: float | None = None,
        actor: str = "prunella",
    ) -> None:
        """Move the machine and write it. What cannot be written now is written before the next
        step: an effect that has happened is never repeated for want of disk space.
        """
        now = self._world.clock.stamp()
        self.phase, self.phase_since = step(self.phase, event), now.instant
        self.wake_at = None if wake_in_s is None else Instant(now.instant + max(0.0, wake_in_s))
        wake = None if self.wake_at is None else back(now, self.wake_at)
        self._pending = Step(self.service, event, self.phase, now, reason, wake, finish, actor)
        await self._flush()

    async def _flush(self) -> bool:
        pending = self._pending
        if pending is None:
            return True
        try:
            await self._world.store.advance(pending, epoch=self._world.epoch())
        except TransientError as error:
            _log.warning("not-recorded", service=self.service, error=str(error))
            return False
        self._pending = None
        return True

    async def _remember(self) -> None:
        view = await self._world.store.view(self.service, self._world.clock.stamp())
        self._attempts = self._since_release(view).attempts

    def _since_release(self, view: LedgerView) -> LedgerView:
        """Without what happened before a person ended the last quarantine: a fresh start."""
        kept = tuple(a for a in view.attempts if a.at >= self._released_at or a.outcome is None)
        return view._replace(attempts=kept)

    async def _recall_release(self, now: Stamp) -> None:
        moves = await self._world.store.entries(
            _MOVES_READ, service=self.service, kinds=frozenset({EntryKind.PHASE})
        )
        for move in moves:
            if move.body.get("event") == Event.RELEASED.value:
                self._released_at = rebase(move.at, now)
                return

    def _outbox(self, kind: EntryKind, body: dict[str, str]) -> None:
        entry = Entry(kind, self._world.clock.stamp(), self.service, body=body)
        self._world.note(entry)

    def _publish(self, topic: Topic, body: dict[str, object] | dict[str, str]) -> None:
        notice = Notice(topic, self._world.clock.stamp(), self.service, body)
        self._world.bus.publish(notice)

    # What is asked -----------------------------------------------------------------------------

    def _snapshot(self, forced: Forced | None) -> Snapshot:
        now = self._world.clock.now()
        view = LedgerView(
            attempts=self._attempts,
            running=frozenset({self.service}) if self._running is not None else frozenset(),
            fleet_started=tuple(self._world.fleet.started),
            holds=self._world.holds(self.service),
        )
        return Snapshot(
            service=self.service,
            policy=self.policy,
            fleet_policy=self._world.fleet.policy,
            phase=self.phase,
            diagnosis=self.diagnosis,
            status=self.status,
            capabilities=self._platform.capabilities,
            now=now,
            ledger=view,
            fleet=self._world.fleet.view(self.service, now),
            grace_until=self.grace_until,
            forced=forced,
        )

    async def _observe_platform(self) -> Status | None:
        try:
            return await self._platform.observe()
        except (TransientError, PermanentError) as error:
            _log.warning("platform-unreadable", service=self.service, error=str(error))
            return None

    def _incident(self, now: Stamp) -> IncidentId:
        """The open incident, or a new one: a fault soon after a recovery is the same incident."""
        for last in self._attempts[:1]:
            ended = last.ended_at if last.ended_at is not None else last.at
            if now.instant - ended < self.policy.incident_window_s:
                return last.incident
        return IncidentId(f"{self.service}-{now.wall:%Y%m%dT%H%M%S.%f}")

    def _about(self, intent: Intent) -> dict[str, object]:
        return {
            "action": intent.action.kind.value,
            "reason": intent.reason,
            "incidentId": intent.incident,
            "actor": intent.actor,
        }

    def _current(self) -> Running:
        assert self._running is not None, "acting and verifying have an action"
        return self._running

    def _later(self, seconds: float) -> Instant:
        return Instant(self._world.clock.now() + seconds)


def achieved(action: Action, status: Status) -> bool:
    """Whether the target of an action is already there, read back from the platform."""
    if action.kind is not ActionKind.RESTART:
        return False
    concerned = [i for i in status.instances if action.instance in (None, i.id)]
    return bool(concerned) and all(
        i.state is InstanceState.RUNNING and i.identity and i.identity != action.identity
        for i in concerned
    )


def back(now: Stamp, instant: Instant) -> Stamp:
    """The stamp of an instant of this boot, seen from `now`."""
    return Stamp(now.wall - timedelta(seconds=now.instant - instant), instant, now.boot)


def _decision_body(decision: Decision) -> dict[str, str]:
    return {
        "reason": decision.reason.value,
        "detail": decision.detail,
        "symptom": decision.symptom.kind.value if decision.symptom is not None else "",
        "guards": ", ".join(veto.guard for veto in decision.vetoes),
    }
