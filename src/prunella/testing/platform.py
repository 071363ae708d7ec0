"""A platform in memory: replicas that crash when told to, and a log of every effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    Fact,
    FactKind,
    Instance,
    InstanceId,
    InstanceState,
    Instant,
    ServiceId,
    Status,
)
from prunella.errors import PermanentError, TransientError
from prunella.ports import Clock, FactListener

_CAPABILITIES = frozenset({ActionKind.RESTART})


class Executed(NamedTuple):
    """One action as it arrived at a platform. ``effective`` is False where nothing came of it."""

    at: Instant
    action: Action
    epoch: Epoch
    effective: bool


@dataclass
class World:
    """What all fake platforms of one simulation have done, in its order."""

    log: list[Executed] = field(default_factory=list[Executed])


@dataclass
class _Run:
    number: int = 0
    state: InstanceState = InstanceState.STOPPED
    detail: str = ""


class FakePlatform:
    """Obeys the same rules as a real platform, at once: none of its methods ever waits.

    Knobs: ``break_observe`` and ``break_execute`` make a method raise ``TransientError``,
    ``go_deaf`` makes ``execute`` return with nothing done; ``mend`` undoes all three. ``silent``
    keeps ends to itself: they are seen by observing only.
    """

    kind: ClassVar[str] = "fake"

    def __init__(
        self,
        service: ServiceId,
        clock: Clock,
        *,
        on_fact: FactListener | None = None,
        replicas: int = 1,
        world: World | None = None,
        silent: bool = False,
    ) -> None:
        self.world = World() if world is None else world
        self.closed = False
        self._service = service
        self._clock = clock
        self._on_fact = on_fact
        self._silent = silent
        self._runs = {InstanceId(str(number)): _Run() for number in range(replicas)}
        self._observe_trouble = ""
        self._execute_trouble = ""
        self._deaf = False

    @property
    def capabilities(self) -> frozenset[ActionKind]:
        return _CAPABILITIES

    async def observe(self) -> Status:
        if self._observe_trouble:
            raise TransientError(self._observe_trouble)
        instances = tuple(self._instance(name, run) for name, run in self._runs.items())
        return Status(instances, desired=len(instances))

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:
        if action.kind not in _CAPABILITIES:
            raise PermanentError(f"platform fake cannot {action.kind}")
        chosen = [name for name in self._runs if action.instance in (None, name)]
        if not chosen:
            raise PermanentError(f"{self._service} has no replica {action.instance}")
        wanted = [name for name in chosen if not self._reached(name, action.identity)]
        effective = bool(wanted) and not self._deaf and not self._execute_trouble
        self.world.log.append(Executed(self._clock.now(), action, epoch, effective))
        if self._execute_trouble:
            raise TransientError(self._execute_trouble)
        if effective:
            for name in wanted:
                self._start(name)

    async def close(self) -> None:
        self.closed = True

    async def ensure(self) -> Sequence[str]:
        fresh = [name for name, run in self._runs.items() if run.state is InstanceState.STOPPED]
        for name in fresh:
            self._start(name)
        return tuple(f"started {name}" for name in fresh)

    async def shutdown(self) -> None:
        await self.stop()

    async def stop(self) -> None:
        for run in self._runs.values():
            run.state, run.detail = InstanceState.STOPPED, ""

    def crash(self, instance: InstanceId | str = "0", detail: str = "killed by SIGKILL") -> None:
        """End a replica's run by itself; the fact is told at once unless ``silent``."""
        name = InstanceId(instance)
        run = self._runs[name]
        if run.state is not InstanceState.RUNNING:
            return
        run.state, run.detail = InstanceState.EXITED, detail
        if self._on_fact is not None and not self._silent:
            self._on_fact(Fact(FactKind.EXITED, name, self._clock.now(), detail))

    def run_of(self, instance: InstanceId | str = "0") -> Instance:
        """What is really there, whatever ``break_observe`` lets others see."""
        name = InstanceId(instance)
        return self._instance(name, self._runs[name])

    def break_observe(self, reason: str = "cannot be read now") -> None:
        self._observe_trouble = reason

    def break_execute(self, reason: str = "cannot be done now") -> None:
        self._execute_trouble = reason

    def go_deaf(self) -> None:
        self._deaf = True

    def mend(self) -> None:
        self._observe_trouble = self._execute_trouble = ""
        self._deaf = False

    def _reached(self, name: InstanceId, identity: str) -> bool:
        run = self._runs[name]
        running = run.state is InstanceState.RUNNING
        return running and identity not in ("", self._identity(name, run))

    def _start(self, name: InstanceId) -> None:
        run = self._runs[name]
        run.number += 1
        run.state, run.detail = InstanceState.RUNNING, ""

    def _instance(self, name: InstanceId, run: _Run) -> Instance:
        return Instance(name, run.state, self._identity(name, run), run.detail)

    def _identity(self, name: InstanceId, run: _Run) -> str:
        return f"{self._service}/{name}/{run.number}" if run.number else ""
