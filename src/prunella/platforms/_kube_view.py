"""One workload as it is now: its object, and the pods that are its instances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from prunella.core.model import Instance, InstanceId, InstanceState, Status
from prunella.kube.kinds import DAEMON_SET
from prunella.kube.pods import Pod
from prunella.kube.workloads import Edition, Key, Scaler, Workload
from prunella.platforms._kube_pods import Setting, Slots, read
from prunella.platforms._kube_roster import Roster

RAISED = "prunella.dev/min-replicas"  # on what scales it: "2/5", least before and pods before


class View(NamedTuple):
    """What is there.

    Attributes:
        pods: those that are not ending, by the name that each has as an instance.
        editions: what each pod was made from, by the pod's uid.
        revision: that is there.
        until: when time alone may change what is said of them; None: it will not.
        stamp: of the roster.
    """

    workload: Workload
    scaler: Scaler | None
    pods: Mapping[InstanceId, Pod]
    editions: Mapping[str, Edition]
    instances: tuple[Instance, ...]
    desired: int
    revision: str
    until: datetime | None
    stamp: int

    @property
    def active(self) -> Sequence[Pod]:
        """Pods that run or are going to."""
        return [one for one in self.pods.values() if not one.is_over]

    @property
    def status(self) -> Status:
        revision = self.revision or None
        return Status(self.instances, self.desired, revision, self.workload.identity)

    def revision_of(self, pod: Pod) -> str:
        edition = self.editions.get(pod.metadata.uid)
        return "" if edition is None else edition.version

    def instance(self, name: InstanceId) -> Instance | None:
        return next((one for one in self.instances if one.id == name), None)


class Views:
    """Looks at one workload, and not twice at what has not changed."""

    def __init__(self, key: Key, port: str) -> None:
        self.released: int | None = None  # pods before what scales it was raised, once it is not
        self._key = key
        self._port = port
        self._slots = Slots(key.name, key.kind)
        self._out: frozenset[str] = frozenset()  # runs that are out of order
        self._ended: Mapping[str, datetime] = {}  # runs that have ended, and when that was seen
        self._revision = ""  # that is there
        self._last: View | None = None

    def look(self, roster: Roster, now: datetime) -> View:
        """Raises: PermanentError: there is no such workload."""
        last, stamp = self._last, roster.stamp(self._key)
        if last is not None and last.stamp == stamp and (last.until is None or now < last.until):
            return last
        self._last = self._anew(roster, now, stamp)
        return self._last

    def forget(self) -> None:
        self._last = None

    def _anew(self, roster: Roster, now: datetime, stamp: int) -> View:
        workload = roster.workload(self._key)
        scaler = roster.scaler(self._key)
        found = roster.pods(self._key, workload)
        editions = {pod.metadata.uid: one for pod, one in found if one is not None}
        desired = self._desired(workload, scaler)
        pods = self._slots.fill((pod for pod, _ in found), desired)
        revisions = {uid: one.version for uid, one in editions.items()}
        ready = {
            revisions.get(pod.metadata.uid, "")
            for pod, _ in found
            if pod.is_ready and not pod.is_ending
        }
        self._ended = {
            pod.identity: self._ended.get(pod.identity, now)
            for pod in pods.values()
            if pod.has_ended
        }
        is_alone = roster.is_alone(self._key)
        readings = [
            read(
                name,
                pod,
                Setting(
                    workload=workload,
                    revision=revisions.get(pod.metadata.uid, ""),
                    is_newest=revisions.get(pod.metadata.uid) == workload.revision,
                    has_rival=bool(ready - {workload.revision}),
                    sick_node=roster.sick_node(pod.spec.node_name),
                    was_out=pod.identity in self._out,
                    ended_at=self._ended.get(pod.identity),
                    is_alone=is_alone,
                    now=now,
                    port=self._port,
                ),
            )
            for name, pod in pods.items()
        ]
        instances = tuple(one.instance for one in readings if one.instance is not None)
        self._out = frozenset(
            one.identity for one in instances if one.state is InstanceState.EXITED
        )
        until = min((one.until for one in readings if one.until is not None), default=None)
        self._revision = self._there(workload, instances, revisions.values())
        return View(
            workload, scaler, pods, editions, instances, desired, self._revision, until, stamp
        )

    def _there(
        self, workload: Workload, instances: Sequence[Instance], present: Iterable[str]
    ) -> str:
        """A version is there when something of it runs, or has failed to, and as long as it is
        wanted and there is a pod of it.

        Not before: what is only being made beside the version before may never be there.
        """
        wanted = workload.revision
        if wanted == self._revision and wanted in present:
            return wanted
        told = [one.revision for one in instances]
        others = [one for one in told if one not in ("", wanted)]
        return wanted if wanted in told or not others else others[0]

    def _desired(self, workload: Workload, scaler: Scaler | None) -> int:
        """How many pods there should be; where we have raised the least number, that is it."""
        if self._key.kind == DAEMON_SET.name:
            return workload.status.desired_number_scheduled
        wanted = 1 if workload.spec.replicas is None else workload.spec.replicas
        if scaler is None:
            return wanted
        if self.released is None and RAISED in scaler.metadata.annotations:
            return scaler.least
        if self.released is not None and wanted <= self.released:
            self.released = None  # it has taken down what was no longer asked for
        return wanted if self.released is None else self.released
