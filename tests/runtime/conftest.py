"""Waiting for what must happen, and the values that many tests need."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from prunella.testing.stepped import SteppedClock

PATIENCE_S = 30.0
Begin = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Awaitable[Any]]:
    async def wait(condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.005)
        pytest.fail(f"not within {PATIENCE_S} s")

    return wait


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """Run something beside the test, and end it with the test."""
    begun: list[asyncio.Task[Any]] = []

    def start(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        begun.append(asyncio.get_running_loop().create_task(work))
        return begun[-1]

    yield start
    for task in begun:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
