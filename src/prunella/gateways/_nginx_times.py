"""How long the recent requests took: percentiles from buckets, in bounded memory."""

from __future__ import annotations

from collections import Counter
from math import log
from typing import NamedTuple

from prunella.core.model import Instant

_STEP = log(1.05)  # neighbouring buckets differ by 5 %
_LEAST_S = 0.0005  # nginx counts in whole milliseconds
_SLOT_S = 30.0


class Summary(NamedTuple):
    """Seconds; None where nothing has been measured lately."""

    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    mean_s: float | None = None


class Times:
    """Those of the last 30 to 60 s: a slot that fills, and the one before it."""

    __slots__ = ("_before", "_began", "_now")

    def __init__(self) -> None:
        self._began = Instant(0.0)
        self._now: Counter[int] = Counter()
        self._before: Counter[int] = Counter()

    def add(self, at: Instant, took_s: float, count: int) -> None:
        self._turn_over(at)
        self._now[round(log(max(took_s, _LEAST_S)) / _STEP)] += count

    def summary(self, at: Instant) -> Summary:
        self._turn_over(at)
        if not self._now and not self._before:
            return Summary()
        slots = sorted((self._now + self._before).items())
        total = sum(count for _, count in slots)
        mean_s = sum(_seconds(bucket) * count for bucket, count in slots) / total
        return Summary(
            _at(slots, 0.5 * total), _at(slots, 0.95 * total), _at(slots, 0.99 * total), mean_s
        )

    def _turn_over(self, at: Instant) -> None:
        age_s = at - self._began
        if age_s < _SLOT_S:
            return
        self._before = self._now if age_s < 2 * _SLOT_S else Counter()
        self._now = Counter()
        self._began = at


def _seconds(bucket: int) -> float:
    return float(1.05**bucket)


def _at(slots: list[tuple[int, int]], rank: float) -> float:
    """The value that so many do not exceed."""
    passed = 0
    for bucket, count in slots:
        passed += count
        if passed >= rank:
            return _seconds(bucket)
    return _seconds(slots[-1][0])
