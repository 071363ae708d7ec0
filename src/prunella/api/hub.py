"""One subscription to the orchestrator's notices, spread to as many streams as are open.

The subscription lives on the healing loop, the streams on the API's; a stream that does not keep
up loses notices and is told how many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prunella.api.bridge import on_healing_loop
from prunella.api.port import Orchestrator
from prunella.errors import TransientError
from prunella.runtime.notices import Notice

QUEUE_COUNT = 256
STREAM_COUNT = 64


class TooManyStreamsError(TransientError):
    """As many streams are open as there may be."""


class Stream:
    """The notices of one client, oldest first; None at the end."""

    def __init__(self, service: str | None) -> None:
        self.dropped_count = 0
        self._service = service
        self._queue: asyncio.Queue[Notice | None] = asyncio.Queue(QUEUE_COUNT)

    def offer(self, notice: Notice) -> None:
        if self._service is not None and notice.service != self._service:
            return
        try:
            self._queue.put_nowait(notice)
        except asyncio.QueueFull:
            self.dropped_count += 1

    def end(self) -> None:
        """Make room for the end, whatever waits: nobody will read it."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def next(self) -> Notice | None:
        return await self._queue.get()


class Hub:
    """All open streams. Everything but ``close`` belongs to the API's loop."""

    def __init__(self, healing: Orchestrator) -> None:
        self._healing = healing
        self._streams: set[Stream] = set()
        self._end: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    @property
    def stream_count(self) -> int:
        return len(self._streams)

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        await on_healing_loop(self._healing, self._subscribe())

    def close(self) -> None:
        """End all streams, from any thread; further ones end at once."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_streams)

    async def unsubscribe(self) -> None:
        if not self._healing.loop.is_closed():
            await on_healing_loop(self._healing, self._unsubscribe())

    def begin(self, service: str | None) -> Stream:
        """A new stream of one service's notices, or of all; give it back with ``drop``.

        Raises:
            TooManyStreamsError: there are as many as there may be.
        """
        if len(self._streams) >= STREAM_COUNT:
            raise TooManyStreamsError(f"{STREAM_COUNT} event streams are open already")
        stream = Stream(service)
        if self._closing:
            stream.end()
        self._streams.add(stream)
        return stream

    def drop(self, stream: Stream) -> None:
        """Nobody reads this one any more."""
        self._streams.discard(stream)

    async def _subscribe(self) -> None:
        self._end = self._healing.on("*", self._take)

    async def _unsubscribe(self) -> None:
        if self._end is not None:
            self._end()
            self._end = None

    async def _take(self, notice: Notice) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._spread, notice)

    def _spread(self, notice: Notice) -> None:
        for stream in self._streams:
            stream.offer(notice)

    def _end_streams(self) -> None:
        self._closing = True
        for stream in self._streams:
            stream.end()
