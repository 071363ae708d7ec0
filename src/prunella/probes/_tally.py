"""Counters of many series as one that never becomes smaller, and percentiles. For probes.

Each series begins anew by itself, when its process does. In a plain sum that looks as if all of
them had, and what was counted long ago would count once more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

_KEPT = 20_000  # series, of which those that are there no longer may come back


class Tally:
    """The sum of some counters. ``total`` is that of the first reading and all increases since."""

    def __init__(self) -> None:
        self.total = 0.0
        self._last: dict[str, float] | None = None

    def take(self, series: Mapping[str, float]) -> dict[str, float]:
        """By how much each has grown since the last reading; empty at the first one.

        A series that is new counts from zero, as does one that has become smaller.
        """
        if self._last is None:
            self._last = dict(series)
            self.total = sum(series.values())
            return {}
        last = self._last
        grown: dict[str, float] = {}
        for key, value in series.items():
            before = last.get(key, 0.0)
            grown[key] = value - before if value >= before else value
        if len(last) + len(series) > _KEPT:
            self._last = dict(series)
        else:
            last.update(series)
        self.total += sum(grown.values())
        return grown


def quantile(share: float, buckets: Iterable[tuple[float, float]]) -> float | None:
    """The value below which that share of a histogram lies, straight between two bounds.

    Args:
        share: 0-1.
        buckets: upper bounds and how many lie below them, the last one infinite.

    Returns: None where nothing was counted or there is no infinite bucket; the highest bound
        where the value lies above it.
    """
    ordered = sorted(buckets)
    if len(ordered) < 2 or not math.isinf(ordered[-1][0]) or ordered[-1][1] <= 0:
        return None
    rank = share * ordered[-1][1]
    low, below = 0.0, 0.0
    for bound, count in ordered:
        if count >= rank:
            if math.isinf(bound):
                return low
            if bound <= 0 or count <= below:
                return bound
            return low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, max(below, count)
    return low
