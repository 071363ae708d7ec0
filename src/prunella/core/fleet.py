"""The whole fleet: when many services fail at once, the healer is the danger.

A storm is more services of one failure domain failing within a short time than chance explains.
While new ones keep failing nothing is restarted; once no new one has failed for the length of the
window a canary is healed, and after each success twice as many.
"""

from __future__ import annotations

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
        total: services watched; ``unwell`` of them are failed or degraded.
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


def weather(
    storm: Storm,
    total: int,
    failed: int,
    onsets: int,
    now: Instant,
    policy: FleetPolicy,
) -> Storm:
    """The storm state now.

    Args:
        total: services of the domain; ``failed`` of them are failed now.
        onsets: those failed now that became so within the storm window.
    """
    threshold = policy.storm_ratio * total
    if storm.since is None:
        if onsets >= policy.storm_services and onsets > threshold:
            return Storm(now, now)
        return storm
    if failed > threshold and failed >= policy.storm_services:
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
