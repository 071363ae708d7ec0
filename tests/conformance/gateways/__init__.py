"""One module per kind of gateway: the real program with two servers behind it.

A module has ``async def target(folder, stack, request) -> Bench``. What it starts it hands to
`stack`. The servers are called ``a`` and ``b``, the service ``web``; its circuit says "back soon".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.real.web import Web

from prunella.core.model import Epoch, InstanceId, ServiceId
from prunella.core.traffic import Traffic, Valve
from prunella.plugins import GatewayContext
from prunella.ports import Endpoint, Gateway, Route
from prunella.runtime.clock import SystemClock

SERVICE = ServiceId("web")
EPOCH = Epoch(1)
BODY = "back soon"


class Answer(NamedTuple):
    """What a caller got. ``server``: who answered it; empty: the gateway itself did."""

    status: int
    server: str = ""
    retry_after: str = ""
    body: str = ""


@dataclass
class Bench:
    """One gateway in front of two servers.

    Attributes:
        gateway: has been told its route.
        ask: one request of a caller, from connection to answer.
        again: another object for the same gateway, as after a restart of Prunella; has been told
            its route as well.
        servers: behind it; empty where they are not real.
        shut_by_hand: another operator takes a server out, or (False) puts it back; None: there is
            no such thing.
        restart: end the program and start it again, with its own configuration as it is then.
        reload: have it read its configuration anew, as an operator would; None: it cannot.
        freeze: let the program accept and answer nothing; the second call ends that. None: it
            cannot be asked while it stands still.
        dead: end the program for good.
        port: where callers come in, on 127.0.0.1; 0: they have another way.
        ends_by_itself: an open circuit ends at its lease without us.
        counts_servers: what each server has answered is counted, where they are told apart.
        counts: what passes, or is turned away, is counted.
        hears: it is told what is, and notices a moment later that nothing is told any more.
        answers: an open circuit answers callers; else they are not even connected (status 0).
    """

    gateway: Gateway
    ask: Callable[[], Awaitable[Answer]]
    again: Callable[[], Awaitable[Gateway]]
    restart: Callable[[], Awaitable[None]]
    dead: Callable[[], Awaitable[None]]
    ends_by_itself: bool
    port: int = 0
    servers: list[Web] = field(default_factory=list[Web])
    shut_by_hand: Callable[[str, bool], Awaitable[None]] | None = None
    reload: Callable[[], Awaitable[None]] | None = None
    freeze: Callable[[bool], None] | None = None
    counts_servers: bool = True
    counts: bool = True
    hears: bool = False
    answers: bool = True

    @property
    def turned_away(self) -> tuple[int, str]:
        """What a caller meets while the circuit is open: status and body."""
        return (503, BODY) if self.answers else (0, "")

    async def turn(self, valve: Valve, before: Valve | None = None, lease_s: float = 30.0) -> None:
        """Turn from what is set now, or from `before`."""
        present = (await self.gateway.observe())[SERVICE].valve if before is None else before
        await self.gateway.turn(SERVICE, valve, before=present, lease_s=lease_s, epoch=EPOCH)

    async def traffic(self) -> Traffic:
        return (await self.gateway.observe())[SERVICE].traffic

    async def valve(self) -> Valve:
        return (await self.gateway.observe())[SERVICE].valve


Target = Callable[[Path, AsyncExitStack, pytest.FixtureRequest], Awaitable[Bench]]


def target_of(kind: str) -> Target:
    """The target for a kind of gateway. Raises ModuleNotFoundError: it has none yet."""
    found: Target = import_module(f"{__name__}.{kind.replace('-', '_')}").target
    return found


def context(folder: Path) -> GatewayContext:
    return GatewayContext("edge", SystemClock(), folder)


def route(spec: object, servers: list[Web]) -> Route:
    endpoints = tuple(Endpoint(InstanceId(one.name), "127.0.0.1", one.port) for one in servers)
    return Route(SERVICE, spec, BODY, endpoints=endpoints)
