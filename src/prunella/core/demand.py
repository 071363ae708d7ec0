"""From readings of totals to windows of real requests, and what these confirm.

`fold` runs once per service for every reading of a gateway; everything else looks at a few sums.
A window says nothing where there were too few requests: no data is unknown, never well and never
sick.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from prunella.core.model import Health, Instant, Symptom, SymptomKind, Traffic
from prunella.core.policy import Policy

RECENT_S = 60.0  # what traffic is judged over
MIN_REQUESTS = 50  # fewer within RECENT_S confirm nothing of a service
MIN_OF_SERVER = 20  # fewer within RECENT_S confirm nothing of one server
PEER_FACTOR = 3.0  # a server so many times worse than its peers is an outlier
KEPT_S = 21_600.0

_FINE_COUNT = 16  # at least RECENT_S of them, see _MERGED_S
_MERGED_S = 7.5  # readings together in one fine sum, so that short intervals need no more of them
_MINUTE = (60.0, 6)  # width of a slot, and how many are kept: 5 min and what is under way
_FIVE_MINUTES = (300.0, 73)  # as much for 6 h
_MIN_BURNT = 3  # failures in the short window; one or two burn nothing
_PRESENT = 20  # newest requests that must be failing as well, for a rate to count as present


class Sum(NamedTuple):
    """Requests between two moments.

    Attributes:
        since, at: the readings that it lies between; in a coarse one the slot's own bounds.
        unconnected: attempts to connect that failed; tries, not requests.
    """

    since: Instant
    at: Instant
    requests: int
    failed: int
    unconnected: int = 0


class Rate(NamedTuple):
    """How many requests there were, and which share of them failed, 0-1; 0 without any."""

    requests: int
    error_ratio: float


class Window(NamedTuple):
    """What the readings of one service, or of one server, add up to. Bounded in size.

    Attributes:
        last: the newest reading.
        every_s: from the reading before to that one; 0 before the second.
        fine: the last minute and a little more, by reading; those without requests are left out.
        minutes, fives: the newest slots of 1 and of 5 minutes that had requests.
        bad_since: the first reading with too many failures, while the newest requests fail too
            often as well; None: they do not.
        slow_since: the first of the present run of slow readings; None while there is none.
        slow_in_a_row: their number; those without new requests are passed over.
    """

    last: Traffic | None = None
    every_s: float = 0.0
    fine: tuple[Sum, ...] = ()
    minutes: tuple[Sum, ...] = ()
    fives: tuple[Sum, ...] = ()
    bad_since: Instant | None = None
    slow_since: Instant | None = None
    slow_in_a_row: int = 0


NOTHING = Window()


class Outlier(NamedTuple):
    """A server that is sick among its peers; ``kind`` is ERRORING or SLOW."""

    server: str
    kind: SymptomKind
    evidence: str


def fold(window: Window, seen: Traffic, policy: Policy, *, lasting: bool = True) -> Window:
    """Take in one reading. The first one only says where the totals stood.

    Any total that has become smaller means that all of them began anew. A reading that is not
    newer than the last one changes nothing. What was counted over more than a minute is no
    evidence for the last one, and only goes into the long windows.

    Args:
        window: as it is; ``NOTHING`` at first.
        seen: the totals now.
        policy: says which readings are bad.
        lasting: False keeps the last minute alone: a fraction of the memory, and all that
            `outliers` needs.
    """
    last = window.last
    if last is None:
        return Window(last=seen)
    if seen.at <= last.at:
        return window
    new = _gained(last, seen)
    every_s = seen.at - last.at
    if not new.requests and not new.unconnected:
        return window._replace(last=seen, every_s=every_s)
    slow_since, slow_in_a_row = window.slow_since, window.slow_in_a_row
    latency_s = latency_of(seen)
    if new.requests and latency_s is not None:
        if latency_s <= policy.response_time_s:
            slow_since, slow_in_a_row = None, 0
        else:
            slow_since = seen.at if slow_since is None else slow_since
            slow_in_a_row += 1
    fine = _with_reading(window.fine, new) if every_s <= RECENT_S else window.fine
    bad_since = window.bad_since
    if bad_since is not None or _is_bad(new, policy):
        recent = _since(fine, seen.at - RECENT_S)
        if _present(recent, policy) <= policy.degraded_error_rate:
            bad_since = None
        elif bad_since is None:
            bad_since = _onset(recent, policy)
    return Window(
        seen,
        every_s,
        fine,
        _with_slot(window.minutes, new, *_MINUTE) if lasting else (),
        _with_slot(window.fives, new, *_FIVE_MINUTES) if lasting else (),
        bad_since,
        slow_since,
        slow_in_a_row,
    )


def latency_of(traffic: Traffic) -> float | None:
    """How long requests take, as it is judged: the 95th percentile, else the mean."""
    return traffic.mean_s if traffic.p95_s is None else traffic.p95_s


def rate(window: Window, over_s: float, now: Instant) -> Rate:
    """Requests of the last `over_s` seconds, at most of the 6 h that are kept.

    Up to one sum more than that: a reading up to 1 min, 1 min up to 5 min, and 5 min beyond.
    """
    return _rate(_chosen(window, over_s, now))


def symptom_of_traffic(window: Window, policy: Policy, now: Instant) -> Symptom | None:
    """What the requests of the last minute confirm, if anything.

    What is over is not held against a service: its newest requests must fail too often as well.
    """
    recent = _since(window.fine, now - RECENT_S)
    requests, ratio = _rate(recent)
    if requests < MIN_REQUESTS:
        return None
    present = min(ratio, _present(recent, policy))
    if present > policy.degraded_error_rate:
        failed = present > policy.failed_error_rate
        severity = Health.FAILED if failed else Health.DEGRADED
        since = _onset(recent, policy) if window.bad_since is None else window.bad_since
        return Symptom(SymptomKind.ERRORING, severity, since, _failing(recent))
    if window.slow_in_a_row >= policy.fall and window.slow_since is not None:
        assert window.last is not None
        evidence = f"{_slowness(window.last)} in {window.slow_in_a_row} readings in a row"
        return Symptom(SymptomKind.SLOW, Health.DEGRADED, window.slow_since, evidence)
    return None


def is_well_served(window: Window, policy: Policy, now: Instant) -> bool:
    """Enough real requests of the last minute, up to now, have succeeded.

    Probes that say of the service as a whole that it fails are then contradicted. That requests
    no longer end at all is not success: the newest ones must be at most 3 intervals old.
    """
    recent = _since(window.fine, now - RECENT_S)
    requests, ratio = _rate(recent)
    if requests < MIN_REQUESTS:
        return False
    newest = next(one.at for one in reversed(recent) if one.requests)
    if now - newest > 3 * max(policy.interval_s, window.every_s):
        return False
    return max(ratio, _present(recent, policy)) <= policy.degraded_error_rate


def burn(window: Window, slo: float, now: Instant) -> Symptom | None:
    """Whether the budget of errors of an SLO burns too fast, by two windows each.

    A long window says that it matters, a short one that it still goes on: 14.4 times as fast as
    the budget of 30 days lasts over 1 h and 5 min is FAILED, 6 times over 6 h and 30 min
    DEGRADED. The third pair that is in use elsewhere, 3 d and 6 h, is beyond what is kept. A
    window that is not full yet is judged by what there is.

    Args:
        window: lasting.
        slo: share of the requests that shall succeed, 0-1.
        now: the windows end there.
    """
    budget = 1.0 - slo
    for factor, long_s, short_s, severity in (
        (14.4, 3600.0, 300.0, Health.FAILED),
        (6.0, 21_600.0, 1800.0, Health.DEGRADED),
    ):
        limit = factor * budget
        short = _chosen(window, short_s, now)
        if sum(one.failed for one in short) < _MIN_BURNT:
            continue
        short_rate = _rate(short)
        long = _chosen(window, long_s, now)
        long_rate = _rate(long)
        if short_rate.requests < MIN_REQUESTS or min(short_rate[1], long_rate[1]) <= limit:
            continue
        over = (one.since for one in long if one.failed > limit * one.requests)
        evidence = (
            f"{long_rate.error_ratio:.2%} of {long_rate.requests} requests in {_span(long_s)} and "
            f"{short_rate.error_ratio:.2%} of {short_rate.requests} in {_span(short_s)} failed, "
            f"more than {factor:g} times what {slo:.6g} allows"
        )
        return Symptom(SymptomKind.ERRORING, severity, next(over, now), evidence)
    return None


def outliers(servers: Mapping[str, Window], policy: Policy, now: Instant) -> tuple[Outlier, ...]:
    """The servers that are sick among their peers, the worst first; failing before slow.

    Where all are equally bad nobody is an outlier: the trouble is not theirs. Nor is one whose
    peers have had too few requests to compare it with.
    """
    recent = {name: _since(window.fine, now - RECENT_S) for name, window in servers.items()}
    rates = {
        name: found
        for name, sums in recent.items()
        if (found := _rate(sums)).requests >= MIN_OF_SERVER
    }
    requests = sum(sum(one.requests for one in sums) for sums in recent.values())
    failed = sum(sum(one.failed for one in sums) for sums in recent.values())
    failing: list[tuple[float, Outlier]] = []
    for name, (own, _) in rates.items():
        rest = requests - own
        if rest < MIN_OF_SERVER:
            continue
        rest_ratio = (failed - sum(one.failed for one in recent[name])) / rest
        ratio = min(rates[name].error_ratio, _present(recent[name], policy))
        if ratio > policy.degraded_error_rate and ratio > PEER_FACTOR * rest_ratio:
            evidence = f"{_failing(recent[name])}, and {rest_ratio:.1%} of those of its peers"
            failing.append((ratio, Outlier(name, SymptomKind.ERRORING, evidence)))
    named = {outlier.server for _, outlier in failing}
    slow = _slow({name: servers[name] for name in rates if name not in named}, policy)
    return tuple(
        outlier
        for group in (failing, slow)
        for _, outlier in sorted(group, key=lambda found: (-found[0], found[1].server))
    )


def _slow(servers: Mapping[str, Window], policy: Policy) -> list[tuple[float, Outlier]]:
    latencies = {
        name: latency_s
        for name, window in servers.items()
        if window.last is not None and (latency_s := latency_of(window.last)) is not None
    }
    found: list[tuple[float, Outlier]] = []
    for name, latency_s in latencies.items():
        window = servers[name]
        peers = [other_s for other, other_s in latencies.items() if other != name]
        if not peers or window.slow_in_a_row < policy.fall or window.last is None:
            continue
        if latency_s > policy.response_time_s and latency_s > PEER_FACTOR * median(peers):
            evidence = f"{_slowness(window.last)}, and {median(peers):.2f} s at its peers"
            found.append((latency_s, Outlier(name, SymptomKind.SLOW, evidence)))
    return found


def _gained(last: Traffic, seen: Traffic) -> Sum:
    if (
        seen.requests < last.requests
        or seen.failed < last.failed
        or seen.unconnected < last.unconnected
        or seen.turned_away < last.turned_away
    ):
        last = Traffic(last.at)
    requests = max(0, seen.requests - last.requests)
    failed = min(requests, max(0, seen.failed - last.failed))
    return Sum(last.at, seen.at, requests, failed, max(0, seen.unconnected - last.unconnected))


def _is_bad(one: Sum, policy: Policy) -> bool:
    return one.failed > policy.degraded_error_rate * one.requests


def _onset(sums: Sequence[Sum], policy: Policy) -> Instant:
    """The first of the bad readings in a row that come last; else the first bad one of all."""
    onset = next((one.at for one in sums if _is_bad(one, policy)), sums[0].at)
    for one in reversed(sums):
        if not _is_bad(one, policy):
            break
        onset = one.at
    return onset


def _with_reading(fine: tuple[Sum, ...], new: Sum) -> tuple[Sum, ...]:
    if fine and new.at - fine[-1].since <= _MERGED_S:
        return (*fine[:-1], _merged(fine[-1], new)._replace(at=new.at))
    return (*fine[1 - _FINE_COUNT :], new)


def _with_slot(slots: tuple[Sum, ...], new: Sum, width_s: float, count: int) -> tuple[Sum, ...]:
    if slots and new.at < slots[-1].at:
        return (*slots[:-1], _merged(slots[-1], new))
    since = new.at // width_s * width_s
    slot = new._replace(since=Instant(since), at=Instant(since + width_s))
    return (*slots[1 - count :], slot)


def _merged(one: Sum, other: Sum) -> Sum:
    return Sum(
        one.since,
        one.at,
        one.requests + other.requests,
        one.failed + other.failed,
        one.unconnected + other.unconnected,
    )


def _since(sums: Sequence[Sum], begin: float) -> Sequence[Sum]:
    for number, one in enumerate(sums):
        if one.at > begin:
            return sums[number:]
    return ()


def _chosen(window: Window, over_s: float, now: Instant) -> Sequence[Sum]:
    if over_s <= RECENT_S:
        return _since(window.fine, now - over_s)
    coarse = window.minutes if over_s <= _FIVE_MINUTES[0] else window.fives
    return _since(coarse, now - min(over_s, KEPT_S))


def _rate(sums: Iterable[Sum]) -> Rate:
    requests = failed = 0
    for one in sums:
        requests += one.requests
        failed += one.failed
    return Rate(requests, failed / requests if requests else 0.0)


def _present(sums: Sequence[Sum], policy: Policy) -> float:
    """The error ratio of the newest readings: `rise` of them, and more until it says something."""
    requests = failed = 0
    for readings, one in enumerate(reversed(sums), 1):
        requests += one.requests
        failed += one.failed
        if readings >= policy.rise and requests >= _PRESENT:
            break
    return failed / requests if requests else 0.0


def _failing(sums: Sequence[Sum]) -> str:
    requests, ratio = _rate(sums)
    unconnected = sum(one.unconnected for one in sums)
    tries = f" ({unconnected} tries to connect failed)" if unconnected else ""
    return f"{ratio:.1%} of the last {requests} requests failed{tries}"


def _slowness(traffic: Traffic) -> str:
    if traffic.p95_s is not None:
        return f"1 of 20 requests takes {traffic.p95_s:.2f} s or longer"
    return f"requests take {traffic.mean_s or 0.0:.2f} s on average"


def _span(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"
