"""A configuration as a tree that remembers where each value stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from prunella.config.faults import Place, Report

MAX_DEPTH = 32


class Unreadable(Exception):
    """Reading cannot go on; the report says why. Never leaves this package."""


@dataclass(slots=True, eq=False)
class Node:
    """A value and its place.

    Attributes:
        value: plain data: str, int, float, bool, None, and dict and list of these.
        text: a scalar as it was written, without quotes.
        kids: the nodes of a mapping or a list.
        keys: where the keys of a mapping stand.
        size: how many nodes this one is, itself and aliases included.
        height: levels below this one.
    """

    value: Any
    place: Place
    text: str = ""
    kids: dict[str, Node] | list[Node] | None = None
    keys: dict[str, Place] = field(default_factory=dict[str, Place])
    size: int = 1
    height: int = 0

    def kid(self, key: str | int) -> Node | None:
        """The node under a key or an index; None if there is none."""
        if isinstance(self.kids, dict):
            return self.kids.get(key) if isinstance(key, str) else None
        if isinstance(self.kids, list) and isinstance(key, int) and 0 <= key < len(self.kids):
            return self.kids[key]
        return None

    def find(self, *path: str | int) -> Node | None:
        """The node at the end of a path; None if there is none."""
        here: Node | None = self
        for key in path:
            here = None if here is None else here.kid(key)
        return here

    def key_place(self, key: str) -> Place:
        """Where a key of this mapping stands."""
        return self.keys.get(key, self.place)

    def items(self) -> Iterator[tuple[str, Node]]:
        """Keys and values of a mapping, in the order of the file; nothing for other nodes."""
        if isinstance(self.kids, dict):
            yield from self.kids.items()

    def leaves(self, *path: str | int) -> Iterator[tuple[tuple[str | int, ...], Node]]:
        """All scalars below, with their paths, which begin with `path`."""
        if self.kids is None:
            yield path, self
            return
        pairs: Iterable[tuple[str | int, Node]] = (
            self.kids.items() if isinstance(self.kids, dict) else enumerate(self.kids)
        )
        for key, kid in pairs:
            yield from kid.leaves(*path, key)

    def without(self, keys: Iterable[str]) -> Node:
        """This mapping less some keys."""
        left_out = frozenset(keys)
        kids = {key: kid for key, kid in self.items() if key not in left_out}
        return mapping(self.place, kids, self.keys)


def mapping(place: Place, kids: dict[str, Node], keys: dict[str, Place]) -> Node:
    """A node for a mapping of `kids`."""
    value = {key: kid.value for key, kid in kids.items()}
    size, height = measure(kids.values())
    return Node(value, place, kids=kids, keys=keys, size=size, height=height)


def listing(place: Place, kids: list[Node]) -> Node:
    """A node for a list of `kids`."""
    size, height = measure(kids)
    return Node([kid.value for kid in kids], place, kids=kids, size=size, height=height)


def measure(kids: Iterable[Node]) -> tuple[int, int]:
    """Size and height of a node with these kids."""
    size, height = 1, 0
    for kid in kids:
        size += kid.size
        height = max(height, kid.height + 1)
    return size, height


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Python:
    """Makes nodes from Python data; the place of each is its dotted path."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._count = 0

    def node(self, value: object, path: str, depth: int) -> Node:
        self._count += 1
        place = Place(self._count, 0, path or "configuration")
        if depth > MAX_DEPTH:
            self._report.add(place, f"nested deeper than {MAX_DEPTH} levels, expected fewer")
            raise Unreadable
        if isinstance(value, Mapping):
            return self._mapping(cast("Mapping[object, object]", value), place, path, depth)
        if isinstance(value, list | tuple):
            items = cast("list[object] | tuple[object, ...]", value)
            kids = [self.node(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(items)]
            return listing(place, kids)
        return Node(value, place, text=_text(value))

    def _mapping(self, value: Mapping[object, object], place: Place, path: str, depth: int) -> Node:
        kids: dict[str, Node] = {}
        for key, item in value.items():
            if isinstance(key, str):
                name = f"{path}.{key}" if path else str(key)
                kids[str(key)] = self.node(item, name, depth + 1)
            else:
                self._report.add(place, f"the key {key!r} is not text, expected text")
        return mapping(place, kids, {key: kid.place for key, kid in kids.items()})


def of_python(value: object, report: Report) -> Node:
    """The tree of Python data.

    Raises:
        Unreadable: nested too deeply, or a part of itself.
    """
    return _Python(report).node(value, "", 0)
