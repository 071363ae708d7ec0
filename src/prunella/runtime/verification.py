"""Looking whether an action has helped: by the service's own answers, or by its gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from prunella.core.breaker import share_of
from prunella.core.ledger import Intent
from prunella.core.model import (
    Action,
    ActionId,
    ActionKind,
    Instance,
    InstanceId,
    Instant,
    Outcome,
)
from prunella.core.policy import Policy
from prunella.core.progress import left
from prunella.core.traffic import Traffic
from prunella.core.verify import Judgement, is_proven, judge, judge_step
from prunella.runtime.record import World
from prunella.runtime.sight import Sight
from prunella.runtime.target import Target

_TURN_S = 5.0  # in which a gateway has to show what it was set to
_TURN_LOOK_S = 0.1
_LOOK_S = 0.5  # between looks at a canary that nothing measures


@dataclass(frozen=True, slots=True)
class Running:
    """The action that is being carried out or verified.

    Attributes:
        had_recovered: good answers were seen since it was carried out.
        traffic: what the gateway had counted when it was carried out.
    """

    id: ActionId
    intent: Intent
    started: Instant
    executed: Instant | None = None
    had_recovered: bool = False
    traffic: Traffic | None = None


class Verdict(NamedTuple):
    """How the action has ended. ``recovered_at``: the first pass of the streak that soaked."""

    outcome: Outcome
    detail: str
    recovered_at: Instant | None = None


class Finding(NamedTuple):
    """How verification stands.

    Attributes:
        verdict: None while it is open.
        wake_at: when to judge again if nothing happens before.
        has_recovered: good answers have been seen.
        proven: the instance that was replaced last is well, and this is what is left to do.
    """

    verdict: Verdict | None = None
    wake_at: Instant | None = None
    has_recovered: bool = False
    proven: str = ""


class Verification:
    """Judges the running action of one service."""

    __slots__ = ("_policy", "_sight", "_target", "_world")

    def __init__(self, policy: Policy, sight: Sight, target: Target, world: World) -> None:
        self._policy = policy
        self._sight = sight
        self._target = target
        self._world = world

    async def judge(self, running: Running) -> Finding:
        """Look as far as that is due, and judge."""
        match running.intent.action.kind:
            case ActionKind.CIRCUIT_BREAK:
                return await self._opened(running)
            case ActionKind.CIRCUIT_CLOSE:
                return await self._let_in(running)
            case _:
                return await self._healed(running)

    async def _healed(self, running: Running) -> Finding:
        action, sight, beliefs = running.intent.action, self._sight, self._sight.beliefs
        rollback = action if action.kind is ActionKind.ROLLBACK else None
        fresh = await sight.look_if_due(rollback)
        judgement = self._judgement(running)
        if judgement.outcome is not None and not fresh:
            await sight.look(rollback)
            judgement = self._judgement(running)
        if judgement.outcome is not None:
            recovered = judgement.outcome is Outcome.RECOVERED
            since = judgement.recovered_at if recovered else None
            return Finding(Verdict(judgement.outcome, judgement.detail, since))
        to_do = left(action, beliefs.status) if action.runs and beliefs.status is not None else ()
        if not to_do:
            return Finding(None, judgement.wake_at, judgement.recovered_at is not None)
        canary = self._canary(action, frozenset(run.instance for run in to_do))
        now = self._world.clock.now()
        vitals, since = beliefs.judged_vitals(), running.executed or now
        if is_proven(beliefs.diagnosis, vitals, canary, since, now, self._policy):
            return Finding(proven=f"{len(to_do)} of {len(action.runs)} to go")
        return Finding(None, self._at_most(judgement.wake_at, _LOOK_S))

    async def _opened(self, running: Running) -> Finding:
        """A circuit is open when its gateway says so; what is behind it may stay as it is."""
        action = running.intent.action
        await self._sight.look_at_gateway()
        flow, executed = self._target.flow, running.executed or running.started
        if flow is not None and share_of(flow.valve, action.instance) == action.share:
            said = f"its gateway lets through {action.share} %"
            return Finding(Verdict(Outcome.CONTAINED, said))
        if self._world.clock.now() - executed < _TURN_S:
            return Finding(None, self._at_most(None, _TURN_LOOK_S))
        said = "its gateway cannot be asked" if flow is None else "its gateway says otherwise"
        return Finding(Verdict(Outcome.INEFFECTIVE, said))

    async def _let_in(self, running: Running) -> Finding:
        """What is let in again must be served well: real requests decide, where there are some."""
        await self._sight.look_if_due(None)
        await self._sight.look_at_gateway()
        flow = self._target.flow
        found = judge_step(
            running.traffic,
            None if flow is None else flow.traffic,
            self._sight.beliefs.diagnosis,
            running.executed or running.started,
            self._world.clock.now(),
            self._policy,
        )
        if found.outcome is None:
            return Finding(None, self._at_most(found.wake_at, self._policy.suspect_interval_s))
        return Finding(Verdict(found.outcome, found.detail))

    def _judgement(self, running: Running) -> Judgement:
        now, action = self._world.clock.now(), running.intent.action
        # What was well before something was taken away has recovered already.
        well_before = action.kind is ActionKind.SCALE_DOWN
        rolls_back = action.kind is ActionKind.ROLLBACK
        return judge(
            self._sight.beliefs.diagnosis,
            self._sight.beliefs.judged_vitals().values(),
            running.executed if running.executed is not None else now,
            running.had_recovered or well_before,
            now,
            self._policy,
            self._policy.rollback_soak_s if rolls_back else self._policy.soak_s,
        )

    def _canary(self, action: Action, to_do: frozenset[InstanceId]) -> Instance | None:
        """The instance that was replaced last."""
        done = [run.instance for run in action.runs if run.instance not in to_do]
        status = self._sight.beliefs.status
        if status is None or not done:
            return None
        return next((i for i in status.instances if i.id == done[-1]), None)

    def _at_most(self, wake_at: Instant | None, seconds: float) -> Instant:
        latest = Instant(self._world.clock.now() + seconds)
        return latest if wake_at is None else min(wake_at, latest)
