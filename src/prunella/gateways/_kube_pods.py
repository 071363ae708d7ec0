"""Keeping requests from one pod: by its readiness gate, or by a label of its Service alone.

The gate says what is meant, and nothing else follows it; but somebody must open it for each new
pod, and that is us. A label works without us, where the Service asks for one that the pod's own
controller does not: else the controller would let go of the pod, and start another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from prunella.errors import ConflictError, PermanentError
from prunella.gateways._kube_objects import (
    SHUT,
    Note,
    labels_before,
    listed,
    mapping,
    note_in,
    note_of,
)
from prunella.kube.client import Cluster, MissingError
from prunella.kube.kinds import DAEMON_SET, POD, REPLICA_SET, STATEFUL_SET, Json
from prunella.kube.pods import CIRCUIT, SERVING, Pod

TRIES = 3
_CONTROLLERS = {kind.name: kind for kind in (REPLICA_SET, STATEFUL_SET, DAEMON_SET)}
_ADVICE = (
    f"to shut single pods, its template needs `readinessGates: [{{conditionType: {SERVING}}}]`, "
    "or its Service a label that the workload's own selector does not have"
)


def selector_of(spec: Any) -> Mapping[str, str]:
    """What a Service asks of its pods, without what a circuit asks."""
    found = mapping(mapping(spec, "spec").get("selector"), "selector")
    return {name: str(value) for name, value in found.items() if name != CIRCUIT}


def is_behind(pod: Pod, namespace: str, selector: Mapping[str, str]) -> bool:
    """Whether a Service with that selector would have it, if nothing was shut."""
    labels = pod.metadata.labels
    before = labels_before(note_in(pod.metadata.annotations.circuit))
    shut = {name: value for name, value in before.items() if labels.get(name) == SHUT}
    labels = {**labels, **shut}
    return (
        pod.metadata.namespace == namespace
        and bool(selector)
        and selector.items() <= labels.items()
    )


def is_shut(pod: Pod) -> bool:
    """Whoever has shut it. A gate that nobody has opened yet is not shut."""
    is_closed = pod.is_gated and pod.condition(SERVING).status == "False"
    return is_closed or SHUT in pod.metadata.labels.values()


def is_able(pod: Pod) -> bool:
    """Whether it would get requests, as far as its own checks go."""
    return not pod.is_ending and pod.condition("ContainersReady").status == "True"


class Place(Protocol):
    @property
    def namespace(self) -> str: ...
    @property
    def owner(self) -> str: ...


async def turn_pod(
    cluster: Cluster,
    at: Place,
    name: str,
    selector: Mapping[str, str],
    note: Note | None,
    *,
    is_end: bool = False,
) -> bool:
    """Shut a pod with that note, or open it again (None). What is so already is left as it is,
    except that our own note begins anew.

    Args:
        is_end: only if its note is past its lease still.

    Returns: whether it is as it was to be; else it has been renewed meanwhile, and stays.

    Raises:
        ConflictError: somebody else changes it all the time.
        PermanentError: there is no such pod, or there is nothing by which it could be shut.
    """
    namespace = at.namespace
    for _ in range(TRIES):
        try:
            pod = await cluster.get(POD, name, namespace)
        except MissingError:
            if note is None:
                return True  # it has gone, and with it what was shut
            raise
        ours = note_of(pod)
        if is_end and (ours is None or not ours.is_over(at.owner, cluster.clock.wall())):
            return False
        gate = _gate(pod)
        if gate is not None:
            body = _with_gate(pod, gate, note, cluster.clock.wall())
        else:
            body = await _with_label(cluster, namespace, pod, selector, note)
        if body is None or await _written(cluster, namespace, pod, body):
            return True
    raise ConflictError(f"pod {name} is changed by somebody else all the time")


async def admit(cluster: Cluster, namespace: str, name: str) -> None:
    """Open the gate of a new pod for the first time, so that it may serve.

    Raises: ConflictError: others have changed the pod all the time.
    """
    for _ in range(TRIES):
        pod = await cluster.get(POD, name, namespace)
        if _gate(pod) != "":
            return
        opened = _condition(cluster.clock.wall(), open_=True, why="New")
        body: Json = {"metadata": {}, "status": {"conditions": [*_conditions(pod), opened]}}
        if await _written(cluster, namespace, pod, body):
            return
    raise ConflictError(f"pod {name} is changed by others all the time")


async def _written(cluster: Cluster, namespace: str, pod: Json, body: Json) -> bool:
    """Change the pod, if it is still the one that was read."""
    name, version = pod["metadata"]["name"], pod["metadata"]["resourceVersion"]
    body = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
    try:
        await cluster.patch(POD, name, namespace, body, sub="status" if "status" in body else "")
    except ConflictError:
        return False
    return True


async def why_not(cluster: Cluster, pod: Pod, selector: Mapping[str, str]) -> str:
    """Why this pod could not be shut; empty: it could be."""
    if pod.is_gated:
        return ""
    owner = pod.metadata.owner
    kind, name = ("", "") if owner is None else (owner.kind, owner.name)
    try:
        await _label(cluster, pod.metadata.namespace, kind, name, selector)
    except PermanentError as error:
        return str(error)
    return ""


def _gate(pod: Json) -> str | None:
    """What its gate says; empty: nothing yet. None: it has no gate."""
    gates = listed(mapping(pod.get("spec"), "spec").get("readinessGates"), "readinessGates")
    if not any(one.get("conditionType") == SERVING for one in gates):
        return None
    return next((str(one.get("status")) for one in _conditions(pod) if _is_ours(one)), "")


def _conditions(pod: Json) -> list[Mapping[str, Any]]:
    return listed(mapping(pod.get("status"), "status").get("conditions"), "conditions")


def _is_ours(condition: Mapping[str, Any]) -> bool:
    return condition.get("type") == SERVING


def _condition(now: datetime, *, open_: bool, why: str) -> Json:
    return {
        "type": SERVING,
        "status": "True" if open_ else "False",
        "reason": why,
        "lastTransitionTime": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def _with_gate(pod: Json, gate: str, note: Note | None, now: datetime) -> Json | None:
    """What is to be changed; None: nothing."""
    ours = note_of(pod)
    if note is None and gate != "False":
        return None if ours is None else {"metadata": {"annotations": {CIRCUIT: None}}}
    if note is not None and gate == "False":
        return _renewed(ours, note)
    others = [one for one in _conditions(pod) if not _is_ours(one)]
    why = "CircuitClosed" if note is None else "CircuitOpen"
    return {
        "metadata": {"annotations": {CIRCUIT: None if note is None else note.text()}},
        "status": {"conditions": [*others, _condition(now, open_=note is None, why=why)]},
    }


def _renewed(ours: Note | None, note: Note) -> Json | None:
    if ours is None or ours.owner != note.owner or ours.until >= note.until:
        return None
    kept = ours._replace(until=note.until)
    return {"metadata": {"annotations": {CIRCUIT: kept.text()}}}


async def _with_label(
    cluster: Cluster, namespace: str, pod: Json, selector: Mapping[str, str], note: Note | None
) -> Json | None:
    """What is to be changed; None: nothing."""
    ours = note_of(pod)
    labels: Json = pod["metadata"].get("labels") or {}
    shut = [name for name, value in labels.items() if value == SHUT]
    if note is not None and shut:
        return _renewed(ours, note)
    if note is not None:
        kind, name = _owner(pod)
        label = await _label(cluster, namespace, kind, name, selector)
        note = note._replace(before={label: labels.get(label)})
        return {"metadata": {"labels": {label: SHUT}, "annotations": {CIRCUIT: note.text()}}}
    if not shut:
        return None if ours is None else {"metadata": {"annotations": {CIRCUIT: None}}}
    before = labels_before(ours)
    if not set(shut) <= before.keys():
        raise ConflictError(f"nothing on pod {pod['metadata']['name']} says what its label was")
    back = {name: before[name] for name in shut}
    return {"metadata": {"labels": back, "annotations": {CIRCUIT: None}}}


def _owner(pod: Json) -> tuple[str, str]:
    for one in listed(pod["metadata"].get("ownerReferences"), "ownerReferences"):
        if one.get("controller"):
            return str(one.get("kind")), str(one.get("name"))
    return "", ""


async def _label(
    cluster: Cluster, namespace: str, kind: str, owner: str, selector: Mapping[str, str]
) -> str:
    """A label that the Service asks for, and the pod's controller does not.

    Raises: PermanentError: there is none; says what to do.
    """
    asked: set[str] = set()
    if kind:
        if kind not in _CONTROLLERS:
            raise PermanentError(f"its pods belong to a {kind}, which is not known: {_ADVICE}")
        found = await cluster.get(_CONTROLLERS[kind], owner, namespace)
        own = mapping(mapping(found.get("spec"), "spec").get("selector"), "selector")
        asked = set(mapping(own.get("matchLabels"), "matchLabels"))
        asked |= {
            str(one.get("key")) for one in listed(own.get("matchExpressions"), "matchExpressions")
        }
    for name in sorted(selector):
        if name not in asked:
            return name
    raise PermanentError(_ADVICE)
