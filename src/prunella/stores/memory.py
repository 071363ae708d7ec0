"""A store in memory, ``memory:``: for simulations and tests; what it knows ends with it."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from prunella.core.holds import in_force, is_live
from prunella.core.ledger import (
    Attempt,
    Entry,
    EntryKind,
    Finish,
    Grant,
    Holder,
    Intent,
    LedgerView,
    Mark,
    Page,
    ServiceRow,
    Step,
    Veto,
)
from prunella.core.machine import Phase
from prunella.core.model import (
    ActionId,
    ActionKind,
    Debt,
    Epoch,
    Hold,
    InstanceId,
    ServiceId,
    Stamp,
)
from prunella.core.policy import BURST
from prunella.core.time import rebase
from prunella.errors import PermanentError, StaleEpochError, StoreError
from prunella.plugins import StorePlugin
from prunella.stores import _lines as lines
from prunella.stores import _rules as rules
from prunella.stores._memory import Move, Standing, Tenure


class MemoryStore:
    """``Store`` without a disk: every method does all its work at once, in its first step."""

    def __init__(self) -> None:
        self._epoch = Epoch(0)
        self._tenure: Tenure | None = None
        self._seq = 0
        self._ledger: list[Entry] = []
        self._moves: list[Move] = []
        self._by_service: dict[ServiceId, list[Move]] = {}
        self._running: dict[ServiceId, Move] = {}
        self._fleet: deque[Stamp] = deque(maxlen=BURST)
        self._standing: dict[ServiceId, Standing] = {}
        self._deployments: dict[ServiceId, list[rules.Deployment]] = {}  # newest first
        self._owed: dict[tuple[ServiceId, ActionKind, str], tuple[ActionId, Grant]] = {}
        self._holds: dict[tuple[ServiceId | None, str], tuple[int, Hold]] = {}
        self._closed = False

    # Writing

    async def claim(self, holder: Holder, now: Stamp, /, *, force: bool = False) -> Epoch:
        self._require_open()
        tenure = self._tenure
        if tenure and not force and rules.holder_lives(tenure.holder, tenure.beat, holder, now):
            raise rules.in_use("memory:", tenure.holder, tenure.since)
        self._epoch = Epoch(self._epoch + 1)
        self._tenure = Tenure(holder, now, now)
        return self._epoch

    async def beat(self, now: Stamp, /, *, epoch: Epoch) -> None:
        self._require(epoch).beat = now

    async def release(self, *, epoch: Epoch) -> None:
        self._require(epoch)
        self._tenure = None

    async def begin(
        self,
        intent: Intent,
        admit: Callable[[LedgerView], Sequence[Veto]],
        now: Stamp,
        /,
        *,
        epoch: Epoch,
    ) -> ActionId | Sequence[Veto]:
        self._require(epoch)
        service = intent.action.service
        if vetoes := tuple(admit(self._view(service, now))):
            return vetoes
        running = self._running.get(service)
        if running and intent.ended is None:
            at = running.intent.at.wall
            kind = running.intent.action.kind
            return (rules.lease_veto(service, running.id, kind, at),)
        move = Move(ActionId(self._append(lines.of_intent(intent))), intent)
        self._moves.append(move)
        self._by_service.setdefault(service, []).append(move)
        if intent.ended is not None:
            move.finish, move.ended = Finish(move.id, intent.ended), intent.at
        else:
            self._running[service] = move
            self._fleet.appendleft(intent.at)
            self._act(move)
            self._owe(move)
        return move.id

    async def advance(self, step: Step, /, *, epoch: Epoch) -> None:
        self._require(epoch)
        if step.finish:
            self._finish(step, step.finish)
        moved = self._append(lines.of_step(step))
        standing = self._stand(step.service, step.phase, step.at, step.reason, moved)
        standing.wake_at = step.wake_at

    async def mark(self, mark: Mark, /, *, epoch: Epoch) -> None:
        self._require(epoch)
        known = self._deployments.get(mark.service, [])
        newest = known[0] if known else None
        if not rules.is_news(mark, newest):
            return
        seq = self._append(lines.of_mark(mark))
        if newest and mark.soaked:
            known[0] = newest._replace(soaked=mark.at, evidence=mark.evidence)
            return
        deployment = rules.Deployment(seq, mark.revision, mark.at, mark.actor)
        self._deployments[mark.service] = known = [deployment, *known]
        if surplus := rules.surplus(known):
            known.remove(surplus)

    async def settle(
        self,
        service: ServiceId,
        kind: ActionKind,
        now: Stamp,
        /,
        *,
        epoch: Epoch,
        reason: str,
        instance: InstanceId | None = None,
    ) -> None:
        self._require(epoch)
        if struck := self._owed.pop((service, kind, instance or ""), None):
            self._append(lines.of_settlement(service, kind, *struck, now, reason))

    async def note(self, entries: Sequence[Entry], /, *, epoch: Epoch) -> None:
        self._require(epoch)
        for entry in entries:
            self._append(entry)

    async def place_hold(self, hold: Hold, /, *, epoch: Epoch) -> None:
        self._require(epoch)
        self._holds.pop((hold.service, hold.owner), None)
        self._holds[hold.service, hold.owner] = (self._append(lines.of_hold(hold)), hold)

    async def lift_holds(
        self,
        service: ServiceId | None,
        now: Stamp,
        /,
        *,
        epoch: Epoch,
        actor: str,
        owner: str | None = None,
    ) -> int:
        self._require(epoch)
        placed = [
            hold
            for _, hold in self._holds.values()
            if hold.service == service and owner in (None, hold.owner)
        ]
        live = [hold for hold in placed if is_live(hold, now)]
        for hold in placed:
            del self._holds[hold.service, hold.owner]
        for hold in live:
            self._append(lines.of_lift(service, hold, now, actor))
        return len(live)

    async def compact(self, keep_from: Stamp, /, *, epoch: Epoch) -> int:
        now = self._require(epoch).beat
        if self._ledger:
            now = rules.later(now, self._ledger[-1].at)
        self._holds = {
            key: placed for key, placed in self._holds.items() if is_live(placed[1], now)
        }
        needed = {standing.moved for standing in self._standing.values()}
        needed |= {move.id for move in self._running.values()}
        needed |= {seq for seq, _ in self._holds.values()}
        needed |= {one.seq for known in self._deployments.values() for one in known}
        needed |= {action for action, _ in self._owed.values()}
        before = len(self._ledger)
        self._ledger = [
            entry
            for entry in self._ledger
            if entry.seq in needed or not rules.is_old(entry.at, keep_from, now)
        ]
        self._forget_moves(keep_from, now)
        return before - len(self._ledger)

    async def close(self) -> None:
        self._closed = True

    # Reading

    async def load(self, /) -> Sequence[ServiceRow]:
        self._require_open()
        return [self._row(service) for service in sorted(self._standing)]

    async def view(self, service: ServiceId, now: Stamp, /) -> LedgerView:
        self._require_open()
        return self._view(service, now)

    async def holds(self, now: Stamp, /) -> Sequence[Hold]:
        self._require_open()
        return [hold for _, hold in self._holds.values() if is_live(hold, now)]

    async def debts(self, now: Stamp, /) -> Mapping[ServiceId, Sequence[Debt]]:
        self._require_open()
        return {service: self._debts(service, now) for service, *_ in sorted(self._owed)}

    async def history(
        self, limit: int, /, *, service: ServiceId | None = None, before: int | None = None
    ) -> Page:
        self._require_open()
        moves = self._moves if service is None else self._by_service.get(service, [])
        end = len(moves)
        if before is not None:
            end = bisect_left(moves, before, key=lambda move: move.id)
        start = max(0, end - max(0, limit))
        items = tuple(moves[at].record() for at in range(end - 1, start - 1, -1))
        return Page(items, items[-1].id if items and start else None)

    async def action(self, action: ActionId, /) -> Finish | None:
        self._require_open()
        at = bisect_left(self._moves, action, key=lambda move: move.id)
        if at == len(self._moves) or self._moves[at].id != action:
            raise rules.unknown_action(action)
        return self._moves[at].finish

    async def entries(
        self,
        limit: int,
        /,
        *,
        service: ServiceId | None = None,
        kinds: frozenset[EntryKind] = frozenset(),
        before: int | None = None,
    ) -> Sequence[Entry]:
        self._require_open()
        wanted = (
            entry
            for entry in reversed(self._ledger)
            if (before is None or entry.seq < before)
            and (service is None or entry.service == service)
            and (not kinds or entry.kind in kinds)
        )
        return list(islice(wanted, max(0, limit)))

    # Within

    def _require_open(self) -> None:
        if self._closed:
            raise PermanentError("the store memory: is closed")

    def _require(self, epoch: Epoch) -> Tenure:
        self._require_open()
        if self._tenure is None or epoch != self._epoch:
            raise StaleEpochError(f"epoch {epoch} of the store memory: has ended")
        return self._tenure

    def _append(self, entry: Entry) -> int:
        self._seq += 1
        self._ledger.append(replace(entry, seq=self._seq))
        return self._seq

    def _stand(
        self, service: ServiceId, phase: Phase, at: Stamp, reason: str, moved: int
    ) -> Standing:
        standing = self._standing.get(service)
        if standing is None:
            standing = self._standing[service] = Standing(phase, at, None, reason, moved)
        standing.phase, standing.since, standing.wake_at = phase, at, None
        standing.reason, standing.moved = reason, moved
        return standing

    def _act(self, move: Move) -> None:
        intent = move.intent
        standing = self._stand(
            intent.action.service, Phase.ACTING, intent.at, intent.reason, move.id
        )
        standing.action_count += 1
        if intent.action.kind is ActionKind.RESTART:
            standing.restart_count += 1
            standing.last_restart = intent.at.wall

    def _owe(self, move: Move) -> None:
        intent = move.intent
        if intent.grant is None:
            return
        of = (intent.action.service, intent.action.kind, intent.grant.instance or "")
        earlier = self._owed.get(of)
        granted = rules.renewed(intent.grant, None if earlier is None else earlier[1])
        self._owed[of] = (move.id, granted)
        self._append(lines.of_grant(move.id, intent, granted))

    def _debts(self, service: ServiceId, now: Stamp) -> tuple[Debt, ...]:
        return tuple(
            rules.debt(kind, action, grant, now)
            for (owing, kind, _), (action, grant) in sorted(self._owed.items())
            if owing == service
        )

    def _finish(self, step: Step, finish: Finish) -> None:
        move = self._running.get(step.service)
        if move is None or move.id != finish.action:
            raise rules.not_running(finish.action, step.service)
        del self._running[step.service]
        move.finish, move.ended = finish, step.at
        outcome = lines.of_outcome(step)
        assert outcome is not None
        self._append(outcome)

    def _row(self, service: ServiceId) -> ServiceRow:
        standing, move = self._standing[service], self._running.get(service)
        return ServiceRow(
            service=service,
            phase=standing.phase,
            phase_since=standing.since,
            wake_at=standing.wake_at,
            reason=standing.reason,
            running=None if move is None else move.id,
            intent=None if move is None else move.intent,
            restart_count=standing.restart_count,
            action_count=standing.action_count,
            last_restart=standing.last_restart,
        )

    def _view(self, service: ServiceId, now: Stamp) -> LedgerView:
        return LedgerView(
            attempts=tuple(rules.attempts(self._chunks(service, now), now.instant)),
            running=frozenset(self._running),
            fleet_started=tuple(rebase(at, now) for at in self._fleet),
            holds=in_force((hold for _, hold in self._holds.values()), service, now),
            versions=tuple(rules.version(one, now) for one in self._deployments.get(service, ())),
            debts=self._debts(service, now),
        )

    def _chunks(self, service: ServiceId, now: Stamp) -> Iterator[list[Attempt]]:
        moves = self._by_service.get(service, [])
        for end in range(len(moves), 0, -rules.VIEW_CHUNK):
            start = max(0, end - rules.VIEW_CHUNK)
            yield [move.attempt(now) for move in reversed(moves[start:end])]

    def _forget_moves(self, keep_from: Stamp, now: Stamp) -> None:
        owed = {action for action, _ in self._owed.values()}
        self._moves = [
            move
            for move in self._moves
            if move.ended is None or move.id in owed or not rules.is_old(move.ended, keep_from, now)
        ]
        self._by_service = {}
        self._fleet.clear()
        for move in self._moves:
            self._by_service.setdefault(move.intent.action.service, []).append(move)
            if move.intent.ended is None:
                self._fleet.appendleft(move.intent.at)


def open_store(url: str, readonly: bool, /) -> MemoryStore:  # noqa: FBT001 - the plugin's shape
    """A new, empty store.

    Raises:
        StoreError: for reading: nobody else can have written into it.
    """
    if readonly:
        raise StoreError(f"{url} lives within its daemon alone: ask that one's API")
    return MemoryStore()


PLUGIN = StorePlugin(kind="memory", open=open_store)
