"""A fake cluster on an event loop of its own, for tests that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")
C = TypeVar("C")


class Remote(Generic[C]):
    """What runs on the loop of another thread, and is only touched there."""

    def __init__(self, one: C, loop: asyncio.AbstractEventLoop) -> None:
        self._one = one
        self._loop = loop

    def do(self, act: Callable[[C], T]) -> T:
        """The result of it. Raises: whatever it raises."""

        async def run() -> T:
            return act(self._one)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def wait(self, act: Callable[[C], Awaitable[T]]) -> T:
        """The result of what takes its time."""

        async def run() -> T:
            return await act(self._one)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()


@contextmanager
def on_thread(make: Callable[[], C]) -> Generator[Remote[C]]:
    """What `make` makes there; the loop ends on the way out, with nothing left on it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def made() -> C:
        return make()

    try:
        yield Remote(asyncio.run_coroutine_threadsafe(made(), loop).result(), loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
