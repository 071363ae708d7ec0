"""``SelfHealingOrchestrator``: all services of one instance, and the face of it in Python."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Self

import structlog

from prunella.config import (
    Changes,
    Config,
    GatewayConfig,
    ServiceConfig,
    changes,
    from_mapping,
    make_state_folder,
    state_folder,
)
from prunella.core.guards import guards
from prunella.core.ledger import Entry, EntryKind, ServiceRow
from prunella.core.model import (
    ActionId,
    Hold,
    Instant,
    ServiceId,
)
from prunella.core.policy import FleetPolicy
from prunella.core.traffic import Flow
from prunella.errors import (
    PermanentError,
    StaleEpochError,
    TransientError,
    UnknownServiceError,
)
from prunella.plugins import open_store
from prunella.ports import Clock, Store
from prunella.runtime.building import in_the_name_of, require_buildable
from prunella.runtime.callers import Callers, Circuit
from prunella.runtime.clock import SystemClock
from prunella.runtime.examination import Examiner, examine_gateway
from prunella.runtime.fleet import Fleet
from prunella.runtime.gateways import Gateways, build_gateway
from prunella.runtime.journal import Journal
from prunella.runtime.lease import Lease
from prunella.runtime.notices import Bus, Notice, Topic
from prunella.runtime.orders import Orders, Tenure
from prunella.runtime.pulse import Pulse
from prunella.runtime.record import World
from prunella.runtime.scheduler import Scheduler
from prunella.runtime.supervisor import Crashes, Supervisor
from prunella.runtime.upkeep import forget, watch_self
from prunella.runtime.ward import Ward

_log = structlog.get_logger("prunella")
_REBUILD_S = 1.0
_STARTED_AT_ONCE = 16


class SelfHealingOrchestrator(Orders):
    """Watches services, heals them, proves it and remembers it, inside one asyncio program.

    Reads of present health may come from any thread; everything that is ``async`` belongs on the
    loop that ``start_monitoring`` was called on.

    Args:
        config: what to watch; None to register services one by one (with ``store`` then a URL or
            an open store, in memory unless given).
        store: an open store, or its URL, instead of the configured one.
        clock: all time there is; the machine's unless given.
        random: where jitter comes from.
        tenure: who says that we are the one that acts, where something beside the store does.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        store: Store | str | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        tenure: Tenure | None = None,
    ) -> None:
        self.config = config
        self._tenure = tenure
        self.address = ""
        self.more_figures = dict[str, float]
        self.standing_by = ""
        self._clock: Clock = clock or SystemClock()
        self._random = random or Random()  # noqa: S311 - jitter, not secrets
        self._callers = Callers(self._clock, self._random)
        self._given_store = store if store is not None or config is not None else "memory://"
        self._store: Store | None = None
        self._wanted: dict[ServiceId, ServiceConfig] = dict(config.services) if config else {}
        self._wards: dict[ServiceId, Ward] = {}
        self._holds: tuple[Hold, ...] = ()
        self._waiters: dict[ActionId, list[asyncio.Future[None]]] = {}
        self._crashes: dict[ServiceId, Crashes] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()  # which services there are: one change at a time
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

    def circuit(self, service_id: str, /, *, ignore: tuple[type[Exception], ...] = ()) -> Circuit:
        """The circuit of a service for callers in this process: a decorator, a context manager.

        Calls are counted, and count as evidence; while the circuit is open they are not made and
        ``CircuitOpenError`` is raised in their place. It may be asked for before monitoring runs.

        Args:
            ignore: exceptions that say nothing against the service.

        Raises: PermanentError for a service that stands behind another gateway;
            UnknownServiceError while monitoring runs.
        """
        service = ServiceId(service_id)
        wanted = self._wanted.get(service)
        if wanted is not None and wanted.route is not None:
            raise PermanentError(
                f"{service} stands behind gateway {wanted.route.name}: its circuit is there"
            )
        is_new = service not in self._callers.services
        if is_new and self._parts is not None:
            ward = self._ward(service)
            circuit = self._callers.circuit(service, ignore)
            passage = self._gateways.join(ward.config)
            assert passage is not None, "its circuit has just been asked for"
            ward.stand_behind(passage)
            return circuit
        return self._callers.circuit(service, ignore)

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
            await self._lease.claim(self.address, force=self._tenure is not None)
            unclaimed.pop_all()
        self._store = store
        self._journal = Journal(store, self._clock, self._epoch)

    async def start_monitoring(self) -> None:
        """Take up where an earlier run stopped, and begin to watch.

        Raises: as ``open``.
        """
        async with self._changing:
            await self._begin_all()

    async def stop_monitoring(self, *, leave: bool = False) -> None:
        """Let present steps end, apply ``on_exit``, write what is left, give the store up.

        Args:
            leave: touch nothing that runs, whatever ``on_exit`` says.
        """
        async with self._changing:
            await self._end_all(leave=leave)
        await asyncio.gather(*self._background, return_exceptions=True)

    async def reload(self, config: Config) -> Changes:
        """Take over another configuration; what did not change is not touched.

        Raises: PermanentError for a service that cannot be built, or when monitoring has ended;
            TransientError when the store cannot be read now. Then everything stays as it was.
        """
        async with self._changing:
            return await self._change(config)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as unless_started:
            unless_started.push_async_callback(self.stop_monitoring)
            await self.start_monitoring()
            unless_started.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop_monitoring()

    # Inside ------------------------------------------------------------------------------------

    async def _begin_all(self) -> None:
        if self._store is None:
            await self.open()
        store = self._require_store()
        self._fleet = Fleet(self.config.fleet if self.config is not None else FleetPolicy())
        self._pulse = Pulse(self._clock, self._fleet.policy.stall_s)
        self._scheduler = Scheduler(self._clock, self._random)
        self._examiner = Examiner(self._clock, self._examinations)
        self._world = World(
            self._clock,
            store,
            self._fleet,
            self._bus,
            self._holds_on,
            self._journal.note,
            self._epoch,
            guards(),  # found now, and not by the first decision
        )
        self._holds = tuple(await store.holds(self._clock.stamp()))
        self._gateways = Gateways(
            self._clock,
            self._scheduler,
            self._state_dir(),
            self._callers,
            self._take_flow,
            examine_gateway,
        )
        if self.config is not None:
            self._gateways.add(self.config.gateways.values())
        if unknown := self._callers.services - self._wanted.keys():
            names = ", ".join(sorted(unknown))
            raise UnknownServiceError(f"a circuit was asked for, and there is no service {names}")
        rows = {row.service: row for row in await store.load()}
        wards = [self._admit(service) for service in self._wanted.values()]
        self._parts = asyncio.get_running_loop().create_task(self._run_parts())
        await self._start(wards, rows, _begin)
        await self._gateways.tell_all()
        self._examiner.hasten()
        self._say(EntryKind.DAEMON, {"what": "monitoring started", "services": str(len(wards))})
        self._publish(Topic.MONITORING_STARTED, {"services": len(wards)})

    async def _end_all(self, *, leave: bool) -> None:
        if self._store is None:
            return
        ends = [ward.stop(leave=leave) for ward in self._wards.values()]
        ended = await asyncio.gather(*ends, return_exceptions=True)
        self._wards.clear()
        if self._parts is not None:
            await self._gateways.close()
        if self._parts is not None:
            self._parts.cancel()
            await asyncio.gather(self._parts, return_exceptions=True)
            self._parts = None
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.cancel()
        self._waiters.clear()
        self._say(EntryKind.DAEMON, {"what": "monitoring stopped"})
        self._publish(Topic.MONITORING_STOPPED, {})
        for last in (self._journal.flush, self._lease.release):  # the one without the other
            try:
                await last()
            except (TransientError, StaleEpochError) as error:
                _log.warning("not-recorded", error=str(error))
        await self._store.close()
        self._store = None
        self._bus.close()
        for result in ended:
            if isinstance(result, BaseException):
                raise result  # what was to be written is written: now it may be told

    async def _change(self, config: Config) -> Changes:
        if self._parts is None:
            raise PermanentError("monitoring is not running")
        assert self.config is not None, "only a configured instance is reloaded"
        store, found = self._require_store(), changes(self.config, config)
        for id_ in (*found.changed, *found.added):
            await require_buildable(config.services[id_], self._clock, self.config.state_dir)
        for name, gateway in config.gateways.items():
            if self.config.gateways.get(name) != gateway:
                await build_gateway(gateway, self._clock, self.config.state_dir).close()
        rows = {row.service: row for row in await store.load()}
        for id_ in found.removed:
            await self._dismiss(id_, for_good=True)
        for id_ in found.changed:
            old, new = self._wanted[id_], config.services[id_]
            same = (old.platform, old.platform_spec) == (new.platform, new.platform_spec)
            await self._dismiss(id_, for_good=not same, leave=same)
        await self._change_gateways(self.config.gateways, config.gateways)
        self._fleet.policy = config.fleet
        self.config = replace(
            config,
            store=self.config.store,
            state_dir=self.config.state_dir,
            api=self.config.api,
            monitoring=self.config.monitoring,
            operator=self.config.operator,
        )
        self._wanted = dict(config.services)
        begun = (*found.changed, *found.added)
        await self._start([self._admit(config.services[id_]) for id_ in begun], rows, self._take_up)
        await self._gateways.tell_all()
        self._examiner.hasten()
        self._say(EntryKind.DAEMON, {"what": "configuration reloaded"})
        return found

    async def _change_gateways(
        self, old: Mapping[str, GatewayConfig], new: Mapping[str, GatewayConfig]
    ) -> None:
        """No service of those that differ is watched now."""
        await self._gateways.remove([name for name in old if new.get(name) != old[name]])
        self._gateways.add(one for name, one in new.items() if old.get(name) != one)

    def _take_flow(self, service: ServiceId, flow: Flow | None) -> None:
        if (ward := self._wards.get(service)) is not None:
            ward.take_flow(flow)

    def _examinations(self) -> list[Callable[[], Awaitable[None]]]:
        return [*self._gateways.examinations(), *(w.examine for w in self._wards.values())]

    def _state_dir(self) -> Path:
        return state_folder() if self.config is None else self.config.state_dir

    def _open_store(self) -> Store:
        given = self._given_store
        if given is not None and not isinstance(given, str):
            return given
        url = given
        if url is None:
            assert self.config is not None, "without a configuration the store is given"
            make_state_folder(self.config.state_dir)
            url = self.config.store
        return open_store(url)

    def _admit(self, config: ServiceConfig) -> Ward:
        assert self.config is not None, "a registered service brings a config"
        with in_the_name_of(config.id):
            ward = Ward(
                config,
                self._world,
                self._scheduler,
                self._pulse,
                self.config.state_dir,
                self._gateways,
                ended=self._action_ended,
                crashed=self._ward_crashed,
            )
        self._wards[config.id] = ward
        return ward

    async def _take_up(self, ward: Ward, row: ServiceRow | None) -> None:
        """Start a service; what cannot be started now is tried again until it can."""
        try:
            await ward.start(row)
        except TransientError as error:
            _log.warning("not-taken-up", service=ward.config.id, error=str(error))
            self._rebuild_soon(ward)

    async def _start(
        self,
        wards: Iterable[Ward],
        rows: Mapping[ServiceId, ServiceRow],
        begin: Callable[[Ward, ServiceRow | None], Awaitable[None]],
    ) -> None:
        """Several at a time: each one waits for its platform, which may be a process."""
        left = iter(wards)

        async def work() -> None:
            for ward in left:
                await begin(ward, rows.get(ward.config.id))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_STARTED_AT_ONCE):
                    group.create_task(work())
        except BaseExceptionGroup as troubles:
            raise troubles.exceptions[0] from None

    async def _dismiss(
        self, service: ServiceId, *, for_good: bool = False, leave: bool = False
    ) -> None:
        """To its end, also when cancelled: a ward cannot be ended by halves."""
        ward = self._wards[service]
        ending = asyncio.get_running_loop().create_task(ward.stop(for_good=for_good, leave=leave))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.gather(ending, return_exceptions=True)
            raise
        except (TransientError, PermanentError) as error:
            _log.error("not-stopped", service=service, error=str(error))
        finally:
            del self._wards[service]
            self._fleet.leave(service)

    async def _run_parts(self) -> None:
        store = self._require_store()
        parts = {
            "scheduler": self._scheduler.run,
            "pulse": self._pulse.run,
            "journal": self._journal.run,
            "examination": self._examiner.run,
            "self": lambda: watch_self(self._clock, self._pulse, self._lease, self._fleet),
            "retention": lambda: forget(self._clock, store, self._epoch, self._retention_s),
        }
        try:
            await Supervisor(self._clock).run(parts)
        except BaseExceptionGroup as group:
            self._fail(group)

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
        self._rebuild_soon(ward)

    def _rebuild_soon(self, ward: Ward) -> None:
        task = asyncio.get_running_loop().create_task(self._rebuild(ward))
        self._background.add(task)
        task.add_done_callback(self._rebuilt)

    def _rebuilt(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _rebuild(self, ward: Ward) -> None:
        await self._clock.sleep_until(Instant(self._clock.now() + _REBUILD_S))
        async with self._changing:
            if self._wards.get(ward.config.id) is not ward:
                return
            try:
                rows = {row.service: row for row in await self._require_store().load()}
            except TransientError as error:
                _log.warning("not-taken-up", service=ward.config.id, error=str(error))
                self._rebuild_soon(ward)
                return
            await self._dismiss(ward.config.id, leave=True)
            await self._take_up(self._admit(ward.config), rows.get(ward.config.id))
            self._examiner.hasten()

    def _fail(self, error: BaseException) -> None:
        _log.critical("prunella-failed", error=str(error), exc_info=error)
        if self.failed is not None and not self.failed.done():
            self.failed.set_exception(error)

    def _retention_s(self) -> float | None:
        return None if self.config is None else self.config.retention_s

    def _say(self, kind: EntryKind, body: dict[str, str]) -> None:
        self._journal.note(Entry(kind, self._clock.stamp(), body=body))

    def _publish(self, topic: Topic, data: Mapping[str, Any]) -> None:
        self._bus.publish(Notice(topic, self._clock.stamp(), None, data))


async def _begin(ward: Ward, row: ServiceRow | None) -> None:
    with in_the_name_of(ward.config.id):
        await ward.start(row)
