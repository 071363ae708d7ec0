"""What a call costs that goes through a circuit in this process, and is let through."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from statistics import median

from bench.report import Row, spread

from prunella.core.model import ServiceId
from prunella.runtime.callers import Callers
from prunella.runtime.clock import SystemClock

_CALLS = 200_000
_RUNS = 7


def _call() -> None:
    """What is called does nothing: all that is measured is the way to it."""


def _call_us(call: Callable[[], None]) -> float:
    begun = time.perf_counter()
    for _ in range(_CALLS):
        call()
    return 1e6 * (time.perf_counter() - begun) / _CALLS


def measure() -> list[Row]:
    circuit = Callers(SystemClock(), Random(0)).circuit(ServiceId("payments"))
    guarded = circuit(_call)
    took = [_call_us(guarded) - _call_us(_call) for _ in range(_RUNS)]
    return [
        Row(
            "call through a circuit in this process, closed",
            median(took),
            "µs",
            limit=1.0,
            note=f"more than the same call without; {spread(took)}",
        )
    ]
