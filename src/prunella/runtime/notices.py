"""Telling others what happens, without ever waiting for them.

Each subscriber has a queue and a worker of its own: one that raises is logged, one that blocks
holds up nobody but itself, and what its full queue has no room for is dropped and counted.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import structlog

from prunella.core.model import ServiceId, Stamp

_log = structlog.get_logger("prunella.notices")
_QUEUE_SIZE = 1000


class Topic(StrEnum):
    """What can be subscribed to."""

    MONITORING_STARTED = "monitoring-started"
    MONITORING_STOPPED = "monitoring-stopped"
    SERVICE_DEGRADED = "service-degraded"
    SERVICE_FAILED = "service-failed"
    SERVICE_RECOVERED = "service-recovered"
    HEALING_STARTED = "healing-started"
    SERVICE_HEALED = "service-healed"
    HEALING_FAILED = "healing-failed"
    HEALING_VETOED = "healing-vetoed"
    SERVICE_QUARANTINED = "service-quarantined"


class Notice(NamedTuple):
    """Something that happened. ``data`` uses the field names of the API (camelCase)."""

    topic: Topic
    at: Stamp
    service: ServiceId | None
    data: Mapping[str, Any]


Callback = Callable[[Notice], object] | Callable[[Notice], Awaitable[object]]


class _Subscriber(Protocol):
    topics: frozenset[Topic]
    dropped_count: int

    def offer(self, notice: Notice) -> None: ...
    def close(self) -> None: ...


class _ThreadSubscriber:
    """A plain callback, in a thread of its own."""

    def __init__(self, topics: frozenset[Topic], callback: Callable[[Notice], object]) -> None:
        self.topics = topics
        self.dropped_count = 0
        self._callback = callback
        self._queue: queue.Queue[Notice | None] = queue.Queue(_QUEUE_SIZE)
        self._thread = threading.Thread(target=self._work, name="prunella-callback", daemon=True)
        self._thread.start()

    def offer(self, notice: Notice) -> None:
        try:
            self._queue.put_nowait(notice)
        except queue.Full:
            self.dropped_count += 1

    def close(self) -> None:
        """Deliver what is queued, then end; a callback that hangs is left behind."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return

    def _work(self) -> None:
        while (notice := self._queue.get()) is not None:
            try:
                self._callback(notice)
            except Exception:  # noqa: BLE001 - whatever a subscriber raises is its own affair, logged
                _log.exception("callback raised", topic=notice.topic)


class _TaskSubscriber:
    """A coroutine callback, in a task of its own on the loop it was subscribed on."""

    def __init__(
        self, topics: frozenset[Topic], callback: Callable[[Notice], Awaitable[object]]
    ) -> None:
        self.topics = topics
        self.dropped_count = 0
        self._callback = callback
        self._queue: asyncio.Queue[Notice | None] = asyncio.Queue(_QUEUE_SIZE)
        self._task: asyncio.Task[None] | None = None

    def offer(self, notice: Notice) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())
        try:
            self._queue.put_nowait(notice)
        except asyncio.QueueFull:
            self.dropped_count += 1

    def close(self) -> None:
        """Deliver what is queued, then end; one that is stuck with a full queue is cancelled."""
        try:
            self._queue.put_nowait(None)
        except asyncio.QueueFull:
            if self._task is not None:
                self._task.cancel()

    async def _work(self) -> None:
        while (notice := await self._queue.get()) is not None:
            try:
                await self._callback(notice)
            except Exception:  # noqa: BLE001 - whatever a subscriber raises is its own affair, logged
                _log.exception("callback raised", topic=notice.topic)


class Bus:
    """Where engines publish and anybody may listen."""

    def __init__(self) -> None:
        self._subscribers: list[_Subscriber] = []

    def on(self, topics: frozenset[Topic], callback: Callback) -> Callable[[], None]:
        """Subscribe; the answer ends the subscription."""
        subscriber: _Subscriber
        if inspect.iscoroutinefunction(callback):
            subscriber = _TaskSubscriber(topics, callback)
        else:
            subscriber = _ThreadSubscriber(topics, callback)
        self._subscribers.append(subscriber)

        def end() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)
                subscriber.close()

        return end

    def publish(self, notice: Notice) -> None:
        for subscriber in self._subscribers:
            if notice.topic in subscriber.topics:
                subscriber.offer(notice)

    @property
    def dropped_count(self) -> int:
        """Notices that subscribers had no room for."""
        return sum(subscriber.dropped_count for subscriber in self._subscribers)

    def close(self) -> None:
        for subscriber in self._subscribers:
            subscriber.close()
        self._subscribers.clear()
