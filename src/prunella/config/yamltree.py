"""YAML text to a tree with places.

The safe part of YAML 1.2: plain data, anchors and merge keys. ``off``, ``on``, ``yes`` and ``no``
are text, keys are text, dates are text. Tags, duplicate keys and several documents are refused.
Works on parser events, so that no depth and no alias costs more than it is allowed to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from prunella.config.faults import START, Place, Report
from prunella.config.node import MAX_DEPTH, Node, Unreadable, listing, mapping

MAX_VALUES_COUNT = 250_000  # enough for 15 000 services
MAX_ALIASED_COUNT = 100_000  # nodes that aliases may add to a file

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same events, ten times as fast

_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]{1,300}(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_ODD_INT = re.compile(r"[-+]?0[0-9]+")  # 007 is a name, not a number
_WORDS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", "")),
}
_CONTROL = re.compile(
    r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_LINE_END = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")  # as YAML counts lines
_NOT_TEXT = re.compile(r"[\x00\ud800-\udfff]")
_YAML = "tag:yaml.org,2002:"


def read_yaml(text: str, report: Report, loader: Any = LOADER) -> Node:
    """The tree of one YAML document; faults that do not end the reading go to `report`.

    Raises:
        Unreadable: reading had to stop; `report` says where and why.
    """
    text = text.removeprefix("\ufeff")
    if control := _CONTROL.search(text):
        before = text[: control.start()]
        column = control.start() - (before.rfind("\n") + 1)
        report.add(
            Place(before.count("\n") + 1, column + 1),
            f"the character U+{ord(control[0]):04X} cannot stand in a text file, expected text",
        )
        raise Unreadable
    tree = _Tree(report)
    for event in _events(text, report, loader):
        tree.take(event)
    if tree.root is None:
        report.add(START, "the file is empty, expected at least one service under 'services'")
        raise Unreadable
    return tree.root


def _events(text: str, report: Report, loader: Any) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, loader)
    except yaml.MarkedYAMLError as error:
        report.add(*_syntax(error, text))
        raise Unreadable from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # An escape such as "\UFFFFFFFF" overflows in the parser that is written in Python.
        report.add(START, "not valid YAML: a character or an escape in it is not allowed")
        raise Unreadable from error


_SYNTAX = (  # found in the parser's words · place it where it began · our words
    (
        "mapping values are not allowed",
        False,
        "a ':' is not allowed here, expected another indentation, or quotes around the text",
    ),
    (r"expected ',' or ']'", True, "a list is opened and not closed, expected ',' or ']'"),
    (r"expected ',' or '}'", True, "a mapping is opened and not closed, expected ',' or '}'"),
    ("unexpected end of stream", True, "a text is quoted and not closed, expected a quote"),
    ("expected ':'", False, "a key without a ':', expected ':' after it"),
    ("expected key", False, "wrong indentation or a stray character, expected a key"),
    ("<block end>", False, "wrong indentation or a stray character, expected a key"),
    ("escape", False, "an escape that YAML does not know, expected 'single' quotes"),
    ("expected '-' indicator", False, "wrong indentation or a missing '-', expected an item"),
)


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[Place, str]:
    problem = error.problem or "it cannot be read"
    mark = error.problem_mark or error.context_mark
    message = f"not valid YAML: {problem}"
    if "cannot start any token" in problem and mark is not None:
        return Place(mark.line + 1, mark.column + 1), _no_token(text, mark.line, mark.column)
    for needle, at_start, words in _SYNTAX:
        if needle in problem:
            message = words
            mark = (error.context_mark or mark) if at_start else mark
            break
    return (START if mark is None else Place(mark.line + 1, mark.column + 1)), message


def _no_token(text: str, line: int, column: int) -> str:
    character = _LINE_END.split(text)[line][column : column + 1]
    if character == "\t":
        return "a tab cannot indent or begin a value in YAML, expected spaces"
    return f"a text cannot begin with {character!r}, expected quotes around it"


@dataclass(slots=True)
class _Open:
    """A mapping or a list that has not ended yet."""

    place: Place
    anchor: str | None
    is_mapping: bool
    kids: dict[str, Node] = field(default_factory=dict[str, Node])
    keys: dict[str, Place] = field(default_factory=dict[str, Place])
    items: list[Node] = field(default_factory=list[Node])
    merges: list[Node] = field(default_factory=list[Node])
    key: tuple[str, Place] | None = None
    merging: bool = False

    @property
    def wants_key(self) -> bool:
        return self.is_mapping and self.key is None and not self.merging


class _Tree:
    """Takes parser events, one by one, and holds the tree made of them."""

    def __init__(self, report: Report) -> None:
        self.root: Node | None = None
        self._report = report
        self._open: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}  # None: not ended yet
        self._aliased_count = 0
        self._values_count = 0
        self._documents_count = 0

    def take(self, event: yaml.Event) -> None:
        mark = event.start_mark
        place = START if mark is None else Place(mark.line + 1, mark.column + 1)
        match event:
            case DocumentStartEvent():
                self._documents_count += 1
                if self._documents_count > 1:
                    self._stop(place, "a second document begins here, expected one")
            case AliasEvent():
                self._alias(str(event.anchor), place)
            case ScalarEvent():
                self._scalar(event, place)
            case CollectionStartEvent():
                self._begin(event, place)
            case MappingEndEvent() | SequenceEndEvent():
                self._end()
            case _:
                pass

    def _stop(self, place: Place, message: str) -> None:
        self._report.add(place, message)
        raise Unreadable

    def _scalar(self, event: ScalarEvent, place: Place) -> None:
        self._refuse_tag(event.tag, place)
        text, plain = event.value, event.implicit[0]
        if _NOT_TEXT.search(text):
            message = "a NUL or half a character in a text, expected text"
            self._report.add(place, message, alone=True)
            text = _NOT_TEXT.sub("?", text)
        top = self._open[-1] if self._open else None
        if top is not None and top.wants_key:
            self._key(top, text, place, plain=plain)
            return
        if plain and not text and top is not None and top.key is not None:
            place = top.key[1]  # an empty value stands nowhere: point at its key
        node = Node(_resolve(text) if plain else text, place, text=text)
        self._close(event.anchor, node)

    def _key(self, top: _Open, text: str, place: Place, *, plain: bool) -> None:
        if plain and text == "<<":
            top.merging = True
            return
        if text in top.keys:
            first = top.keys[text]
            self._report.add(
                place,
                f"the key {text!r} stands here again, first at line {first.line} "
                f"column {first.column}, expected it once",
            )
        top.key = (text, place)

    def _begin(self, event: CollectionStartEvent, place: Place) -> None:
        self._refuse_tag(event.tag, place)
        if self._open and self._open[-1].wants_key:
            self._stop(place, "a mapping or a list as a key, expected text")
        if len(self._open) >= MAX_DEPTH:
            self._stop(place, f"nested deeper than {MAX_DEPTH} levels, expected fewer")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._open.append(_Open(place, event.anchor, isinstance(event, MappingStartEvent)))

    def _end(self) -> None:
        top = self._open.pop()
        if not top.is_mapping:
            self._close(top.anchor, listing(top.place, top.items))
            return
        for merged in top.merges:
            for key, kid in merged.items():
                if key not in top.kids:
                    top.kids[key] = kid
                    top.keys[key] = merged.key_place(key)
        self._close(top.anchor, mapping(top.place, top.kids, top.keys))

    def _alias(self, anchor: str, place: Place) -> None:
        if self._open and self._open[-1].wants_key:
            self._stop(place, f"the alias *{anchor} as a key, expected text")
        if anchor not in self._anchors:
            self._stop(place, f"the alias *{anchor} has no anchor, expected &{anchor} before it")
        node = self._anchors[anchor]
        if node is None:
            self._stop(place, f"the alias *{anchor} contains itself, expected other data")
            return
        self._aliased_count += node.size
        if self._aliased_count > MAX_ALIASED_COUNT:
            self._stop(
                place, f"aliases stand for more than {MAX_ALIASED_COUNT} values, expected fewer"
            )
        if len(self._open) + node.height > MAX_DEPTH:
            self._stop(place, f"nested deeper than {MAX_DEPTH} levels, expected fewer")
        self._close(None, node)

    def _close(self, anchor: str | None, node: Node) -> None:
        """Put a whole node where it belongs."""
        self._values_count += 1
        if self._values_count > MAX_VALUES_COUNT:
            self._stop(node.place, f"more than {MAX_VALUES_COUNT} values, expected fewer")
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        if top.merging:
            top.merging = False
            self._merge(top, node)
        elif top.key is not None:
            key, place = top.key
            top.key = None
            top.kids.setdefault(key, node)
            top.keys.setdefault(key, place)
        else:
            top.items.append(node)

    def _merge(self, top: _Open, node: Node) -> None:
        sources = node.kids if isinstance(node.kids, list) else [node]
        for source in sources:
            if isinstance(source.kids, dict):
                top.merges.append(source)
            else:
                self._report.add(source.place, "'<<' takes in mappings, expected a mapping")

    def _refuse_tag(self, tag: str | None, place: Place) -> None:
        if tag in (None, f"{_YAML}str"):
            return
        shown = f"!!{tag.removeprefix(_YAML)}" if tag.startswith(_YAML) else tag
        message = f"the tag {shown[:60]} is not allowed, expected a plain value"
        self._report.add(place, message, alone=True)


def _resolve(text: str) -> Any:
    """The value of a plain scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not _ODD_INT.fullmatch(text):
        return float(text)
    return text
