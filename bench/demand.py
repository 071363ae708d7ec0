"""What real traffic costs to take in: one reading of one service, and what its window weighs."""

from __future__ import annotations

import gc
import time
import tracemalloc
from statistics import median

from bench.report import Row, spread

from prunella.core.demand import NOTHING, Window, fold, is_well_served, symptom_of_traffic
from prunella.core.model import Instant, Traffic
from prunella.core.policy import Policy

_POLICY = Policy(slo=0.999)
_HOURS = 6
_EVERY_S = 5.0


def _busy(number: int) -> tuple[Window, Traffic]:
    """A service that has had requests, some of them bad, for 6 h."""
    window, seen = NOTHING, Traffic(Instant(float(number)))
    for _ in range(int(_HOURS * 3600 / _EVERY_S)):
        seen = _next(seen)
        window = fold(window, seen, _POLICY)
    return window, seen


def _next(seen: Traffic) -> Traffic:
    at, requests, failed, *_ = seen
    return Traffic(Instant(at + _EVERY_S), requests + 1000, failed + 70, p95_s=0.2)


def measure(service_count: int = 20, reading_count: int = 200, run_count: int = 7) -> list[Row]:
    tracemalloc.start()
    busy = [_busy(number) for number in range(service_count)]
    gc.collect()  # and with it the lists of what is free
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    readings: list[tuple[Window, list[Traffic]]] = []
    for window, seen in busy:
        later: list[Traffic] = []
        for _ in range(reading_count):
            seen = _next(seen)  # noqa: PLW2901 - one after the other
            later.append(seen)
        readings.append((window, later))
    folds_us: list[float] = []
    all_us: list[float] = []
    for _ in range(run_count):
        folds_us.append(_time_us(readings, judged=False))
        all_us.append(_time_us(readings, judged=True))
    kept_kib = kept_bytes / service_count / 1024
    return [
        Row(
            "take in one reading of traffic",
            median(folds_us),
            "us",
            limit=20.0,
            note=f"{spread(folds_us)}; with its judgement {median(all_us):.1f} us; 10,000 services "
            f"at {_EVERY_S:g} s: {median(all_us) * 10_000 / _EVERY_S / 1e4:.1f} % of a core",
        ),
        Row("memory of 6 h of traffic", kept_kib, "KiB", limit=32.0, note="per busy service"),
    ]


def _time_us(readings: list[tuple[Window, list[Traffic]]], *, judged: bool) -> float:
    start = time.process_time()
    count = 0
    for before, later in readings:
        window = before
        for seen in later:
            window = fold(window, seen, _POLICY)
            if judged:
                symptom_of_traffic(window, _POLICY, seen.at)
                is_well_served(window, _POLICY, seen.at)
        count += len(later)
    return (time.process_time() - start) / count * 1e6
