"""The watches of the fake API server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from aiohttp import web

from prunella.kube.kinds import Json
from prunella.testing._kube_kinds import Place
from prunella.testing._kube_refusals import bad, expired
from prunella.testing._kube_select import Test
from prunella.testing._kube_store import Change, Store

_LONGEST_S = 3600.0
_BOOKMARKS_S = 60.0
_LAST_BOOKMARK_S = 2.0  # so long before its end, a watch is told how far it has come

_BOOKMARK = b'{"type":"BOOKMARK"'

Item = Change | bytes | None  # a change, a line as it is, or the end


class Watches:
    """All that are open."""

    def __init__(self, store: Store) -> None:
        self.held = asyncio.Event()  # set: what happens is told
        self.held.set()
        self._store = store
        self._open: dict[asyncio.Queue[Item], Place] = {}
        store.listeners.append(self._spread)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def kinds(self) -> list[str]:
        return sorted(place.kind.plural for place in self._open.values())

    def cut(self) -> None:
        """All come to their end, without a word."""
        for queue in self._open:
            queue.put_nowait(None)

    def expire(self) -> None:
        """All are told that they are too old, and come to their end."""
        line = _refusal(0, self._store.oldest)
        for queue in self._open:
            queue.put_nowait(line)
            queue.put_nowait(None)

    def bookmark(self) -> None:
        """All are told how far they have come."""
        for queue, place in self._open.items():
            queue.put_nowait(self._bookmark(place))

    async def serve(
        self, request: web.Request, place: Place, test: Test, begin: Callable[[], list[Json]]
    ) -> web.StreamResponse:
        """Tell what happens from a version on; without one, first what there is.

        The first and last thing that is told is that the version is too old, if it is.

        Raises: Refused: it is no version.
        """
        query = request.query
        asked = query.get("resourceVersion", "")
        if asked and not asked.isdigit():
            raise bad(f"Invalid value: {asked!r}: Invalid resource version")
        queue: asyncio.Queue[Item] = asyncio.Queue()
        if asked not in {"", "0"} and int(asked) < self._store.oldest:
            queue.put_nowait(_refusal(int(asked), self._store.oldest))
            queue.put_nowait(None)
        elif asked in {"", "0"}:
            for item in begin():
                line = msgspec.json.encode({"type": "ADDED", "object": item})
                queue.put_nowait(line + b"\n")
        else:
            for change in self._store.since(int(asked)):
                queue.put_nowait(change)
        self._open[queue] = place
        try:
            return await self._tell(request, place, test, queue)
        finally:
            del self._open[queue]

    async def _tell(
        self, request: web.Request, place: Place, test: Test, queue: asyncio.Queue[Item]
    ) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        loop = asyncio.get_running_loop()
        lasts_s = float(request.query.get("timeoutSeconds") or _LONGEST_S)
        end = loop.time() + lasts_s
        early_s = min(_LAST_BOOKMARK_S, lasts_s / 2)
        wants_marks = request.query.get("allowWatchBookmarks") == "true"
        mark = min(loop.time() + _BOOKMARKS_S, end - early_s)
        while loop.time() < end:
            try:
                async with asyncio.timeout_at(min(mark, end)):
                    item = await queue.get()
            except TimeoutError:
                if loop.time() >= mark:  # in the queue: what has happened before is told before
                    queue.put_nowait(self._bookmark(place))
                    last = mark >= end - early_s
                    mark = end if last else min(mark + _BOOKMARKS_S, end - early_s)
                continue
            await self.held.wait()
            if item is None:
                break
            line = item if isinstance(item, bytes) else _line(item, place, test)
            if line and (wants_marks or not line.startswith(_BOOKMARK)):
                await stream.write(line)
        return stream

    def _spread(self, change: Change) -> None:
        for queue, place in self._open.items():
            if change.key.kind == (place.kind.group, place.kind.plural):
                queue.put_nowait(change)

    def _bookmark(self, place: Place) -> bytes:
        meta = {"resourceVersion": str(self._store.version)}
        kind = place.kind
        item = {"kind": kind.name, "apiVersion": kind.api_version, "metadata": meta}
        return msgspec.json.encode({"type": "BOOKMARK", "object": item}) + b"\n"


def _refusal(asked: int, oldest: int) -> bytes:
    refusal = expired(asked, oldest).status()
    return msgspec.json.encode({"type": "ERROR", "object": refusal}) + b"\n"


def _line(change: Change, place: Place, test: Test) -> bytes:
    """What the change means to one watch; empty: nothing."""
    if change.key.kind != (place.kind.group, place.kind.plural):
        return b""
    if place.namespace not in {"", change.key.namespace}:
        return b""
    was = change.old is not None and test(change.old)
    is_ = change.new is not None and test(change.new)
    if not was and not is_:
        return b""
    name = b"MODIFIED" if was and is_ else b"ADDED" if is_ else b"DELETED"
    return b'{"type":"' + name + b'","object":' + change.raw + b"}\n"
