"""One service: one step of its healing per call.

The engine gathers a snapshot, asks the core, writes what is about to happen, lets it happen and
writes how it ended. It never sleeps: it says when it wants to be called again. Whoever drives it
calls `observe` with each observation, `tell` with each fact, and `advance` until that has nothing
more to do at once. On a virtual clock it is driven by the simulator, in the daemon by the ward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from prunella.core.breaker import CIRCUIT, circuits
from prunella.core.budget import backoff_until
from prunella.core.decide import decide, vet, wake_after
from prunella.core.grants import grant
from prunella.core.health import Diagnosis, ProbeKey, Vitals
from prunella.core.ladder import OURSELVES
from prunella.core.ledger import (
    EntryKind,
    Finish,
    Intent,
    LedgerView,
    ServiceRow,
    Veto,
)
from prunella.core.machine import Event, Phase
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Debt,
    Health,
    InstanceId,
    Instant,
    Mode,
    Observation,
    Outcome,
    ServiceId,
    Stamp,
    Status,
    SymptomKind,
)
from prunella.core.policy import Policy
from prunella.core.progress import has_begun, is_borne, left, pieces
from prunella.core.snapshot import Decision, Forced, Reason, Snapshot
from prunella.core.time import rebase
from prunella.core.traffic import Flow
from prunella.errors import ConflictError, PermanentError, StaleEpochError, TransientError
from prunella.ports import Platform, Release
from prunella.runtime.beliefs import Beliefs
from prunella.runtime.notices import Topic
from prunella.runtime.passage import Passage
from prunella.runtime.record import Record, World
from prunella.runtime.sight import Sight
from prunella.runtime.target import Target
from prunella.runtime.verification import Running, Verification

_log = structlog.get_logger("prunella.engine")
_GATEWAY_RETRY_S = 5.0  # after a valve could not be turned
_RETRY_S = 1.0  # after trouble with the store or the platform
_QUIET = (Reason.WELL, Reason.BELOW_THRESHOLD, Reason.BUSY)


class Engine:
    """Heals one service. Not for concurrent use: one `advance` at a time (the driver's duty).

    Attributes:
        beliefs: what is seen of the service.
        record: what is remembered of it. Both are safe to read from any thread.
    """

    __slots__ = (
        "_borne_since",
        "_noted",
        "_running",
        "_sight",
        "_target",
        "_verification",
        "_world",
        "beliefs",
        "decision",
        "name",
        "policy",
        "record",
        "service",
    )

    def __init__(
        self,
        service: ServiceId,
        name: str,
        policy: Policy,
        probes: Sequence[bool],
        platform: Platform,
        world: World,
        release: Release | None = None,
        passage: Passage | None = None,
    ) -> None:
        """Args: probes: for each one, whether it measures every instance by itself."""
        now = world.clock.now()
        self.service = service
        self.name = name
        self.policy = policy
        self.beliefs = Beliefs(policy, probes, now)
        self.record = Record(service, platform.kind, policy, world)
        self.decision = Decision(Reason.BLIND, "nothing seen yet")
        self._world = world
        self._target = Target(service, platform, release, passage, policy)
        self._running: Running | None = None
        self._noted: tuple[object, ...] = ()
        self._borne_since: Instant | None = None  # since when all instances run the version
        self._sight = Sight(service, policy, self.beliefs, self.record, self._target, world)
        self._verification = Verification(policy, self._sight, self._target, world)
        world.fleet.join(service, policy.domain, policy.needs)

    @property
    def cadence_since(self) -> Instant:
        """Since when the phase (while verifying) or the belief (otherwise) has lasted."""
        if self.phase is Phase.VERIFYING:
            return self.record.phase_since
        return self.beliefs.health_since

    @property
    def phase(self) -> Phase:
        return self.record.phase

    @property
    def diagnosis(self) -> Diagnosis:
        return self.beliefs.diagnosis

    @property
    def status(self) -> Status | None:
        return self.beliefs.status

    @property
    def flow(self) -> Flow | None:
        """As its gateway has it; None: it has none, or that cannot tell."""
        return self._target.flow

    @property
    def trouble(self) -> str:
        """Why its platform cannot tell now what is there; empty: it can."""
        return self._target.trouble

    @property
    def vitals(self) -> Mapping[ProbeKey, Vitals]:
        return self.beliefs.vitals

    @property
    def running(self) -> Running | None:
        return self._running

    # What is seen ------------------------------------------------------------------------------

    def observe(self, key: ProbeKey, seen: Observation) -> bool:
        """Take in an observation of one probe. True: `advance` has something to judge."""
        worth = self._sight.observe(key, seen, calm=self.phase is Phase.WATCHING)
        return worth and self._is_worth_judging()

    def stand_behind(self, passage: Passage) -> None:
        """From now on there is a gateway."""
        self._target.passage = passage

    def take_flow(self, flow: Flow | None) -> bool:
        """Take in what the gateway counts. True: `advance` has something to judge."""
        if flow is None:
            return False
        self._sight.take_flow(flow)
        return self._is_worth_judging() or bool(circuits(self.record.debts))

    def tell(self) -> None:
        """Say that a fact has come in: the next step asks the platform before it decides."""
        self._sight.told = True

    async def look(self) -> bool:
        """Ask the platform. True: `advance` has something to judge."""
        await self._sight.look(self._rollback())
        return self._is_worth_judging() or self.record.has_news

    def _rollback(self) -> Action | None:
        action = self._running.intent.action if self._running is not None else None
        return action if action is not None and action.kind is ActionKind.ROLLBACK else None

    def _is_worth_judging(self) -> bool:
        diagnosis = self.diagnosis
        return (
            diagnosis.symptom is not None
            or self.phase is Phase.VERIFYING
            or self.decision.symptom is not None
            or (self.decision.reason is Reason.BLIND and diagnosis.health is Health.HEALTHY)
        )

    # What is done ------------------------------------------------------------------------------

    async def advance(self) -> Instant | None:
        """Do one step. Returns when to call again: now or earlier for at once, None for never
        before something changes.
        """
        if not await self.record.write():
            return self._later(_RETRY_S)
        return _earlier(await self._next(), await self._keep_circuits())

    async def _next(self) -> Instant | None:
        match self.phase:
            case Phase.WATCHING:
                next_at = await self._consider(None)
                if self.record.has_news:
                    return self._world.clock.now()
                return _earlier(next_at, self._soak())
            case Phase.ACTING:
                return await self._act()
            case Phase.VERIFYING:
                return await self._verify()
            case Phase.COOLING:
                return await self._cool()
            case Phase.QUARANTINED:
                return None

    async def _keep_circuits(self) -> Instant | None:
        """Renew the lease of what stands open, whatever else is going on; when to do it next."""
        if self._target.passage is None or not circuits(self.record.debts):
            return None
        if self._running is not None and self._running.intent.action.kind in CIRCUIT:
            return None  # it is being turned just now
        return await self._target.passage.keep(epoch=self._world.epoch())

    def _soak(self) -> Instant | None:
        """Let the present version prove itself, unless it cannot be told which one that is.

        As long as it has not, and is not on the way to it, that is looked at once an interval.
        """
        versions, status = self.record.versions, self.status
        if status is not None and status.revision:
            since = self._world.clock.now() if self._borne_since is None else self._borne_since
            self._borne_since = since if is_borne(status) else None
            well, borne = self.beliefs.well_since, self._borne_since
            if well is not None and borne is not None:
                return self.record.soak(max(well, borne))
        if versions and versions[0].soaked_at is None:
            return self._later(self.policy.interval_s)
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

    async def restore(self, row: ServiceRow | None) -> None:
        """Take up where an earlier run of Prunella was, by observing and never by replaying.

        Args:
            row: None if healing never left WATCHING; then only versions may be remembered.
        """
        status = await self._target.observe()
        if row is not None:
            await self.record.recall(row)
            await self._take_up(row, status)
        elif status is not None and status.revision:
            await self.record.refresh(self._world.clock.stamp())
        self._tell_circuit()
        self._sight.take_in(status, self._rollback())

    async def _take_up(self, row: ServiceRow, status: Status | None) -> None:
        if row.phase is Phase.QUARANTINED:
            self.decision = Decision(Reason.EXHAUSTED, row.reason)
        if row.running is None or row.intent is None:
            return
        began = rebase(row.intent.at, self._world.clock.stamp())
        healing = row.intent.symptom is not None
        self._world.fleet.resumed(self.service, began, healing=healing)
        self._running = Running(row.running, row.intent, began, executed=self.record.phase_since)
        why = Reason.FORCED if row.intent.event is Event.FORCED else Reason.HEAL
        self.decision = Decision(why, row.intent.reason)
        action = row.intent.action
        to_do = left(action, status) if status is not None else ()
        if action.runs:
            self.beliefs.awaited = frozenset(run.instance for run in to_do)
        if row.phase is not Phase.ACTING:
            return
        if action.kind is ActionKind.ROLLBACK and (status is None or not status.revision):
            return  # who carries it out reads what is deployed before anything is done
        if action.kind in CIRCUIT:
            await self._sight.look_at_gateway()
        begun = has_begun(action, status, self._target.flow)
        if begun and len(to_do) == len(pieces(action)) > 0:
            return  # deployed, and nothing runs it yet: on with the first one, from where we are
        if begun:
            detail = "the effect was there after a restart of Prunella"
            await self.record.move(Event.INTERRUPTED, detail)
            self._begin_verifying(self.beliefs.awaited)
            return
        detail = "Prunella ended in the middle of it, and the effect was not there"
        await self._finish(Event.LOST, Outcome.INTERRUPTED, detail)

    async def release(self, actor: str) -> bool:
        """End a quarantine. False when there is none."""
        if self.phase is not Phase.QUARANTINED:
            return False
        await self.record.release(actor)
        return True

    async def _consider(self, forced: Forced | None) -> Instant | None:
        quiet = self.beliefs.diagnosis.symptom is None and forced is None
        if quiet and not self._sight.told and not self.record.debts:
            return await self._conclude(decide(self._snapshot(None), self._world.chain))
        fresh = await self._sight.look_if_due(self._rollback())
        if fresh:
            await self._sight.look_at_gateway()
        # A version that has just been noticed is remembered before anything is blamed on it.
        if self.record.has_news and not await self.record.write() and forced is None:
            return self._later(_RETRY_S)
        snap = self._snapshot(forced)
        decision = decide(snap, self._world.chain)
        if not fresh and (decision.action or decision.settles):
            self._sight.told = True  # nothing is done on what was seen a while ago
            return await self._consider(forced)
        if decision.settles is not None:
            return await self._settle(decision, decision.settles)
        if decision.action is None:
            return await self._conclude(decision)
        return await self._begin(snap, decision, decision.action)

    async def _begin(self, snap: Snapshot, decision: Decision, action: Action) -> Instant | None:
        now = self._world.clock.stamp()
        intent = self._intend(snap, decision, action, now)
        if intent.symptom is SymptomKind.HUNG and (seen := await self._target.testimony(action)):
            intent = replace(intent, evidence=f"{intent.evidence}\n{seen}")

        def admit(view: LedgerView) -> tuple[Veto, ...]:
            known = self.record.since_release(view)
            return vet(replace(snap, ledger=known), action, self._world.chain)

        try:
            begun = await self._world.store.begin(intent, admit, now, epoch=self._world.epoch())
        except StaleEpochError:
            raise
        except (TransientError, PermanentError) as error:
            veto = Veto("record", f"nothing is done that cannot be recorded: {error}")
            await self._conclude(_refused(decision, (veto,), now.instant))
            return self._later(_RETRY_S)
        if not isinstance(begun, int):
            await self.record.refresh(now)
            return await self._conclude(_refused(decision, tuple(begun), now.instant))
        self.decision = decision
        self.record.begin(intent)
        if intent.ended is not None:
            return await self._conclude(decision)
        if intent.grant is not None:
            await self.record.refresh(now)
        healing = intent.symptom is not None
        self._world.fleet.acting(self.service, now.instant, healing=healing)
        self._running = Running(begun, intent, now.instant)
        self.record.publish(Topic.HEALING_STARTED, _about(intent))
        return now.instant

    def _intend(self, snap: Snapshot, decision: Decision, action: Action, now: Stamp) -> Intent:
        symptom, forced = decision.symptom, snap.forced
        return Intent(
            action=action,
            incident=self.record.incident(now),
            reason=decision.detail,
            symptom=symptom.kind if symptom is not None else None,
            actor=forced.actor if forced is not None else OURSELVES,
            at=now,
            failing_since=None if symptom is None else now._replace(instant=symptom.since),
            event=Event.FORCED if forced is not None else Event.CONFIRMED,
            evidence=symptom.evidence if symptom is not None else "",
            ended=Outcome.OBSERVED if decision.reason is Reason.OBSERVED else None,
            grant=grant(snap, decision, action, now),
        )

    async def _act(self) -> Instant | None:
        running = self._current()
        action = running.intent.action
        status = self.beliefs.status
        to_do = left(action, status) if status is not None else ()
        piece = to_do[0] if action.runs and to_do else None
        try:
            await self._target.carry_out(
                action,
                piece,
                reason=running.intent.reason,
                epoch=self._world.epoch(),
            )
        except StaleEpochError:
            raise  # another one acts now: it finds the intent, and what came of it
        except ConflictError as error:
            return await self._finish(Event.CANCELLED, Outcome.CANCELLED, str(error))
        except (TransientError, PermanentError) as error:
            return await self._finish(Event.ACTION_FAILED, Outcome.ERROR, str(error))
        done = "carried out" if piece is None else f"instance {piece.instance}: carried out"
        await self.record.move(Event.EXECUTED, done)
        awaited = to_do[1:] if piece is not None else ()
        self._begin_verifying(frozenset(run.instance for run in awaited))
        return self._world.clock.now()

    def _begin_verifying(self, awaited: frozenset[InstanceId]) -> None:
        now = self._world.clock.now()
        flow = self._target.flow
        self._running = replace(
            self._current(),
            executed=now,
            had_recovered=False,
            traffic=None if flow is None else flow.traffic,
        )
        self.beliefs.awaited = awaited
        if self._current().intent.action.kind in CIRCUIT:
            self.beliefs.demand.forget()
        else:
            self.beliefs.forget(now)

    async def _verify(self) -> Instant | None:
        running = self._current()
        found = await self._verification.judge(running)
        verdict = found.verdict
        if found.proven:
            await self.record.move(Event.CONTINUED, found.proven)
            return self._world.clock.now()
        if verdict is None:
            if found.has_recovered and not running.had_recovered:
                self._running = replace(running, had_recovered=True)
            return found.wake_at
        action = running.intent.action
        if verdict.outcome is Outcome.RECOVERED and action.kind not in CIRCUIT:
            await self._target.complete(action, epoch=self._world.epoch())
        event = Event.RECOVERED if verdict.outcome.is_success else Event.RELAPSED
        return await self._finish(event, *verdict)

    async def _cool(self) -> Instant | None:
        now = self._world.clock.now()
        wake_at = self.record.wake_at
        if wake_at is not None and now < wake_at:
            return wake_at
        await self.record.move(Event.COOLED, "cooled down")
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
            was_quiet = not self._noted or self._noted[0] in _QUIET[:2]
            self._noted = news
            if not (decision.reason in _QUIET and was_quiet):
                self.record.note(EntryKind.DECISION, _decision_body(decision))
            if decision.vetoes:
                self.record.publish(Topic.HEALING_VETOED, _decision_body(decision))
        if (
            decision.reason is Reason.EXHAUSTED
            and self.phase is Phase.WATCHING
            and self.policy.mode is Mode.AUTO
        ):
            await self.record.move(Event.EXHAUSTED, decision.detail)
            self.record.publish(Topic.SERVICE_QUARANTINED, _decision_body(decision))
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
        self.record.end(outcome, now.instant)
        self.beliefs.awaited = frozenset()
        kind = running.intent.action.kind
        calm = outcome.is_success or outcome is Outcome.CANCELLED
        until = backoff_until(self.service, self.record.attempts, self.policy, now.instant)
        if kind in CIRCUIT:
            # A share that was not served well is put back at once; a gateway in trouble is not
            # asked again and again.
            calm = calm or outcome is Outcome.RELAPSED
            until = Instant(now.instant + _GATEWAY_RETRY_S)
        self._running = None
        self._tell_circuit()
        healed = outcome.is_success
        self._world.fleet.ended(self.service, now.instant, success=healed)
        await self.record.move(
            event, detail, finish=finish, wake_in_s=None if calm else until - now.instant
        )
        if not (healed and kind in (ActionKind.SCALE_DOWN, ActionKind.CIRCUIT_CLOSE)):
            topic = Topic.SERVICE_HEALED if healed else Topic.HEALING_FAILED
            about = {**_about(running.intent), "outcome": outcome.value, "detail": detail}
            self.record.publish(topic, {**about, "recoveryTime": finish.recovery_time_ms})
        return now.instant

    async def _settle(self, decision: Decision, debt: Debt) -> Instant | None:
        by_others = decision.reason is Reason.YIELDED
        if not await self.record.settle(debt, decision.detail, by_others=by_others):
            return self._later(_RETRY_S)
        self._tell_circuit()
        await self._conclude(decision)
        return self._world.clock.now()

    def _tell_circuit(self) -> None:
        """Let those that depend on this service know whether its circuit is open."""
        is_open = self.record.debt(ActionKind.CIRCUIT_BREAK) is not None
        since = self._world.clock.now() if is_open else None
        self._world.fleet.dependencies.open(self.service, since)

    # What is asked -----------------------------------------------------------------------------

    def _snapshot(self, forced: Forced | None) -> Snapshot:
        now, beliefs = self._world.clock.now(), self.beliefs
        view = LedgerView(
            attempts=self.record.attempts,
            running=frozenset({self.service}) if self._running is not None else frozenset(),
            fleet_started=tuple(self._world.fleet.started),
            holds=self._world.holds(self.service),
            versions=self.record.versions,
            debts=self.record.debts,
        )
        return Snapshot(
            service=self.service,
            policy=self.policy,
            fleet_policy=self._world.fleet.policy,
            phase=self.phase,
            diagnosis=beliefs.diagnosis,
            status=beliefs.status,
            capabilities=self._target.capabilities,
            now=now,
            ledger=view,
            fleet=self._world.fleet.view(self.service, now),
            grace_until=beliefs.grace_until,
            forced=forced,
            load=beliefs.load,
            flow=self._target.flow,
            turned_by_itself=self._target.passage is not None
            and self._target.passage.turned_by_itself,
            dependencies=self._world.fleet.dependencies.of(self.service),
            dispensable_to=self._world.fleet.dependencies.dispensable_to(self.service),
            hurt=self._world.fleet.dependencies.hurt(self.service),
            is_probed=bool(beliefs.vitals),
        )

    def _current(self) -> Running:
        assert self._running is not None, "acting and verifying have an action"
        return self._running

    def _later(self, seconds: float) -> Instant:
        return Instant(self._world.clock.now() + seconds)


def _earlier(one: Instant | None, other: Instant | None) -> Instant | None:
    return other if one is None else one if other is None else min(one, other)


def _about(intent: Intent) -> dict[str, object]:
    return {
        "action": intent.action.kind.value,
        "reason": intent.reason,
        "incidentId": intent.incident,
        "actor": intent.actor,
    }


def _refused(decision: Decision, vetoes: tuple[Veto, ...], now: Instant) -> Decision:
    return replace(
        decision,
        reason=Reason.VETOED,
        detail="; ".join(veto.reason for veto in vetoes),
        action=None,
        vetoes=vetoes,
        wake_at=wake_after(vetoes, now),
    )


def _decision_body(decision: Decision) -> dict[str, str]:
    return {
        "reason": decision.reason.value,
        "detail": decision.detail,
        "symptom": decision.symptom.kind.value if decision.symptom is not None else "",
        "guards": ", ".join(veto.guard for veto in decision.vetoes),
    }
