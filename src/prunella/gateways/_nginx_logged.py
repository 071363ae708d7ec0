"""Whether nginx logs a service's requests for us, or a log of somebody else's is in the way.

A server or a location with an ``access_log`` of its own has none of those outside of it, and one
that says ``off`` puts out those beside it. Nothing of that is an error to nginx.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_WORD = re.compile(
    r"""\s+|\#[^\n]*|(?P<end>[{};])|"(?P<double>(?:\\.|[^"\\])*)"|'(?P<single>(?:\\.|[^'\\])*)'"""
    r"""|(?P<bare>(?:\$\{|\\.|[^\s;{}\\])+)""",
    re.DOTALL,
)


@dataclass
class _Block:
    name: str = ""
    off: bool = False
    logs: bool = False  # it has an access_log
    ours: bool = False  # it includes ours
    holds: bool = False  # the service's location is in it, and nothing has decided yet
    decided: bool | None = None


def is_logged(texts: Mapping[Path, str], config: Path, location: Path, log_conf: Path) -> bool:
    """Whether requests of the location that includes `location` come into our log.

    Args:
        texts: all files that nginx reads.
        config: the first of them; names in them are relative to its folder.
        log_conf: the file that says it where somebody else's log is.
    """
    quiet = False
    for text in texts.values():
        root = _Block()
        stack = [root]
        for words, end in _directives(text):
            block = stack[-1]
            if end == "{":
                stack.append(_Block(words[0] if words else ""))
            elif end == "}" and len(stack) > 1:
                closed = stack.pop()
                quiet = quiet or (closed.name == "http" and closed.off)
                _close(closed, stack[-1])
            elif words[:1] == ["access_log"]:
                block.logs = True
                block.off = block.off or words[1:2] == ["off"]
            elif words[:1] == ["include"] and len(words) == 2:
                found = config.parent / words[1]
                block.ours = block.ours or found == log_conf
                block.holds = block.holds or found == location
        if root.decided is not None:
            return root.decided
    return not quiet


def _close(block: _Block, outer: _Block) -> None:
    """The innermost block with a log of its own decides for what it holds."""
    if block.decided is None and block.holds:
        if block.off:
            block.decided = False
        elif block.name != "http" and (block.logs or block.ours):
            block.decided = block.ours
    if block.decided is not None:
        outer.decided = block.decided
    outer.holds = outer.holds or block.holds


def _directives(text: str) -> Iterator[tuple[list[str], str]]:
    """Each directive with what ends it: a semicolon, or a brace."""
    words: list[str] = []
    for one in _WORD.finditer(text):
        if one["end"]:
            yield words, one["end"]
            words = []
        elif (word := one["double"] or one["single"] or one["bare"]) is not None:
            words.append(word)
