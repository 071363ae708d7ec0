"""One watched service in the daemon: its probes, its platform, its engine, and what drives them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from prunella.config import ServiceConfig
from prunella.core.cadence import interval_s
from prunella.core.health import ProbeKey
from prunella.core.ledger import Entry, EntryKind, ServiceRow, Veto
from prunella.core.machine import Phase
from prunella.core.model import ActionId, Fact, InstanceId, Instant, Observation, Verdict
from prunella.core.snapshot import Forced
from prunella.core.traffic import Flow
from prunella.plugins import ProbeContext
from prunella.ports import Probe, Remark, SupportsLifecycle
from prunella.runtime.engine import Engine
from prunella.runtime.examination import examine
from prunella.runtime.gateways import Gateways
from prunella.runtime.passage import Passage
from prunella.runtime.probing import Probing
from prunella.runtime.pulse import Pulse
from prunella.runtime.record import World
from prunella.runtime.scheduler import Job, Scheduler
from prunella.runtime.target import build

_log = structlog.get_logger("prunella.ward")
_TICK_S = 0.001  # a loop of whole milliseconds rounds down, and would wake us for nothing


class Ward:
    """Owns everything of one service; closing it touches nothing that runs.

    Args:
        ended: called with the id of an action whose outcome has become known.
        crashed: called with a defect that stopped the healing of this service.
    """

    def __init__(
        self,
        config: ServiceConfig,
        world: World,
        scheduler: Scheduler,
        pulse: Pulse,
        state_dir: Path,
        gateways: Gateways,
        *,
        ended: Callable[[ActionId], None],
        crashed: Callable[[Ward, Exception], None],
    ) -> None:
        self.config = config
        self._world = world
        self._scheduler = scheduler
        self._pulse = pulse
        self._ended = ended
        self._crashed = crashed
        self._gateways = gateways
        self._lock = asyncio.Lock()
        self._driver: asyncio.Task[None] | None = None
        self._again = False
        self._facts: list[Fact] = []  # not in the log yet
        self._stopping = False
        self._timer: asyncio.TimerHandle | None = None
        self.platform, self.release_source = build(config, world.clock, state_dir, self._on_fact)
        self._probing = Probing(
            config.probes,
            ProbeContext(config.id, world.clock, self.pids),
            scheduler,
            self._check_once,
            self._pause_s,
        )
        self.engine = Engine(
            config.id,
            config.name,
            config.policy,
            self._probing.each,
            self.platform,
            world,
            self.release_source,
            gateways.join(config),
        )
        self._polls: list[Job] = []
        if not config.probes or self.release_source is not None:
            # What no probe and no fact tells: that it runs at all, and which version of it.
            self._polls = [Job(self._poll, lambda: config.policy.interval_s)]
        self.remarks: tuple[Remark, ...] = ()

    async def start(self, row: ServiceRow | None) -> None:
        """Bring up what should run, take up where healing stood, and begin to look."""
        if isinstance(self.platform, SupportsLifecycle):
            for word in await self.platform.ensure():
                self._lifecycle(word)
        await self.engine.restore(row)
        self._probing.start()
        await self._follow()
        for job in self._polls:
            self._scheduler.add(job)
        self.wake()

    async def stop(self, *, for_good: bool = False, leave: bool = False) -> None:
        """Stop looking, let the present step end, then apply ``on_exit``.

        Args:
            for_good: the service is not wanted any more.
            leave: touch nothing that runs, whatever ``on_exit`` says.

        Raises: TransientError or PermanentError: something runs on; we have let go of it.
        """
        self._stopping = True
        self._probing.pause()
        self._gateways.leave(self.config)
        for job in self._polls:
            self._scheduler.remove(job)
        if self._timer is not None:
            self._timer.cancel()
        if self._driver is not None and self._driver is not asyncio.current_task():
            await asyncio.gather(self._driver, return_exceptions=True)
        try:
            if isinstance(self.platform, SupportsLifecycle) and not leave:
                await (self.platform.stop() if for_good else self.platform.shutdown())
                self._lifecycle("stopped for good" if for_good else "shut down")
        finally:
            await self._probing.close()
            if self.release_source is not None:
                await self.release_source.close()
            await self.platform.close()

    def wake(self) -> None:
        """Have the engine take its next steps, now or right after the present one."""
        if self._stopping:
            return
        if self._driver is not None and not self._driver.done():
            self._again = True
            return
        self._driver = asyncio.get_running_loop().create_task(self._drive())

    async def examine(self) -> None:
        """Look whether platform and source of releases can do their work, and remember it."""
        try:
            found = await examine(self.platform, self.release_source)
        except Exception:  # noqa: BLE001 - a defect in this makes us none the wiser, and that is all
            if not self._stopping:  # else what was asked had been closed meanwhile
                _log.exception("examination-defect", service=self.config.id)
            return
        before, self.remarks = self.remarks, tuple(finding.remark for finding in found)
        for remark in self.remarks:
            if remark not in before:
                words = {"fault": remark.fault, "message": remark.message}
                _log.warning("remark", service=self.config.id, **words)

    async def force(self, forced: Forced) -> ActionId | tuple[Veto, ...]:
        async with self._lock:
            begun = await self.engine.force(forced)
        self.wake()
        return begun

    async def release(self, actor: str) -> bool:
        async with self._lock:
            released = await self.engine.release(actor)
        self.wake()
        return released

    async def _drive(self) -> None:
        try:
            while not self._stopping:
                self._again = False
                next_at = await self._step()
                if next_at is not None and next_at <= self._world.clock.now():
                    continue
                if not self._again:
                    self._set_timer(next_at)
                    return
        except Exception as error:  # noqa: BLE001 - a defect is handed on, with its traceback
            self._crashed(self, error)
        finally:
            self._log_facts()

    def _log_facts(self) -> None:
        """After the steps that they led to: writing a line takes as long as deciding does."""
        for fact in self._facts:
            _log.info("fact", service=self.config.id, kind=fact.kind, detail=fact.detail)
        self._facts.clear()

    async def _step(self) -> Instant | None:
        async with self._lock:
            before, phase = self.engine.running, self.engine.phase
            next_at = await self.engine.advance()
            after = self.engine.running
        if before is not None and (after is None or after.id != before.id):
            self._ended(before.id)
        await self._follow()
        if self.engine.phase is Phase.VERIFYING and phase is not Phase.VERIFYING:
            self._probing.hasten()
        return next_at

    def _set_timer(self, at: Instant | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            delay_s = max(0.0, at - self._world.clock.now()) + _TICK_S
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.wake)

    def _pause_s(self, base_s: float) -> float:
        engine = self.engine
        return interval_s(
            base_s,
            engine.policy,
            engine.phase,
            engine.diagnosis.health,
            engine.cadence_since,
            self._world.clock.now(),
        )

    async def _check_once(self, key: ProbeKey, probe: Probe) -> None:
        seen = await self._check(probe)
        # A check that was under way when we began to end the service ourselves proves nothing.
        if not self._stopping and self.engine.observe(key, seen):
            self.wake()

    async def _check(self, probe: Probe) -> Observation:
        start = self._world.clock.now()
        try:
            seen = await probe.check()
        except Exception as error:  # noqa: BLE001 - one defective probe blinds, it does not kill
            _log.exception("probe-defect", service=self.config.id, probe=probe.kind)
            detail = f"defect in probe {probe.kind}: {error}"
            return Observation(Verdict.INCONCLUSIVE, self._world.clock.now(), 0.0, None, detail)
        if self._pulse.stalled_since(start):
            detail = "void: Prunella itself stood still during this check"
            return Observation(Verdict.INCONCLUSIVE, seen.at, seen.latency_s, None, detail)
        return seen

    async def _poll(self) -> None:
        worth_judging = await self.engine.look()
        await self._follow()
        if worth_judging:
            self.wake()

    async def _follow(self) -> None:
        """Measure the instances that there are, and tell the gateway of them."""
        status = self.engine.status
        await self._probing.follow(status)
        self._gateways.follow(self.config, status)

    def stand_behind(self, passage: Passage) -> None:
        """From now on there is a gateway."""
        self.engine.stand_behind(passage)

    def take_flow(self, flow: Flow | None) -> None:
        """Take in what the gateway has read; its passage has it already."""
        if not self._stopping and self.engine.take_flow(flow):
            self.wake()

    def _on_fact(self, fact: Fact) -> None:
        self._facts.append(fact)
        self.engine.tell()
        self.wake()

    def pids(self, of: InstanceId | None = None) -> tuple[int, ...]:
        """The processes of one instance, or of all, as the platform last said."""
        status = self.engine.status
        if status is None:
            return ()
        chosen = (instance for instance in status.instances if of in (None, instance.id))
        return tuple(pid for instance in chosen for pid in instance.pids)

    def _lifecycle(self, word: str) -> None:
        _log.info("lifecycle", service=self.config.id, what=word)
        stamp = self._world.clock.stamp()
        self._world.note(Entry(EntryKind.LIFECYCLE, stamp, self.config.id, body={"what": word}))
