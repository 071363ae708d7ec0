"""All gateways of one instance: what stands behind each, and what each of them counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import structlog

from prunella.config import GatewayConfig, ServiceConfig
from prunella.core.model import InstanceState, ServiceId, Status
from prunella.core.traffic import Flow
from prunella.errors import PermanentError, TransientError
from prunella.plugins import GatewayContext, gateways
from prunella.ports import Clock, Endpoint, Gateway, Remark, Route
from prunella.runtime.callers import Callers
from prunella.runtime.passage import Passage
from prunella.runtime.scheduler import Job, Scheduler

_log = structlog.get_logger("prunella.gateways")
_CALLERS = "this process"
_CALLERS_S = 1.0


def build_gateway(config: GatewayConfig, clock: Clock, state_dir: Path) -> Gateway:
    """Raises: PermanentError: the plugin cannot use its spec."""
    folder = state_dir / "gateways" / config.name
    return gateways()[config.kind].build(config.spec, GatewayContext(config.name, clock, folder))


def route_of(service: ServiceConfig, status: Status | None) -> Route:
    """What its gateway has to know of a service, with its instances that run."""
    endpoints = tuple(
        Endpoint(instance.id, instance.address or "127.0.0.1", instance.port)
        for instance in (status.instances if status is not None else ())
        if instance.port and instance.state is InstanceState.RUNNING
    )
    return Route(
        service.id, service.route, service.circuit_body, service.circuit_fallback, endpoints
    )


class _Line:
    """One gateway, and the services behind it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.routes: dict[ServiceId, Route] = {}
        self.passages: dict[ServiceId, Passage] = {}
        self.told: tuple[Route, ...] | None = None
        self.trouble = ""
        self.telling = asyncio.Lock()
        self.job: Job | None = None
        self.remarks: tuple[Remark, ...] = ()


class Gateways:
    """Reads every gateway at its interval, for all its services at once.

    Args:
        callers: the gateway of this very process, for services that stand behind no other.
        seen: called with what a gateway says of a service; None: it cannot tell.
        examined: asks a gateway whether it can do its work.
    """

    def __init__(
        self,
        clock: Clock,
        scheduler: Scheduler,
        state_dir: Path,
        callers: Callers,
        seen: Callable[[ServiceId, Flow | None], None],
        examined: Callable[[Gateway], Awaitable[tuple[Remark, ...]]],
    ) -> None:
        self._clock = clock
        self._scheduler = scheduler
        self._state_dir = state_dir
        self._seen = seen
        self._examined = examined
        self._callers = callers
        self._lines: dict[str, _Line] = {_CALLERS: _Line(callers)}
        self._read_every(_CALLERS, _CALLERS_S)
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, configs: Iterable[GatewayConfig]) -> None:
        """Begin to read these, once each.

        Raises: PermanentError: a plugin cannot use its spec.
        """
        for config in configs:
            gateway = build_gateway(config, self._clock, self._state_dir)
            self._lines[config.name] = _Line(gateway)
            self._read_every(config.name, config.spec.interval)

    def _read_every(self, name: str, interval_s: float) -> None:
        line = self._lines[name]
        line.job = Job(partial(self._read, name), partial(float, interval_s))
        self._scheduler.add(line.job)

    async def remove(self, names: Iterable[str]) -> None:
        """Let go of these; what they let through stays as it is."""
        for name in names:
            line = self._lines.pop(name)
            if line.job is not None:
                self._scheduler.remove(line.job)
            await line.gateway.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.remove(list(self._lines))

    def join(self, service: ServiceConfig) -> Passage | None:
        """Put a service behind its gateway; None: it has none."""
        name = self._name(service)
        if name is None:
            return None
        line = self._lines[name]
        line.routes[service.id] = route_of(service, None)
        passage = line.passages[service.id] = Passage(service.id, line.gateway, self._clock)
        return passage

    def leave(self, service: ServiceConfig) -> None:
        line = self._lines.get(self._name(service) or "")
        if line is not None:
            line.routes.pop(service.id, None)
            line.passages.pop(service.id, None)

    def follow(self, service: ServiceConfig, status: Status | None) -> None:
        """Tell its gateway where a service's instances answer, soon and if that is news."""
        name = self._name(service)
        if name is None or status is None:
            return
        line = self._lines.get(name)
        route = route_of(service, status)
        if line is None or line.routes.get(service.id) == route:
            return
        line.routes[service.id] = route
        task = asyncio.get_running_loop().create_task(self._tell(name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def remarks(self, service: ServiceConfig) -> tuple[Remark, ...]:
        """What the gateway of a service said of itself when it was examined last."""
        line = self._lines.get(self._name(service) or "")
        return () if line is None else line.remarks

    def examinations(self) -> list[Callable[[], Awaitable[None]]]:
        """One for each gateway: has it examined, and remembers what it says."""
        return [partial(self._examine, name) for name in self._lines if name != _CALLERS]

    async def _examine(self, name: str) -> None:
        if (line := self._lines.get(name)) is not None:
            line.remarks = await self._examined(line.gateway)

    def _name(self, service: ServiceConfig) -> str | None:
        if service.route is not None:
            return service.route.name
        return _CALLERS if service.id in self._callers.services else None

    async def tell_all(self) -> None:
        """Tell every gateway what stands behind it; trouble is tried again at each reading."""
        await asyncio.gather(*(self._tell(name) for name in self._lines))

    async def _read(self, name: str) -> None:
        await self._tell(name)
        line = self._lines.get(name)
        if line is None:
            return
        flows: Mapping[ServiceId, Flow] = {}
        try:
            flows = await line.gateway.observe()
        except (TransientError, PermanentError) as error:
            self._note(name, line, str(error))
        else:
            self._note(name, line, "")
        for service, passage in tuple(line.passages.items()):
            flow = flows.get(service)
            passage.take(flow)
            self._seen(service, flow)

    async def _tell(self, name: str) -> None:
        line = self._lines.get(name)
        if line is None:
            return
        async with line.telling:
            routes = tuple(line.routes.values())
            if routes == line.told:
                return
            try:
                await line.gateway.route(routes)
            except (TransientError, PermanentError) as error:
                self._note(name, line, str(error))
            else:
                line.told = routes

    def _note(self, name: str, line: _Line, trouble: str) -> None:
        """Say it once, and once when it is over."""
        if trouble == line.trouble:
            return
        line.trouble = trouble
        if trouble:
            _log.warning("gateway-trouble", gateway=name, error=trouble)
        else:
            _log.info("gateway-well", gateway=name)
