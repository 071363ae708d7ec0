"""Services that exist only in a simulation, and fail in the ways that real ones do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import ClassVar, NamedTuple

from prunella.core.model import (
    Action,
    ActionKind,
    Cause,
    Epoch,
    Instance,
    InstanceId,
    InstanceState,
    Instant,
    Observation,
    Scope,
    ServiceId,
    Status,
    Verdict,
)
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.ports import Clock


class Ailment(StrEnum):
    """What a simulated service suffers from."""

    NONE = "none"
    CRASHED = "crashed"
    REFUSING = "refusing"
    HUNG = "hung"
    ERRORING = "erroring"
    SLOW = "slow"
    UNSTARTABLE = "unstartable"  # ends at once, and its platform knows that its version is why
    UNSEEN = "unseen"  # the prober cannot measure it; it may be well


class Effect(NamedTuple):
    """Something that was really done to a service: what the checker believes, not our records."""

    at: Instant
    service: ServiceId
    kind: ActionKind
    epoch: Epoch


@dataclass(slots=True)
class SimService:
    """A service with its instances: probe, platform and patient in one.

    Each check meets the next instance in turn, as behind a load balancer.

    Attributes:
        curable: a restart ends the ailment, of the instance that is restarted.
        relapse_s: how long after a restart the ailment comes back; None: it does not.
        warm_up_s: how long after a restart it refuses connections.
        noise_ratio: share of checks that fail although nothing is wrong.
        acks_only: the platform says that it has acted, and has not.
        broken_platform: the platform refuses to act.
        forgotten: the platform answers, and knows no instance any more.
        demand: load in instances: with fewer than that they are saturated. 0: none is measured.
        bad: versions that make every instance suffer, and from what.
        restart_count: restarts by the platform itself, as it counts them.
        before_effect: what somebody else does right before an effect.
        victim: whether something that it needs makes it err now.
        turn_s: for so long the platform keeps an instance that has exited for itself.
        look_count: how often the platform was asked.
    """

    kind: ClassVar[str] = "simulated"
    id: ServiceId
    clock: Clock
    random: Random
    effects: list[Effect]
    ailment: Ailment = Ailment.NONE
    since: Instant = Instant(0.0)
    curable: bool = True
    relapse_s: float | None = None
    warm_up_s: float = 0.0
    noise_ratio: float = 0.0
    latency_s: float = 0.005
    timeout_s: float = 2.0
    acks_only: bool = False
    broken_platform: bool = False
    unreadable: bool = False
    forgotten: bool = False
    stopped: bool = False
    instance_count: int = 1
    demand: float = 0.0
    revision: str = ""
    bad: dict[str, Ailment] = field(default_factory=dict[str, Ailment])
    restart_count: int = 0
    before_effect: Callable[[], object] | None = None
    victim: Callable[[], bool] | None = None
    turn_s: float = 0.0
    look_count: int = 0
    started: Instant = field(default=Instant(float("-inf")))
    _runs: dict[int, int] = field(default_factory=dict[int, int])
    _versions: dict[int, str] = field(default_factory=dict[int, str])
    _cured: set[int] = field(default_factory=set[int])
    _turn: int = 0
    _coming_back: Ailment = Ailment.NONE

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]:
        able = {ActionKind.RESTART: Scope.INSTANCE}
        if self.demand:
            able |= {ActionKind.SCALE_UP: Scope.SERVICE, ActionKind.SCALE_DOWN: Scope.SERVICE}
        if self.revision:
            able[ActionKind.ROLLBACK] = Scope.INSTANCE
        return able

    def suffer(self, ailment: Ailment) -> None:
        self.ailment, self.since = ailment, self.clock.now()
        self._coming_back = ailment
        self._cured.clear()

    def heal_all_but(self, number: int) -> None:
        """What it suffers from is one instance's only."""
        self._cured = set(range(self.instance_count)) - {number}

    def recover(self) -> None:
        self.ailment = self._coming_back = Ailment.NONE

    def deploy(self, revision: str) -> None:
        """Somebody deploys a version: every instance runs it at once."""
        self.revision = revision
        for number in range(self.instance_count):
            self._start(number)
            self._versions[number] = revision

    def _present(self) -> Ailment:
        now = self.clock.now()
        if (
            self.ailment is Ailment.NONE
            and self.relapse_s is not None
            and self._coming_back is not Ailment.NONE
            and now - self.started >= self.relapse_s
        ):
            self.ailment, self.since = self._coming_back, now
            self._cured.clear()
        return self.ailment

    def serves(self, number: int) -> bool:
        """Whether an instance answers a request well."""
        return self._ails(number) in (Ailment.NONE, Ailment.UNSEEN, Ailment.SLOW)

    def _ails(self, number: int) -> Ailment:
        """What one instance suffers from."""
        present = self._present()
        if present is not Ailment.NONE and number not in self._cured:
            return present
        if self.victim is not None and self.victim():
            return Ailment.ERRORING
        return self.bad.get(self._versions.get(number, self.revision), Ailment.NONE)

    async def check(self) -> Observation:
        now = self.clock.now()
        self._turn = (self._turn + 1) % self.instance_count
        ailment = self._ails(self._turn)
        if ailment is Ailment.NONE:
            if now - self.started < self.warm_up_s:
                return Observation(Verdict.FAIL, now, 0.001, Cause.REFUSED, "connection refused")
            if self.noise_ratio and self.random.random() < self.noise_ratio:
                return Observation(Verdict.FAIL, now, 0.001, Cause.ERROR, "503")
            return self._under_load(now)
        match ailment:
            case Ailment.CRASHED | Ailment.REFUSING | Ailment.UNSTARTABLE:
                return Observation(Verdict.FAIL, now, 0.001, Cause.REFUSED, "connection refused")
            case Ailment.HUNG:
                return Observation(Verdict.FAIL, now, self.timeout_s, Cause.TIMEOUT, "no answer")
            case Ailment.ERRORING:
                return Observation(Verdict.FAIL, now, 0.01, Cause.ERROR, "500")
            case Ailment.SLOW:
                return Observation(Verdict.PASS, now, 1.5)
            case Ailment.UNSEEN:
                return Observation(Verdict.INCONCLUSIVE, now, 0.0, None, "no route")

    def _under_load(self, now: Instant) -> Observation:
        if not self.demand:
            return Observation(Verdict.PASS, now, self.latency_s)
        load = self.demand / self.instance_count
        if load <= 1:
            return Observation(Verdict.PASS, now, self.latency_s, load=load)
        detail = f"at {load:.0%} of what it can"
        return Observation(Verdict.FAIL, now, self.latency_s, Cause.SATURATED, detail, load)

    async def observe(self) -> Status:
        self.look_count += 1
        if self.unreadable:
            raise TransientError("the platform does not answer")
        if self.forgotten:
            return Status((), 0)
        found = [self._instance(number) for number in range(self.instance_count)]
        return Status(tuple(found), self.instance_count, self.revision or None)

    def _instance(self, number: int) -> Instance:
        state = InstanceState.RUNNING
        ailment = self._ails(number)
        if ailment in (Ailment.CRASHED, Ailment.UNSTARTABLE):
            state = InstanceState.EXITED
        in_turn = ailment is Ailment.CRASHED and self.clock.now() < self.since + self.turn_s
        if in_turn:
            state = InstanceState.RUNNING
        if self.stopped:
            state = InstanceState.STOPPED
        return Instance(
            InstanceId(str(number)),
            state,
            self._identity(number),
            "exit code 1",
            revision=self._versions.get(number, self.revision),
            restart_count=self.restart_count,
            blames_version=ailment is Ailment.UNSTARTABLE,
            is_restarting=in_turn,
        )

    def _identity(self, number: int) -> str:
        return f"run-{self._runs.get(number, 1)}"

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:
        if action.kind not in self.capabilities:
            raise PermanentError(f"cannot {action.kind}")
        if self.before_effect is not None:
            self.before_effect()
        if not self._to_do(action):
            return
        now = self.clock.now()
        self.effects.append(Effect(now, self.id, action.kind, epoch))
        if self.broken_platform:
            raise TransientError("the platform refused")
        if self.acks_only:
            return
        if action.kind in (ActionKind.SCALE_UP, ActionKind.SCALE_DOWN):
            self.instance_count = action.replicas or self.instance_count
            return
        if action.kind is ActionKind.ROLLBACK:
            self.revision = action.revision or self.revision
        for number in self._chosen(action):
            self._start(number)
            self._versions[number] = self.revision

    def _to_do(self, action: Action) -> bool:
        if action.kind in (ActionKind.SCALE_UP, ActionKind.SCALE_DOWN):
            if action.before != str(self.instance_count) != str(action.replicas):
                raise ConflictError(f"there are {self.instance_count} by now")
            return action.replicas != self.instance_count
        if action.kind is ActionKind.ROLLBACK and self.revision not in (
            action.before,
            action.revision,
        ):
            raise ConflictError(f"{self.revision} is there by now")
        chosen = self._chosen(action)
        return not action.identity or self._identity(chosen[0]) == action.identity

    def _chosen(self, action: Action) -> list[int]:
        if action.instance is None:
            return list(range(self.instance_count))
        return [int(action.instance)]

    def _start(self, number: int) -> None:
        self._runs[number] = self._runs.get(number, 1) + 1
        self.started = self.clock.now()
        if not self.curable:
            return
        self._cured.add(number)
        if self._cured >= set(range(self.instance_count)):
            self.ailment = Ailment.NONE

    async def close(self) -> None:
        """Nothing to let go of."""
