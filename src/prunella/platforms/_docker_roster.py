"""All containers of one Engine as they are known now: one list, one cache, kept by its feed.

What an event says is not believed: it makes a container worth another look. After a lost stream
the list is compared, and events that were missed are fetched from the Engine's own short memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from prunella.errors import PermanentError, TransientError
from prunella.platforms._docker_api import Address, MissingError
from prunella.platforms._docker_container import (
    ASIDE,
    Container,
    Culprit,
    Ending,
    Trail,
    judge,
    read_container,
)
from prunella.platforms._docker_feed import Feed, Key, Listener
from prunella.ports import Clock

_MEMORY_COUNT = 256  # events that an Engine remembers
_LOOKS_AT_ONCE = 8
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
        """What it can be found by: ("name", it), ("id", it), and ("label NAME", its value)."""
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


class Roster(Feed):
    """What is known of the containers of one Engine."""

    filters: ClassVar[Mapping[str, list[str]]] = {
        "type": ["container"],
        "event": [
            *("create", "start", "kill", "stop", "die", "oom", "pause", "unpause"),
            *("rename", "update", "health_status", "destroy"),
        ],
    }

    def __init__(self, address: Address, clock: Clock) -> None:
        super().__init__(address, clock)
        self._rows: dict[str, Row] = {}
        self._index: defaultdict[Key, set[str]] = defaultdict(set)
        self._known: dict[str, Container] = {}
        self._stale: set[str] = set()
        self._trails: defaultdict[str, Trail] = defaultdict(Trail)
        self._culprits: dict[str, tuple[str, Culprit]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._room = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._last: tuple[int, str, str] | None = None

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

    def absolve(self, one: Container) -> None:
        """What was to end its run did not: the next who ends it is to blame."""
        self._culprits.pop(one.id, None)

    # What the feed brings ----------------------------------------------------------------------

    async def take_stock(self, info: Mapping[str, Any], now: str) -> None:  # noqa: ARG002 - of others
        """Compare the whole list with what was known, and events that were missed as well."""
        history = await self._remembered(until=now)
        self._compare(await self.api.get("containers/json", all=True), history)

    def follow(self, event: Mapping[str, Any]) -> None:
        if (read := _read_event(event)) is not None:
            self._follow(read)

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

    def _compare(self, listed: Any, history: Sequence[dict[str, Any]]) -> None:
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
        if event.action == "create":
            row = Row(event.id, event.attributes.get("name", ""), event.attributes)
        if row is None:
            return  # it is gone already
        if event.action == "rename":
            row = row._replace(name=event.attributes.get("name", row.name))
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
        if listeners := self.listeners(keys):
            self.begin(self._look_then_tell(container, listeners))

    async def _look_then_tell(self, container: str, listeners: set[Listener]) -> None:
        if container:
            # What cannot be seen now stays stale, and is told when the Engine is back.
            with contextlib.suppress(TransientError, PermanentError):
                async with self._room:
                    await self.look(container)
        for listener in listeners:
            listener()


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
