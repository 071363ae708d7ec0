"""How long the recent requests took: percentiles from buckets, in bounded memory."""

from __future__ import annotations

from collections import Counter
from functools import cache, lru_cache
from math import log
from typing import NamedTuple

from prunella.core.model import Instant

_STEP = log(1.05)  # neighbouring buckets differ by 5 %
_LEAST_S = 0.0005  # logs count in whole milliseconds
_MOST_S = 86400.0
_SLOT_S = 30.0


class Summary(NamedTuple):
    """Seconds; None where nothing has been measured lately."""

    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    mean_s: float | None = None


class Times:
    """Those of the last 30 to 60 s: a slot that fills, and the one before it."""

    __slots__ = ("_asked_at", "_before", "_began", "_now", "_spent_s")

    def __init__(self) -> None:
        self._asked_at: Instant | None = None
        self._spent_s = 0.0  # since then, by all requests together
        self._began = Instant(0.0)
        self._now: Counter[int] = Counter()
        self._before: Counter[int] = Counter()

    def add(self, at: Instant, took_s: float, count: int) -> None:
        if at - self._began >= _SLOT_S:
            self._turn_over(at)
        self._now[_bucket(took_s)] += count
        self._spent_s += took_s * count

    def in_flight(self, at: Instant) -> int:
        """How many requests were under way at a time, on average since this was asked last.

        By Little's law: the time that all of them took together, for each second that has passed.
        """
        span_s = 0.0 if self._asked_at is None else at - self._asked_at
        spent_s, self._spent_s, self._asked_at = self._spent_s, 0.0, at
        return round(spent_s / span_s) if span_s > 0 else 0

    def summary(self, at: Instant) -> Summary:
        if at - self._began >= _SLOT_S:
            self._turn_over(at)
        if not self._now and not self._before:
            return Summary()
        slots = sorted((self._now + self._before if self._before else self._now).items())
        total = sum(count for _, count in slots)
        found: list[float] = []
        passed, sum_s, ranks = 0, 0.0, iter((0.5 * total, 0.95 * total, 0.99 * total))
        rank = next(ranks)
        for bucket, count in slots:
            value_s = _seconds(bucket)
            passed += count
            sum_s += value_s * count
            while passed >= rank:
                found.append(value_s)
                rank = next(ranks, float("inf"))
        return Summary(found[0], found[1], found[2], sum_s / total)

    def _turn_over(self, at: Instant) -> None:
        lately = at - self._began < 2 * _SLOT_S
        self._before = self._now if lately else Counter()
        self._now = Counter()
        self._began = at


@lru_cache(4096)
def _bucket(took_s: float) -> int:
    return round(log(min(max(took_s, _LEAST_S), _MOST_S)) / _STEP)


@cache
def _seconds(bucket: int) -> float:
    return float(1.05**bucket)
