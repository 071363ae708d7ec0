"""A platform in memory: replicas that crash when told to, and a log of every effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    Scope,
    ServiceId,
    Status,
    Verdict,
)
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.ports import Clock, FactListener

_CAPABILITIES = {
    ActionKind.RESTART: Scope.INSTANCE,
    ActionKind.SCALE_UP: Scope.SERVICE,
    ActionKind.SCALE_DOWN: Scope.SERVICE,
    ActionKind.ROLLBACK: Scope.INSTANCE,
}


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
    revision: str = "v1"
    verdict: Verdict | None = None
    restart_count: int = 0


class FakePlatform:
    """Obeys the same rules as a real platform, at once: none of its methods ever waits.

    Knobs: ``break_observe`` and ``break_execute`` make a method raise ``TransientError``,
    ``go_deaf`` makes ``execute`` return with nothing done; ``mend`` undoes all three. ``silent``
    keeps ends to itself: they are seen by observing only. ``deploy``, ``rescale`` and
    ``restart_by_itself`` are what others do to the service.

    Attributes:
        completed: the actions that were verified and told so.
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
        self._revision = "v1"
        self.completed: list[Action] = []
        self._runs = {InstanceId(str(number)): _Run() for number in range(replicas)}
        self._observe_trouble = ""
        self._execute_trouble = ""
        self._deaf = False

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]:
        return _CAPABILITIES

    async def observe(self) -> Status:
        if self._observe_trouble:
            raise TransientError(self._observe_trouble)
        instances = tuple(self._instance(name, run) for name, run in self._runs.items())
        return Status(instances, desired=len(instances), revision=self._revision)

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:
        if action.kind not in _CAPABILITIES:
            raise PermanentError(f"platform fake cannot {action.kind}")
        scaling = action.kind in (ActionKind.SCALE_UP, ActionKind.SCALE_DOWN)
        to_do = self._rescaling(action) if scaling else self._replacing(action)
        effective = bool(to_do) and not self._deaf and not self._execute_trouble
        self.world.log.append(Executed(self._clock.now(), action, epoch, effective))
        if self._execute_trouble:
            raise TransientError(self._execute_trouble)
        if not effective:
            return
        if action.kind is ActionKind.ROLLBACK and action.revision is not None:
            self._revision = action.revision
        for name in to_do:
            if action.kind is ActionKind.SCALE_DOWN:
                del self._runs[name]
            else:
                self._runs.setdefault(name, _Run())
                self._start(name)

    async def complete(self, action: Action, /, *, epoch: Epoch) -> None:  # noqa: ARG002 - no fence
        self.completed.append(action)

    def _replacing(self, action: Action) -> list[InstanceId]:
        """The replicas that a restart or a rollback has still to replace."""
        if action.kind is ActionKind.ROLLBACK and self._revision not in (
            action.before,
            action.revision,
        ):
            raise ConflictError(f"{self._service} runs {self._revision} by now")
        chosen = [name for name in self._runs if action.instance in (None, name)]
        if not chosen:
            raise PermanentError(f"{self._service} has no replica {action.instance}")
        return [name for name in chosen if not self._reached(name, action.identity)]

    def _rescaling(self, action: Action) -> list[InstanceId]:
        """The replicas that are to be added, or to go."""
        present = len(self._runs)
        if action.replicas is None or action.replicas == present:
            return []
        if action.before and action.before != str(present):
            raise ConflictError(f"{self._service} has {present} replicas by now")
        if action.kind is ActionKind.SCALE_DOWN:
            return list(self._runs)[action.replicas :]
        return [InstanceId(str(number)) for number in range(present, action.replicas)]

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
        self._tell(FactKind.EXITED, name, detail)

    def deploy(self, revision: str) -> None:
        """Somebody deploys another version: all replicas run it at once."""
        self._revision = revision
        for name in self._runs:
            self._start(name)
        self._tell(FactKind.CHANGED, InstanceId("0"), revision)

    def rescale(self, replicas: int) -> None:
        """Somebody sets another number of replicas."""
        for number in range(len(self._runs), replicas):
            self._runs[InstanceId(str(number))] = _Run()
            self._start(InstanceId(str(number)))
        for name in list(self._runs)[replicas:]:
            del self._runs[name]
        self._tell(FactKind.CHANGED, InstanceId("0"), f"{replicas} replicas")

    def restart_by_itself(self, instance: InstanceId | str = "0") -> None:
        """The platform restarts a replica that has ended, without being asked."""
        name = InstanceId(instance)
        self._runs[name].restart_count += 1
        self._start(name)
        self._tell(FactKind.STARTED, name, "restarted by its platform")

    def judge(self, verdict: Verdict | None, instance: InstanceId | str = "0") -> None:
        """The platform's own check of a replica says so."""
        name = InstanceId(instance)
        self._runs[name].verdict = verdict
        self._tell(FactKind.VERDICT, name, str(verdict))

    def _tell(self, kind: FactKind, instance: InstanceId, detail: str) -> None:
        if self._on_fact is not None and not self._silent:
            self._on_fact(Fact(kind, instance, self._clock.now(), detail))

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
        run.revision, run.verdict = self._revision, None

    def _instance(self, name: InstanceId, run: _Run) -> Instance:
        return Instance(
            name,
            run.state,
            self._identity(name, run),
            run.detail,
            revision=run.revision,
            verdict=run.verdict,
            restart_count=run.restart_count,
        )

    def _identity(self, name: InstanceId, run: _Run) -> str:
        return f"{self._service}/{name}/{run.number}" if run.number else ""
