"""All containers of one Engine as they are known now: one stream of events, one list, one cache.

Every service on the same Engine and event loop shares one roster, so that a thousand of them cost
one connection, and nothing while nothing happens. What an event says is not believed: it makes a
container worth another look. After a lost stream the list is taken anew, and events that were
missed are fetched from the Engine's own short memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from prunella.core.model import Instant
from prunella.errors import PermanentError, PrunellaError, TransientError
from prunella.platforms._docker_api import Address, DockerApi, MissingError
from prunella.platforms._docker_container import (
    ASIDE,
    Container,
    Culprit,
    Ending,
    Trail,
    judge,
    read_container,
)
from prunella.ports import Clock

Key = tuple[str, str]  # ("name", its name), ("id", its id) or ("label NAME", its value)
Listener = Callable[[], None]

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_BEAT_S = 5.0  # between two questions whether the Engine still answers
_MEMORY_COUNT = 256  # events that an Engine remembers
_LOOKS_AT_ONCE = 8
_FILTERS = {
    "type": ["container"],
    "event": [
        *("create", "start", "kill", "stop", "die", "oom", "pause", "unpause"),
        *("rename", "update", "health_status", "destroy"),
    ],
}
_ALIVE = ("running", "restarting", "paused")


class Row(NamedTuple):
    """A container as the list names it."""

    id: str
    name: str
    labels: Mapping[str, str]

    @property
    def base_name(self) -> str:
        """Its name, or that which it had until another one was to take its place."""
        return self.name.removesuffix(ASIDE)

    @property
    def keys(self) -> tuple[Key, ...]:
        """What it can be found by."""
        labels = ((f"label {name}", value) for name, value in self.labels.items())
        return (("name", self.name), ("id", self.id), *labels)


class _Event(NamedTuple):
    at: int
    id: str
    action: str
    attributes: Mapping[str, str]

    @property
    def mark(self) -> tuple[int, str, str]:
        """What tells it from all others."""
        return self[:3]


class Roster:
    """What is known of the containers of one Engine; made by `roster_at`, left with `leave`."""

    def __init__(self, address: Address, clock: Clock) -> None:
        self.api = DockerApi(address)
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._is_up = False
        self._settled = asyncio.Event()  # the present try to connect has succeeded or failed
        self._trouble: PrunellaError | None = None
        self._rows: dict[str, Row] = {}
        self._index: defaultdict[Key, set[str]] = defaultdict(set)
        self._known: dict[str, Container] = {}
        self._stale: set[str] = set()
        self._trails: defaultdict[str, Trail] = defaultdict(Trail)
        self._culprits: dict[str, tuple[str, Culprit]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._listeners: defaultdict[Key, list[Listener]] = defaultdict(list)
        self._looks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._last: tuple[int, str, str] | None = None
        self.users = 0

    async def ready(self) -> None:
        """Wait until what is known is up to date.

        Raises:
            TransientError, PermanentError: the Engine cannot be reached, and why.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._attend())
        if not self._settled.is_set():
            waits = [asyncio.create_task(self._settled.wait()), self._task]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waits[0].cancel()
        if self._task.done():
            self._task.result()  # a defect
        if self._trouble is not None:
            raise type(self._trouble)(str(self._trouble))

    def find(self, kind: str, value: str) -> tuple[Row, ...]:
        """All containers with that name, id or label, without I/O; after `ready`."""
        return tuple(self._rows[one] for one in self._index.get((kind, value), ()))

    def beginning_with(self, prefix: str) -> tuple[Row, ...]:
        """All containers whose id begins like this."""
        return tuple(row for row in self._rows.values() if row.id.startswith(prefix))

    async def look(self, container: str, *, anew: bool = False) -> Container:
        """The container of that id; asks the Engine only for what has changed since, or `anew`.

        Raises:
            MissingError: it is there no more.
            TransientError: it cannot be told.
        """
        if anew:
            self._stale.add(container)
        async with self._locks[container]:
            known = self._known.get(container)
            while known is None or container in self._stale:
                self._stale.discard(container)
                try:
                    known = read_container(await self.api.get(f"containers/{container}/json"))
                except MissingError:
                    self.forget(container)
                    raise
                except BaseException:
                    self._stale.add(container)
                    raise
                # An event in the meantime has made it stale again: the answer may be older.
            self._known[container] = known
            row = Row(known.id, known.plain_name, known.labels)
            if container not in self._rows or self._rows[container].name != row.name:
                self._put(row)  # its event is still on its way
            return known

    def known(self, container: str) -> Container | None:
        """As it was at the newest look, without another one."""
        return self._known.get(container)

    def forget(self, container: str) -> None:
        """It is there no more, whatever events are still on their way."""
        if container in self._rows:
            self._drop(container)

    def judge(self, one: Container) -> Ending:
        """In which state it is, as far as it is known who has brought it there."""
        identity, culprit = self._culprits.get(one.id, ("", None))
        return judge(one, self._trails[one.id], culprit if identity == one.identity else None)

    def blame(self, one: Container, culprit: Culprit) -> None:
        """Remember who ends the present run: it is no person's wish."""
        self._culprits[one.id] = (one.identity, culprit)

    def listen(self, keys: Iterable[Key], listener: Listener) -> None:
        """Have `listener` called whenever anything is new about the containers with these keys."""
        for key in keys:
            if listener not in self._listeners[key]:
                self._listeners[key].append(listener)

    def ignore(self, listener: Listener) -> None:
        for listeners in self._listeners.values():
            with contextlib.suppress(ValueError):
                listeners.remove(listener)

    async def close(self) -> None:
        tasks = [task for task in (self._task, *self._looks) if task is not None]
        self._task = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.api.close()

    # The connection ----------------------------------------------------------------------------

    async def _attend(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            began = self._clock.now()
            trouble = await self._converse()
            if self._is_up and self._clock.now() - began > _LONGEST_PAUSE_S:
                pause_s = _FIRST_PAUSE_S
            if self._is_up:  # whoever asks now waits for the next try
                self._is_up = False
                self._settled.clear()
            else:
                self._trouble = trouble
                self._settled.set()
            await self._clock.sleep_until(Instant(self._clock.now() + pause_s))
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)

    async def _converse(self) -> PrunellaError:
        """One connection, from its beginning to its end; why it has ended."""
        try:
            await self.api.close()  # an Engine that was restarted may speak another version
            now = _system_time(await self.api.get("info"))
            async with contextlib.aclosing(
                self.api.stream("events", since=now, filters=_FILTERS)
            ) as stream:
                await anext(stream)
                history = await self._remembered(until=now)
                self._take_stock(await self.api.get("containers/json", all=True), history)
                self._trouble, self._is_up = None, True
                self._settled.set()
                await self._follow_all(stream)
        except (TransientError, PermanentError) as error:
            return error
        except StopAsyncIteration:
            pass
        return TransientError(f"{self.api.address.host} has ended the stream of events")

    async def _remembered(self, until: str) -> list[dict[str, Any]]:
        try:
            async with (
                asyncio.timeout(self.api.address.timeout_s),
                contextlib.aclosing(self.api.stream("events", since="0", until=until)) as stream,
            ):
                return [event async for event in stream if event]
        except TimeoutError:
            raise TransientError(
                f"{self.api.address.host} does not end the list of past events"
            ) from None

    async def _follow_all(self, stream: AsyncIterator[dict[str, Any]]) -> None:
        trouble: list[PrunellaError] = []
        try:
            async with asyncio.TaskGroup() as group:
                beat = group.create_task(self._beat())
                async for raw in stream:
                    if (event := _read_event(raw)) is not None:
                        self._follow(event)
                beat.cancel()
        except* (TransientError, PermanentError) as several:
            trouble.extend(one for one in several.exceptions if isinstance(one, PrunellaError))
        for one in trouble:
            raise one

    async def _beat(self) -> None:
        """Notice an Engine that has stopped answering while nothing happens."""
        while True:
            await self._clock.sleep_until(Instant(self._clock.now() + _BEAT_S))
            await self.api.get("_ping")

    def _take_stock(self, listed: Any, history: Sequence[dict[str, Any]]) -> None:
        found = {row.id: (row, state) for row, state in _read_list(listed)}
        events = [event for raw in history if (event := _read_event(raw)) is not None]
        marks = [event.mark for event in events]
        missed = marks.index(self._last) + 1 if self._last in marks else 0
        if self._last is not None and not missed:
            self._stale.update(self._known)  # what has happened meanwhile cannot be told
            if len(history) < _MEMORY_COUNT:  # its memory began anew: so did the Engine
                self._blame_engine({one for one, (_, state) in found.items() if state in _ALIVE})
        for event in events:
            self._trails[event.id].follow(event.action, event.attributes)
        self._stale.update(event.id for event in events[missed:])
        self._last = marks[-1] if marks else self._last
        for container in [*self._rows]:
            if container not in found:
                self._announce(set(self._drop(container).keys), "")
        for row, _ in found.values():
            if row.id in self._stale or self._rows.get(row.id) != row:
                self._announce(self._put(row), row.id)
        for forgotten in self._trails.keys() - found.keys():
            del self._trails[forgotten]

    def _blame_engine(self, alive: set[str]) -> None:
        """It ends what runs when it ends or starts again: an end of that time is no wish."""
        for one in self._known.values():
            if one.is_running and one.id not in alive:
                self.blame(one, Culprit.ENGINE)

    def _follow(self, event: _Event) -> None:
        self._last = event.mark
        row = self._rows.get(event.id)
        if event.action in ("create", "rename"):
            row = Row(event.id, event.attributes.get("name", ""), event.attributes)
        if row is None:
            return  # it is gone already
        if event.action == "destroy":
            self._announce(set(self._drop(event.id).keys), "")
            return
        self._trails[event.id].follow(event.action, event.attributes)
        self._stale.add(event.id)
        self._announce(self._put(row), event.id)

    def _put(self, row: Row) -> set[Key]:
        """Know it by its present keys; those that it has or had."""
        before = self._rows.get(row.id)
        if before is not None:
            self._unindex(before)
        self._rows[row.id] = row
        for key in row.keys:
            self._index[key].add(row.id)
        return {*row.keys, *(before.keys if before is not None else ())}

    def _drop(self, container: str) -> Row:
        row = self._rows.pop(container)
        self._unindex(row)
        for kept in (self._known, self._trails, self._culprits, self._locks):
            kept.pop(container, None)
        self._stale.discard(container)
        return row

    def _unindex(self, row: Row) -> None:
        for key in row.keys:
            self._index[key].discard(row.id)
            if not self._index[key]:
                del self._index[key]

    def _announce(self, keys: set[Key], container: str) -> None:
        """Tell all who listen to one of these keys, after a look at the container, if any."""
        listeners = {listener for key in keys for listener in self._listeners.get(key, ())}
        if listeners:
            look = asyncio.create_task(self._look_then_tell(container, listeners))
            self._looks.add(look)
            look.add_done_callback(self._looked)

    async def _look_then_tell(self, container: str, listeners: set[Listener]) -> None:
        if container:
            # What cannot be seen now stays stale, and is told when the Engine is back.
            with contextlib.suppress(TransientError, PermanentError):
                async with self._room:
                    await self.look(container)
        for listener in listeners:
            listener()

    def _looked(self, look: asyncio.Task[None]) -> None:
        self._looks.discard(look)
        if not look.cancelled():
            look.result()


