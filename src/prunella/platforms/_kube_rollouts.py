"""All pods of a workload replaced by its controller: a restart, or an earlier version."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from prunella.core.model import Action, InstanceState
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.kube.client import JSON_PATCH, InvalidError
from prunella.kube.kinds import ROLLOUT, STATEFUL_SET
from prunella.kube.workloads import HASH_LABELS, RESTARTED_AT, Edition, Workload, edition_kind
from prunella.platforms._kube_argo import as_written
from prunella.platforms._kube_evictions import Evictions
from prunella.platforms._kube_subject import TRIES, Subject
from prunella.platforms._kube_view import View

_CAUSE = "kubernetes.io/change-cause"


class Rollouts:
    """Changes what the pods of one workload are made from, and waits until they are."""

    def __init__(self, subject: Subject) -> None:
        self._of = subject

    async def restart(self, identity: str) -> None:
        """Have its controller replace all pods, its own way."""
        workload = self._of.look().workload
        before = workload.run
        if identity and workload.identity != identity:
            return
        now = self._of.clock.wall()
        marks = {RESTARTED_AT: _second(now)}
        spec: Mapping[str, Any] = {"template": {"metadata": {"annotations": marks}}}
        if self._of.key.kind == ROLLOUT.name:  # it spares the pods of that very second
            spec = {"restartAt": _second(now + timedelta(seconds=1))}
        for _ in range(TRIES):
            version = {"resourceVersion": workload.metadata.resource_version}
            try:
                answer = await self._of.cluster.patch(
                    self._of.kind,
                    self._of.key.name,
                    self._of.key.namespace,
                    {"metadata": version, "spec": spec},
                )
            except ConflictError:
                workload = await self._of.read()
                if workload.run != before:
                    return
            else:
                generation = int(answer["metadata"].get("generation", 0))
                await self._rolled_out(generation, restart=True)
                return
        raise TransientError(f"{self._of.key} changes faster than it can be restarted")

    async def roll_back(self, action: Action) -> None:
        """Put the template of an earlier version in the place of the present one.

        Raises:
            ConflictError: somebody has deployed another one meanwhile.
            PermanentError: the cluster has not kept that version.
            TransientError: its controller has not got to the end.
        """
        wanted, workload = action.revision, self._of.look().workload
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
                answer = await self._of.cluster.patch(
                    self._of.kind,
                    self._of.key.name,
                    self._of.key.namespace,
                    [
                        {"op": "test", "path": "/metadata/generation", "value": generation},
                        {"op": "replace", "path": "/spec/template", "value": template},
                        *_noting(workload, cause),
                    ],
                    content=JSON_PATCH,
                )
            except (InvalidError, ConflictError) as error:
                seen, workload = workload, await self._of.read()
                if workload.metadata.resource_version == seen.metadata.resource_version:
                    raise PermanentError(
                        f"{self._of.key} cannot be rolled back: {error}"
                    ) from error
                generation = workload.metadata.generation
            else:
                generation = int(answer["metadata"].get("generation", 0))
                break
        else:
            raise TransientError(f"{self._of.key} changes faster than it can be rolled back")
        if self._of.key.kind == STATEFUL_SET.name:
            await self._make_room(wanted, generation)
        await self._rolled_out(generation)

    async def _template(self, workload: Workload, wanted: str) -> dict[str, Any]:
        view, kept = self._of.look(), [*self._of.roster.editions(workload)]
        found = [one for one in kept if one.version == wanted]
        if not found:
            raise PermanentError(
                f"the cluster has not kept {wanted}: revisionHistoryLimit of {self._of.key} says "
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
        kind = edition_kind(self._of.key.kind)
        whole = await self._of.cluster.get(kind, chosen.metadata.name, self._of.key.namespace)
        body = whole.get("data") or whole
        template: dict[str, Any] = body["spec"]["template"]
        template.pop("$patch", None)
        labels: dict[str, str] = template.get("metadata", {}).get("labels", {})
        for label in HASH_LABELS & labels.keys():
            del labels[label]
        is_rollout = self._of.key.kind == ROLLOUT.name
        return as_written(template, whole["metadata"]) if is_rollout else template

    async def _make_room(self, wanted: str, generation: int) -> None:
        """A StatefulSet waits for a pod that never becomes ready, also with another template."""
        await self._of.until(lambda view: _is_noticed(view, generation), self._of.patience_s)
        for pod in [*self._of.look().active]:
            view = self._of.look()
            if view.revision_of(pod) != wanted and not pod.is_ready:
                await Evictions(self._of).evict(pod)

    async def _rolled_out(self, generation: int, *, restart: bool = False) -> None:
        """Wait until all pods are of the version that is to run, and as many as there should be.

        Args:
            restart: a Rollout that is on its way to another version stays where it is.
        """
        is_rollout = self._of.key.kind == ROLLOUT.name
        of_any = is_rollout and restart

        def done(view: View) -> bool:
            workload, active = view.workload, view.active
            made = [view.editions.get(one.metadata.uid) for one in active]
            since = workload.spec.restart_at if is_rollout else ""
            runs = [one for one in view.instances if one.state is InstanceState.RUNNING]
            return (
                _is_noticed(view, generation)
                and (of_any or all(_is_present(one, workload) for one in made))
                and all(one.metadata.creation_timestamp >= since for one in active)
                and len(runs) == len(active) >= view.desired
            )

        await self._of.until(done, float(self._of.look().workload.deadline_s))


def _is_present(edition: Edition | None, workload: Workload) -> bool:
    if edition is None:
        return False
    made, wanted = edition.template, workload.spec.template
    return (edition.version, made.restarted_at) == (wanted.revision, wanted.restarted_at)


def _is_noticed(view: View, generation: int) -> bool:
    return view.workload.metadata.generation >= generation and view.workload.is_noticed


def _second(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


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
