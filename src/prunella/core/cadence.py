"""How often to look: closely while in doubt, seldom when nothing is likely to change.

What is confirmed needs no close look: a fleet that is down would cost five times as much to watch.
"""

from __future__ import annotations

from prunella.core.machine import Phase
from prunella.core.model import Health, Instant
from prunella.core.policy import Policy

_FIRST_LOOK_S = 0.05


def interval_s(
    base_s: float,
    policy: Policy,
    phase: Phase,
    health: Health,
    since: Instant,
    now: Instant,
) -> float:
    """Seconds until the next check of a probe, before jitter.

    After an action the checks follow the time passed since it (0.05 s, then doubling), so that
    the moment of recovery is known to a fraction of how long it took.

    Args:
        base_s: the probe's own interval.
        since: when the service came into its present phase (verifying) or health (failed).
    """
    close_s = min(base_s, policy.suspect_interval_s)
    if phase is Phase.VERIFYING:
        return min(close_s, max(_FIRST_LOOK_S, now - since))
    if health is Health.FAILED and now - since > policy.long_down_s:
        return max(base_s, policy.down_interval_s)
    return close_s if health is Health.SUSPECT else base_s
