"""Counting over windows and waiting between tries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

from prunella.core.fleet import AT_ONCE_S
from prunella.core.ledger import Attempt
from prunella.core.model import ActionKind, InstanceId, Instant, Outcome, ServiceId
from prunella.core.policy import Policy

ASIDE = frozenset(
    {ActionKind.SCALE_DOWN, ActionKind.CIRCUIT_BREAK, ActionKind.CIRCUIT_CLOSE}
)  # kinds that repair nothing, and have limits of their own
INEFFECTIVE = frozenset({Outcome.INEFFECTIVE, Outcome.RELAPSED, Outcome.ERROR, Outcome.INTERRUPTED})


def _rounds(attempts: Sequence[Attempt]) -> Iterator[Attempt]:
    """Those of a platform that restarts several instances in one moment count once, newest first.

    An instance that it restarts again and again counts each time.
    """
    newest: Instant | None = None
    instances: set[InstanceId | None] = set()
    for attempt in attempts:
        if attempt.outcome is not Outcome.FOREIGN:
            yield attempt
            continue
        together = newest is not None and newest - attempt.at < AT_ONCE_S
        if not together or attempt.instance in instances:
            instances.clear()
            newest = attempt.at
            yield attempt
        instances.add(attempt.instance)


def within(attempts: Sequence[Attempt], window_s: float, now: Instant) -> list[Attempt]:
    """The attempts that count in a window, newest first.

    What was cancelled never counts, and neither do taking a remedy back and circuits.
    """
    return [
        attempt
        for attempt in _rounds(attempts)
        if now - attempt.at < window_s
        and attempt.outcome is not Outcome.CANCELLED
        and attempt.kind not in ASIDE
    ]


def backoff_until(
    service: ServiceId, attempts: Sequence[Attempt], policy: Policy, now: Instant
) -> Instant:
    """When the next try may start; in the past if it may start now.

    Each past attempt weighs one, halving with the time since it ended, so that the delay doubles
    with each try and forgets with each half-life. The ±25 % jitter comes from a hash of service
    and try, so that services which failed together do not come back together.
    """
    counted = [attempt for attempt in _rounds(attempts) if attempt.kind not in ASIDE]
    ends = [attempt.ended_at or attempt.at for attempt in counted]
    if not ends:
        return now
    weight = sum(0.5 ** (max(0.0, now - end) / policy.backoff_half_life_s) for end in ends)
    if weight < 0.5:
        return now
    delay_s = min(policy.backoff_cap_s, policy.backoff_base_s * 2 ** (weight - 1))
    spread = crc32(f"{service}/{len(attempts)}".encode()) / 0xFFFFFFFF
    return Instant(max(ends) + delay_s * (0.75 + 0.5 * spread))
