"""What stands in front of a service: how much it lets through, and what it counts."""

from __future__ import annotations

from typing import NamedTuple

from prunella.core.model import Traffic

__all__ = ["OPEN_WIDE", "Flow", "Server", "Traffic", "Valve"]  # observations bring it as well


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
        shares: whether a part of its requests can be let through; else all or none.
    """

    valve: Valve
    traffic: Traffic
    servers: tuple[Server, ...] = ()
    shares: bool = True
