"""What is told of durations: percentiles within 5 %, and how many requests were under way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from prunella.core.model import Instant
from prunella.gateways._nginx_log import Tally
from prunella.gateways._times import Summary, Times

LINE = "shop||200|127.0.0.1:1|200|0.500|0.000"


@given(st.lists(st.floats(0.001, 60), min_size=1, max_size=200))
def test_percentiles_are_those_of_the_durations(took_s: list[float]) -> None:
    times = Times()
    for one in took_s:
        times.add(Instant(1), one, 1)
    told = times.summary(Instant(2)).p95_s
    ranked = sorted(took_s)
    exact = ranked[max(0, -(-95 * len(ranked) // 100) - 1)]
    assert told is not None
    assert exact / 1.06 <= told <= exact * 1.06


def test_nothing_is_told_of_long_ago() -> None:
    times = Times()
    times.add(Instant(1), 0.5, 1)
    assert times.summary(Instant(100)) == Summary()


def test_requests_under_way_are_a_mean_since_the_last_reading() -> None:
    tally = Tally()
    known = {"shop": {"127.0.0.1:1": "one"}}
    tally.add({LINE: 1}, Instant(0), known)
    assert tally.services["shop"].traffic(Instant(0)).in_flight == 0  # since when is not known
    tally.add({LINE: 40}, Instant(5), known)
    assert tally.services["shop"].traffic(Instant(5)).in_flight == 4  # 20 s of work in 5 s
    assert tally.services["shop"].traffic(Instant(10)).in_flight == 0
    assert tally.servers["shop", "one"].traffic(Instant(10)).in_flight == 0
