"""Prunella at home in a cluster: waits to lead, then reads policies and tells what it does."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, cast
from uuid import uuid4

import structlog

from prunella.config import Changes, Config
from prunella.errors import StaleEpochError, TransientError
from prunella.kube.access import access
from prunella.kube.shared import cluster_at, fence_all, leave
from prunella.operator.election import Election
from prunella.operator.events import Events, Telling
from prunella.operator.mirror import Mirror
from prunella.operator.policies import Policies
from prunella.operator.resolve import Resolver
from prunella.ports import Clock
from prunella.runtime.clock import SystemClock
from prunella.runtime.notices import Notice, Topic
from prunella.runtime.orchestrator import SelfHealingOrchestrator

_log = structlog.get_logger("prunella.home")
_REASONS: Mapping[Topic, tuple[str, bool]] = {
    Topic.HEALING_STARTED: ("Healing", False),
    Topic.SERVICE_HEALED: ("Healed", False),
    Topic.HEALING_FAILED: ("HealFailed", True),
    Topic.HEALING_VETOED: ("HealVetoed", True),
    Topic.SERVICE_QUARANTINED: ("Quarantined", True),
}


class Home:
    """One candidate, and what it does while it leads. Its tasks are on one event loop.

    Attributes:
        tenure: for the orchestrator, and for whoever else must not act without it.
    """

    def __init__(self, config: Config, *, observe: bool, clock: Clock | None = None) -> None:
        """Raises: PermanentError: there is no way into the cluster."""
        assert config.operator is not None, "without an operator there is no home"
        self._config = config
        self._observe = observe
        self._clock = clock or SystemClock()
        self._access = access(context=config.operator.context)
        name = os.environ.get("HOSTNAME") or socket.gethostname()
        self.tenure = Election(
            self._access,
            self._clock,
            name=config.operator.lease,
            identity=f"{name}_{uuid4()}",
            ttl_s=config.operator.lease_ttl_s,
        )
        self._cluster = cluster_at(self._access, self._clock)
        self._tasks: list[asyncio.Task[Any]] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._policies: Policies | None = None
        self._ends: list[Callable[[], None]] = []

    async def lead(self, orchestrator: SelfHealingOrchestrator, stop: asyncio.Event) -> bool:
        """Wait until we lead; False: we are to stop."""

        def say(reason: str) -> None:
            orchestrator.standing_by = reason
            _log.info("standing-by", reason=reason)

        acquiring = asyncio.ensure_future(self.tenure.acquire(say))
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait([acquiring, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not acquiring.done():
                acquiring.cancel()
                with suppress(asyncio.CancelledError):
                    await acquiring
        if acquiring.cancelled():
            return False
        acquiring.result()
        orchestrator.standing_by = ""
        fence_all(self.tenure.fence)
        self._begin(self.tenure.keep)
        return True

    def move_in(self, orchestrator: SelfHealingOrchestrator) -> None:
        """Monitoring runs: read policies, and tell what is done."""
        operator = self._config.operator
        assert operator is not None, "without an operator there is no home"
        resolver = Resolver(self._config, observe=self._observe)
        self._policies = policies = Policies(self._cluster, orchestrator, self._clock, resolver)
        named = operator.namespaces or (self._access.namespace,)
        mirror = Mirror(
            self._cluster,
            orchestrator,
            self._clock,
            policies.find,
            namespaces=("",) if "*" in named else named,
            keep=operator.history,
        )
        events = Events(self._cluster, self._clock, self.tenure.identity)

        async def take(notice: Notice) -> None:
            said = _REASONS.get(notice.topic)
            found = None if notice.service is None else policies.find(notice.service)
            if said is not None and found is not None:
                workload, uid, _ = found
                events.tell(Telling(workload, uid, said[0], _words(notice), said[1]))
            if notice.topic in (Topic.SERVICE_HEALED, Topic.HEALING_FAILED):
                mirror.hasten()

        def figures() -> Mapping[str, float]:
            return {
                "dropped_events": events.dropped_count,
                "dropped_mirrored_actions": mirror.dropped_count,
            }

        orchestrator.more_figures = figures
        self._ends.append(orchestrator.on("*", take))

        async def mirrored() -> None:
            await policies.settled.wait()  # before that, no service is known to be ours
            await mirror.run()

        for work in (policies.run, mirrored, events.run):
            self._begin(work)

    async def take_file(self, config: Config) -> Changes:
        """Another configuration file. Raises: as `SelfHealingOrchestrator.reload`."""
        if self._policies is None:
            raise TransientError("standing by: the file is read when this one leads")
        return await self._policies.take_file(config)

    async def move_out(self) -> None:
        """Nothing is read or told any more; the Lease is still renewed."""
        for end in self._ends:
            end()
        await _end(self._tasks[1:])
        del self._tasks[1:]

    async def leave(self) -> None:
        """Give the Lease up, so that the next one takes over at once."""
        await _end(self._tasks)
        self._tasks.clear()
        await self.tenure.release()
        fence_all(None)
        await leave(self._cluster)
        if self.failed.done() and not self.failed.cancelled():
            self.failed.exception()  # it has been told

    @property
    def has_lost(self) -> bool:
        try:
            self.tenure.require()
        except StaleEpochError:
            return True
        return False

    def _begin(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await work()

        task = asyncio.get_running_loop().create_task(run())
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or self.failed.done():
            return
        error = task.exception()
        assert error is not None, "they run for ever"
        self.failed.set_exception(_first(error))


def _first(error: BaseException) -> BaseException:
    if isinstance(error, BaseExceptionGroup):
        return _first(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return error


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _words(notice: Notice) -> str:
    data = notice.data
    action, outcome = str(data.get("action", "")), str(data.get("outcome", ""))
    detail = str(data.get("detail", "") or data.get("reason", ""))
    if outcome:
        reason = str(data.get("reason", ""))
        return f"{action}: {outcome}" + (f" ({reason})" if reason else "")
    reason = str(data.get("reason", ""))
    return f"{action}: {reason}" if action else detail
