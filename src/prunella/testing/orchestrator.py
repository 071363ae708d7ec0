"""An orchestrator that only remembers: for trying the faces without healing anything.

Its methods check that they run where the interface says: coroutines on the healing loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from prunella.core.model import Instant, ServiceId, Stamp
from prunella.errors import HealingRefusedError, UnknownServiceError
from prunella.runtime.notices import Bus, Notice, Topic
from prunella.wire import (
    DebtRecord,
    DecisionRecord,
    Explanation,
    HealingAction,
    HoldRecord,
    ServiceHealth,
    SystemHealth,
)

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def service(service_id: str, status: str = "healthy", **fields: Any) -> ServiceHealth:
    """A service as the API shows it; `fields` are those that differ from one that is well."""
    usual: dict[str, Any] = {
        "name": service_id,
        "uptime": 99.5,
        "last_check": START,
        "response_time": 12.5,
        "error_rate": 0.0,
        "restart_count": 0,
        "last_restart": None,
        "phase": "watching",
        "detail": "",
    }
    return ServiceHealth(id=service_id, status=status, **(usual | fields))


class ScriptedOrchestrator:
    """Has the services it was given. ``force_heal`` ends as `outcomes` says, recovered if it says
    nothing, or is refused by `vetoes` unless all of them are overridden.
    """

    def __init__(self, *services: ServiceHealth) -> None:
        self.loop = asyncio.new_event_loop()
        self._bus = Bus()
        self._subscribed_count = 0
        self._thread = threading.Thread(target=self._turn, name="healing")
        self.begin_anew(*services)

    def begin_anew(self, *services: ServiceHealth) -> None:
        """Forget everything but its loop and its subscribers."""
        self.services = {one.id: one for one in services}
        self.actions: list[HealingAction] = []
        self.decided: list[DecisionRecord] = []
        self.held: list[HoldRecord] = []
        self.owed: list[DebtRecord] = []
        self.remarks: list[str] = []
        self.outcomes: dict[str, str] = {}
        self.vetoes: dict[str, Mapping[str, str]] = {}
        self.reasons: list[str] = []
        self.heal_may_end: asyncio.Event | None = None
        self.trouble: Exception | None = None

    # Its loop, in a thread of its own

    def open(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def do(self, work: Callable[[], object]) -> None:
        """Run `work` on the healing loop and wait for it."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again in the asking thread
                done.set_exception(error)
            else:
                done.set_result(None)

        self.loop.call_soon_threadsafe(run)
        done.result(timeout=10)

    def publish(self, topic: Topic, service_id: str, **data: Any) -> None:
        """From any thread."""
        notice = Notice(topic, Stamp(START, Instant(0.0), "boot"), ServiceId(service_id), data)
        self.do(lambda: self._bus.publish(notice))

    @property
    def subscribed_count(self) -> int:
        return self._subscribed_count

    def _turn(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self._bus.close()
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            self.loop.close()

    def _require_loop(self) -> None:
        assert asyncio.get_running_loop() is self.loop, "a coroutine ran on a foreign loop"
        if self.trouble is not None:
            raise self.trouble

    # The interface

    def get_system_health(self) -> SystemHealth:
        all_ = list(self.services.values())
        count = {
            word: sum(one.status == word for one in all_)
            for word in ("healthy", "degraded", "failed", "recovering", "unknown")
        }
        times = [one.response_time for one in all_ if one.response_time is not None]
        return SystemHealth(
            total_services=len(all_),
            **count,
            health_percentage=100.0 * count["healthy"] / len(all_) if all_ else 100.0,
            total_restarts=sum(one.restart_count for one in all_),
            total_healing_actions=len(self.actions),
            average_response_time=sum(times) / len(times) if times else None,
            services=all_,
        )

    def get_service_health(self, service_id: str) -> ServiceHealth:
        if service_id not in self.services:
            raise UnknownServiceError(f"no service {service_id!r}")
        return self.services[service_id]

    def not_ready(self) -> list[str]:
        return self.reasons

    def metrics(self) -> Iterable[Metric]:
        known = GaugeMetricFamily("prunella_services", "Services by status.", labels=["status"])
        for one in self.services.values():
            known.add_metric([one.status], 1)
        yield known

    def on(self, event: str, callback: Callable[[Notice], Awaitable[object]]) -> Callable[[], None]:
        self._require_loop()
        end = self._bus.on(
            frozenset(Topic) if event == "*" else frozenset({Topic(event)}), callback
        )
        self._subscribed_count += 1

        def ended() -> None:
            self._require_loop()
            self._subscribed_count -= 1
            end()

        return ended

    async def healing_page(
        self, limit: int, *, service: str | None = None, before: int | None = None
    ) -> tuple[list[HealingAction], int | None]:
        self._require_loop()
        found = [
            one
            for one in reversed(self.actions)
            if (service is None or one.service_id == service)
            and (before is None or int(one.id) < before)
        ]
        page = found[:limit]
        return page, int(page[-1].id) if len(found) > limit else None

    async def get_healing_action(self, action_id: int) -> HealingAction | None:
        self._require_loop()
        return next((one for one in self.actions if int(one.id) == action_id), None)

    async def force_heal(
        self,
        service_id: str,
        *,
        action: str | None = None,
        reason: str = "",
        override: Collection[str] = (),
        actor: str = "python",
        wait: bool = True,
    ) -> HealingAction:
        self._require_loop()
        self.get_service_health(service_id)
        vetoes = {k: v for k, v in self.vetoes.get(service_id, {}).items() if k not in override}
        if vetoes:
            raise HealingRefusedError("guards refused", vetoes)
        if wait and self.heal_may_end is not None:
            await self.heal_may_end.wait()
        outcome = self.outcomes.get(service_id, "recovered")
        done = HealingAction(
            id=str(len(self.actions) + 1),
            service_id=service_id,
            action=action or "restart",
            reason=reason or "forced",
            timestamp=START + timedelta(seconds=len(self.actions)),
            actor=actor,
        )
        if wait:
            recovered = outcome == "recovered"
            done = done.model_copy(
                update={
                    "success": recovered,
                    "outcome": outcome,
                    "recovery_time": 1500.0 if recovered else None,
                }
            )
        self.actions.append(done)
        return done

    async def pause(
        self, service_id: str | None, *, for_s: float | None = None, reason: str = "", owner: str
    ) -> HoldRecord:
        self._require_loop()
        if service_id is not None:
            self.get_service_health(service_id)
        expires = None if for_s is None else START + timedelta(seconds=for_s)
        hold = HoldRecord(
            service_id=service_id, owner=owner, reason=reason, placed=START, expires=expires
        )
        self.held = [
            one for one in self.held if (one.service_id, one.owner) != (service_id, owner)
        ] + [hold]
        return hold

    async def resume(self, service_id: str | None, *, actor: str) -> int:
        self._require_loop()
        assert actor, "somebody resumes"
        if service_id is not None:
            self.get_service_health(service_id)
        kept = [one for one in self.held if one.service_id != service_id]
        lifted = len(self.held) - len(kept)
        self.held = kept
        return lifted

    async def list_holds(self) -> list[HoldRecord]:
        self._require_loop()
        return list(self.held)

    async def debts(self) -> list[DebtRecord]:
        self._require_loop()
        return list(self.owed)

    async def decisions(
        self, service_id: str | None, *, limit: int = 20, before: int | None = None
    ) -> tuple[list[DecisionRecord], int | None]:
        self._require_loop()
        found = [
            one
            for one in reversed(self.decided)
            if (service_id is None or one.service_id == service_id)
            and (before is None or one.id < before)
        ]
        page = found[:limit]
        return page, page[-1].id if len(found) > limit else None

    async def why(self, service_id: str) -> Explanation:
        self._require_loop()
        vetoes = dict(self.vetoes.get(service_id, {}))
        return Explanation(
            service=self.get_service_health(service_id),
            now="waiting" if vetoes else "nothing to do",
            vetoes=vetoes,
            next_look=START + timedelta(seconds=5),
            holds=[one for one in self.held if one.service_id in {None, service_id}],
            remarks=self.remarks,
            decisions=[one for one in reversed(self.decided) if one.service_id == service_id],
        )
