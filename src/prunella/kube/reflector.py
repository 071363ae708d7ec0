"""All objects of one kind, kept up to date by one watch, however many ask for them.

A list, then a watch from there; bookmarks carry the watch over quiet times, and when the server
has forgotten where we were (410), the list is taken anew and compared. A watch that was cut goes
on from where it was. While it is cut, what is known may be old: `ready` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

import msgspec

from prunella.contact import Contact
from prunella.core.model import Instant
from prunella.errors import PermanentError, PrunellaError, TransientError
from prunella.kube.client import Cluster, ExpiredError, Refusal
from prunella.kube.kinds import Kind, Object, Struct

T = TypeVar("T", bound=Object)
Key = tuple[str, str]  # namespace and name

_LONGEST_PAUSE_S = 5.0
_PAGE = 500
_WATCH_S = 290
# A server that is wedged keeps its connections: no bookmark for so long, and it is asked.
_SILENCE_S = 10.0


class Reflector(Generic[T]):
    """The objects of `kind` in a namespace, or everywhere, as `as_` reads them.

    Listeners are called with what an object was and is: ``(None, new)`` for one that was added,
    ``(old, None)`` for one that has gone. They are called before `ready` returns the first time,
    for all there are.
    """

    def __init__(
        self, cluster: Cluster, kind: Kind, namespace: str, as_: type[T], *, fields: str = ""
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self._cluster = cluster
        self._fields = fields
        self._decoder = msgspec.json.Decoder(as_)
        self._pages = msgspec.json.Decoder(_page_of(as_))
        self._items: dict[Key, T] = {}
        self._version = ""
        self._listeners: list[Callable[[T | None, T | None], None]] = []
        self._contact = Contact(
            cluster.clock, cluster.name, self._converse, longest_pause_s=_LONGEST_PAUSE_S
        )
        self._heard_at = cluster.clock.now()

    @property
    def items(self) -> Mapping[Key, T]:
        """Newest knowledge, without I/O."""
        return self._items

    def get(self, namespace: str, name: str) -> T | None:
        return self._items.get((namespace, name))

    def listen(self, listener: Callable[[T | None, T | None], None]) -> None:
        self._listeners.append(listener)

    def ignore(self, listener: Callable[[T | None, T | None], None]) -> None:
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    async def ready(self) -> None:
        """Wait until what is known is up to date.

        Raises:
            TransientError: the server cannot be reached, or has fallen silent.
            PermanentError: it refuses: no such kind, or not allowed.
        """
        await self._contact.ready()

    async def close(self) -> None:
        await self._contact.close()

    async def _converse(self) -> PrunellaError | None:
        """One list where there is need of one, and one watch; None: it came to its usual end."""
        try:
            if not self._version:
                await self._list()
            await self._watch()
        except (TransientError, PermanentError) as error:
            if isinstance(error, ExpiredError):
                self._version = ""
            return error
        return None

    def _query(self, **more: str) -> dict[str, str]:
        return {**({"fieldSelector": self._fields} if self._fields else {}), **more}

    async def _list(self) -> None:
        found: dict[Key, T] = {}
        query = self._query(limit=str(_PAGE))
        while True:
            answer = await self._cluster.ask("GET", self.kind.path(self.namespace), query=query)
            try:
                page = self._pages.decode(answer)
            except msgspec.DecodeError as error:
                raise TransientError(
                    f"what lists {self.kind.plural} is no list: {error}"
                ) from error
            found.update((_key(one), one) for one in page.items)
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
        for key in [*self._items]:
            if key not in found:
                self._put(key, None)
        for key, one in found.items():
            self._put(key, one)
        self._version = page.metadata.resource_version

    async def _watch(self) -> None:
        query = self._query(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=self._version,
            timeoutSeconds=str(_WATCH_S),
        )
        async with contextlib.aclosing(
            self._cluster.lines(self.kind.path(self.namespace), query)
        ) as lines:
            await anext(lines)
            self._contact.up()
            self._heard_at = self._cluster.clock.now()
            trouble: list[PrunellaError] = []
            try:
                async with asyncio.TaskGroup() as group:
                    beats = group.create_task(self._beats())
                    async for line in lines:
                        self._heard_at = self._cluster.clock.now()
                        self._follow(line)
                    beats.cancel()
            except* (TransientError, PermanentError) as several:
                trouble.extend(one for one in several.exceptions if isinstance(one, PrunellaError))
            for one in trouble:
                raise one

    def _follow(self, line: bytes) -> None:
        try:
            told = _TOLD.decode(line)
            if told.type == "ERROR":
                raise _REFUSAL.decode(told.object).error("watch")
            if told.type == "BOOKMARK":
                self._version = _OBJECT.decode(told.object).metadata.resource_version
                return
            one = self._decoder.decode(told.object)
        except msgspec.DecodeError as error:
            # From the same place on it would be told the same again, and nothing after it.
            raise ExpiredError(
                f"what watches {self.kind.plural} tells no event: {error}"
            ) from error
        self._put(_key(one), None if told.type == "DELETED" else one)
        self._version = one.metadata.resource_version

    def _put(self, key: Key, new: T | None) -> None:
        old = self._items.get(key)
        if new is None:
            self._items.pop(key, None)
        else:
            self._items[key] = new
            if old is not None and old.metadata.resource_version == new.metadata.resource_version:
                return
        if old is not None or new is not None:
            for listener in [*self._listeners]:
                listener(old, new)

    async def _beats(self) -> None:
        clock = self._cluster.clock
        while True:
            await clock.sleep_until(Instant(self._heard_at + _SILENCE_S))
            if clock.now() - self._heard_at >= _SILENCE_S:
                await self._cluster.alive()
                self._heard_at = clock.now()


class _Told(Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _PageMeta(Struct, frozen=True):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


_TOLD = msgspec.json.Decoder(_Told)
_OBJECT = msgspec.json.Decoder(Object)
_REFUSAL = msgspec.json.Decoder(Refusal)


def _page_of(as_: type[Object]) -> type[Any]:
    items = cast("Any", list)[as_]
    fields: list[tuple[str, Any]] = [("metadata", _PageMeta), ("items", items)]
    return msgspec.defstruct("Page", fields, frozen=True)


def _key(one: Object) -> Key:
    return one.metadata.namespace, one.metadata.name
