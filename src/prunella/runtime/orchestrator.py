"""``SelfHealingOrchestrator``: all services of one instance, and the face of it in Python."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Self

import structlog

from prunella.config import Changes, Config, ServiceConfig, changes, from_mapping
from prunella.core.decide import Forced
from prunella.core.holds import in_force
from prunella.core.ledger import Entry, EntryKind
from prunella.core.model import (
    ActionId,
    ActionKind,
    Epoch,
    Hold,
    Instant,
    ServiceId,
    Stamp,
)
from prunella.core.policy import FleetPolicy
from prunella.errors import (
    HealingRefusedError,
    PermanentError,
    StaleEpochError,
    TransientError,
    UnknownServiceError,
)
from prunella.plugins import stores
from prunella.ports import Clock, Store
from prunella.runtime.clock import SystemClock
from prunella.runtime.fleet import Fleet
from prunella.runtime.journal import Journal
from prunella.runtime.lease import Lease
from prunella.runtime.notices import Bus, Callback, Notice, Topic
from prunella.runtime.pulse import Pulse
from prunella.runtime.record import World
from prunella.runtime.scheduler import Scheduler
from prunella.runtime.supervisor import Crashes, Supervisor
from prunella.runtime.views import (
    service_health,
    system_health,
    to_action,
    to_decision,
    to_hold,
    wall_of,
)
from prunella.runtime.ward import Ward
from prunella.wire import (
    DecisionRecord,
    Explanation,
    HealingAction,
    HoldRecord,
    ServiceHealth,
    SystemHealth,
)

_log = structlog.get_logger("prunella")
_COMPACT_EVERY_S = 3600.0
_REBUILD_S = 1.0
_DOUBT_S = 2.0  # how long samples are doubted after the event loop stood still


class SelfHealingOrchestrator:
    """Watches services, heals them, proves it and remembers it, inside one asyncio program.

    Reads of present health may come from any thread; everything that is ``async`` belongs on the
    loop that ``start_monitoring`` was called on.

    Args:
        config: what to watch; None to register services one by one (with ``store`` then a URL or
            an open store, in memory unless given).
        store: an open store, or its URL, instead of the configured one.
        clock: all time there is; the machine's unless given.
        random: where jitter comes from.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        store: Store | str | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.config = config
        self.address = ""
        self._clock: Clock = clock or SystemClock()
        self._random = random or Random()  # noqa: S311 - jitter, not secrets
        self._given_store = store if store is not None or config is not None else "memory://"
        self._store: Store | None = None
        self._wanted: dict[ServiceId, ServiceConfig] = dict(config.services) if config else {}
        self._wards: dict[ServiceId, Ward] = {}
        self._holds: tuple[Hold, ...] = ()
        self._waiters: dict[ActionId, list[asyncio.Future[None]]] = {}
        self._crashes: dict[ServiceId, Crashes] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._parts: asyncio.Task[None] | None = None
        self._bus = Bus()
        self.failed: asyncio.Future[None] | None = None

    loop: asyncio.AbstractEventLoop  # the one that healing runs on, once open

    # Life --------------------------------------------------------------------------------------

    def register_service(self, service: ServiceConfig | str, /, **settings: Any) -> None:
        """Add a service, from a checked config or from the keys of a config file.

        ``register_service("shop", platform="process", process={"command": [...]}, probes=[...])``

        Raises: ConfigFaults naming each wrong setting; PermanentError while monitoring runs.
        """
        if self._parts is not None:
            raise PermanentError("services are added to a running orchestrator with reload()")
        if isinstance(service, str):
            config = from_mapping({"services": {service: settings}})
            self.config = self.config or config
            service = config.services[ServiceId(service)]
        self._wanted[service.id] = service

    async def open(self) -> None:
        """Open the store and claim it; a part of ``start_monitoring`` that may be done before it.

        Raises: StoreError, StoreInUseError naming the present holder, PermanentError.
        """
        self.loop = asyncio.get_running_loop()
        self.failed = self.loop.create_future()
        store = self._open_store()
        self._lease = Lease(store, self._clock)
        async with AsyncExitStack() as unclaimed:
            unclaimed.push_async_callback(store.close)
            await self._lease.claim(self.address)
            unclaimed.pop_all()
        self._store = store
        self._journal = Journal(store, self._clock, self._epoch)

    async def start_monitoring(self) -> None:
        """Take up where an earlier run stopped, and begin to watch.

        Raises: as ``open``.
        """
        if self._store is None:
            await self.open()
        store = self._require_store()
        self._fleet = Fleet(self.config.fleet if self.config is not None else FleetPolicy())
        self._pulse = Pulse(self._clock, self._fleet.policy.stall_s)
        self._scheduler = Scheduler(self._clock, self._random)
        self._world = World(
            self._clock,
            store,
            self._fleet,
            self._bus,
            self._holds_on,
            self._journal.note,
            self._epoch,
        )
        self._holds = tuple(await store.holds(self._clock.stamp()))
        rows = {row.service: row for row in await store.load()}
        wards = [self._admit(service) for service in self._wanted.values()]
        self._parts = asyncio.get_running_loop().create_task(self._run_parts())
        for ward in wards:
            await ward.start(rows.get(ward.config.id))
        self._say(EntryKind.DAEMON, {"what": "monitoring started", "services": str(len(wards))})
        self._publish(Topic.MONITORING_STARTED, {"services": len(wards)})

    async def stop_monitoring(self, *, leave: bool = False) -> None:
        """Let present steps end, apply ``on_exit``, write what is left, give the store up.

        Args:
            leave: touch nothing that runs, whatever ``on_exit`` says.
        """
        if self._store is None:
            return
        await asyncio.gather(*(ward.stop(leave=leave) for ward in self._wards.values()))
        self._wards.clear()
        if self._parts is not None:
            self._parts.cancel()
            await asyncio.gather(self._parts, *self._background, return_exceptions=True)
            self._parts = None
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.cancel()
        self._waiters.clear()
        self._say(EntryKind.DAEMON, {"what": "monitoring stopped"})
        self._publish(Topic.MONITORING_STOPPED, {})
        try:
            await self._journal.flush()
            await self._lease.release()
        except (TransientError, StaleEpochError) as error:
            _log.warning("not-recorded", error=str(error))
        await self._store.close()
        self._store = None
        self._bus.close()

    async def reload(self, config: Config) -> Changes:
        """Take over another configuration; what did not change is not touched."""
        assert self.config is not None, "only a configured instance is reloaded"
        found = changes(self.config, config)
        rows = {row.service: row for row in await self._require_store().load()}
        for id_ in found.removed:
            await self._dismiss(id_, for_good=True)
        for id_ in found.changed:
            old, new = self._wanted[id_], config.services[id_]
            same = (old.platform, old.platform_spec) == (new.platform, new.platform_spec)
            await self._dismiss(id_, for_good=not same, leave=same)
        self._fleet.policy = config.fleet
        self.config = replace(
            config, store=self.config.store, state_dir=self.config.state_dir, api=self.config.api
        )
        self._wanted = dict(config.services)
        for id_ in (*found.changed, *found.added):
            await self._admit(config.services[id_]).start(rows.get(id_))
        self._say(EntryKind.DAEMON, {"what": "configuration reloaded"})
        return found

    async def __aenter__(self) -> Self:
        await self.start_monitoring()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop_monitoring()

    # What is asked -----------------------------------------------------------------------------

    def get_system_health(self) -> SystemHealth:
        """All services now. Safe from any thread."""
        now = self._clock.stamp()
        services = [
            service_health(ward.engine, now, paused=bool(self._holds_on(ward.config.id)))
            for ward in tuple(self._wards.values())
        ]
        records = [ward.engine.record for ward in self._wards.values()]
        return system_health(services, sum(record.action_count for record in records))

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
        return Explanation(
            service=self.get_service_health(service_id),
            now=f"{decision.reason}: {decision.detail}",
            vetoes={veto.guard: veto.reason for veto in decision.vetoes},
            next_look=None if wake_at is None else wall_of(wake_at, now),
            holds=[to_hold(hold) for hold in self._holds_on(ward.config.id)],
            decisions=past,
        )

    def not_ready(self) -> list[str]:
        """Why this instance does not heal now; empty when it does. Safe from any thread."""
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
        }

    def metrics(self) -> Iterable[Any]:
        """Prometheus metric families of everything above. Safe from any thread."""
        from prunella.runtime.metrics import families  # noqa: PLC0415 - only who scrapes needs it

        return families(self.get_system_health(), self.figures())

    def on(self, event: str, callback: Callback) -> Any:
        """Call back on an event, or on each with ``"*"``; the answer ends the subscription.

        A plain function runs in a thread of its own, a coroutine function in a task of its own;
        one that raises or blocks harms nobody else.
        """
        topics = frozenset(Topic) if event == "*" else frozenset({Topic(event)})
        return self._bus.on(topics, callback)

    # What is ordered ---------------------------------------------------------------------------

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
        """Heal now, whatever automation thinks; verified and recorded like any other.

        Args:
            override: names of guards to pass beyond those that yield to a person anyway.
            wait: until the outcome is known; else answer as soon as the intent is durable.

        Raises: UnknownServiceError; HealingRefusedError with the vetoes.
        """
        ward = self._ward(service_id)
        kind = None if action is None else ActionKind(action)
        forced = Forced(actor, reason or f"asked for by {actor}", kind, frozenset(override))
        begun = await ward.force(forced)
        if not isinstance(begun, int):
            vetoes = {veto.guard: veto.reason for veto in begun}
            raise HealingRefusedError("; ".join(vetoes.values()), vetoes)
        if wait and ward.engine.running is not None and ward.engine.running.id == begun:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(begun, []).append(waiter)
            await waiter
        found = await self.get_healing_action(begun)
        assert found is not None, "an intent that was written can be read"
        return found

    async def pause(
        self, service_id: str | None, *, for_s: float | None = None, reason: str = "", owner: str
    ) -> HoldRecord:
        """Hold all automatic action, on one service or on everything, for a time or until told."""
        service = None if service_id is None else self._ward(service_id).config.id
        now = self._clock.stamp()
        expires = None
        if for_s is not None:
            wall = now.wall + timedelta(seconds=for_s)
            expires = Stamp(wall, Instant(now.instant + for_s), now.boot)
        hold = Hold(service, owner, reason, now, expires)
        await self._require_store().place_hold(hold, epoch=self._epoch())
        await self._hold_changed()
        return to_hold(hold)

    async def resume(self, service_id: str | None, *, actor: str) -> int:
        """End holds, and the quarantine of the named service. Returns how many were ended."""
        service = None if service_id is None else self._ward(service_id).config.id
        lifted = await self._require_store().lift_holds(
            service, self._clock.stamp(), epoch=self._epoch(), actor=actor
        )
        await self._hold_changed()
        if service is not None and await self._wards[service].release(actor):
            lifted += 1
        return lifted

    async def list_holds(self) -> list[HoldRecord]:
        return [to_hold(hold) for hold in await self._require_store().holds(self._clock.stamp())]

    # Inside ------------------------------------------------------------------------------------

    def _open_store(self) -> Store:
        given = self._given_store
        if given is not None and not isinstance(given, str):
            return given
        url = given
        if url is None:
            assert self.config is not None, "without a configuration the store is given"
            self._make_state_dir(self.config.state_dir)
            url = self.config.store
        scheme = url.partition(":")[0]
        if scheme not in stores():
            raise PermanentError(f"no store for {url}; known kinds: {', '.join(stores())}")
        return stores()[scheme].open(url, False)  # noqa: FBT003 - not read-only

    def _make_state_dir(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PermanentError(
                f"the state folder {folder} cannot be made ({error.strerror}): "
                "name another one with state_dir, or with PRUNELLA_STATE_DIR"
            ) from error

    def _admit(self, config: ServiceConfig) -> Ward:
        assert self.config is not None, "a registered service brings a config"
        ward = Ward(
            config,
            self._world,
            self._scheduler,
            self._pulse,
            self.config.state_dir,
            ended=self._action_ended,
            crashed=self._ward_crashed,
        )
        self._wards[config.id] = ward
        return ward

    async def _dismiss(
        self, service: ServiceId, *, for_good: bool = False, leave: bool = False
    ) -> None:
        ward = self._wards.pop(service)
        await ward.stop(for_good=for_good, leave=leave)
        self._fleet.leave(service)

    async def _run_parts(self) -> None:
        parts = {
            "scheduler": self._scheduler.run,
            "pulse": self._pulse.run,
            "journal": self._journal.run,
            "self": self._watch_self,
            "retention": self._compact,
        }
        try:
            await Supervisor(self._clock).run(parts)
        except BaseExceptionGroup as group:
            self._fail(group)

    async def _watch_self(self) -> None:
        while True:
            now = self._clock.now()
            stalled = self._pulse.stalled_since(Instant(now - _DOUBT_S))
            self._fleet.doubt = "Prunella itself stood still a moment ago" if stalled else ""
            self._fleet.lease = self._lease.trouble
            await self._clock.sleep_until(Instant(self._clock.now() + 0.5))

    async def _compact(self) -> None:
        while True:
            await self._clock.sleep_until(Instant(self._clock.now() + _COMPACT_EVERY_S))
            if self.config is None:
                continue
            now = self._clock.stamp()
            keep_s = self.config.retention_s
            keep_from = Stamp(
                now.wall - timedelta(seconds=keep_s), Instant(now.instant - keep_s), now.boot
            )
            try:
                await self._require_store().compact(keep_from, epoch=self._epoch())
            except TransientError as error:
                _log.warning("not-compacted", error=str(error))

    def _ward_crashed(self, ward: Ward, error: Exception) -> None:
        """A defect in one service's healing: rebuild it from the store, or give up loudly."""
        if isinstance(error, StaleEpochError):
            self._fail(error)
            return
        _log.error("healing-crashed", service=ward.config.id, exc_info=error)
        crashes = self._crashes.setdefault(ward.config.id, Crashes(self._clock))
        if crashes.too_many():
            self._fail(error)
            return
        task = asyncio.get_running_loop().create_task(self._rebuild(ward))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _rebuild(self, ward: Ward) -> None:
        await self._clock.sleep_until(Instant(self._clock.now() + _REBUILD_S))
        if self._wards.get(ward.config.id) is not ward:
            return
        await self._dismiss(ward.config.id, leave=True)
        rows = {row.service: row for row in await self._require_store().load()}
        await self._admit(ward.config).start(rows.get(ward.config.id))

    def _fail(self, error: BaseException) -> None:
        _log.critical("prunella-failed", error=str(error), exc_info=error)
        if self.failed is not None and not self.failed.done():
            self.failed.set_exception(error)

    def _action_ended(self, action: ActionId) -> None:
        for waiter in self._waiters.pop(action, []):
            if not waiter.done():
                waiter.set_result(None)

    async def _hold_changed(self) -> None:
        self._holds = tuple(await self._require_store().holds(self._clock.stamp()))
        for ward in self._wards.values():
            ward.wake()

    def _holds_on(self, service: ServiceId | None) -> tuple[Hold, ...]:
        return in_force(self._holds, service, self._clock.stamp()) if self._holds else ()

    def _epoch(self) -> Epoch:
        return self._lease.epoch

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

    def _say(self, kind: EntryKind, body: dict[str, str]) -> None:
        self._journal.note(Entry(kind, self._clock.stamp(), body=body))

    def _publish(self, topic: Topic, data: Mapping[str, Any]) -> None:
        self._bus.publish(Notice(topic, self._clock.stamp(), None, data))
