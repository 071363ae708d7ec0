from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest

from prunella.core.model import ServiceId, Verdict
from prunella.plugins import ProbeContext
from prunella.probes._names import TTL_S, Names
from prunella.probes._wire import Address
from prunella.probes.tcp import TcpProbe, TcpSpec
from prunella.runtime.clock import SystemClock
from prunella.testing import toxic
from prunella.testing.clock import SimClock
from prunella.testing.toxic import Behaviour, ToxicServer

Serve = Callable[[Behaviour], Awaitable[ToxicServer]]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_ip_address_is_known_for_ever(host: str) -> None:
    clock = SimClock()
    names = Names(host, 80, clock)
    clock.advance(1e6)
    assert [address.sockaddr[:2] for address in names.known()] == [(host, 80)]


async def test_a_name_is_asked_for_again_when_its_time_is_over() -> None:
    clock = SimClock()
    names = Names("localhost", 80, clock)
    assert names.known() == []
    assert await names.look_up(5) == names.known() != []
    clock.advance(TTL_S - 1)
    assert names.known() != []
    clock.advance(1)
    assert names.known() == []


async def test_the_address_that_answered_is_tried_first() -> None:
    names = Names("localhost", 80, SimClock())
    await names.look_up(5)
    names.known()[:] = [Address(socket.AF_INET, ("127.0.0.1", 1)), Address(socket.AF_INET, "b")]
    names.prefer(names.known()[1])
    assert [address.sockaddr for address in names.known()] == ["b", ("127.0.0.1", 1)]


@pytest.fixture
def black_hole() -> Iterator[Address]:
    """An address that drops connections: a listener whose queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = Address(socket.AF_INET, listener.getsockname())
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex(address.sockaddr)
        yield address


async def test_an_address_that_drops_connections_leaves_time_for_the_next_one(
    serve: Serve, black_hole: Address
) -> None:
    server = await serve(toxic.silent)
    spec = TcpSpec.model_validate({"host": "localhost", "port": server.port, "timeout": 0.6})
    probe = TcpProbe(spec, ProbeContext(ServiceId("web"), SystemClock(), lambda _of: ()))
    await probe._names.look_up(5)
    good = Address(socket.AF_INET, ("127.0.0.1", server.port))
    probe._names.known()[:] = [black_hole, good]
    observation = await probe.check()
    assert observation.verdict is Verdict.PASS
    assert 0.25 <= observation.latency_s <= 0.4
    assert probe._names.known()[0] is good


async def test_a_look_up_that_nobody_waits_for_is_found_by_the_next_check() -> None:
    names = Names("localhost", 80, SimClock())
    task = asyncio.create_task(names.look_up(5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names.look_up(5) == names.known() != []
