"""What the fake API server holds, and what has changed since when.

Objects are never changed in place: whoever has one may keep it.
"""

from __future__ import annotations

import secrets
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

import msgspec

from prunella.kube.kinds import Json, Kind
from prunella.testing._kube_patch import copied
from prunella.testing._kube_refusals import Key, bad, exists, not_found, other_uid, outdated

_HISTORY = 100_000  # changes that are remembered for those who ask from an old version on
_WITHOUT_GENERATION = {
    *("nodes", "services", "namespaces", "events", "configmaps", "secrets", "serviceaccounts"),
    *("leases", "horizontalpodautoscalers", "controllerrevisions"),
}
_KEPT = ("name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp")


class Change(NamedTuple):
    """`old` and `new` are None where there was or is none; `raw` is the new one, or the last."""

    version: int
    key: Key
    old: Json | None
    new: Json | None
    raw: bytes


Reactor = Callable[[Key, Json | None, Json | None], None]


class Store:
    """Objects with one counter of versions for all, as etcd has it."""

    def __init__(self, wall: Callable[[], datetime]) -> None:
        self.version = 1
        self.oldest = 0  # a version before this one has been forgotten
        self.objects: dict[Key, Json] = {}
        self.history: deque[Change] = deque(maxlen=_HISTORY)
        self.listeners: list[Callable[[Change], None]] = []
        self.reactors: list[Reactor] = []  # controllers, from whom nothing is hidden
        self.skipped = 0  # so many of the next changes are told to nobody
        self._wall = wall
        self._of_kind: dict[tuple[str, str], dict[Key, Json]] = {}
        self._owned: dict[str, dict[Key, Json]] = {}
        self._is_rehearsal = False
        self._untold: dict[Key, Json | None] = {}

    def now(self) -> str:
        return self._wall().strftime("%Y-%m-%dT%H:%M:%SZ")

    # Questions ---------------------------------------------------------------------------------

    def get(self, key: Key) -> Json:
        """Raises: Refused: there is none."""
        if (found := self.objects.get(key)) is None:
            raise not_found(key)
        return found

    def of_kind(self, kind: Kind, namespace: str = "") -> Iterator[tuple[Key, Json]]:
        found = self._of_kind.get((kind.group, kind.plural), {})
        for key in sorted(found):
            if namespace in {"", key.namespace}:
                yield key, found[key]

    def owned(self, uid: str) -> list[tuple[Key, Json]]:
        """What the object with that uid looks after as its controller."""
        return sorted(self._owned.get(uid, {}).items())

    # Changes -----------------------------------------------------------------------------------

    def create(self, kind: Kind, namespace: str, body: Mapping[str, object]) -> Json:
        """Raises: Refused: there is one of that name, or it has none."""
        new: Json = copied(body)
        meta: Json = new.setdefault("metadata", {})
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = f"{meta['generateName']}{secrets.token_hex(3)[:5]}"
        if not meta.get("name"):
            raise bad(f"{kind.name} has no metadata.name and no generateName")
        key = Key(kind.group, kind.plural, namespace if kind.namespaced else "", meta["name"])
        if key in self.objects:
            raise exists(key)
        if kind.namespaced:
            meta["namespace"] = namespace
        meta["uid"], meta["creationTimestamp"] = str(uuid.uuid4()), self.now()
        for name in ("generation", "deletionTimestamp", "resourceVersion"):
            meta.pop(name, None)
        if kind.plural not in _WITHOUT_GENERATION:
            meta["generation"] = 1
        return self._put(key, {"apiVersion": kind.api_version, "kind": kind.name, **new})

    def replace(self, key: Key, body: Mapping[str, object], *, wanted: bool = True) -> Json:
        """Put the whole object in place of the one there is.

        What only the server may say of it stays; what changes nothing is no change. Not `wanted`:
        it comes along with a status, and makes no new generation.

        Raises:
            Refused: there is none, it has another version by now, or another uid.
        """
        old, new = self.get(key), dict(body)
        was: Json = old["metadata"]
        meta: Json = dict(copied(new.get("metadata") or {}))
        if meta.get("uid", was["uid"]) != was["uid"]:
            raise other_uid(key, meta["uid"], was["uid"])
        if meta.get("resourceVersion", was["resourceVersion"]) != was["resourceVersion"]:
            raise outdated(key)
        meta = {name: value for name, value in meta.items() if name not in _KEPT}
        meta |= {name: was[name] for name in (*_KEPT, "resourceVersion") if name in was}
        new["metadata"] = meta
        if _without_managers(new) == _without_managers(old):
            return old
        if wanted and "generation" in was and _wanted(new) != _wanted(old):
            meta["generation"] = was["generation"] + 1
        return self._put(key, copied(new))

    def mark(self, key: Key, grace_s: float) -> Json:
        """Say that it is about to go."""
        old = self.get(key)
        marks = {"deletionTimestamp": self.now(), "deletionGracePeriodSeconds": int(grace_s)}
        if "deletionTimestamp" in old["metadata"]:
            return old
        return self._put(key, {**old, "metadata": {**old["metadata"], **marks}})

    def remove(self, key: Key) -> Json:
        """Raises: Refused: there is none."""
        old = self.get(key)
        self.version += 1
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}
        del self.objects[key]
        self._of_kind[key.kind].pop(key)
        self._own(key, old, None)
        self._tell(key, old, None, last)
        self._react(key, old, None)
        return last

    def forget(self) -> None:
        """All versions that anybody can know by now."""
        self.version += 1
        self.oldest = self.version
        self.history.clear()

    def since(self, version: int) -> list[Change]:
        return [one for one in self.history if one.version > version]

    @contextmanager
    def rehearsed(self) -> Generator[None]:
        """Within, changes are made that nobody is told of, and at the end none has been made."""
        kept = self.version, dict(self.objects)
        of_kind = {kind: dict(items) for kind, items in self._of_kind.items()}
        owned = {uid: dict(items) for uid, items in self._owned.items()}
        self._is_rehearsal = True
        try:
            yield
        finally:
            self._is_rehearsal = False
            self.version, self.objects = kept
            self._of_kind, self._owned = of_kind, owned

    # How ---------------------------------------------------------------------------------------

    def _put(self, key: Key, new: Json) -> Json:
        old = self.objects.get(key)
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = new
        self._of_kind.setdefault(key.kind, {})[key] = new
        self._own(key, old, new)
        self._tell(key, old, new, new)
        self._react(key, old, new)
        return new

    def _react(self, key: Key, old: Json | None, new: Json | None) -> None:
        for reactor in () if self._is_rehearsal else self.reactors:
            reactor(key, old, new)

    def _own(self, key: Key, old: Json | None, new: Json | None) -> None:
        for uid in _owners(old):
            self._owned[uid].pop(key, None)
        for uid in _owners(new):
            if new is not None:
                self._owned.setdefault(uid, {})[key] = new

    def _tell(self, key: Key, old: Json | None, new: Json | None, last: Json) -> None:
        if self._is_rehearsal:
            return
        if self.skipped:
            self.skipped -= 1
            self._untold.setdefault(key, old)
            return
        old = self._untold.pop(key, old)
        if len(self.history) == _HISTORY:
            self.oldest = self.history[0].version
        change = Change(self.version, key, old, new, msgspec.json.encode(last))
        self.history.append(change)
        for listener in [*self.listeners]:
            listener(change)


def _owners(item: Json | None) -> list[str]:
    listed = item["metadata"].get("ownerReferences") or () if item else ()
    return [one["uid"] for one in listed if one.get("controller")]


def _wanted(item: Json) -> Json:
    """What makes a new generation; to a Deployment its annotations belong, and to nothing else."""
    wanted = {name: value for name, value in item.items() if name not in {"metadata", "status"}}
    if item.get("kind") == "Deployment":
        wanted["annotations"] = item["metadata"].get("annotations") or {}
    return wanted


def _without_managers(item: Json) -> Json:
    meta = {name: v for name, v in item["metadata"].items() if name != "managedFields"}
    return {**item, "metadata": meta}
