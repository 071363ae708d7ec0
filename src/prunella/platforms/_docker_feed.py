"""One connection to one Engine that lasts: its stream of events, shared by all who listen.

Every service on the same Engine and event loop shares one feed, so that a thousand of them cost
one connection, and nothing while nothing happens. A stream that was lost is taken up again after
a pause, from the moment of a list that was taken anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from prunella.contact import Contact
from prunella.core.model import Instant
from prunella.errors import PermanentError, PrunellaError, TransientError
from prunella.platforms._docker_api import Address, DockerApi
from prunella.ports import Clock

Key = tuple[str, str]
Listener = Callable[[], None]

_LONGEST_PAUSE_S = 1.0
_BEAT_S = 5.0  # between two questions whether the Engine still answers


class Feed(ABC):
    """What is told by one Engine; made by `feed_at`, left with `leave`."""

    filters: ClassVar[Mapping[str, list[str]]]

    def __init__(self, address: Address, clock: Clock) -> None:
        self.api = DockerApi(address)
        self.clock = clock
        self.users = 0
        self._contact = Contact(
            clock, address.host, self._converse, longest_pause_s=_LONGEST_PAUSE_S
        )
        self._listeners: defaultdict[Key, list[Listener]] = defaultdict(list)
        self._chores: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def take_stock(self, info: Mapping[str, Any], now: str) -> None:
        """Learn all there is; the stream of events has begun at `now`, by the Engine's clock."""

    @abstractmethod
    def follow(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""

    async def beat(self) -> None:
        """Called every few seconds: notice an Engine that has stopped answering."""
        await self.api.get("_ping")

    async def ready(self) -> None:
        """Wait until what is known is up to date.

        Raises:
            TransientError, PermanentError: the Engine cannot be reached, and why.
        """
        await self._contact.ready()

    def listen(self, keys: Iterable[Key], listener: Listener) -> None:
        """Have `listener` called whenever anything is new about what has one of these keys."""
        for key in keys:
            if listener not in self._listeners[key]:
                self._listeners[key].append(listener)

    def ignore(self, listener: Listener) -> None:
        for listeners in self._listeners.values():
            with contextlib.suppress(ValueError):
                listeners.remove(listener)

    def listeners(self, keys: Iterable[Key]) -> set[Listener]:
        return {listener for key in keys for listener in self._listeners.get(key, ())}

    def begin(self, chore: Coroutine[Any, Any, None]) -> None:
        """Have something done that nobody waits for; a defect in it is told by the loop."""
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def close(self) -> None:
        await self._contact.close()
        for chore in (chores := [*self._chores]):
            chore.cancel()
        if chores:
            await asyncio.wait(chores)
        await self.api.close()

    async def _converse(self) -> PrunellaError:
        """One connection, from its beginning to its end; why it has ended."""
        try:
            self.api.renew()
            info = await self.api.get("info")
            now = _system_time(info)
            async with contextlib.aclosing(
                self.api.stream("events", since=now, filters=self.filters)
            ) as stream:
                await anext(stream)
                await self.take_stock(info, now)
                self._contact.up()
                await self._follow_all(stream)
        except (TransientError, PermanentError) as error:
            return error
        return TransientError(f"{self.api.address.host} has ended the stream of events")

    async def _follow_all(self, stream: AsyncGenerator[dict[str, Any]]) -> None:
        trouble: list[PrunellaError] = []
        try:
            async with asyncio.TaskGroup() as group:
                beats = group.create_task(self._beats())
                async for event in stream:
                    self.follow(event)
                beats.cancel()
        except* (TransientError, PermanentError) as several:
            trouble.extend(one for one in several.exceptions if isinstance(one, PrunellaError))
        for one in trouble:
            raise one

    async def _beats(self) -> None:
        while True:
            await self.clock.sleep_until(Instant(self.clock.now() + _BEAT_S))
            await self.beat()


_feeds: dict[tuple[asyncio.AbstractEventLoop, type[Feed], Address], Feed] = {}
F = TypeVar("F", bound=Feed)


def feed_at(make: type[F], address: Address, clock: Clock) -> F:
    """The one feed of that kind from that Engine on this event loop; to be left with `leave`."""
    key = (asyncio.get_running_loop(), make, address)
    feed = _feeds.setdefault(key, make(address, clock))
    assert isinstance(feed, make)
    feed.users += 1
    return feed


async def leave(feed: Feed, listener: Listener) -> None:
    """End the use of a feed; the last one closes the connection."""
    feed.ignore(listener)
    feed.users -= 1
    if feed.users == 0:
        del _feeds[asyncio.get_running_loop(), type(feed), feed.api.address]
        await feed.close()


def _system_time(info: Any) -> str:
    """The Engine's own time, as its list of events wants to be asked: seconds and fractions."""
    try:
        return f"{datetime.fromisoformat(info['SystemTime']).timestamp():.6f}"
    except (KeyError, TypeError, ValueError) as error:
        raise TransientError("what answers tells no time: is it a Docker Engine?") from error
