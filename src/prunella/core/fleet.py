"""The whole fleet: when many services fail at once, the healer is the danger.

A storm is more services of one failure domain failing within a short time than chance explains,
wholly or by half of their instances; or losing any instance in one moment. What is being healed
still counts until that is proven.
While new ones keep failing nothing is restarted; once no new one has failed for the length of the
window a canary is healed, and after each success twice as many.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from prunella.core.model import Instant
from prunella.core.policy import FleetPolicy


class Storm(NamedTuple):
    """How a failure domain stands; ``since`` None means calm.

    Attributes:
        quiet_since: since when nothing got worse: no new failure, no heal that did not help.
        clean_since: since when so few are failed that it is no storm any more.
        width: how many actions may run at once after the quiet: 1, 2, 4 …
    """

    since: Instant | None = None
    quiet_since: Instant = Instant(0.0)
    clean_since: Instant | None = None
    width: int = 1


class FleetView(NamedTuple):
    """The fleet as the guards of one service see it.

    Attributes:
        total: services watched; ``unwell`` of them are failed or degraded, or being healed of it.
        blind: services whose newest observations were all inconclusive.
        storm: of the service's own failure domain.
        domain_running: actions without an outcome in that domain.
        doubt: why our own perception is not to be trusted now; empty when it is.
        lease: why our lease on the store is not to be trusted now; empty when it is.
    """

    total: int = 1
    unwell: int = 0
    blind: int = 0
    storm: Storm = Storm()
    domain_running: int = 0
    doubt: str = ""
    lease: str = ""


CALM = Storm()
AT_ONCE_S = 10.0  # services that lose a part within it have lost it for the same reason


class Loss(IntEnum):
    """How much of a service is down: the more, the longer it counts as an onset of a storm."""

    NONE = 0
    PART = 1  # at least one instance
    HALF = 2  # half of its instances or more, or it has failed as a whole


class Toll(NamedTuple):
    """What a failure domain has lost.

    Attributes:
        total: its services; ``failed`` of them have lost half, and are not healed yet.
        onsets: those among the failed that became so within the storm window.
        at_once: those that lost a part within ``AT_ONCE_S``, and have not got it back.
    """

    total: int
    failed: int
    onsets: int
    at_once: int


def is_many(count: int, total: int, policy: FleetPolicy) -> bool:
    """Whether so many of a domain's services are more than chance explains."""
    return count >= policy.storm_services and count > policy.storm_ratio * total


def weather(storm: Storm, toll: Toll, now: Instant, policy: FleetPolicy) -> Storm:
    """The storm state now."""
    if storm.since is None:
        many = is_many(max(toll.onsets, toll.at_once), toll.total, policy)
        return Storm(now, now) if many else storm
    if is_many(toll.failed, toll.total, policy):
        return storm if storm.clean_since is None else storm._replace(clean_since=None)
    if storm.clean_since is None:
        return storm._replace(clean_since=now)
    return CALM if now - storm.clean_since >= policy.storm_window_s else storm


def worsened(storm: Storm, now: Instant) -> Storm:
    """Another service failed, or a heal in the storm did not help: wait again, start small."""
    return storm if storm.since is None else storm._replace(quiet_since=now, width=1)


def helped(storm: Storm) -> Storm:
    """A heal in the storm was verified: twice as many may run."""
    return storm if storm.since is None else storm._replace(width=storm.width * 2)
