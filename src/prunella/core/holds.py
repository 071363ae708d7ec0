"""Which pauses are in force: one answer for stores, daemon and simulation."""

from __future__ import annotations

from collections.abc import Iterable

from prunella.core.model import Hold, ServiceId, Stamp
from prunella.core.time import remaining_s


def is_live(hold: Hold, now: Stamp) -> bool:
    """Whether a hold has not expired."""
    return hold.expires is None or remaining_s(hold.expires, now) > 0


def in_force(holds: Iterable[Hold], service: ServiceId | None, now: Stamp) -> tuple[Hold, ...]:
    """The live holds on `service` and on the whole instance; None asks for the latter alone."""
    return tuple(hold for hold in holds if hold.service in (None, service) and is_live(hold, now))