_rosters: dict[tuple[asyncio.AbstractEventLoop, Address], Roster] = {}


def roster_at(address: Address, clock: Clock) -> Roster:
    """The one roster of that Engine on this event loop; to be left with `leave`."""
    key = (asyncio.get_running_loop(), address)
    roster = _rosters.setdefault(key, Roster(address, clock))
    roster.users += 1
    return roster


async def leave(roster: Roster, listener: Listener) -> None:
    """End the use of a roster; the last one closes the connection."""
    roster.ignore(listener)
    roster.users -= 1
    if roster.users == 0:
        del _rosters[asyncio.get_running_loop(), roster.api.address]
        await roster.close()


def _system_time(info: Any) -> str:
    """The Engine's own time, as its list of events wants to be asked: seconds and fractions."""
    try:
        return f"{datetime.fromisoformat(info['SystemTime']).timestamp():.6f}"
    except (KeyError, TypeError, ValueError) as error:
        raise TransientError("what answers tells no time: is it a Docker Engine?") from error


def _read_list(listed: Any) -> Iterable[tuple[Row, str]]:
    try:
        for one in listed:
            # A container that others link to has their names for it as well, each with a slash.
            names = [name[1:] for name in one["Names"] or () if "/" not in name[1:]]
            yield Row(one["Id"], "".join(names[:1]), one["Labels"] or {}), one["State"]
    except (KeyError, TypeError) as error:
        raise TransientError("the Docker Engine lists what is no container") from error


def _read_event(raw: Mapping[str, Any]) -> _Event | None:
    """None: it is not a container's."""
    try:
        if raw.get("Type") != "container":
            return None
        actor = raw["Actor"]
        return _Event(raw["timeNano"], actor["ID"], raw["Action"], actor["Attributes"] or {})
    except (KeyError, TypeError) as error:
        raise TransientError("the Docker Engine tells of what is no event") from error
