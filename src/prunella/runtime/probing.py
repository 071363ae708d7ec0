"""The probes of one service: those of the whole, and those that measure each instance by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prunella.config import ProbeConfig
from prunella.core.health import ProbeKey
from prunella.core.model import Instant, Status
from prunella.plugins import ProbeContext, probes
from prunella.ports import Probe
from prunella.runtime.scheduler import Job, Scheduler
from prunella.spec import ProbeSpec

_FIRST_LOOK_S = 0.02


@dataclass(slots=True)
class _Running:
    probe: Probe
    spec: ProbeSpec
    job: Job


class Probing:
    """Builds probes, has them run, and keeps one for every instance that there is.

    Args:
        check: runs one probe once and takes in what it says.
        pause_s: how long to wait between two checks of a probe with this interval of its own.
    """

    def __init__(
        self,
        configs: tuple[ProbeConfig, ...],
        context: ProbeContext,
        scheduler: Scheduler,
        check: Callable[[ProbeKey, Probe], Awaitable[None]],
        pause_s: Callable[[float], float],
    ) -> None:
        self._configs = configs
        self._context = context
        self._scheduler = scheduler
        self._check = check
        self._pause_s = pause_s
        self._running: dict[ProbeKey, _Running] = {}

    @property
    def each(self) -> tuple[bool, ...]:
        """For each probe of the configuration, whether it measures every instance by itself."""
        return tuple(config.each is not None for config in self._configs)

    def start(self) -> None:
        """Begin with the probes of the whole service."""
        for number, config in enumerate(self._configs):
            if config.each is None:
                self._begin(ProbeKey(number), config, config.spec)

    async def follow(self, status: Status | None) -> None:
        """Keep one probe for each instance, where it answers now."""
        if status is None or not any(self.each):
            return
        wanted: dict[ProbeKey, tuple[ProbeConfig, ProbeSpec]] = {}
        for number, config in enumerate(self._configs):
            if config.each is not None:
                for instance in status.instances:
                    spec = config.each.of(instance)
                    if spec is not None:
                        wanted[ProbeKey(number, instance.id)] = (config, spec)
        for key in [key for key in self._running if key.instance is not None]:
            if key not in wanted or wanted[key][1] != self._running[key].spec:
                await self._end(key)
        for key, (config, spec) in wanted.items():
            if key not in self._running:
                self._begin(key, config, spec)
                self._scheduler.hasten(self._running[key].job, self._soon())

    def hasten(self) -> None:
        """Check at once: something has just been done to the service."""
        for running in self._running.values():
            self._scheduler.hasten(running.job, self._soon())

    def pause(self) -> None:
        """Start no more checks."""
        for running in self._running.values():
            self._scheduler.remove(running.job)

    async def close(self) -> None:
        for key in tuple(self._running):
            await self._end(key)

    def _begin(self, key: ProbeKey, config: ProbeConfig, spec: ProbeSpec) -> None:
        probe = probes()[config.kind].build(spec, self._context)
        job = Job(lambda: self._check(key, probe), lambda: self._pause_s(config.interval_s))
        self._running[key] = _Running(probe, spec, job)
        self._scheduler.add(job)

    async def _end(self, key: ProbeKey) -> None:
        running = self._running.pop(key, None)
        if running is not None:
            self._scheduler.remove(running.job)
            await running.probe.close()

    def _soon(self) -> Instant:
        return Instant(self._context.clock.now() + _FIRST_LOOK_S)
