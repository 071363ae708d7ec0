"""Moments that outlive a process: from a stored stamp to this boot's clock."""

from __future__ import annotations

from datetime import timedelta

from prunella.core.model import Instant, Stamp


def age_s(then: Stamp, now: Stamp) -> float:
    """Seconds from `then` to `now`, never negative.

    Within one boot the monotonic clock decides, whatever the wall clock did meanwhile. Across a
    reboot only the wall clock is left; a moment that lies in its future counts as now.
    """
    if then.boot == now.boot:
        return max(0.0, now.instant - then.instant)
    return max(0.0, (now.wall - then.wall).total_seconds())


def rebase(then: Stamp, now: Stamp) -> Instant:
    """`then` on the clock that `now.instant` is on; may be negative just after a reboot."""
    if then.boot == now.boot:
        return min(then.instant, now.instant)
    return Instant(now.instant - age_s(then, now))


def remaining_s(until: Stamp, now: Stamp) -> float:
    """Seconds until a stored moment; 0 once it has passed.

    Across a reboot the wall clock decides, as in `age_s`.
    """
    if until.boot == now.boot:
        return max(0.0, until.instant - now.instant)
    return max(0.0, (until.wall - now.wall).total_seconds())


def after(now: Stamp, seconds: float) -> Stamp:
    """The stamp of a moment of this boot, seen from `now`."""
    return Stamp(now.wall + timedelta(seconds=seconds), Instant(now.instant + seconds), now.boot)
