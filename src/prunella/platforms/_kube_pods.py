"""From the pods of a workload to its instances: what runs, what has failed, and whose fault it is.

The kubelet has the first turn: a container that has just ended is none of ours until it is put
off, which shows in the kubelet's own words only ten seconds later. A pod that has not come up yet
is in no state: that it is lacking shows in the number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from prunella.core.model import Instance, InstanceId, InstanceState, Verdict
from prunella.kube.kinds import DAEMON_SET, STATEFUL_SET
from prunella.kube.pods import ContainerStatus, Pod
from prunella.kube.workloads import Workload

_BACK_OFF = "CrashLoopBackOff"
# What the version asks for cannot be had: another pod of the same version meets the same.
_UNOBTAINABLE = frozenset(
    {
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "RunContainerError",
        "CreateContainerError",
    }
)
_TRIED_AGAIN = frozenset({"ErrImagePull"})  # the first time that is no more than a try
_FIRST_TURN = timedelta(seconds=1)  # in which the kubelet restarts what it does not put off
# Where it will: this is not the first end within, and the only one now. Of many that end at once
# the others are told a little later, and are to be seen before anything is done.
_NO_TURN = timedelta(seconds=0.2)
_MEMORY = timedelta(minutes=10)
_A_MOMENT = timedelta(seconds=2)
_LENGTH = 200  # characters of the cluster's own words


class Slots:
    """Gives each pod a name that its replacement takes over.

    A StatefulSet's pods keep theirs, a DaemonSet's are called after their nodes. Those of a
    Deployment or a Rollout have numbers: a new pod gets the lowest that is free. After a restart
    of Prunella they are numbered by age, so that the same pod may have another number then: what
    acts on a pod finds it by its identity.
    """

    def __init__(self, workload: str, kind: str) -> None:
        self._workload = workload
        self._kind = kind
        self._holders: dict[int, str] = {}

    def fill(self, pods: Iterable[Pod], desired: int) -> Mapping[InstanceId, Pod]:
        """The pod of each name, in their order; those that are ending have none any more."""
        live = [one for one in pods if not one.is_ending]
        live.sort(key=lambda one: (one.metadata.creation_timestamp, one.metadata.name))
        if self._kind == STATEFUL_SET.name:
            return {InstanceId(one.metadata.name): one for one in live}
        if self._kind == DAEMON_SET.name:  # the newest of those on the same node
            found = {InstanceId(one.spec.node_name): one for one in live if one.spec.node_name}
            return dict(sorted(found.items()))
        return self._number(live, desired)

    def _number(self, live: Sequence[Pod], desired: int) -> Mapping[InstanceId, Pod]:
        by_uid = {one.metadata.uid: one for one in live}
        running = [one for one in live if not one.is_over]
        kept = {number: uid for number, uid in self._holders.items() if uid in by_uid}
        free = {number for number, uid in kept.items() if by_uid[uid].is_over}
        held = set(kept.values())
        for one in running:
            if one.metadata.uid in held:
                continue
            number = min({*range(1, len(kept) + 2)} - (kept.keys() - free))
            free.discard(number)
            kept[number] = one.metadata.uid
        if len(running) >= desired:  # what has failed and is not replaced is not needed
            kept = {number: uid for number, uid in kept.items() if not by_uid[uid].is_over}
        self._holders = kept
        name = self._workload
        return {InstanceId(f"{name}.{number}"): by_uid[kept[number]] for number in sorted(kept)}


class Setting(NamedTuple):
    """What a pod is judged by besides itself.

    Attributes:
        revision: its version.
        is_newest: that is the one that the workload is to run.
        has_rival: a pod of another version is ready.
        sick_node: why its node is not well; empty when it is.
        was_out: its run was out of order when it was last looked at.
        ended_at: when one of its containers was seen to have ended; None: all run.
        is_alone: nothing else has just ended.
    """

    workload: Workload
    revision: str
    is_newest: bool
    has_rival: bool
    sick_node: str
    was_out: bool
    ended_at: datetime | None
    is_alone: bool
    now: datetime
    port: str


class Reading(NamedTuple):
    """``instance`` None: it is still starting. ``until``: when time alone may change that."""

    instance: Instance | None
    until: datetime | None = None


def read(name: InstanceId, pod: Pod, setting: Setting) -> Reading:
    """The instance that a pod is."""
    if pod.is_over:
        words = f"{pod.status.reason or pod.status.phase}: {pod.status.message}"
        return Reading(_instance(name, pod, setting, InstanceState.STOPPED, _cut(words)))
    for one in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        if words := _trouble(one, was_out=setting.was_out):
            reason = one.state.waiting.reason if one.state.waiting is not None else ""
            blames = reason in _UNOBTAINABLE | _TRIED_AGAIN or _blames(pod, setting)
            return Reading(
                _instance(name, pod, setting, InstanceState.EXITED, words, blames=blames)
            )
    if setting.ended_at is not None and _has_begun(pod):
        again = pod.restart_count > 0 and setting.now - _moment(pod.started_at) < _MEMORY
        turn = _NO_TURN if again and setting.is_alone else _FIRST_TURN
        return _ended(name, pod, setting, setting.ended_at + turn)
    overdue_at = _moment(max(pod.started_at, pod.metadata.creation_timestamp)) + timedelta(
        seconds=setting.workload.deadline_s
    )
    is_late = setting.now >= overdue_at or (setting.workload.is_overdue and setting.is_newest)
    if not _has_begun(pod):
        return _starting(name, pod, setting, None if is_late else overdue_at)
    if pod.is_ready:
        return Reading(_instance(name, pod, setting, InstanceState.RUNNING, verdict=Verdict.PASS))
    return _unready(name, pod, setting, None if is_late else overdue_at)


def _ended(name: InstanceId, pod: Pod, setting: Setting, until: datetime) -> Reading:
    """The kubelet is about to start it again, unless that has taken too long already."""
    words = _ending(pod)
    if setting.now < until and not setting.was_out:
        one = _instance(name, pod, setting, InstanceState.RUNNING, words)
        return Reading(one._replace(is_restarting=True), until)
    words, blames = f"{words}; the kubelet has put it off", _blames(pod, setting)
    return Reading(_instance(name, pod, setting, InstanceState.EXITED, words, blames=blames))


def _starting(name: InstanceId, pod: Pod, setting: Setting, until: datetime | None) -> Reading:
    """It cannot start: worth a word once it is overdue, and no restart would help."""
    if until is not None or not (setting.is_newest and setting.has_rival):
        return Reading(None, until)
    scheduled = pod.condition("PodScheduled")
    why = f"{scheduled.reason}: {scheduled.message}" if scheduled.status == "False" else "it waits"
    words = _cut(f"not started within {setting.workload.deadline_s} s: {why}")
    return Reading(_instance(name, pod, setting, InstanceState.EXITED, words, blames=True))


def _unready(name: InstanceId, pod: Pod, setting: Setting, until: datetime | None) -> Reading:
    """It runs, and its own check fails, or has not passed yet."""
    ready = pod.condition("Ready")
    was_ready = _moment(ready.last_transition_time) > _moment(pod.started_at)
    words = setting.sick_node or _cut(ready.message)
    if setting.sick_node:
        verdict: Verdict | None = Verdict.FAIL
    elif not was_ready and until is not None:
        verdict = None
    else:
        verdict = Verdict.FAIL
    blames = verdict is Verdict.FAIL and not setting.sick_node and _blames(pod, setting)
    found = _instance(
        name, pod, setting, InstanceState.RUNNING, words, verdict=verdict, blames=blames
    )
    return Reading(found, until if verdict is None else None)


def _instance(
    name: InstanceId,
    pod: Pod,
    setting: Setting,
    state: InstanceState,
    words: str = "",
    *,
    verdict: Verdict | None = None,
    blames: bool = False,
) -> Instance:
    runs = state is InstanceState.RUNNING
    return Instance(
        name,
        state,
        pod.identity,
        f"pod {pod.metadata.name}: {words}" if words else f"pod {pod.metadata.name}",
        revision=setting.revision,
        verdict=verdict,
        restart_count=pod.restart_count,
        address=pod.status.address if runs else "",
        port=pod.port(setting.port) if runs else 0,
        blames_version=blames,
    )


def _trouble(one: ContainerStatus, *, was_out: bool) -> str:
    """Why a container does not run, and will not by itself for a while; empty: it does."""
    waiting = one.state.waiting
    if waiting is None:
        return ""
    if waiting.reason == _BACK_OFF:
        ending = f" after {one.ending}" if one.ending is not None else ""
        return f"container {one.name}: {_BACK_OFF}{ending}"
    if waiting.reason in _UNOBTAINABLE or (was_out and waiting.reason in _TRIED_AGAIN):
        return _cut(f"container {one.name}: {waiting.reason}: {waiting.message}")
    return ""


def _ending(pod: Pod) -> str:
    for one in pod.status.container_statuses:
        if one.state.terminated is not None:
            return f"container {one.name} has ended: {one.state.terminated}"
    return ""


def _has_begun(pod: Pod) -> bool:
    """Whether all its containers run, or have run."""
    statuses = pod.status.container_statuses
    return bool(statuses) and all(one.state.started_at for one in statuses)


def _blames(pod: Pod, setting: Setting) -> bool:
    """Whether its version is at fault: none of it was ever well, beside another one that is."""
    return setting.is_newest and setting.has_rival and not _was_ready(pod)


def _was_ready(pod: Pod) -> bool:
    """Whether it has ever been ready for more than a moment."""
    if pod.is_ready:
        return True
    turned = _moment(pod.condition("Ready").last_transition_time)
    return turned - _moment(pod.status.start_time) > _A_MOMENT


def _moment(text: str | None) -> datetime:
    """The cluster's times have whole seconds; empty: long ago."""
    return datetime.fromisoformat(text) if text else datetime.min.replace(tzinfo=UTC)


def _cut(words: str) -> str:
    plain = " ".join(words.split())
    return plain if len(plain) <= _LENGTH else f"{plain[:_LENGTH]}…"
