"""What stands in front of a service: how much it lets through, and what it counts."""

from __future__ import annotations

from typing import NamedTuple

from prunella.core.model import Instant


class Valve(NamedTuple):
    """How much of its requests a service gets: an absolute setting, that can be read back.

    Attributes:
        share: percent of the requests that are let through, 0-100; the others are answered at
            once by the gateway. 100: the circuit is closed, 0: it is open.
        shut: servers that get none of them, by the names that the gateway has for them.
    """

    share: int = 100
    shut: frozenset[str] = frozenset()


OPEN_WIDE = Valve()


class Traffic(NamedTuple):
    """What real requests have met: totals since the gateway began to count.

    Totals that have become smaller mean that it began anew, and nothing else.

    Attributes:
        at: when they were read.
        requests: those that have ended, whatever their end; turned away ones are not among them.
        failed: those among them that were answered with 5xx, or not at all.
        unconnected: attempts to connect to a server that failed.
        turned_away: requests that a circuit has answered instead of the service.
        in_flight: requests under way now.
        p50_s, p95_s, p99_s, mean_s: how long the recent ones took; None where the gateway does
            not tell it.
    """

    at: Instant
    requests: int = 0
    failed: int = 0
    unconnected: int = 0
    turned_away: int = 0
    in_flight: int = 0
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    mean_s: float | None = None


class Server(NamedTuple):
    """One server of a service, as the gateway has it.

    Attributes:
        name: the gateway's own for it.
        address, port: where it answers; empty and 0 where that is not known.
        up: it gets requests, as far as the gateway's own checks go; ``Valve.shut`` is beside that.
        traffic: of it alone; None where the gateway does not count that.
    """

    name: str
    address: str = ""
    port: int = 0
    up: bool = True
    traffic: Traffic | None = None


class Flow(NamedTuple):
    """A service as its gateway has it now.

    Attributes:
        valve: as it is set, whoever has set it.
        traffic: of all its servers together.
        servers: in the gateway's order; empty where it does not tell them apart.
    """

    valve: Valve
    traffic: Traffic
    servers: tuple[Server, ...] = ()
