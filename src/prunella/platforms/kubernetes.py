"""Platform ``kubernetes``: a Deployment, StatefulSet, DaemonSet or Argo Rollout.

The cluster's own controllers and kubelets have the first turn; what they put off, or cannot do by
themselves, is done here: a pod that waits in its back-off is replaced, a version that cannot
start is rolled back, and what is overloaded gets more pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from prunella.core.model import Action, ActionKind, Epoch, InstanceId, Instant, Scope, Status
from prunella.errors import PermanentError, PrunellaError
from prunella.kube.workloads import Key
from prunella.platforms._facts import Teller
from prunella.platforms._kube_evictions import Evictions
from prunella.platforms._kube_examine import examine
from prunella.platforms._kube_owners import SCALING, objections
from prunella.platforms._kube_pause import SyncPause
from prunella.platforms._kube_rollouts import Rollouts
from prunella.platforms._kube_roster import Roster, leave_roster, roster_at
from prunella.platforms._kube_scaling import Scaling
from prunella.platforms._kube_spec import KubernetesSpec
from prunella.platforms._kube_subject import Subject
from prunella.platforms._kube_survey import reach, survey
from prunella.platforms._kube_testimony import testimony
from prunella.platforms._kube_view import View, Views
from prunella.plugins import PlatformContext, PlatformPlugin
from prunella.ports import Remark

_CAN = (ActionKind.RESTART, *SCALING, ActionKind.ROLLBACK)

_TICK_S = 0.005
_TESTIFYING = 3  # pods, where none is named


class KubernetesPlatform:
    """One workload of a cluster."""

    kind: ClassVar[str] = "kubernetes"

    def __init__(self, spec: KubernetesSpec, context: PlatformContext) -> None:
        self._spec = spec
        self._key = Key(spec.kind, spec.namespace, spec.name)
        self._context = context
        self._roster: Roster | None = None
        self._views = Views(self._key, spec.port)
        self._teller = Teller(context)
        self._view: View | None = None  # as it was last seen
        self._is_acting = False
        self._pause: SyncPause | None = None
        self._attending: asyncio.Task[None] | None = None
        self._later: asyncio.Task[None] | None = None  # looks again when time has changed it

    @property
    def capabilities(self) -> Mapping[ActionKind, Scope]:
        able: dict[ActionKind, Scope] = dict.fromkeys(_CAN, Scope.SERVICE)
        if self._spec.restart == "pod":
            able[ActionKind.RESTART] = Scope.INSTANCE
        if self._view is None:
            return able
        lacking = objections(
            self._key.kind,
            self._view.workload,
            self._view.scaler,
            rolling=self._is_rolling,
            pause=self._objection,
        )
        return {kind: scope for kind, scope in able.items() if kind not in lacking}

    async def observe(self) -> Status:
        """What the watches have told; nothing is asked, but of a sync that may be paused.

        Raises:
            TransientError: the cluster cannot be reached.
            PermanentError: there is no such workload, or we may not look.
        """
        view = self._look(await self._ready())
        await self._attend(view)
        now = view.status
        self._teller.take_in(now)
        return now

    async def execute(self, action: Action, /, *, epoch: Epoch) -> None:  # noqa: ARG002 - no fence
        """Carry out one action, and wait until what it asks for is there.

        Raises:
            ConflictError: somebody has scaled or deployed meanwhile.
            PermanentError: another kind of action, no such instance, no such version.
            TransientError: the cluster cannot be reached, a PodDisruptionBudget forbids it, or
                its controller did not get to the end.
        """
        roster = await self._ready()
        self._look(roster)
        if action.kind not in self.capabilities:
            raise PermanentError(f"platform kubernetes cannot {action.kind}")
        clock = self._context.clock
        subject = Subject(roster, self._key, self._views, clock, self._spec.timeout)
        self._is_acting = True
        try:
            match action.kind:
                case ActionKind.RESTART:
                    await self._restart(subject, action)
                case ActionKind.ROLLBACK:
                    await self._roll_back(subject, action)
                case _:
                    await Scaling(subject).scale(action)
        finally:
            self._is_acting = False
        self._teller.catch_up(self._look(roster).status)

    async def testimony(self, instance: InstanceId | None, /) -> str:
        """What the cluster knows of its pods, with the last lines of output where we may read."""
        if self._roster is None or self._view is None:
            return ""
        pods = self._view.pods
        chosen = [pod for name, pod in pods.items() if instance in (None, name)][:_TESTIFYING]
        return await testimony(self._roster, self._key.namespace, chosen)

    async def examine(self) -> Sequence[Remark]:
        try:
            roster = await self._ready()
            view = self._look(roster)
            pause = self._pause
            if pause is not None:
                await pause.examine(view.workload)
            return await examine(
                roster, self._key, view, rolling=self._is_rolling, pause=self._objection
            )
        except PrunellaError as error:
            return (Remark(str(error), fault=True),)

    async def close(self) -> None:
        roster, self._roster = self._roster, None
        for task in (self._later, self._attending):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if roster is not None:
            roster.ignore(self._key, self._on_news)
            await leave_roster(roster)

    @property
    def _is_rolling(self) -> bool:
        return self._spec.restart == "rollout"

    @property
    def _objection(self) -> str | None:
        return None if self._pause is None else self._pause.objection

    async def _attend(self, view: View) -> None:
        """Look after a sync that may be paused: at once at first, then once a minute beside us."""
        pause, is_first = self._pause, self._attending is None
        if pause is None or self._is_acting or not pause.is_due:
            return
        if self._attending is not None and not self._attending.done():
            return
        if self._attending is not None:
            self._attending.result()  # a defect
        self._attending = asyncio.create_task(pause.attend(view.workload))
        if is_first:
            await asyncio.wait([self._attending])

    async def _roll_back(self, subject: Subject, action: Action) -> None:
        view, pause = self._view, self._pause
        assert view is not None, "it has been looked at"
        if pause is None:
            await Rollouts(subject).roll_back(action)
            return
        if self._attending is not None:
            await asyncio.wait([self._attending])  # it might resume what is paused now
        action = replace(action, before=action.before or view.workload.revision)
        try:
            if view.workload.revision != action.revision:
                await pause.begin(view.workload, action)
            await Rollouts(subject).roll_back(action)
        except PrunellaError:
            await pause.give_up(view.workload, action)
            raise

    async def _restart(self, subject: Subject, action: Action) -> None:
        view = self._view
        assert view is not None, "it has been looked at"
        if action.instance is not None and action.instance not in view.pods:
            raise PermanentError(f"{self._context.service} has no instance {action.instance}")
        if self._is_rolling:
            known = [one.identity for one in view.pods.values()]
            if action.identity in known:  # asked by one of its runs
                action = _of_all(action, view)
            await Rollouts(subject).restart(action.identity)
        elif action.instance is not None:
            await Evictions(subject).replace(action.instance, action.identity)
        else:
            present = {name: pod.identity for name, pod in view.pods.items()}
            if action.identity and action.identity not in present.values():
                return
            for name, identity in present.items():
                await Evictions(subject).replace(name, identity)

    async def _ready(self) -> Roster:
        if self._roster is None:
            spec = self._spec
            where = spec.namespace if spec.watch == "namespace" else ""
            self._roster = roster_at(spec.kubeconfig, spec.context, where, self._context.clock)
            self._roster.listen(self._key, self._on_news)
            if spec.pause_sync:
                context = self._context
                self._pause = SyncPause(
                    self._roster, self._key, context.service, context.clock, spec.sync_namespace
                )
        await self._roster.ready(self._key.kind)
        return self._roster

    def _look(self, roster: Roster) -> View:
        before, now = self._view, self._context.clock.wall()
        self._view = self._views.look(roster, now)
        if self._view is not before and self._view.until is not None:
            self._look_again((self._view.until - now).total_seconds())
        return self._view

    def _look_again(self, after_s: float) -> None:
        """What nothing is told of: that something has not happened for so long."""
        if self._later is not None:
            self._later.cancel()
        clock = self._context.clock

        async def look() -> None:
            await clock.sleep_until(Instant(clock.now() + after_s + _TICK_S))
            self._later = None
            self._on_news()

        self._later = asyncio.get_running_loop().create_task(look())

    def _on_news(self) -> None:
        """Something is new about it: say what, unless it is our own doing."""
        if self._teller.told is None or self._is_acting or self._roster is None:
            return
        try:
            now = self._look(self._roster).status
        except PermanentError:
            now = Status((), desired=0)
        self._teller.take_in(now)


def _of_all(action: Action, view: View) -> Action:
    return Action(action.kind, action.service, identity=view.workload.identity)


PLUGIN = PlatformPlugin(
    "kubernetes", KubernetesSpec, KubernetesPlatform, can=_CAN, reach=reach, survey=survey
)
