"""Moments that outlive a process: what jumps of the wall clock and a reboot do to them, a table."""

from datetime import UTC, datetime, timedelta

import pytest

from prunella.core.model import Instant, Stamp
from prunella.core.time import age_s, rebase, remaining_s

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR_S = 3600.0


def stamp(wall_s: float, instant: float, boot: str = "now") -> Stamp:
    return Stamp(START + timedelta(seconds=wall_s), Instant(instant), boot)


@pytest.mark.parametrize(
    ("then", "wall_s", "age"),
    [
        (stamp(0, 100), 60, 60),
        (stamp(0, 100), 60 + HOUR_S, 60),  # the wall clock was put forward
        (stamp(0, 100), 60 - HOUR_S, 60),  # and back
        (stamp(0, 170), 60, 0),  # never negative
        (stamp(0, 9999, "before"), 60, 60),
        (stamp(0, 9999, "before"), 60 + HOUR_S, 60 + HOUR_S),
        (stamp(0, 9999, "before"), 60 - HOUR_S, 0),  # a moment in the future counts as now
    ],
)
def test_age(then: Stamp, wall_s: float, age: float) -> None:
    now = stamp(wall_s, 160)
    assert age_s(then, now) == age
    assert rebase(then, now) == Instant(160 - age)


@pytest.mark.parametrize(
    ("until", "wall_s", "left"),
    [
        (stamp(HOUR_S, 100 + HOUR_S), 60, HOUR_S - 60),
        (stamp(HOUR_S, 100 + HOUR_S), 2 * HOUR_S, HOUR_S - 60),
        (stamp(HOUR_S, 100), 60, 0),
        (stamp(HOUR_S, 9999, "before"), 60, HOUR_S - 60),
        (stamp(HOUR_S, 9999, "before"), 2 * HOUR_S, 0),
        (stamp(HOUR_S, 0, "before"), 60, HOUR_S - 60),
    ],
)
def test_what_remains(until: Stamp, wall_s: float, left: float) -> None:
    assert remaining_s(until, stamp(wall_s, 160)) == left
