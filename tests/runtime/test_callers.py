"""Circuits for callers in this very process."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from prunella import SelfHealingOrchestrator
from prunella.core.model import Epoch, Instant, ServiceId
from prunella.core.traffic import OPEN_WIDE, Valve
from prunella.errors import CircuitOpenError, ConflictError, PermanentError, UnknownServiceError
from prunella.ports import Route
from prunella.runtime.callers import Callers
from prunella.testing.clock import SimClock

PAY = ServiceId("payments")
EPOCH = Epoch(1)


class Bed:
    def __init__(self) -> None:
        self.clock = SimClock()
        self.callers = Callers(self.clock, random.Random(1))
        self.circuit = self.callers.circuit(PAY)

    async def turn(self, share: int, before: int = 100) -> None:
        await self.callers.turn(PAY, Valve(share), before=Valve(before), lease_s=30, epoch=EPOCH)

    async def traffic(self) -> Any:
        return (await self.callers.observe())[PAY].traffic


@pytest.fixture
def bed() -> Bed:
    return Bed()


async def test_a_decorated_function_is_called_and_counted(bed: Bed) -> None:
    @bed.circuit
    def pay(amount: int) -> int:
        """Pay it."""
        return amount

    @bed.circuit
    async def pay_later(amount: int) -> int:
        await asyncio.sleep(0)
        return amount

    assert (pay(3), await pay_later(4)) == (3, 4)
    assert pay.__doc__ == "Pay it."
    traffic = await bed.traffic()
    assert (traffic.requests, traffic.failed, traffic.in_flight) == (2, 0, 0)


async def test_what_raises_has_failed_and_what_is_ignored_or_cancelled_has_not(bed: Bed) -> None:
    choosy = bed.callers.circuit(PAY, (KeyError,))
    for error, circuit in ((ValueError, choosy), (KeyError, choosy), (KeyError, bed.circuit)):
        with pytest.raises(error), circuit:
            raise error
    with pytest.raises(asyncio.CancelledError):
        async with bed.circuit:
            raise asyncio.CancelledError
    traffic = await bed.traffic()
    assert (traffic.requests, traffic.failed) == (4, 2)


async def test_while_it_is_open_nothing_is_called(bed: Bed) -> None:
    await bed.callers.route([Route(PAY, None, "back soon")])
    await bed.turn(0)
    with pytest.raises(CircuitOpenError, match="back soon") as refused, bed.circuit:
        raise AssertionError("it was called")
    assert refused.value.retry_after_s == 30
    traffic = await bed.traffic()
    assert (traffic.requests, traffic.turned_away) == (0, 1)
    assert (await bed.callers.observe())[PAY].valve == Valve(0)
    bed.clock.move_to(Instant(bed.clock.now() + 30))
    with bed.circuit:
        pass
    assert (await bed.callers.observe())[PAY].valve == OPEN_WIDE


async def test_a_share_is_let_through(bed: Bed) -> None:
    await bed.turn(10)
    served = 0
    for _ in range(2000):
        try:
            with bed.circuit:
                served += 1
        except CircuitOpenError:
            pass
    assert 140 < served < 260
    with pytest.raises(ConflictError):
        await bed.turn(0)


async def test_calls_from_many_threads_are_all_counted(bed: Bed) -> None:
    @bed.circuit
    def pay() -> None:
        pass

    def often() -> None:
        for _ in range(5000):
            pay()

    threads = [Thread(target=often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    traffic = await bed.traffic()
    assert (traffic.requests, traffic.in_flight) == (20_000, 0)


async def test_it_tells_how_long_calls_take(bed: Bed) -> None:
    for _ in range(90):
        with bed.circuit:
            bed.clock.move_to(Instant(bed.clock.now() + 0.1))
    for _ in range(10):
        with bed.circuit:
            bed.clock.move_to(Instant(bed.clock.now() + 2.0))
    traffic = await bed.traffic()
    assert traffic.p50_s == pytest.approx(0.1)
    assert (traffic.p95_s, traffic.p99_s) == pytest.approx((2.0, 2.0))
    assert traffic.mean_s == pytest.approx(0.29)


async def test_it_knows_no_servers_and_only_what_was_asked_for(bed: Bed) -> None:
    with pytest.raises(PermanentError):
        await bed.callers.turn(
            PAY, Valve(shut=frozenset("a")), before=OPEN_WIDE, lease_s=1, epoch=EPOCH
        )
    with pytest.raises(PermanentError):
        await bed.callers.turn(ServiceId("x"), Valve(0), before=OPEN_WIDE, lease_s=1, epoch=EPOCH)


FAILING: dict[str, Any] = {
    "platform": "command",
    "command": {"observe": ["true"], "restart": ["true"]},
    "probes": [{"kind": "exec", "command": ["false"], "interval": "50ms"}],
    "grace": "50ms",
    "verify": {"soak": "100ms", "deadline": "200ms"},
    "ladder": {"erroring": ["circuit-break"]},
    "guards": {"fall": 2},
}


@pytest.fixture
async def orchestrator(tmp_path: Path) -> AsyncIterator[SelfHealingOrchestrator]:
    orchestrator = SelfHealingOrchestrator()
    orchestrator.register_service("payments", **FAILING)
    yield orchestrator
    await orchestrator.stop_monitoring()


@pytest.mark.parametrize("early", [True, False])
async def test_the_circuit_of_a_failing_service_opens_for_those_who_call_it(
    orchestrator: SelfHealingOrchestrator,
    eventually: Any,
    early: bool,  # noqa: FBT001 - a parameter of a test
) -> None:
    if early:
        circuit = orchestrator.circuit("payments")
    await orchestrator.start_monitoring()
    if not early:
        circuit = orchestrator.circuit("payments")

    def refused() -> bool:
        try:
            with circuit:
                return False
        except CircuitOpenError:
            return True

    await eventually(refused)
    page = await orchestrator.get_healing_history()
    assert [(one.action, one.share) for one in page] == [("circuit-break", 0)]
    await eventually(lambda: orchestrator.get_service_health("payments").circuit is not None)


async def test_a_circuit_of_what_is_not_there_is_refused(
    orchestrator: SelfHealingOrchestrator,
) -> None:
    orchestrator.circuit("paiments")
    with pytest.raises(UnknownServiceError, match="there is no service paiments"):
        await orchestrator.start_monitoring()


async def test_a_circuit_of_what_is_not_there_is_refused_later_too(
    orchestrator: SelfHealingOrchestrator,
) -> None:
    await orchestrator.start_monitoring()
    with pytest.raises(UnknownServiceError):
        orchestrator.circuit("paiments")
