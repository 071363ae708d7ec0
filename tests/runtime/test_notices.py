"""The bus: a subscriber can harm itself and nobody else."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prunella.core.model import ServiceId
from prunella.runtime.notices import Bus, Notice, Topic
from prunella.testing.clock import SimClock

FAILED, HEALED = Topic.SERVICE_FAILED, Topic.SERVICE_HEALED
QUEUE = 1000


def notice(topic: Topic = FAILED, number: int = 0) -> Notice:
    return Notice(topic, SimClock().stamp(), ServiceId("shop"), {"number": number})


@pytest.fixture
def bus() -> Iterator[Bus]:
    made = Bus()
    yield made
    made.close()


async def test_everybody_hears_what_they_asked_for_in_its_order(bus: Bus, eventually: Any) -> None:
    heard: list[int] = []
    awaited: list[int] = []

    async def listen(said: Notice) -> None:
        awaited.append(said.data["number"])

    bus.on(frozenset({FAILED}), lambda said: heard.append(said.data["number"]))
    bus.on(frozenset({FAILED}), listen)
    for number in range(100):
        bus.publish(notice(number=number))
        bus.publish(notice(HEALED, number=-1))
    await eventually(lambda: len(heard) == len(awaited) == 100)
    assert heard == awaited == list(range(100))


@pytest.mark.parametrize("kind", ["function", "coroutine"])
async def test_a_callback_that_raises_hears_the_next_one_and_harms_nobody(
    bus: Bus, eventually: Any, kind: str
) -> None:
    heard: list[int] = []
    others: list[int] = []

    def rude(said: Notice) -> None:
        heard.append(said.data["number"])
        raise ValueError("as rude as can be")

    async def rude_later(said: Notice) -> None:
        rude(said)

    bus.on(frozenset({FAILED}), rude if kind == "function" else rude_later)
    bus.on(frozenset({FAILED}), lambda said: others.append(said.data["number"]))
    for number in range(3):
        bus.publish(notice(number=number))
    await eventually(lambda: len(heard) == len(others) == 3)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    opened = threading.Event()
    yield opened
    opened.set()


@pytest.mark.parametrize("kind", ["function", "coroutine"])
async def test_one_that_blocks_for_ever_holds_up_nobody_and_its_losses_are_counted(
    bus: Bus, eventually: Any, gate: threading.Event, kind: str
) -> None:
    others: list[Notice] = []
    begun: list[Notice] = []

    def stuck(said: Notice) -> None:
        begun.append(said)
        gate.wait()

    async def stuck_later(said: Notice) -> None:
        begun.append(said)
        await asyncio.Event().wait()

    bus.on(frozenset({FAILED}), stuck if kind == "function" else stuck_later)
    bus.on(frozenset({HEALED}), others.append)
    bus.publish(notice())
    await eventually(lambda: begun)
    for number in range(QUEUE + 7):
        bus.publish(notice(number=number))
    assert bus.dropped_count == 7
    bus.publish(notice(HEALED))
    await eventually(lambda: others)


async def test_who_has_ended_a_subscription_hears_no_more(bus: Bus, eventually: Any) -> None:
    heard: list[Notice] = []
    others: list[Notice] = []
    end: Callable[[], None] = bus.on(frozenset({FAILED}), heard.append)
    bus.on(frozenset({FAILED}), others.append)
    bus.publish(notice())
    await eventually(lambda: heard)
    end()
    end()
    bus.publish(notice())
    await eventually(lambda: len(others) == 2)
    assert len(heard) == 1


async def test_what_was_said_before_the_bus_closed_is_still_heard(eventually: Any) -> None:
    bus = Bus()
    heard: list[Notice] = []
    bus.on(frozenset({FAILED}), heard.append)
    for number in range(50):
        bus.publish(notice(number=number))
    bus.close()
    bus.publish(notice())
    await eventually(lambda: len(heard) == 50)
