"""From drafts to the text of a file that a person may begin with.

Only what is written by hand here can have comments; what is written must be read back as it was,
which is why everything that could be taken for something else than text is quoted.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from prunella.plugins import Draft

_WIDTH = 96
_ID_LENGTH = 63
_PLAIN = re.compile(r"[A-Za-z/_][A-Za-z0-9/_.@+-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_HEAD = """\
# Written by `prunella init {kind}` from what ran then: something to begin with.
# Next: delete what is not to be looked after, read what is said of the rest, and then
#   prunella check {file}    # names every fault, and what the platform says
#   prunella run {file}      # watches, and tells what it would do

defaults:
  heal: observe # delete this line to have it done, or write it into single services

services:
"""


def written(kind: str, drafts: Sequence[Draft], file: str) -> str:
    """A whole file, the same for the same drafts in whatever order.

    Args:
        kind: the platform that was surveyed.
        drafts: at least one.
        file: how people will call the file.
    """
    taken: set[str] = set()
    lines: list[str] = []
    for draft in sorted(drafts, key=lambda draft: (draft.id, repr(draft))):
        id_ = _id(draft.id, taken)
        taken.add(id_)
        lines += ["", *_service(id_, kind, draft)]
    return _HEAD.format(kind=kind, file=_one_line(file)) + "\n".join(lines[1:]) + "\n"


def _id(wanted: str, taken: set[str]) -> str:
    """An id that is allowed and free, and as like the wanted one as that permits."""
    base = re.sub(r"[^a-z0-9._-]+", "-", wanted.lower()).strip("._-")[:_ID_LENGTH] or "service"
    id_, number = base, 1
    while id_ in taken:
        number += 1
        suffix = f"-{number}"
        id_ = base[: _ID_LENGTH - len(suffix)] + suffix
    return id_


def _service(id_: str, kind: str, draft: Draft) -> Iterator[str]:
    note = _one_line(draft.note)
    yield from textwrap.wrap(note, _WIDTH, initial_indent="  # ", subsequent_indent="  # ")
    yield f"  {_scalar(id_)}:"
    yield f"    platform: {_scalar(kind)}"
    if draft.section:
        yield from _entry(f"{_scalar(kind)}:", draft.section, 4)
    if draft.probes:
        yield "    probes:"
        for probe in draft.probes:
            yield from _entry("-", probe, 6)
    if draft.scale:
        yield from _entry("scale:", draft.scale, 4)


def _one_line(text: str) -> str:
    """As it may stand in a comment, which ends with its line."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _entry(head: str, value: Any, indent: int) -> Iterator[str]:
    """A key or a dash with its value: on one line if that fits, else one line for each part."""
    start = " " * indent + head
    line = f"{start} {_flow(value)}"
    if len(line) <= _WIDTH or not value or not isinstance(value, Mapping | list | tuple):
        yield line
        return
    yield start
    if isinstance(value, Mapping):
        for key, kid in cast("Mapping[str, Any]", value).items():
            yield from _entry(f"{_scalar(key)}:", kid, indent + 2)
    else:
        for item in cast("Sequence[Any]", value):
            yield from _entry("-", item, indent + 2)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(kid)}" for key, kid in items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in cast("Sequence[Any]", value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(_quoted(letter) for letter in text) + '"'


def _quoted(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    code = ord(letter)
    if code == 0 or 0xD800 <= code <= 0xDFFF:
        return "\ufffd"  # no text file can have it
    return f"\\x{code:02x}" if code < 0x100 else f"\\U{code:08x}"
