"""What one instance can be asked: health, history, reasons. Nothing here changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from prunella.config import Config
from prunella.core.holds import in_force
from prunella.core.ledger import EntryKind
from prunella.core.model import Hold, ServiceId
from prunella.errors import PermanentError, TransientError, UnknownServiceError
from prunella.ports import Clock, Store
from prunella.runtime.fleet import Fleet
from prunella.runtime.gateways import Gateways
from prunella.runtime.journal import Journal
from prunella.runtime.lease import Lease
from prunella.runtime.notices import Bus, Callback, Topic
from prunella.runtime.pulse import Pulse
from prunella.runtime.scheduler import Scheduler
from prunella.runtime.views import (
    service_health,
    system_health,
    to_action,
    to_debts,
    to_decision,
    to_hold,
    wall_of,
)
from prunella.runtime.ward import Ward
from prunella.wire import (
    DebtRecord,
    DecisionRecord,
    Explanation,
    HealingAction,
    HoldRecord,
    ServiceHealth,
    SystemHealth,
)

_log = structlog.get_logger("prunella")


class Answers:
    """The reading half of ``SelfHealingOrchestrator``, which owns all that is read here."""

    config: Config | None
    more_figures: Callable[[], Mapping[str, float]]  # of what works beside healing
    standing_by: str  # why healing has not begun, and is not to be expected here; else empty
    _clock: Clock
    _bus: Bus
    _wards: dict[ServiceId, Ward]
    _holds: tuple[Hold, ...]
    _store: Store | None  # None unless it is open, as the four below
    _lease: Lease
    _journal: Journal
    _parts: asyncio.Task[None] | None  # None unless monitoring runs, as the four below
    _fleet: Fleet
    _pulse: Pulse
    _scheduler: Scheduler
    _gateways: Gateways

    def get_system_health(self) -> SystemHealth:
        """All services now. Safe from any thread."""
        now = self._clock.stamp()
        services = [
            service_health(ward.engine, now, paused=bool(self._holds_on(ward.config.id)))
            for ward in tuple(self._wards.values())
        ]
        return system_health(
            services, sum(w.engine.record.action_count for w in self._wards.values())
        )

    def get_service_health(self, service_id: str) -> ServiceHealth:
        """One service now. Safe from any thread. Raises UnknownServiceError."""
        ward = self._ward(service_id)
        paused = bool(self._holds_on(ward.config.id))
        return service_health(ward.engine, self._clock.stamp(), paused=paused)

    def get_pids(self, service_id: str) -> tuple[int, ...]:
        """The processes of a service as its platform last said."""
        return self._ward(service_id).pids()

    async def get_healing_history(self, limit: int = 10) -> list[HealingAction]:
        """The newest actions of all services, newest first."""
        return (await self.healing_page(limit))[0]

    async def healing_page(
        self, limit: int, *, service: str | None = None, before: int | None = None
    ) -> tuple[list[HealingAction], int | None]:
        """A page of history and the cursor of the next one; None at the end."""
        wanted = None if service is None else ServiceId(service)
        page = await self._require_store().history(limit, service=wanted, before=before)
        return [to_action(record) for record in page.items], page.next

    async def get_healing_action(self, action_id: int) -> HealingAction | None:
        page = await self._require_store().history(1, before=action_id + 1)
        found = [record for record in page.items if record.id == action_id]
        return to_action(found[0]) if found else None

    async def decisions(
        self, service_id: str | None, *, limit: int = 20, before: int | None = None
    ) -> tuple[list[DecisionRecord], int | None]:
        """What was decided and refused, newest first, and the cursor of the next page."""
        try:
            await self._journal.flush()
        except TransientError as error:
            _log.warning("not-recorded", error=str(error))
        entries = await self._require_store().entries(
            limit,
            service=None if service_id is None else ServiceId(service_id),
            kinds=frozenset({EntryKind.DECISION}),
            before=before,
        )
        cursor = entries[-1].seq if len(entries) == limit else None
        return [to_decision(entry) for entry in entries], cursor

    async def why(self, service_id: str) -> Explanation:
        """Why a service is treated as it is now, and what was decided before."""
        ward = self._ward(service_id)
        past, _ = await self.decisions(service_id)
        now, decision = self._clock.stamp(), ward.engine.decision
        wake_at = ward.engine.record.wake_at or decision.wake_at
        trouble = ward.engine.trouble
        unseen = [f"what runs cannot be told now: {trouble}"] if trouble else []
        remarks = (*ward.remarks, *self._gateways.remarks(ward.config))
        return Explanation(
            service=self.get_service_health(service_id),
            now=f"{decision.reason}: {decision.detail}",
            vetoes={veto.guard: veto.reason for veto in decision.vetoes},
            next_look=None if wake_at is None else wall_of(wake_at, now),
            holds=[to_hold(hold) for hold in self._holds_on(ward.config.id)],
            remarks=[*unseen, *(remark.message for remark in remarks)],
            decisions=past,
        )

    def not_ready(self) -> list[str]:
        """Why this instance does not heal now; empty when it does. Safe from any thread."""
        if self.standing_by:
            return []  # as ready as it can be: a rollout that waits for more would never end
        if self._parts is None or self._store is None:
            return ["monitoring is not running"]
        found = [self._lease.trouble, self._fleet.doubt]
        found += [f"storm in domain {name or 'default'}" for name in self._fleet.storms]
        whole = [hold for hold in self._holds_on(None) if hold.service is None]
        found += [f"paused by {hold.owner}: {hold.reason}" for hold in whole]
        if self._journal.dropped_count:
            found.append(f"{self._journal.dropped_count} ledger entries could not be kept")
        return [reason for reason in found if reason]

    def figures(self) -> Mapping[str, float]:
        """Counters of Prunella itself, for metrics. Safe from any thread."""
        if self._parts is None:
            return {}
        return {
            "checks": self._scheduler.started_count,
            "worst_lateness_seconds": self._scheduler.worst_lateness_s,
            "stalls": self._pulse.stall_count,
            "dropped_notices": self._bus.dropped_count,
            "dropped_entries": self._journal.dropped_count,
            **self.more_figures(),
        }

    def metrics(self) -> Iterable[Any]:
        """Prometheus metric families of everything above. Safe from any thread."""
        from prunella.runtime.metrics import families  # noqa: PLC0415 - only who scrapes needs it

        return families(self.get_system_health(), self.figures())

    async def debts(self) -> list[DebtRecord]:
        """Remedies that are still to be taken back; what is due first comes first."""
        now = self._clock.stamp()
        return to_debts(await self._require_store().debts(now), now)

    async def list_holds(self) -> list[HoldRecord]:
        return [to_hold(hold) for hold in await self._require_store().holds(self._clock.stamp())]

    def on(self, event: str, callback: Callback) -> Any:
        """Call back on an event, or on each with ``"*"``; the answer ends the subscription.

        A plain function runs in a thread of its own, a coroutine function in a task of its own;
        one that raises or blocks harms nobody else.
        """
        topics = frozenset(Topic) if event == "*" else frozenset({Topic(event)})
        return self._bus.on(topics, callback)

    def _holds_on(self, service: ServiceId | None) -> tuple[Hold, ...]:
        return in_force(self._holds, service, self._clock.stamp()) if self._holds else ()

    def _ward(self, service_id: str) -> Ward:
        try:
            return self._wards[ServiceId(service_id)]
        except KeyError:
            known = ", ".join(sorted(self._wards)[:20]) or "none"
            raise UnknownServiceError(f"no service {service_id!r}; there are: {known}") from None

    def _require_store(self) -> Store:
        if self._store is None:
            raise PermanentError("monitoring is not running")
        return self._store
