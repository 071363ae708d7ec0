"""Readings of totals, what they add up to, and what real requests confirm."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunella.core.demand import (
    NOTHING,
    Outlier,
    Window,
    burn,
    fold,
    is_well_served,
    outliers,
    rate,
    symptom_of_traffic,
)
from prunella.core.model import Health, Instant, SymptomKind, Traffic
from prunella.core.policy import Policy

POLICY = Policy()
HOUR_S = 3600.0


class Meter:
    """A gateway that counts, and a window of its readings."""

    def __init__(self, every_s: float = 5.0) -> None:
        self.every_s = every_s
        self.window = fold(NOTHING, Traffic(Instant(1000.0)), POLICY)
        self.totals = Traffic(Instant(1000.0))

    @property
    def now(self) -> Instant:
        return self.totals.at

    def read(
        self, requests: int, failed: int = 0, times: int = 1, p95_s: float | None = None
    ) -> Window:
        for _ in range(times):
            self.totals = Traffic(
                Instant(self.totals.at + self.every_s),
                self.totals.requests + requests,
                self.totals.failed + failed,
                p95_s=p95_s,
            )
            self.window = fold(self.window, self.totals, POLICY)
        return self.window

    def restart(self) -> None:
        self.totals = Traffic(self.totals.at)

    def says(self) -> tuple[SymptomKind, Health] | None:
        symptom = symptom_of_traffic(self.window, POLICY, self.now)
        return None if symptom is None else (symptom.kind, symptom.severity)


FAILED = (SymptomKind.ERRORING, Health.FAILED)
DEGRADED = (SymptomKind.ERRORING, Health.DEGRADED)
SLOW = (SymptomKind.SLOW, Health.DEGRADED)


def test_the_first_reading_counts_nothing() -> None:
    window = fold(NOTHING, Traffic(Instant(5.0), requests=10_000, failed=9_000), POLICY)
    assert rate(window, 60, Instant(5.0)) == (0, 0.0)
    assert symptom_of_traffic(window, POLICY, Instant(5.0)) is None


def test_requests_and_failures_are_those_between_readings() -> None:
    meter = Meter()
    window = meter.read(20, 5, times=2)
    assert rate(window, 60, meter.now) == (40, 0.25)


def test_a_reading_that_is_not_newer_changes_nothing() -> None:
    meter = Meter()
    window = meter.read(20, 5)
    assert fold(window, meter.totals._replace(requests=900), POLICY) is window
    older = meter.totals._replace(at=Instant(meter.now - 1), requests=900)
    assert fold(window, older, POLICY) is window


@pytest.mark.parametrize("smaller", ["requests", "failed", "unconnected", "turned_away"])
def test_totals_that_became_smaller_count_from_zero(smaller: str) -> None:
    before = Traffic(Instant(0.0), 100, 50, 10, 10)
    after = before._replace(at=Instant(5.0), **{smaller: 3})
    window = fold(fold(NOTHING, before, POLICY), after, POLICY)
    assert rate(window, 60, Instant(5.0)).requests == after.requests


def test_what_was_counted_over_more_than_a_minute_is_no_evidence_for_the_last_one() -> None:
    meter = Meter(every_s=61.0)
    window = meter.read(1000, 1000)
    assert rate(window, 60, meter.now) == (0, 0.0)
    assert rate(window, HOUR_S, meter.now) == (1000, 1.0)
    assert meter.says() is None


def test_short_intervals_need_no_more_room_and_lose_nothing() -> None:
    meter = Meter(every_s=0.5)
    window = meter.read(1, times=400)
    assert len(window.fine) <= 16
    assert 120 <= rate(window, 60, meter.now).requests <= 136


def test_half_a_day_has_its_bounds() -> None:
    meter = Meter()
    window = meter.read(5, times=12 * 720)
    assert (len(window.fine), len(window.minutes), len(window.fives)) == (16, 6, 73)
    for over_s, slack_s in ((60, 0), (300, 60), (1800, 300), (3600, 300), (21_600, 300)):
        assert over_s <= rate(window, over_s, meter.now).requests <= over_s + slack_s


def test_a_short_memory_is_enough_for_the_last_minute() -> None:
    seen = Traffic(Instant(0.0))
    window = fold(NOTHING, seen, POLICY, lasting=False)
    window = fold(window, seen._replace(at=Instant(5.0), requests=9), POLICY, lasting=False)
    assert rate(window, 60, Instant(5.0)).requests == 9
    assert (window.minutes, window.fives) == ((), ())


@pytest.mark.parametrize(
    ("failed", "says"), [(5, None), (6, DEGRADED), (10, DEGRADED), (11, FAILED), (100, FAILED)]
)
def test_too_many_failures_are_an_error_rate(
    failed: int, says: tuple[SymptomKind, Health] | None
) -> None:
    meter = Meter()
    meter.read(100, failed, times=3)
    assert meter.says() == says


def test_few_requests_confirm_nothing_however_many_failed() -> None:
    meter = Meter()
    meter.read(49, 49)
    assert meter.says() is None
    meter.read(1, 1)
    assert meter.says() == FAILED


def test_old_requests_confirm_nothing() -> None:
    meter = Meter()
    meter.read(100, 100, times=12)
    assert symptom_of_traffic(meter.window, POLICY, Instant(meter.now + 61)) is None


def test_what_is_well_again_is_not_condemned_for_the_older_part_of_the_minute() -> None:
    meter = Meter()
    meter.read(100, 100, times=6)
    assert meter.says() == FAILED
    meter.read(100)
    assert meter.says() == FAILED, "one good reading may be chance"
    meter.read(100)
    assert rate(meter.window, 60, meter.now).error_ratio > 0.5
    assert meter.says() is None


def test_a_few_good_requests_are_no_recovery() -> None:
    meter = Meter()
    meter.read(100, 100, times=6)
    meter.read(2, times=3)
    assert meter.says() == FAILED


def test_a_fault_dates_from_its_first_bad_reading_though_that_is_long_ago() -> None:
    meter = Meter()
    meter.read(100, times=10)
    began = Instant(meter.now + meter.every_s)
    meter.read(100, 9, times=200)
    symptom = symptom_of_traffic(meter.window, POLICY, meter.now)
    assert symptom is not None
    assert symptom.since == began
    assert symptom.evidence == "9.0% of the last 1200 requests failed"


def test_a_second_fault_has_a_beginning_of_its_own() -> None:
    meter = Meter()
    meter.read(100, 50, times=4)
    meter.read(100, times=4)
    began = Instant(meter.now + meter.every_s)
    meter.read(100, 50, times=2)
    symptom = symptom_of_traffic(meter.window, POLICY, meter.now)
    assert symptom is not None
    assert symptom.since == began


def test_failed_connections_are_told() -> None:
    seen = Traffic(Instant(0.0))
    later = Traffic(Instant(5.0), requests=80, failed=80, unconnected=240)
    window = fold(fold(NOTHING, seen, POLICY), later, POLICY)
    symptom = symptom_of_traffic(window, POLICY, Instant(5.0))
    assert symptom is not None
    assert symptom.evidence.endswith("(240 tries to connect failed)")


def test_slow_is_confirmed_by_readings_in_a_row() -> None:
    meter = Meter()
    meter.read(100, p95_s=0.2, times=3)
    began = Instant(meter.now + meter.every_s)
    meter.read(100, p95_s=1.5, times=2)
    assert meter.says() is None
    meter.read(0, p95_s=0.2)  # nobody asked: it says nothing
    meter.read(100, p95_s=1.5)
    assert meter.says() == SLOW
    symptom = symptom_of_traffic(meter.window, POLICY, meter.now)
    assert symptom is not None
    assert symptom.since == began
    meter.read(100, p95_s=0.2)
    assert meter.says() is None


def test_the_mean_is_judged_where_there_is_no_percentile() -> None:
    window = fold(NOTHING, Traffic(Instant(0.0)), POLICY)
    for number in range(1, 4):
        seen = Traffic(Instant(5.0 * number), 100 * number, mean_s=2.0)
        window = fold(window, seen, POLICY)
    symptom = symptom_of_traffic(window, POLICY, Instant(15.0))
    assert symptom is not None
    assert symptom.evidence == "requests take 2.00 s on average in 3 readings in a row"


def test_failing_comes_before_slow() -> None:
    meter = Meter()
    meter.read(100, 50, p95_s=3.0, times=3)
    assert meter.says() == FAILED


def test_a_service_that_answers_real_requests_is_well_served() -> None:
    meter = Meter()
    assert not is_well_served(meter.window, POLICY, meter.now)
    meter.read(49)
    assert not is_well_served(meter.window, POLICY, meter.now)
    meter.read(1)
    assert is_well_served(meter.window, POLICY, meter.now)
    assert is_well_served(meter.window, POLICY, Instant(meter.now + 15))
    assert not is_well_served(meter.window, POLICY, Instant(meter.now + 15.1))


def test_a_service_whose_newest_requests_fail_is_not_well_served() -> None:
    meter = Meter()
    meter.read(1000, times=10)
    meter.read(20, 20, times=2)
    assert rate(meter.window, 60, meter.now).error_ratio < POLICY.degraded_error_rate
    assert not is_well_served(meter.window, POLICY, meter.now)


def test_a_service_whose_requests_no_longer_end_is_not_well_served() -> None:
    meter = Meter()
    meter.read(1000, times=8)
    meter.read(0, times=3)
    assert is_well_served(meter.window, POLICY, meter.now)
    meter.read(0)
    assert not is_well_served(meter.window, POLICY, meter.now)


def test_a_fast_burn_is_failed_and_ends_with_its_short_window() -> None:
    meter = Meter()
    meter.read(100, times=360)
    assert burn(meter.window, 0.999, meter.now) is None
    meter.read(100, 20, times=60)
    symptom = burn(meter.window, 0.999, meter.now)
    assert symptom is not None
    assert (symptom.kind, symptom.severity) == FAILED
    assert 2500 <= symptom.since <= 2800 + 5
    assert "more than 14.4 times what 0.999 allows" in symptom.evidence
    meter.read(100, times=80)
    symptom = burn(meter.window, 0.999, meter.now)
    assert symptom is not None
    assert symptom.severity is Health.DEGRADED, "6 times over 6 h and 30 min is still true"
    meter.read(100, times=360)
    assert burn(meter.window, 0.999, meter.now) is None


def test_a_slow_burn_is_degraded() -> None:
    meter = Meter()
    meter.read(1000, 8, times=720)
    symptom = burn(meter.window, 0.999, meter.now)
    assert symptom is not None
    assert (symptom.kind, symptom.severity) == DEGRADED
    assert symptom.evidence.startswith("0.80% of 720000 requests in 6 h and 0.80% of ")


@pytest.mark.parametrize(
    ("slo", "requests", "failed"),
    [
        pytest.param(0.999, 1000, 5, id="below six times"),
        pytest.param(0.999, 1, 0, id="no failures"),
        pytest.param(0.9, 1000, 500, id="a budget that cannot burn so fast"),
    ],
)
def test_no_burn(slo: float, requests: int, failed: int) -> None:
    meter = Meter()
    meter.read(requests, failed, times=720)
    assert burn(meter.window, slo, meter.now) is None


def test_two_failures_burn_nothing() -> None:
    meter = Meter()
    meter.read(10, times=5)
    meter.read(1, 1, times=2)
    assert burn(meter.window, 0.9999, meter.now) is None
    meter.read(1, 1)
    assert burn(meter.window, 0.9999, meter.now) is not None


def server(requests: int, failed: int, p95_s: float | None = None, times: int = 3) -> Window:
    return Meter().read(requests, failed, times=times, p95_s=p95_s)


NOW = Instant(1015.0)


def names(found: Sequence[Outlier]) -> list[tuple[str, SymptomKind]]:
    return [(outlier.server, outlier.kind) for outlier in found]


def test_a_failing_server_among_good_ones_is_an_outlier() -> None:
    servers = {"a": server(100, 0), "b": server(100, 40), "c": server(100, 1)}
    (outlier,) = outliers(servers, POLICY, NOW)
    assert (outlier.server, outlier.kind) == ("b", SymptomKind.ERRORING)
    assert outlier.evidence == (
        "40.0% of the last 300 requests failed, and 0.5% of those of its peers"
    )


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        pytest.param({"a": (100, 90)}, [], id="alone"),
        pytest.param({"a": (100, 90), "b": (100, 90)}, [], id="equally bad"),
        pytest.param({"a": (100, 90), "b": (100, 40)}, [], id="all bad"),
        pytest.param({"a": (100, 5), "b": (100, 0)}, [], id="within what is allowed"),
        pytest.param({"a": (6, 6), "b": (100, 0)}, [], id="too few requests"),
        pytest.param({"a": (100, 90), "b": (6, 0)}, [], id="peers have too few"),
        pytest.param({"a": (100, 90), "b": (0, 0)}, [], id="peers have none"),
        pytest.param(
            {"a": (100, 50), "b": (100, 90), **{f"c{n}": (100, 0) for n in range(8)}},
            ["b", "a"],
            id="the worst first",
        ),
    ],
)
def test_outliers_by_errors(servers: dict[str, tuple[int, int]], expected: list[str]) -> None:
    windows = {name: server(*counts) for name, counts in servers.items()}
    assert [outlier.server for outlier in outliers(windows, POLICY, NOW)] == expected


@pytest.mark.parametrize(
    ("latencies", "expected"),
    [
        pytest.param({"a": 2.0, "b": 0.1, "c": 0.2}, ["a"], id="one"),
        pytest.param({"a": 2.0, "b": 1.0, "c": 1.0}, [], id="not so much slower"),
        pytest.param({"a": 0.9, "b": 0.1, "c": 0.1}, [], id="fast enough"),
        pytest.param({"a": 2.0, "b": 2.0}, [], id="equally slow"),
        pytest.param({"a": 2.0, "b": None}, [], id="nobody to compare with"),
    ],
)
def test_outliers_by_latency(latencies: dict[str, float | None], expected: list[str]) -> None:
    servers = {name: server(100, 0, p95_s) for name, p95_s in latencies.items()}
    found = outliers(servers, POLICY, NOW)
    assert names(found) == [(name, SymptomKind.SLOW) for name in expected]


def test_the_only_one_that_answers_well_is_no_outlier_for_being_slow() -> None:
    servers = {"a": server(100, 100, 0.1), "b": server(100, 0, 9.0)}
    assert names(outliers(servers, POLICY, NOW)) == [("a", SymptomKind.ERRORING)]


def test_one_slow_reading_makes_no_outlier() -> None:
    meter = Meter()
    meter.read(100, p95_s=0.1, times=2)
    servers = {"a": meter.read(100, p95_s=9.0), "b": server(100, 0, 0.1)}
    assert outliers(servers, POLICY, NOW) == ()


def test_a_server_that_is_well_again_is_no_outlier() -> None:
    meter = Meter()
    meter.read(100, 100, times=6)
    meter.read(100, times=2)
    servers = {"a": meter.window, "b": server(100, 0, times=8)}
    assert rate(meter.window, 60, meter.now).error_ratio > 0.5
    assert outliers(servers, POLICY, meter.now) == ()


steps = st.lists(
    st.tuples(st.floats(0.1, 40.0), st.integers(0, 500), st.integers(0, 500), st.booleans()),
    max_size=60,
)


@given(steps)
def test_no_request_is_lost_or_invented_whatever_restarts(
    history: list[tuple[float, int, int, bool]],
) -> None:
    totals = Traffic(Instant(0.0))
    window = fold(NOTHING, totals, POLICY)
    counted = noticed = 0
    for passed_s, requests, failed, restarts in history:
        before = totals
        if restarts:
            totals = Traffic(totals.at)
        totals = totals._replace(
            at=Instant(totals.at + passed_s),
            requests=totals.requests + requests,
            failed=totals.failed + min(failed, requests),
        )
        counted += requests
        began_anew = totals.requests < before.requests or totals.failed < before.failed
        noticed += requests if not restarts or began_anew else totals.requests - before.requests
        window = fold(window, totals, POLICY)
        assert fold(window, before, POLICY) is window
    long = rate(window, 21_600, totals.at)
    assert long.requests == noticed
    assert long.requests <= counted
    assert sum(one.requests for one in window.fives) == noticed
    for over_s in (10, 60, 300, 1800):
        found = rate(window, over_s, totals.at)
        assert 0.0 <= found.error_ratio <= 1.0
        assert found.requests <= counted


garbage = st.builds(
    Traffic,
    st.floats(-100, 100).map(Instant),
    *[st.integers(-5, 200)] * 5,
    p95_s=st.none() | st.floats(0, 9),
)


@given(st.lists(garbage, max_size=40), st.floats(0.5, 1.0))
def test_whatever_is_read_has_a_rate_and_an_answer(readings: list[Traffic], slo: float) -> None:
    window = NOTHING
    for reading in readings:
        window = fold(window, reading, POLICY)
        now = reading.at
        for over_s in (60, 300, 1800, 3600, 21_600):
            requests, ratio = rate(window, over_s, now)
            assert requests >= 0
            assert 0.0 <= ratio <= 1.0
        symptom = symptom_of_traffic(window, POLICY, now)
        assert (
            symptom is None
            or not is_well_served(window, POLICY, now)
            or (symptom.kind is SymptomKind.SLOW)
        )
        burn(window, slo, now)
        outliers({"a": window, "b": server(100, 0)}, POLICY, now)


pools = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.tuples(st.integers(0, 80), st.integers(0, 80), st.none() | st.floats(0, 9)),
    min_size=1,
)


@given(pools, st.integers(0, 2**32))
def test_outliers_do_not_depend_on_the_order_and_are_never_all(
    pool: dict[str, tuple[int, int, float | None]], seed: int
) -> None:
    servers = {name: server(*what) for name, what in pool.items()}
    found = outliers(servers, POLICY, NOW)
    shuffled = list(servers.items())
    Random(seed).shuffle(shuffled)
    assert outliers(dict(shuffled), POLICY, NOW) == found
    assert len({outlier.server for outlier in found}) == len(found) < len(servers)
