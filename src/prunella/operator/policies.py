"""HealingPolicy objects become services, and are told what came of it.

Level-based: any change wakes one pass over all that is known. What a watch cannot tell stays as
it was; only what a good watch shows to be gone goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import structlog

from prunella.config import Changes, Config, ServiceConfig, changes
from prunella.core.model import Instant, ServiceId
from prunella.errors import (
    PermanentError,
    PrunellaError,
    StaleEpochError,
    TransientError,
)
from prunella.kube.kinds import HEALING_POLICY
from prunella.kube.reflector import Reflector
from prunella.kube.shared import SharedCluster
from prunella.kube.workloads import KINDS
from prunella.kube.workloads import Workload as Seen
from prunella.operator import pauses
from prunella.operator.aims import Workload, kinds_of
from prunella.operator.objects import Policy
from prunella.operator.pauses import Holds, Pause
from prunella.operator.resolve import Resolver, Verdict
from prunella.operator.statuses import Statuses, Told
from prunella.ports import Clock
from prunella.runtime.building import require_buildable
from prunella.runtime.orchestrator import SelfHealingOrchestrator

_log = structlog.get_logger("prunella.policies")
_GATHER_S = 0.2  # changes come in bursts
_LOOK_S = 2.0  # how often health is told
_RETRY_S = 1.0
_AT_ONCE = 50


class Policies:
    """Keeps the orchestrator's services as policies and the file have them."""

    def __init__(
        self,
        cluster: SharedCluster,
        healing: SelfHealingOrchestrator,
        clock: Clock,
        resolver: Resolver,
    ) -> None:
        self._cluster = cluster
        self._healing = healing
        self._clock = clock
        self._resolver = resolver
        operator = resolver.config.operator
        assert operator is not None, "without an operator there are no policies"
        named = operator.namespaces or (cluster.access.namespace,)
        self._namespaces: Sequence[str] = ("",) if "*" in named else named
        self.settled = asyncio.Event()  # what there was at the start has been taken over
        self._changed = asyncio.Event()
        self._dirty = True
        self._policies: dict[str, dict[tuple[str, str], Policy]] = {}  # as last told, by namespace
        self._watched: list[tuple[Reflector[Any], Any]] = []
        self._verdicts: list[Verdict] = []
        self._paused: dict[str, list[Pause]] = {}
        self._blind: dict[str, str] = {}
        self._statuses = Statuses(cluster, healing, clock, is_everywhere=self._namespaces == ("",))
        self._turn = asyncio.Lock()

    # For others --------------------------------------------------------------------------------

    def find(self, service: str) -> tuple[Workload, str, str] | None:
        """The workload of a service, its uid, and its policy; None: it has none."""
        for verdict in self._verdicts:
            pair = verdict.services.get(ServiceId(service))
            if pair is not None:
                return pair[0], self._uid(pair[0]), verdict.policy.metadata.name
        assert self._healing.config is not None, "it is a configured one"
        of_file = self._healing.config.services.get(ServiceId(service))
        if of_file is None or of_file.platform != "kubernetes":
            return None
        spec: Any = of_file.platform_spec
        workload = Workload(spec.kind, spec.namespace, spec.name)
        return workload, self._uid(workload), ""

    async def take_file(self, config: Config) -> Changes:
        """Another configuration file, under the same policies.

        Raises: as `SelfHealingOrchestrator.reload`.
        """
        async with self._turn:
            before = self._resolver.config
            self._resolver.take_file(config)
            try:
                verdicts = await self._resolve()
                found = await self._healing.reload(self._merged(verdicts))
            except PrunellaError:
                self._resolver.take_file(before)
                raise
            self._verdicts = verdicts
            self._wake()
            return found

    # Life --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._statuses.run(self._told))
                while True:
                    await self._pass()
                    await self._wait()
        finally:
            for reflector, listener in self._watched:
                reflector.ignore(listener)

    def _told(self) -> Iterator[Told]:
        for verdict in [*self._verdicts]:
            yield verdict, self._paused.get(verdict.policy.metadata.uid, ())

    async def _pass(self) -> None:
        async with self._turn:
            is_calm = not (self._dirty or self._blind)
            self._dirty = False
            try:
                if is_calm and await self._sees():  # holds end with time, and people lift them
                    await self._hold(self._verdicts)
                    return
                verdicts = await self._resolve()
                await self._settle(verdicts)
                if not self._blind:
                    self.settled.set()
            except StaleEpochError:
                raise
            except (TransientError, PermanentError) as error:
                _log.error("policies-not-taken-over", error=str(error))
                self._dirty = True

    async def _wait(self) -> None:
        self._changed.clear()
        pause_s = _RETRY_S if self._dirty or self._blind else _LOOK_S
        sleep = asyncio.ensure_future(self._sleep(pause_s))
        change = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait([sleep, change], return_when=asyncio.FIRST_COMPLETED)
            if change.done():
                await self._sleep(_GATHER_S)
        finally:
            sleep.cancel()
            change.cancel()

    # One pass ----------------------------------------------------------------------------------

    async def _resolve(self) -> list[Verdict]:
        policies = await self._read_policies()
        wanted = {
            (kind, one.metadata.namespace)
            for one in policies
            for spec in (one.spec, one.status.accepted.spec if one.status.accepted else {})
            if (kind := kinds_of(spec)) is not None
        }
        workloads = {key: await self._read_workloads(*key) for key in sorted(wanted)}
        verdicts = await asyncio.to_thread(self._resolver.resolve, policies, workloads)
        if not await self._all_can_be_built(verdicts):
            verdicts = await asyncio.to_thread(self._resolver.resolve, policies, workloads)
        return verdicts

    async def _all_can_be_built(self, verdicts: Iterable[Verdict]) -> bool:
        config = self._healing.config
        assert config is not None, "it is a configured one"
        can = True
        for number, verdict in enumerate(verdicts):
            if number % _AT_ONCE == 0:
                await self._sleep(0)  # healing comes first
            for id_, (_, service) in verdict.services.items():
                if config.services.get(id_) == service:
                    continue
                try:
                    await require_buildable(service, self._clock, config.state_dir)
                except StaleEpochError:
                    raise
                except PermanentError as error:
                    self._resolver.refuse(verdict.policy, verdict.generation, str(error))
                    can = False
                    break
        return can

    async def _settle(self, verdicts: list[Verdict]) -> None:
        holds = self._holds(verdicts)
        await pauses.place(self._healing, holds, self._clock)
        merged = self._merged(verdicts)
        assert self._healing.config is not None, "it is a configured one"
        found = changes(self._healing.config, merged)
        if found.added or found.removed or found.changed:
            await self._healing.reload(merged)
            _log.info("policies", added=found.added, removed=found.removed, changed=found.changed)
        self._verdicts = verdicts
        told = {id_ for one in verdicts if one.resolved.status is not None for id_ in one.services}
        await pauses.lift(self._healing, holds, told | set(found.removed))

    async def _sees(self) -> bool:
        """Whether all watches work: one that does not tells nobody."""
        try:
            for reflector, _ in self._watched:
                await reflector.ready()
        except (TransientError, PermanentError):
            return False
        return True

    async def _hold(self, verdicts: list[Verdict]) -> None:
        holds = self._holds(verdicts)
        await pauses.place(self._healing, holds, self._clock)
        await pauses.lift(self._healing, holds, {id_ for one in verdicts for id_ in one.services})

    def _merged(self, verdicts: Iterable[Verdict]) -> Config:
        services: dict[ServiceId, ServiceConfig] = dict(self._resolver.config.services)
        for verdict in verdicts:
            services |= {id_: service for id_, (_, service) in verdict.services.items()}
        return replace(self._resolver.config, services=services)

    def _holds(self, verdicts: Iterable[Verdict]) -> Holds:
        now, holds = self._clock.wall(), Holds()
        self._paused = {}
        for verdict in verdicts:
            meta = verdict.policy.metadata
            whole = pauses.asked_for(meta.annotations, now)
            found = [whole] if whole is not None else []
            for id_, (workload, _) in verdict.services.items():
                if whole is not None:
                    holds[id_, pauses.owner("HealingPolicy", meta.name)] = whole
                seen = self._seen(workload)
                own = pauses.asked_for(seen.metadata.annotations if seen else {}, now)
                if own is not None:
                    holds[id_, pauses.owner(workload.kind, workload.name)] = own
                    found.append(own)
            self._paused[meta.uid] = found
        return holds

    # What is there -----------------------------------------------------------------------------

    async def _read_policies(self) -> list[Policy]:
        found: list[Policy] = []
        for namespace in self._namespaces:
            reflector = self._watch(HEALING_POLICY, namespace, Policy)
            try:
                await reflector.ready()
            except (TransientError, PermanentError) as error:
                self._cannot_tell(f"policies in {namespace or 'all namespaces'}", error)
            else:
                self._can_tell(f"policies in {namespace or 'all namespaces'}")
                self._policies[namespace] = dict(reflector.items)
            found += self._policies.get(namespace, {}).values()
        return found

    async def _read_workloads(self, kind: str, namespace: str) -> dict[str, Workload] | None:
        whole = self._namespaces == ("",)
        reflector = self._watch(KINDS[kind], "" if whole else namespace, Seen)
        try:
            await reflector.ready()
        except (TransientError, PermanentError) as error:
            self._cannot_tell(f"{kind}s in {namespace}", error)
            return None
        self._can_tell(f"{kind}s in {namespace}")
        return {
            name: Workload(kind, where, name, one.metadata.labels)
            for (where, name), one in reflector.items.items()
            if where == namespace
        }

    def _cannot_tell(self, what: str, error: PrunellaError) -> None:
        if self._blind.get(what) != str(error):
            _log.warning("cannot-tell", what=what, error=str(error))
        self._blind[what] = str(error)

    def _can_tell(self, what: str) -> None:
        self._blind.pop(what, None)

    def _watch(self, kind: Any, namespace: str, as_: type[Any]) -> Reflector[Any]:
        reflector = self._cluster.reflector(kind, namespace, as_)
        if all(known is not reflector for known, _ in self._watched):
            reflector.listen(self._notice)
            self._watched.append((reflector, self._notice))
        return reflector

    def _notice(self, old: Any, new: Any) -> None:
        """Only status has moved where neither generation nor what people set did."""
        if old is not None and new is not None:
            was, now = old.metadata, new.metadata
            same = (was.generation, was.labels, was.annotations) == (
                now.generation,
                now.labels,
                now.annotations,
            )
            if same and was.uid == now.uid:
                return
        self._wake()

    def _wake(self) -> None:
        self._dirty = True
        self._changed.set()

    def _seen(self, workload: Workload) -> Seen | None:
        whole = self._namespaces == ("",)
        namespace = "" if whole else workload.namespace
        reflector = self._cluster.reflector(KINDS[workload.kind], namespace, Seen)
        return reflector.get(workload.namespace, workload.name)

    def _uid(self, workload: Workload) -> str:
        seen = self._seen(workload)
        return "" if seen is None else seen.metadata.uid

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep_until(Instant(self._clock.now() + seconds))
