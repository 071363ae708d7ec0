"""What the gateway reads of a cluster, and what it notes on an object that it has changed.

What an object says is its owner's, and may be anything at all: it is read with care. A note says
what there was before, so that it is in the cluster and not in us.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

from prunella.errors import TransientError
from prunella.kube.kinds import Json, NotedMeta, Object, Struct
from prunella.kube.pods import CIRCUIT

SHUT = "prunella-shut"  # what a pod's label says that is to be out of its Service


class Held(Object, frozen=True):
    """An object that a circuit may be in."""

    metadata: NotedMeta  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: Any = None
    status: Any = None


class Target(Struct, frozen=True):
    name: str = ""


class Readiness(Struct, frozen=True):
    ready: bool | None = None


class Backend(Struct, frozen=True):
    conditions: Readiness = Readiness()
    target_ref: Target | None = None


class Slice(Object, frozen=True):
    """A part of a Service's endpoints."""

    endpoints: tuple[Backend, ...] | None = None

    @property
    def service(self) -> str:
        return self.metadata.labels.get("kubernetes.io/service-name", "")

    @property
    def ready(self) -> frozenset[str]:
        """The pods that get requests. What is not said to be unready counts as ready."""
        return frozenset(
            one.target_ref.name if one.target_ref is not None else ""
            for one in self.endpoints or ()
            if one.conditions.ready is not False
        )


class Note(NamedTuple):
    """Our annotation: who has turned it, what there was before, when that should end.

    Attributes:
        share: percent that is let through, or 0 for a pod that is shut.
        fallback: where the others are led to.
    """

    owner: str
    until: datetime
    before: Any
    share: int = 0
    fallback: str = ""

    def text(self) -> str:
        fields = self._asdict() | {"until": self.until.isoformat(timespec="seconds")}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    def is_over(self, owner: str, now: datetime) -> bool:
        """Whether what this owner has set is past its lease."""
        return self.owner == owner and self.until <= now


def note_in(text: str) -> Note | None:
    """What an annotation says; None: nothing, or nothing that makes sense."""
    try:
        found = json.loads(text)
        until = datetime.fromisoformat(found["until"])
        note = Note(
            str(found["owner"]),
            until if until.tzinfo is not None else until.replace(tzinfo=UTC),
            found["before"],
            int(found.get("share", 0)),
            str(found.get("fallback", "")),
        )
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    return note


def note_of(item: Mapping[str, Any]) -> Note | None:
    """Of an object that was read whole."""
    annotations: Json = item.get("metadata", {}).get("annotations") or {}
    return note_in(str(annotations.get(CIRCUIT, "")))


def labels_before(note: Note | None) -> Mapping[str, str]:
    """The labels of a pod as they were; empty: they were not touched, or nothing says it."""
    before: Any = None if note is None else note.before
    if not isinstance(before, dict):
        return {}
    return {str(name): str(value) for name, value in cast("Json", before).items()}


def until(now: datetime, lease_s: float) -> datetime:
    """The end of a lease, in whole seconds, rounded up."""
    return (now + timedelta(seconds=lease_s + 1)).replace(microsecond=0)


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """A part of an object that should be a mapping; nothing is an empty one.

    Raises: TransientError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TransientError(f"its {what} makes no sense")
    return cast("Json", value)


def listed(value: Any, what: str) -> list[Mapping[str, Any]]:
    """A part of an object that should be a list of mappings; nothing is an empty one.

    Raises: TransientError: it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise TransientError(f"its {what} makes no sense")
    return [mapping(one, what) for one in cast("list[Any]", value)]  # type: ignore[redundant-cast]
