"""Turning the circuit in one object, with what was read as the precondition of what is written."""

from __future__ import annotations

from typing import NamedTuple

from prunella.core.traffic import Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.gateways._admin import share_of
from prunella.gateways._kube_objects import Note, note_of, until
from prunella.gateways._kube_pods import TRIES
from prunella.gateways._kube_view import Point
from prunella.kube.client import Cluster
from prunella.kube.kinds import Json
from prunella.kube.pods import CIRCUIT


class Turn(NamedTuple):
    """From one valve to another.

    Attributes:
        is_end: only of what is past its lease still; what has been renewed meanwhile stays.
    """

    valve: Valve
    before: Valve
    lease_s: float = 0.0
    is_end: bool = False

    def back(self) -> Turn:
        return self._replace(valve=self.before, before=self.valve)


async def turn(cluster: Cluster, point: Point, to: Turn) -> Json | None:
    """Set the share of a circuit, or have its lease begin anew.

    Returns: the object as it was written; None: it was so already, or is to stay.

    Raises:
        ConflictError: somebody else has set it, or sets it all the time.
        PermanentError: there is no such object, or it can have no circuit.
        TransientError: something else has set it back at once, or it makes no sense.
    """
    for _ in range(TRIES):
        item = await cluster.get(point.circuit.kind, point.name, point.namespace)
        note = note_of(item)
        if to.is_end and (note is None or not note.is_over(point.owner, cluster.clock.wall())):
            return None
        body, wanted = _change(cluster, point, item, note, to)
        if body is None:
            return None
        body["metadata"]["resourceVersion"] = item["metadata"]["resourceVersion"]
        try:
            done = await cluster.patch(point.circuit.kind, point.name, point.namespace, body)
        except ConflictError:
            continue
        if (share := point.circuit.share(done.get("spec"), note_of(done))) != wanted:
            raise TransientError(f"{point} was set to {wanted} %, and says {share} %")
        return done
    raise ConflictError(f"{point} is changed by somebody else all the time")


def _change(
    cluster: Cluster, point: Point, item: Json, note: Note | None, to: Turn
) -> tuple[Json | None, int]:
    circuit, spec = point.circuit, item.get("spec")
    present = circuit.share(spec, note)
    wanted = share_of(point.owner, Valve(present), to.before, to.valve)
    if wanted == present:
        return _renewed(cluster, point, note, wanted, to.lease_s), wanted
    ours = None if present == 100 else note  # one that was left behind says nothing
    try:
        if wanted == 100:
            return _body(circuit.closed(spec, ours), None), wanted
        changed, kept = circuit.opened(spec, ours, wanted)
    except ConflictError as error:
        raise ConflictError(f"{point}: {error}") from error
    except PermanentError as error:
        raise PermanentError(f"{point}: {error}") from error
    ends = until(cluster.clock.wall(), to.lease_s)
    fallback = getattr(circuit, "fallback", "")
    return _body(changed, Note(point.owner, ends, kept, wanted, fallback)), wanted


def _renewed(
    cluster: Cluster, point: Point, note: Note | None, share: int, lease_s: float
) -> Json | None:
    if note is None or note.owner != point.owner:
        return None
    if share == 100:
        return _body({}, None)  # closed by somebody else: what we noted has no use any more
    ends = until(cluster.clock.wall(), lease_s)
    return _body({}, note._replace(until=ends)) if ends > note.until else None


def _body(spec: Json, note: Note | None) -> Json:
    text = None if note is None else note.text()
    return {"metadata": {"annotations": {CIRCUIT: text}}, **({"spec": spec} if spec else {})}
