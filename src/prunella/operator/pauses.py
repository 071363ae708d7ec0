"""Annotations that hold healing: ``prunella.dev/pause`` on a workload or on its policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from prunella.core.model import ServiceId
from prunella.operator.objects import PAUSE, PAUSE_UNTIL
from prunella.ports import Clock
from prunella.runtime.orchestrator import SelfHealingOrchestrator

_OWNER = "annotation:"


class Pause(NamedTuple):
    """What annotations ask for. `fault`: why their end cannot be read, so that there is none."""

    reason: str
    until: datetime | None = None
    fault: str = ""

    @property
    def words(self) -> str:
        end = f", until {self.until.isoformat()}" if self.until is not None else ""
        return f"{self.reason}{end}" + (f" ({self.fault})" if self.fault else "")


Holds = dict[tuple[ServiceId, str], Pause]


def asked_for(annotations: Mapping[str, str], now: datetime) -> Pause | None:
    """The pause in force; None: there is none, or it is over."""
    reason = annotations.get(PAUSE)
    if reason is None:
        return None
    reason = reason.strip() or "no reason is given"
    end = annotations.get(PAUSE_UNTIL)
    if end is None:
        return Pause(reason)
    try:
        until = datetime.fromisoformat(end.strip())
    except ValueError:
        until = None
    if until is None or until.tzinfo is None:
        fault = f"{PAUSE_UNTIL} {end!r} is no time such as 2026-01-31T18:00:00Z: without an end"
        return Pause(reason, None, fault)
    return Pause(reason, until) if until > now else None


def owner(kind: str, name: str) -> str:
    return f"{_OWNER}{kind}/{name}"


async def place(healing: SelfHealingOrchestrator, wanted: Holds, clock: Clock) -> None:
    """Put all that is wanted in force; to be done before a service is watched."""
    known = {(one.service_id, one.owner): one for one in await healing.list_holds()}
    for (service, by), pause in wanted.items():
        have = known.get((service, by))
        if have is not None and have.reason == pause.reason and _same(have.expires, pause.until):
            continue
        left_s = None if pause.until is None else (pause.until - clock.wall()).total_seconds()
        if left_s is None or left_s > 0:
            await healing.place_hold(service, for_s=left_s, reason=pause.reason, owner=by)


async def lift(
    healing: SelfHealingOrchestrator, wanted: Holds, settled: Collection[ServiceId]
) -> None:
    """End those that nobody wants any more, of the services that are seen well."""
    for one in await healing.list_holds():
        if one.service_id is None or not one.owner.startswith(_OWNER):
            continue
        service = ServiceId(one.service_id)
        if (service, one.owner) not in wanted and service in settled:
            await healing.lift_hold(service, owner=one.owner)


def _same(one: datetime | None, other: datetime | None) -> bool:
    """Moments went through seconds that are left."""
    if one is None or other is None:
        return one is other
    return abs((one - other).total_seconds()) < 1.0
