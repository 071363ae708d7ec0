"""The objects that we read and write: policies, and their status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import msgspec

from prunella.kube.kinds import Json, NotedMeta, Object, Struct
from prunella.ports import Clock

PAUSE, PAUSE_UNTIL = "prunella.dev/pause", "prunella.dev/pause-until"
SERVICE_LABEL = "prunella.dev/service"


class Accepted(Struct, frozen=True):
    """The last specification that was good, kept where a restart finds it."""

    generation: int = 0
    spec: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class Status(Struct, frozen=True):
    observed_generation: int = 0
    conditions: tuple[dict[str, Any], ...] = ()
    services: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    accepted: Accepted | None = None


class Policy(Object, frozen=True):
    """A HealingPolicy. What it specifies is checked elsewhere, as all configuration is."""

    metadata: NotedMeta
    spec: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    status: Status = Status()

    @property
    def words(self) -> str:
        return f"HealingPolicy {self.metadata.namespace}/{self.metadata.name}"


class Condition(NamedTuple):
    """What is true of a policy, as ``.status.conditions`` tells it; `status` True or False, or
    None for Unknown.
    """

    type: str
    status: bool | None
    reason: str
    message: str = ""


def conditions(
    known: Iterable[Condition], before: Sequence[Mapping[str, Any]], generation: int, clock: Clock
) -> list[Json]:
    """As they are written; the time of a change stays where nothing has changed."""
    old = {one.get("type"): one for one in before}
    now = clock.wall().strftime("%Y-%m-%dT%H:%M:%SZ")
    written: list[Json] = []
    for one in known:
        word = "Unknown" if one.status is None else str(one.status)
        was = old.get(one.type, {})
        since = was.get("lastTransitionTime") if was.get("status") == word else None
        written.append(
            {
                "type": one.type,
                "status": word,
                "reason": one.reason,
                "message": one.message[:1000],
                "observedGeneration": generation,
                "lastTransitionTime": since or now,
            }
        )
    return written


def definitions() -> str:
    """The CustomResourceDefinitions, as YAML for ``kubectl apply``."""
    folder = files("prunella.operator") / "crds"
    texts = sorted((one.name, one.read_text()) for one in folder.iterdir())
    return "---\n".join(text for name, text in texts if name.endswith(".yaml"))
