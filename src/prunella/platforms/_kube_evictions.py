"""One pod replaced: evicted in the run that was seen, so that budgets hold, and waited for."""

from __future__ import annotations

from prunella.core.model import InstanceId
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.kube.client import BudgetError, MissingError
from prunella.kube.kinds import DAEMON_SET, POD, STATEFUL_SET
from prunella.kube.pods import Pod
from prunella.platforms._kube_subject import TRIES, Subject
from prunella.platforms._kube_view import View


class Evictions:
    """Replaces pods of one workload."""

    def __init__(self, subject: Subject) -> None:
        self._of = subject

    async def replace(self, name: InstanceId, identity: str) -> None:
        """Evict the pod that is in that run, and wait for the one that takes its place.

        Raises:
            TransientError: a PodDisruptionBudget forbids it, or no other pod has come up.
            PermanentError: another pod cannot take its place.
        """
        view = self._of.look()
        pod = view.pods.get(name)
        if identity:  # names may have changed since, where they are ours
            pod = next((one for one in view.pods.values() if one.identity == identity), None)
        if pod is None:
            return
        sick = self._of.roster.sick_node(pod.spec.node_name)
        if sick and self._of.key.kind in (STATEFUL_SET.name, DAEMON_SET.name):
            raise PermanentError(
                f"pod {pod.metadata.name}: {sick}; that its pod has really ended is for a person "
                "to say (kubectl delete --force)"
            )
        if await self.evict(pod):
            await self._replaced(pod)

    async def evict(self, pod: Pod) -> bool:
        """The pod as it was read; False: it has begun to run anew since, and stays."""
        identity, namespace = pod.identity, self._of.key.namespace
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
                await self._of.cluster.ask("POST", path, body=body)
            except MissingError:
                return True
            except BudgetError as error:
                raise TransientError(f"pod {pod.metadata.name} stays: {error}") from error
            except (ConflictError, TransientError) as error:
                try:
                    pod = await self._of.cluster.read(POD, pod.metadata.name, namespace, Pod)
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
        view = self._of.look()
        limit_s = self._of.patience_s
        if self._of.key.kind in (STATEFUL_SET.name, DAEMON_SET.name):  # the same name, or node
            limit_s += view.workload.spec.template.grace_s
        give_up = self._of.clock.now() + limit_s

        def is_there(view: View) -> bool:
            return all(one.metadata.uid != uid for one in view.active) and (
                len(view.active) >= view.desired
            )

        while True:
            view = self._of.look()
            if any(one.metadata.uid == uid and one.identity != restarts for one in view.active):
                return  # it was not evicted: it runs anew
            late = self._of.clock.now() >= give_up
            there = is_there(view)
            if there and (late or len(view.instances) >= len(view.active)):
                return
            if late:
                name = gone.metadata.name
                raise TransientError(f"nothing has taken the place of pod {name} in {limit_s:g} s")
            await self._of.pause()
