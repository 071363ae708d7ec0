"""The gateway in memory."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.gateways import BODY, SERVICE, Answer, Bench, route
from tests.real.web import Web

from prunella.runtime.clock import SystemClock
from prunella.testing.gateway import FakeGateway


async def target(_folder: Path, _stack: AsyncExitStack, _request: pytest.FixtureRequest) -> Bench:
    gateway = FakeGateway(SystemClock(), random.Random(1))
    await gateway.route([route(None, [Web("a"), Web("b")])])

    async def ask() -> Answer:
        server = gateway.ask(SERVICE)
        return Answer(200, server) if server else Answer(503, "", "30", BODY)

    async def again() -> FakeGateway:
        return gateway

    async def restart() -> None:
        gateway.restart()

    async def dead() -> None:
        gateway.break_down()

    async def shut_by_hand(server: str, shut: bool) -> None:  # noqa: FBT001 - as in `Bench`
        valve = gateway.valve(SERVICE)
        names = valve.shut | {server} if shut else valve.shut - {server}
        gateway.meddle(SERVICE, valve._replace(shut=names))

    return Bench(gateway, ask, again, restart, dead, ends_by_itself=True, shut_by_hand=shut_by_hand)
