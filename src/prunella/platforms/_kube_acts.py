"""What is done to a workload: each effect is one call, with what it starts from in the same call.

After a refusal it is read anew. What has been reached already is done; what somebody else has
changed meanwhile stays as they want it; and where only the rest of the object has moved, it is
tried again, a few times.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from prunella.core.model import Action, ActionKind, InstanceId, InstanceState, Instant
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.kube.client import JSON_PATCH, BudgetError, InvalidError, MissingError
from prunella.kube.kinds import DAEMON_SET, POD, ROLLOUT, STATEFUL_SET
from prunella.kube.pods import Pod
from prunella.kube.workloads import (
    HASH_LABELS,
    KINDS,
    RESTARTED_AT,
    Edition,
    Key,
    Workload,
    edition_kind,
)
from prunella.platforms._kube_roster import Roster
from prunella.platforms._kube_scaler import lowered, raised
from prunella.platforms._kube_view import View, Views
from prunella.ports import Clock

TRIES = 3
_LOOK_S = 0.03  # between looks at what the watches have told
_CAUSE = "kubernetes.io/change-cause"


class Acts:
    """Acts on one workload, as it is known without I/O.

    Args:
        patience_s: how long a pod may take to start.
    """

    def __init__(
        self, roster: Roster, key: Key, views: Views, clock: Clock, patience_s: float
    ) -> None:
        self._roster = roster
        self._cluster = roster.cluster
        self._key = key
        self._kind = KINDS[key.kind]
        self._views = views
        self._clock = clock
        self._patience_s = patience_s

    def _look(self) -> View:
        return self._views.look(self._roster, self._clock.wall())

    # One pod -----------------------------------------------------------------------------------

    async def replace(self, name: InstanceId, identity: str) -> None:
        """Evict the pod that is in that run, and wait for the one that takes its place.

        Raises:
            TransientError: a PodDisruptionBudget forbids it, or no other pod has come up.
            PermanentError: another pod cannot take its place.
        """
        view = self._look()
        pod = view.pods.get(name)
        if identity:  # names may have changed since, where they are ours
            pod = next((one for one in view.pods.values() if one.identity == identity), None)
        if pod is None:
            return
        sick = self._roster.sick_node(pod.spec.node_name)
        if sick and self._key.kind in (STATEFUL_SET.name, DAEMON_SET.name):
            raise PermanentError(
                f"pod {pod.metadata.name}: {sick}; that its pod has really ended is for a person "
                "to say (kubectl delete --force)"
            )
        if await self._evict(pod):
            await self._replaced(pod)

    async def _evict(self, pod: Pod) -> bool:
        """The pod as it was read; False: it has begun to run anew since, and stays."""
        identity, namespace = pod.identity, self._key.namespace
        for _ in range(TRIES):
            seen = {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version}
            body = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": pod.metadata.name, "namespace": namespace},
                "deleteOptions": {"preconditions": seen},
            }
            try:
                path = POD.path(namespace, pod.metadata.name, "eviction")
                await self._cluster.ask("POST", path, body=body)
            except MissingError:
                return True
            except BudgetError as error:
                raise TransientError(f"pod {pod.metadata.name} stays: {error}") from error
            except (ConflictError, TransientError) as error:
                try:
                    pod = await self._cluster.read(POD, pod.metadata.name, namespace, Pod)
                except MissingError:
                    return True
                if pod.is_ending or pod.identity != identity:
                    return pod.is_ending
                if not isinstance(error, ConflictError):
                    raise
            else:
                return True
        raise TransientError(f"pod {pod.metadata.name} changes faster than it can be evicted")

    async def _replaced(self, gone: Pod) -> None:
        uid, restarts = gone.metadata.uid, gone.identity
        view = self._look()
        limit_s = self._patience_s
        if self._key.kind in (STATEFUL_SET.name, DAEMON_SET.name):  # the same name, or node
            limit_s += view.workload.spec.template.grace_s
        give_up = self._clock.now() + limit_s

        def is_there(view: View) -> bool:
            return all(one.metadata.uid != uid for one in view.active) and (
                len(view.active) >= view.desired
            )

        while True:
            view = self._look()
            if any(one.metadata.uid == uid and one.identity != restarts for one in view.active):
                return  # it was not evicted: it runs anew
            late = self._clock.now() >= give_up
            there = is_there(view)
            if there and (late or len(view.instances) >= len(view.active)):
                return
            if late:
                name = gone.metadata.name
                raise TransientError(f"nothing has taken the place of pod {name} in {limit_s:g} s")
            await self._pause()

    # All of it ---------------------------------------------------------------------------------

    async def restart(self, identity: str) -> None:
        """Have its controller replace all pods, its own way."""
        workload = self._look().workload
        before = workload.run
        if identity and workload.identity != identity:
            return
        now = self._clock.wall().isoformat(timespec="seconds").replace("+00:00", "Z")
        spec: Mapping[str, Any] = {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}
        if self._key.kind == ROLLOUT.name:
            spec = {"restartAt": now}
        for _ in range(TRIES):
            version = {"resourceVersion": workload.metadata.resource_version}
            try:
                answer = await self._cluster.patch(
                    self._kind,
                    self._key.name,
                    self._key.namespace,
                    {"metadata": version, "spec": spec},
                )
            except ConflictError:
                workload = await self._read()
                if workload.run != before:
                    return
            else:
                await self._rolled_out(int(answer["metadata"].get("generation", 0)))
                return
        raise TransientError(f"{self._key} changes faster than it can be restarted")

    async def roll_back(self, action: Action) -> None:
        """Put the template of an earlier version in the place of the present one.

        Raises:
            ConflictError: somebody has deployed another one meanwhile.
            PermanentError: the cluster has not kept that version.
            TransientError: its controller has not got to the end.
        """
        wanted, workload = action.revision, self._look().workload
        assert wanted is not None, "a rollback without a target is vetoed"
        template: dict[str, Any] | None = None
        generation = workload.metadata.generation
        before = action.before or workload.revision
        for _ in range(TRIES):
            if workload.revision == wanted:
                break
            if workload.revision != before:
                raise ConflictError(f"somebody has deployed {workload.revision} meanwhile")
            if template is None:
                template = await self._template(workload, wanted)
            cause = f"prunella: rolled back from {before} to {wanted}"
            try:
                answer = await self._cluster.patch(
                    self._kind,
                    self._key.name,
                    self._key.namespace,
                    [
                        {"op": "test", "path": "/metadata/generation", "value": generation},
                        {"op": "replace", "path": "/spec/template", "value": template},
                        *_noting(workload, cause),
                    ],
                    content=JSON_PATCH,
                )
            except (InvalidError, ConflictError) as error:
                seen, workload = workload, await self._read()
                if workload.metadata.resource_version == seen.metadata.resource_version:
                    raise PermanentError(f"{self._key} cannot be rolled back: {error}") from error
                generation = workload.metadata.generation
            else:
                generation = int(answer["metadata"].get("generation", 0))
                break
        else:
            raise TransientError(f"{self._key} changes faster than it can be rolled back")
        if self._key.kind == STATEFUL_SET.name:
            await self._make_room(wanted, generation)
        await self._rolled_out(generation)

    async def _template(self, workload: Workload, wanted: str) -> dict[str, Any]:
        view, kept = self._look(), [*self._roster.editions(workload)]
        found = [one for one in kept if one.template.revision == wanted]
        if not found:
            raise PermanentError(
                f"the cluster has not kept {wanted}: revisionHistoryLimit of {self._key} says "
                "how many versions it keeps"
            )
        # Of those that differ in a restart only, the one whose pods would have to leave least.
        made_from = [one.metadata.uid for one in view.editions.values()]
        chosen = max(
            found,
            key=lambda one: (
                made_from.count(one.metadata.uid),
                one.revision,
                one.metadata.creation_timestamp,
            ),
        )
        kind = edition_kind(self._key.kind)
        whole = await self._cluster.get(kind, chosen.metadata.name, self._key.namespace)
        body = whole.get("data") or whole
        template: dict[str, Any] = body["spec"]["template"]
        template.pop("$patch", None)
        labels: dict[str, str] = template.get("metadata", {}).get("labels", {})
        for label in HASH_LABELS & labels.keys():
            del labels[label]
        return template

    async def _make_room(self, wanted: str, generation: int) -> None:
        """A StatefulSet waits for a pod that never becomes ready, also with another template."""
        await self._until(lambda view: _is_noticed(view, generation), self._patience_s)
        for pod in [*self._look().active]:
            view = self._look()
            if view.revision_of(pod) != wanted and not pod.is_ready:
                await self._evict(pod)

    async def _rolled_out(self, generation: int) -> None:
        """Wait until all pods are of the version that is to run, and as many as there should be."""
        kind = self._key.kind

        def done(view: View) -> bool:
            workload, active = view.workload, view.active
            made = [view.editions.get(one.metadata.uid) for one in active]
            since = workload.spec.restart_at if kind == ROLLOUT.name else ""
            runs = [one for one in view.instances if one.state is InstanceState.RUNNING]
            return (
                _is_noticed(view, generation)
                and all(_is_present(one, workload) for one in made)
                and all(one.metadata.creation_timestamp >= since for one in active)
                and len(runs) == len(active) >= view.desired
            )

        await self._until(done, float(self._look().workload.deadline_s))

    async def _until(self, done: Callable[[View], bool], limit_s: float) -> None:
        give_up = self._clock.now() + limit_s
        was_overdue = True  # that an earlier version was overdue may still be written there
        while not done(view := self._look()):
            overdue = view.workload.is_noticed and view.workload.is_overdue
            was_overdue = was_overdue and overdue
            if (overdue and not was_overdue) or self._clock.now() >= give_up:
                raise TransientError(f"{self._key} has not got to the end of it in time")
            await self._pause()

    async def _pause(self) -> None:
        """Let the watches tell more; a server that is away meanwhile may well come back."""
        await self._clock.sleep_until(Instant(self._clock.now() + _LOOK_S))
        with contextlib.suppress(TransientError):
            await self._roster.ready(self._key.kind)

    async def _read(self) -> Workload:
        return await self._cluster.read(self._kind, self._key.name, self._key.namespace, Workload)

    # How many ----------------------------------------------------------------------------------

    async def scale(self, action: Action) -> None:
        """Set the number of pods, or the least one where something else sets it.

        Raises:
            ConflictError: somebody has set another number meanwhile.
            PermanentError: its autoscaler does not allow so many.
        """
        wanted, view = action.replicas, self._look()
        assert wanted is not None, "scaling without a number is vetoed"
        if view.desired == wanted:
            return
        if view.scaler is not None:
            present = view.desired
            if action.before and action.before != str(present):
                raise ConflictError(f"there are to be {present} by now, not {action.before}")
            if action.kind is ActionKind.SCALE_UP:
                await raised(self._cluster, view.scaler, present, wanted)
                self._views.released = None
                await self._until(lambda now: now.desired >= wanted, self._patience_s)
            else:
                self._views.released = await lowered(self._cluster, view.scaler, present, wanted)
                self._views.forget()
            return
        await self._set(int(action.before or view.desired), wanted)
        if action.kind is ActionKind.SCALE_DOWN:
            await self._until(lambda now: len(now.active) <= wanted, self._patience_s)

    async def _set(self, before: int, wanted: int) -> None:
        for _ in range(TRIES):
            try:
                await self._cluster.patch(
                    self._kind,
                    self._key.name,
                    self._key.namespace,
                    [
                        {"op": "test", "path": "/spec/replicas", "value": before},
                        {"op": "replace", "path": "/spec/replicas", "value": wanted},
                    ],
                    content=JSON_PATCH,
                    sub="scale",
                )
            except (InvalidError, ConflictError) as error:
                scale = await self._cluster.get(
                    self._kind, self._key.name, self._key.namespace, sub="scale"
                )
                present = int(scale["spec"].get("replicas", 0))
                if present == wanted:
                    return
                if present != before:
                    said = f"there are to be {present} by now, not {before}"
                    raise ConflictError(said) from error
            else:
                return
        raise TransientError(f"{self._key} changes faster than it can be scaled")


def _is_present(edition: Edition | None, workload: Workload) -> bool:
    if edition is None:
        return False
    made, wanted = edition.template, workload.spec.template
    return (made.revision, made.restarted_at) == (wanted.revision, wanted.restarted_at)


def _is_noticed(view: View, generation: int) -> bool:
    return view.workload.metadata.generation >= generation and view.workload.is_noticed


def _noting(workload: Workload, cause: str) -> list[Mapping[str, Any]]:
    """What has changed it, where `kubectl rollout history` shows it."""
    if workload.metadata.annotations:
        path = f"/metadata/annotations/{_CAUSE.replace('/', '~1')}"
        return [{"op": "add", "path": path, "value": cause}]
    version = workload.metadata.resource_version
    return [  # nobody else may have made some meanwhile
        {"op": "test", "path": "/metadata/resourceVersion", "value": version},
        {"op": "add", "path": "/metadata/annotations", "value": {_CAUSE: cause}},
    ]
