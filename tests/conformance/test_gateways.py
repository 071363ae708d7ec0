"""Every gateway, built in, third-party or fake, obeys the same rules against the real program.

A target is found by the gateway's kind: a gateway without one is a failure, not a skip, unless it
says itself that it is experimental.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.gateways import EPOCH, SERVICE, Answer, Bench, target_of

from prunella.core.model import ServiceId
from prunella.core.traffic import OPEN_WIDE, Traffic, Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.plugins import gateways

KINDS = sorted(
    {
        *(kind for kind, one in gateways().items() if not one.experimental),
        *("fake", "kubernetes-real"),
    }
)
OPEN = Valve(0)


@pytest.fixture(params=KINDS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield await target_of(request.param)(tmp_path, stack, request)


async def asked(bench: Bench, count: int) -> list[Answer]:
    return [await bench.ask() for _ in range(count)]


async def traffic_of(bench: Bench, at_least: int) -> Traffic:
    """What is counted once so many requests have been; some count a moment later."""
    async with asyncio.timeout(30):
        while True:
            flow = (await bench.gateway.observe())[SERVICE]
            counted = flow.traffic.requests + flow.traffic.turned_away
            if counted >= at_least or not bench.counts:
                return flow.traffic
            await asyncio.sleep(0.05)


async def is_troubled(bench: Bench) -> bool:
    try:
        await bench.gateway.observe()
    except TransientError:
        return True
    return False


async def test_at_rest_every_request_is_served_and_counted(bench: Bench) -> None:
    before = (await bench.gateway.observe())[SERVICE]
    assert before.valve == OPEN_WIDE
    answers = await asked(bench, 20)
    assert {answer.status for answer in answers} == {200}
    assert {answer.server for answer in answers} == {"a", "b"}
    after = await traffic_of(bench, before.traffic.requests + 20)
    assert after.requests - before.traffic.requests == (20 if bench.counts else 0)
    assert (after.failed, after.turned_away) == (0, 0)


async def test_open_it_answers_at_once_and_the_servers_hear_nothing(bench: Bench) -> None:
    await asked(bench, 2)
    heard = sum(server.count for server in bench.servers)
    counted = await traffic_of(bench, 2)
    await bench.turn(OPEN)
    answers = await asked(bench, 20)
    assert {(answer.status, answer.body.strip()) for answer in answers} == {bench.turned_away}
    if bench.answers:
        assert all(0 < int(answer.retry_after) <= 30 for answer in answers)
    assert sum(server.count for server in bench.servers) == heard
    flow = (await bench.gateway.observe())[SERVICE]
    assert flow.valve == OPEN
    assert flow.traffic.requests == counted.requests
    await bench.turn(OPEN_WIDE)
    assert {answer.status for answer in await asked(bench, 20)} == {200}
    assert await bench.valve() == OPEN_WIDE


async def test_a_share_is_let_through(bench: Bench) -> None:
    if not bench.gateway.shares:
        with pytest.raises(PermanentError):
            await bench.turn(Valve(10))
        return
    for share in (10, 50):
        await bench.turn(Valve(share))
        assert await bench.valve() == Valve(share)
        served = sum(bool(answer.server) for answer in await asked(bench, 400))
        assert share * 4 * 0.5 < served < share * 4 * 1.5


async def test_a_server_that_is_shut_hears_nothing(bench: Bench) -> None:
    shut = Valve(shut=frozenset({"a"}))
    if not bench.gateway.shuts:
        with pytest.raises(PermanentError):
            await bench.turn(shut)
        return
    await bench.turn(shut)
    assert {answer.server for answer in await asked(bench, 20)} == {"b"}
    flow = (await bench.gateway.observe())[SERVICE]
    assert flow.valve == shut
    assert {server.name for server in flow.servers} == {"a", "b"}
    await bench.turn(OPEN_WIDE)
    assert {answer.server for answer in await asked(bench, 20)} == {"a", "b"}


async def test_each_server_is_counted_by_itself(bench: Bench) -> None:
    if not bench.gateway.shuts or not bench.counts_servers:
        return  # it does not tell them apart, or what they have answered
    before = {s.name: s.traffic for s in (await bench.gateway.observe())[SERVICE].servers}
    if bench.servers:
        bench.servers[0].status = 500
    answers = await asked(bench, 40)
    total = sum(found.requests for found in before.values() if found is not None)
    await traffic_of(bench, total + 40)
    after = {s.name: s.traffic for s in (await bench.gateway.observe())[SERVICE].servers}
    said = Counter(answer.server for answer in answers)
    for name, now in after.items():
        then = before[name]
        assert now is not None
        assert then is not None
        assert now.requests - then.requests == said[name]
        failed = said[name] if bench.servers and name == bench.servers[0].name else 0
        assert now.failed - then.failed == failed


async def test_turned_twice_it_is_turned_once(bench: Bench) -> None:
    for _ in range(2):
        await bench.turn(OPEN, before=OPEN_WIDE)
        assert await bench.valve() == OPEN
    for _ in range(2):
        await bench.turn(OPEN_WIDE, before=OPEN)
        assert await bench.valve() == OPEN_WIDE


async def test_no_request_fails_of_the_turning(bench: Bench) -> None:
    """Each one is answered well, or by the circuit in its own words."""
    answers: list[Answer] = []
    done = asyncio.Event()

    async def keep_asking() -> None:
        while not done.is_set():
            answers.append(await bench.ask())
            await asyncio.sleep(0)

    callers = [asyncio.create_task(keep_asking()) for _ in range(8)]
    steps = [OPEN, OPEN_WIDE]
    if bench.gateway.shares:
        steps = [OPEN, Valve(10), Valve(50), OPEN_WIDE]
    if bench.gateway.shuts:
        steps += [Valve(shut=frozenset({"a"})), Valve(shut=frozenset({"b"})), OPEN_WIDE]
    for step in steps * 2:
        await bench.turn(step)
        heard = len(answers)
        async with asyncio.timeout(30):
            while len(answers) < heard + 50:  # noqa: ASYNC110 - callers have no event
                await asyncio.sleep(0.002)
    done.set()
    await asyncio.gather(*callers)
    away = bench.turned_away
    odd = [a for a in answers if a.status != 200 and (a.status, a.body.strip()) != away]
    assert not odd
    assert {a.status for a in answers} == {200, away[0]}


async def test_the_lease_of_an_open_circuit_ends_without_us(bench: Bench) -> None:
    await bench.turn(OPEN, lease_s=1.0)
    assert (await bench.ask()).status == bench.turned_away[0]
    await bench.gateway.close()
    async with asyncio.timeout(30):
        while bench.ends_by_itself and (await bench.ask()).status != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    again = await bench.again()
    found = (await again.observe())[SERVICE].valve
    assert found == (OPEN_WIDE if bench.ends_by_itself else OPEN)


async def test_what_is_set_is_in_the_gateway_and_not_in_us(bench: Bench) -> None:
    valve = Valve(0, frozenset({"a"}) if bench.gateway.shuts else frozenset())
    await bench.turn(valve)
    again = await bench.again()
    assert (await again.observe())[SERVICE].valve == valve
    await again.turn(SERVICE, OPEN_WIDE, before=valve, lease_s=30, epoch=EPOCH)
    assert (await bench.ask()).status == 200


async def test_what_somebody_else_sets_is_seen_and_left(bench: Bench) -> None:
    if bench.shut_by_hand is not None:
        await bench.shut_by_hand("a", True)  # noqa: FBT003
        assert (await bench.valve()).shut == {"a"}
        await bench.turn(OPEN, before=OPEN_WIDE)
        await bench.turn(OPEN_WIDE, before=OPEN)
        assert (await bench.valve()).shut == {"a"}
        await bench.shut_by_hand("a", False)  # noqa: FBT003
        assert await bench.valve() == OPEN_WIDE
    if bench.gateway.shares:
        await bench.turn(Valve(50))
        with pytest.raises(ConflictError):
            await bench.turn(OPEN, before=OPEN_WIDE)
        assert await bench.valve() == Valve(50)


async def test_a_restart_of_the_gateway_is_no_trouble_once_it_is_over(bench: Bench) -> None:
    await asked(bench, 4)
    await bench.restart()
    async with asyncio.timeout(30):
        while True:
            try:
                flow = (await bench.gateway.observe())[SERVICE]
                break
            except TransientError:
                await asyncio.sleep(0.05)
    assert flow.valve == OPEN_WIDE
    assert {answer.status for answer in await asked(bench, 4)} == {200}
    await bench.turn(OPEN)
    assert (await bench.ask()).status == bench.turned_away[0]


async def test_a_reload_does_not_lose_what_is_set(bench: Bench) -> None:
    if bench.reload is None:
        return
    valve = Valve(0, frozenset({"a"}) if bench.gateway.shuts else frozenset())
    await bench.turn(valve)
    await bench.reload()
    async with asyncio.timeout(30):
        while True:
            try:
                found = await bench.valve()
                if found == valve:
                    break
                await bench.turn(valve, before=found)  # asserted again
            except TransientError:
                pass
            await asyncio.sleep(0.05)
    assert (await bench.ask()).status == bench.turned_away[0]


async def test_a_gateway_that_stands_still_is_trouble_and_no_answer(bench: Bench) -> None:
    if bench.freeze is None:
        return
    bench.freeze(True)  # noqa: FBT003
    try:
        async with asyncio.timeout(30):
            while bench.hears and not await is_troubled(bench):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            with pytest.raises(TransientError):
                await bench.gateway.observe()
    finally:
        bench.freeze(False)  # noqa: FBT003
    async with asyncio.timeout(30):
        while True:
            try:
                assert await bench.valve() == OPEN_WIDE
                break
            except TransientError:
                await asyncio.sleep(0.05)


async def asked_on(bench: Bench) -> None:
    """Whoever is told by a watch hears of its end a moment later."""
    while True:
        await bench.gateway.observe()
        await asyncio.sleep(0.01)


async def test_a_gateway_that_has_gone_is_trouble_and_no_answer(bench: Bench) -> None:
    await bench.dead()
    with pytest.raises(TransientError):
        await asyncio.wait_for(asked_on(bench), 30)
    with pytest.raises(TransientError):
        await bench.turn(OPEN, before=OPEN_WIDE)


async def test_a_service_that_it_does_not_know_is_refused(bench: Bench) -> None:
    assert ServiceId("other") not in await bench.gateway.observe()
    with pytest.raises(PermanentError):
        await bench.gateway.turn(
            ServiceId("other"), OPEN, before=OPEN_WIDE, lease_s=30, epoch=EPOCH
        )
