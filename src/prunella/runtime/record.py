"""What is remembered of one service: where its healing stands, as read and as written.

The store is the memory. What was last read of it is kept here, so that most decisions ask nobody;
what they decide is judged again on the store's own view, in the transaction of the intent. What
cannot be written now is written before the next step: an effect that has happened is never
repeated for want of disk space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from prunella.core.grants import owed
from prunella.core.guards import Guard
from prunella.core.ladder import OURSELVES
from prunella.core.ledger import (
    Attempt,
    Entry,
    EntryKind,
    Finish,
    Intent,
    LedgerView,
    Mark,
    ServiceRow,
    Step,
)
from prunella.core.machine import Event, Phase, step
from prunella.core.model import (
    Action,
    ActionKind,
    Debt,
    Epoch,
    Hold,
    IncidentId,
    InstanceId,
    Instant,
    Outcome,
    ServiceId,
    Stamp,
    Status,
    Version,
)
from prunella.core.policy import Policy
from prunella.core.time import after, rebase, remaining_s
from prunella.errors import TransientError
from prunella.ports import Clock, Store
from prunella.runtime.fleet import Fleet
from prunella.runtime.notices import Bus, Notice, Topic

_log = structlog.get_logger("prunella.record")
_FOREIGN_COUNT = 8  # restarts by the platform that are told one by one
_MOVES_READ = 100  # more than a service makes in the 4 h that the guards look back


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


class Record:
    """Phase, attempts, versions and debts of one service; the newest first.

    Attributes:
        wake_at: when a cool-down ends.
    """

    __slots__ = (
        "_foreign",
        "_marks",
        "_pending",
        "_platform",
        "_policy",
        "_released_at",
        "_restarts_seen",
        "_seen_at",
        "_service",
        "_world",
        "action_count",
        "attempts",
        "debts",
        "last_restart",
        "phase",
        "phase_since",
        "restart_count",
        "versions",
        "wake_at",
    )

    def __init__(self, service: ServiceId, platform: str, policy: Policy, world: World) -> None:
        self._service = service
        self._platform = platform
        self._policy = policy
        self._world = world
        self.phase = Phase.WATCHING
        self.phase_since = world.clock.now()
        self.wake_at: Instant | None = None
        self.restart_count = 0
        self.action_count = 0
        self.last_restart: datetime | None = None
        self.attempts: tuple[Attempt, ...] = ()
        self.versions: tuple[Version, ...] = ()
        self.debts: tuple[Debt, ...] = ()
        self._released_at = Instant(float("-inf"))
        self._pending: Step | None = None
        self._marks: list[Mark] = []
        self._foreign: list[InstanceId] = []
        self._restarts_seen: dict[InstanceId, int] = {}
        self._seen_at: Instant | None = None

    # Reading -----------------------------------------------------------------------------------

    async def recall(self, row: ServiceRow) -> None:
        """Read everything anew after a start."""
        now = self._world.clock.stamp()
        self.restart_count, self.action_count = row.restart_count, row.action_count
        self.last_restart = row.last_restart
        self.phase, self.phase_since = row.phase, rebase(row.phase_since, now)
        if row.wake_at is not None:
            self.wake_at = Instant(now.instant + remaining_s(row.wake_at, now))
        moves = await self._world.store.entries(
            _MOVES_READ, service=self._service, kinds=frozenset({EntryKind.PHASE})
        )
        released = (m.at for m in moves if m.body.get("event") == Event.RELEASED.value)
        if (at := next(released, None)) is not None:
            self._released_at = rebase(at, now)
        await self.refresh(now)

    async def refresh(self, now: Stamp) -> None:
        view = self.since_release(await self._world.store.view(self._service, now))
        self.attempts, self.versions, self.debts = view.attempts, view.versions, view.debts

    def since_release(self, view: LedgerView) -> LedgerView:
        """Without what happened before a person ended the last quarantine: a fresh start."""
        kept = tuple(a for a in view.attempts if a.at >= self._released_at or a.outcome is None)
        return view._replace(attempts=kept)

    @property
    def revision(self) -> str:
        """The version that was deployed last, as far as is known; else empty."""
        return self.versions[0].revision if self.versions else ""

    def debt(self, kind: ActionKind, instance: InstanceId | None = None) -> Debt | None:
        return owed(self.debts, kind, instance)

    def incident(self, now: Stamp) -> IncidentId:
        """The open incident, or a new one: a fault soon after a recovery is the same incident."""
        for last in self.attempts[:1]:
            ended = last.ended_at if last.ended_at is not None else last.at
            if now.instant - ended < self._policy.incident_window_s:
                return last.incident
        return IncidentId(f"{self._service}-{now.wall:%Y%m%dT%H%M%S.%f}")

    # Writing -----------------------------------------------------------------------------------

    def begin(self, intent: Intent) -> None:
        """An intent has been written."""
        at = intent.at.instant
        attempt = Attempt(
            kind=intent.action.kind,
            at=at,
            ended_at=None if intent.ended is None else at,
            outcome=intent.ended,
            actor=intent.actor,
            incident=intent.incident,
            instance=intent.action.instance,
        )
        self.attempts = (attempt, *self.attempts)
        if intent.ended is not None:
            return
        self.phase, self.phase_since = step(self.phase, intent.event), at
        self.action_count += 1
        if intent.action.kind is ActionKind.RESTART:
            self.restart_count, self.last_restart = self.restart_count + 1, intent.at.wall

    def end(self, outcome: Outcome, at: Instant) -> None:
        """The newest attempt has ended."""
        newest = self.attempts[0]._replace(ended_at=at, outcome=outcome)
        self.attempts = (newest, *self.attempts[1:])

    async def release(self, actor: str) -> None:
        """A person ends a quarantine: what was before it does not count any more."""
        await self.move(Event.RELEASED, f"released by {actor}", actor=actor)
        self._released_at, self.attempts = self.phase_since, ()

    async def move(
        self,
        event: Event,
        reason: str,
        *,
        finish: Finish | None = None,
        wake_in_s: float | None = None,
        actor: str = OURSELVES,
    ) -> None:
        """Move the machine and write it, now or before the next step."""
        now = self._world.clock.stamp()
        self.phase, self.phase_since = step(self.phase, event), now.instant
        wake = None if wake_in_s is None else after(now, max(0.0, wake_in_s))
        self.wake_at = None if wake is None else wake.instant
        self._pending = Step(self._service, event, self.phase, now, reason, wake, finish, actor)
        await self.write()

    async def write(self) -> bool:
        """Write the last move, versions that were seen and restarts by others; False: not now."""
        epoch = self._world.epoch()
        try:
            if self._pending is not None:
                await self._world.store.advance(self._pending, epoch=epoch)
                self._pending = None
            if not self.has_news:
                return True
            while self._marks:
                await self._world.store.mark(self._marks[0], epoch=epoch)
                self._marks.pop(0)
            while self._foreign:
                action = Action(ActionKind.RESTART, self._service, self._foreign[0])
                reason = f"{self._platform} has restarted it by itself"
                await self._write_foreign(action, reason, self._platform)
                self._foreign.pop(0)
            await self.refresh(self._world.clock.stamp())
        except TransientError as error:
            _log.warning("not-recorded", service=self._service, error=str(error))
            return False
        return True

    async def settle(self, debt: Debt, reason: str, *, by_others: bool) -> bool:
        """Strike out a debt that is paid; False: not now.

        Args:
            by_others: somebody else has taken the remedy back, and that counts as their action.
        """
        now = self._world.clock.stamp()
        try:
            if by_others:
                action = Action(ActionKind.CIRCUIT_CLOSE, self._service, debt.instance)
                await self._write_foreign(action, reason, "somebody")
            await self._world.store.settle(
                self._service,
                debt.kind,
                now,
                epoch=self._world.epoch(),
                reason=reason,
                instance=debt.instance,
            )
        except TransientError as error:
            _log.warning("not-recorded", service=self._service, error=str(error))
            return False
        await self.refresh(now)
        return True

    def note(self, kind: EntryKind, body: dict[str, str]) -> None:
        self._world.note(Entry(kind, self._world.clock.stamp(), self._service, body=body))

    def publish(self, topic: Topic, body: dict[str, object] | dict[str, str]) -> None:
        self._world.bus.publish(Notice(topic, self._world.clock.stamp(), self._service, body))

    # What others do ----------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether something was noticed that is not written yet."""
        return bool(self._marks or self._foreign)

    def notice(self, status: Status, rollback: Action | None, bad_since: Instant | None) -> bool:
        """Compare with what was there: another version, restarts by the platform itself.

        A version is dated at the moment when it is seen first. If something has been bad since
        before that and the version before was last seen when it was not, it is dated at the
        first bad sign: it may well be the cause, and must not look younger than its effect.

        Args:
            rollback: the one that is being carried out, if there is one.
            bad_since: the first sign of what is wrong now; None: nothing is.

        Returns: whether another version has been deployed.
        """
        known = self._marks[-1].revision if self._marks else self.revision
        deployed = bool(status.revision) and status.revision != known
        now, seen_at = self._world.clock.stamp(), self._seen_at
        if status.revision:
            self._seen_at = now.instant
        if status.revision and deployed:
            ours = rollback is not None and rollback.revision == status.revision
            actor = OURSELVES if ours else ""
            at = now
            if seen_at is not None and bad_since is not None and bad_since > seen_at:
                at = after(now, bad_since - now.instant)
            self._marks.append(Mark(self._service, status.revision, at, actor=actor))
        for instance in status.instances:
            before = self._restarts_seen.get(instance.id, instance.restart_count)
            self._restarts_seen[instance.id] = instance.restart_count
            new_count = min(instance.restart_count - before, _FOREIGN_COUNT)
            self._foreign += [instance.id] * new_count
        return deployed and bool(known)

    def soak(self, well_since: Instant | None) -> Instant | None:
        """Note that the present version has proved itself; when it will have, else."""
        if not self.versions or self.versions[0].soaked_at is not None or well_since is None:
            return None
        newest = self.versions[0]
        start = max(newest.deployed_at, well_since)
        soaked_at = Instant(start + self._policy.release_soak_s)
        now = self._world.clock.stamp()
        if now.instant < soaked_at:
            return soaked_at
        evidence = f"healthy for {now.instant - start:.0f} s"
        self._marks.append(
            Mark(self._service, newest.revision, now, soaked=True, evidence=evidence)
        )
        return now.instant

    async def _write_foreign(self, action: Action, reason: str, actor: str) -> None:
        """Count what somebody else did: one owner, one budget."""
        now = self._world.clock.stamp()
        intent = Intent(
            action=action,
            incident=self.incident(now),
            reason=reason,
            symptom=None,
            actor=actor,
            at=now,
            failing_since=None,
            event=Event.CONFIRMED,
            ended=Outcome.FOREIGN,
        )
        await self._world.store.begin(intent, lambda _: (), now, epoch=self._world.epoch())
