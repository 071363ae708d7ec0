"""Where an autoscaler sets the number of pods: the least that it may set is raised, and put back.

What it was before is kept beside it, in an annotation, so that it is put back by whoever looks
after it then. A HorizontalPodAutoscaler that KEDA has made is changed by its ScaledObject.
"""

from __future__ import annotations

from collections.abc import Callable

from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.kube.kinds import HPA, Json, Kind
from prunella.kube.shared import SharedCluster
from prunella.kube.workloads import Scaler
from prunella.platforms._kube_view import RAISED

SCALED_OBJECT = Kind("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject")
_TRIES = 3

# From its spec, its annotations and the name of the field: what that is to be, and our mark.
_Change = Callable[[Json, Json, str], tuple[int | None, str | None]]


def changed_at(scaler: Scaler) -> tuple[Kind, str, str]:
    """Where its least number is set: the kind and name of the object, and the field."""
    owner = scaler.metadata.owner
    if owner is not None and owner.kind == SCALED_OBJECT.name:
        return SCALED_OBJECT, owner.name, "minReplicaCount"
    return HPA, scaler.metadata.name, "minReplicas"


async def raised(cluster: SharedCluster, scaler: Scaler, present: int, wanted: int) -> None:
    """Have it keep at least so many pods.

    Raises: PermanentError: it allows fewer at most.
    """
    if wanted > scaler.spec.max_replicas:
        raise PermanentError(
            f"HorizontalPodAutoscaler {scaler.metadata.name} allows {scaler.spec.max_replicas} "
            f"pods at most, and there are to be {wanted}: raise its maxReplicas"
        )

    def change(spec: Json, marks: Json, field: str) -> tuple[int | None, str | None]:
        least = spec.get(field)
        return wanted, marks.get(RAISED) or f"{'' if least is None else least}/{present}"

    await _changed(cluster, scaler, change)


async def lowered(cluster: SharedCluster, scaler: Scaler, present: int, wanted: int) -> int | None:
    """Take some of that back; at what there was before, all of it is as it was.

    Returns: how many pods there were before it was raised, once all of it is as it was.

    Raises: ConflictError: what had been raised is not any more.
    """
    before: list[int] = []

    def change(spec: Json, marks: Json, field: str) -> tuple[int | None, str | None]:
        least, _, pods = str(marks.get(RAISED, "")).partition("/")
        if not pods.isdigit() or int(spec.get(field) or 1) != present:
            raise ConflictError(f"somebody has set the least number of {scaler.metadata.name}")
        if wanted > int(pods):
            return wanted, marks[RAISED]
        before.append(int(pods))
        return (int(least) if least.isdigit() else None), None

    await _changed(cluster, scaler, change)
    return before[-1] if before else None


async def _changed(cluster: SharedCluster, scaler: Scaler, change: _Change) -> None:
    kind, name, field = changed_at(scaler)
    for _ in range(_TRIES):
        whole = await cluster.get(kind, name, scaler.metadata.namespace)
        metadata, spec = whole["metadata"], whole["spec"]
        marks: Json = metadata.get("annotations") or {}
        least, mark = change(spec, marks, field)
        if spec.get(field) == least and marks.get(RAISED) == mark:
            return
        version = metadata["resourceVersion"]
        body = {
            "metadata": {"resourceVersion": version, "annotations": {RAISED: mark}},
            "spec": {field: least},
        }
        try:
            await cluster.patch(kind, name, scaler.metadata.namespace, body)
        except ConflictError:
            continue  # its status moves all the time; what matters is read anew
        return
    raise TransientError(f"{kind.name} {name} changes faster than it can be changed")
