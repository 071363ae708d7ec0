"""Services that exist only in a simulation, and fail in the ways that real ones do."""

from __future__ import annotations

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
    ServiceId,
    Status,
    Verdict,
)
from prunella.errors import PermanentError, TransientError
from prunella.ports import Clock


class Ailment(StrEnum):
    """What a simulated service suffers from."""

    NONE = "none"
    CRASHED = "crashed"
    REFUSING = "refusing"
    HUNG = "hung"
    ERRORING = "erroring"
    SLOW = "slow"
    UNSEEN = "unseen"  # the prober cannot measure it; it may be well


class Effect(NamedTuple):
    """Something that was really done to a service: what the checker believes, not our records."""

    at: Instant
    service: ServiceId
    kind: ActionKind
    epoch: Epoch
    was_well: bool


@dataclass(slots=True)
class SimService:
    """A service, its instances all alike: probe, platform and patient in one.

    Attributes:
        curable: a restart ends the ailment.
        relapse_s: how long after a restart the ailment comes back; None: it does not.
        warm_up_s: how long after a restart it refuses connections.
        noise_ratio: share of checks that fail although nothing is wrong.
        acks_only: the platform says that it has acted, and has not.
        broken_platform: the platform refuses to act.
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
    stopped: bool = False
    instance_count: int = 1
    run: int = 1
    started: Instant = field(default=Instant(float("-inf")))
    _coming_back: Ailment = Ailment.NONE

    @property
    def capabilities(self) -> frozenset[ActionKind]:
        return frozenset({ActionKind.RESTART})

    def suffer(self, ailment: Ailment) -> None:
        self.ailment, self.since = ailment, self.clock.now()
        self._coming_back = ailment

    def recover(self) -> None:
        self.ailment = self._coming_back = Ailment.NONE

    def _present(self) -> Ailment:
        now = self.clock.now()
        if (
            self.ailment is Ailment.NONE
            and self.relapse_s is not None
            and self._coming_back is not Ailment.NONE
            and now - self.started >= self.relapse_s
        ):
            self.ailment, self.since = self._coming_back, now
        return self.ailment

    async def check(self) -> Observation:
        now, ailment = self.clock.now(), self._present()
        if ailment is Ailment.NONE:
            if now - self.started < self.warm_up_s:
                return Observation(Verdict.FAIL, now, 0.001, Cause.REFUSED, "connection refused")
            if self.noise_ratio and self.random.random() < self.noise_ratio:
                return Observation(Verdict.FAIL, now, 0.001, Cause.ERROR, "503")
            return Observation(Verdict.PASS, now, self.latency_s)
        match ailment:
            case Ailment.CRASHED | Ailment.REFUSING:
                return Observation(Verdict.FAIL, now, 0.001, Cause.REFUSED, "connection refused")
            case Ailment.HUNG:
                return Observation(Verdict.FAIL, now, self.timeout_s, Cause.TIMEOUT, "no answer")
            case Ailment.ERRORING:
                return Observation(Verdict.FAIL, now, 0.01, Cause.ERROR, "500")
            case Ailment.SLOW:
                return Observation(Verdict.PASS, now, 1.5)
            case Ailment.UNSEEN:
                return Observation(Verdict.INCONCLUSIVE, now, 0.0, None, "no route")

    async def observe(self) -> Status:
        if self.unreadable:
            raise TransientError("the platform does not answer")
        state = InstanceState.RUNNING
        if self._present() is Ailment.CRASHED:
            state = InstanceState.EXITED
        if self.stopped:
            state = InstanceState.STOPPED
        found = [
            Instance(InstanceId(str(number)), state, f"run-{self.run}", "exit code 1")
            for number in range(self.instance_count)
        ]
        return Status(tuple(found), self.instance_count)

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:
        if action.kind is not ActionKind.RESTART:
            raise PermanentError(f"cannot {action.kind}")
        if action.identity and action.identity != f"run-{self.run}":
            return
        now = self.clock.now()
        well = self._present() is Ailment.NONE and now - self.started >= self.warm_up_s
        self.effects.append(Effect(now, self.id, action.kind, epoch, well))
        if self.broken_platform:
            raise TransientError("the platform refused")
        if self.acks_only:
            return
        self.run += 1
        self.started = now
        if self.curable:
            self.ailment = Ailment.NONE

    async def close(self) -> None:
        """Nothing to let go of."""
