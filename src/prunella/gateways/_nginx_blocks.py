"""What stands around the place where nginx's configuration includes us, and gets in the way.

Nothing of it is an error to nginx. A server or a location with an ``access_log`` of its own has
none of those outside of it, and one that says ``off`` puts out those beside it. While an ``if`` of
ours holds, a location has no ``try_files``, and an ``add_header`` of ours hides those outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_WORD = re.compile(
    r"""\s+|\#[^\n]*|(?P<end>[{};])|"(?P<double>(?:\\.|[^"\\])*)"|'(?P<single>(?:\\.|[^'\\])*)'"""
    r"""|(?P<bare>(?:\$\{|\\.|[^\s;{}\\])+)""",
    re.DOTALL,
)


@dataclass(eq=False)
class Block:
    """One block of a file: its own directives, without those of blocks in it."""

    name: str = ""
    directives: list[list[str]] = field(default_factory=list[list[str]])

    def has(self, name: str, *first: str) -> bool:
        """Whether there is a directive of this name, and with this first argument."""
        wanted = [name, *first]
        return any(one[: len(wanted)] == wanted for one in self.directives)


@dataclass(frozen=True)
class Surroundings:
    """Where a file is included: blocks from the inside to the outside, for each place."""

    places: Sequence[Sequence[Block]]
    http: Sequence[Block]
    log_conf: str

    @staticmethod
    def of(texts: Mapping[Path, str], config: Path, file: Path, log_conf: Path) -> Surroundings:
        """Look for `file` in all `texts` that nginx reads; names are relative to `config`."""
        places: list[Sequence[Block]] = []
        http: list[Block] = []
        for text in texts.values():
            stack = [Block()]
            for words, end in _directives(text):
                if end == "{":
                    stack.append(Block(words[0] if words else ""))
                    if stack[-1].name == "http":
                        http.append(stack[-1])
                elif end == "}":
                    del stack[max(1, len(stack) - 1) :]
                elif words:
                    if words[0] == "include" and len(words) == 2:
                        words[1] = str(config.parent / words[1])
                        if words[1] == str(file):
                            places.append(stack[::-1])
                    stack[-1].directives.append(words)
        return Surroundings(places, http, str(log_conf))

    def logs(self) -> bool:
        """Whether requests there come into our log."""
        quiet = any(block.has("access_log", "off") for block in self.http)
        return all(self._logs(place, quiet=quiet) for place in self.places)

    def tries_files(self) -> bool:
        return any(place[0].has("try_files") for place in self.places)

    def adds_headers(self) -> bool:
        """Whether responses there get a header from a place that ours would hide."""
        around = [*(block for place in self.places for block in place), *self.http]
        return any(block.has("add_header") for block in around)

    def _logs(self, place: Sequence[Block], *, quiet: bool) -> bool:
        for block in place:
            if block.name == "http":
                break
            ours = block.has("include", self.log_conf)
            if ours or block.has("access_log"):
                return ours and not block.has("access_log", "off")
        return not quiet


def _directives(text: str) -> Iterator[tuple[list[str], str]]:
    """Each directive with what ends it: a semicolon, or a brace."""
    words: list[str] = []
    for one in _WORD.finditer(text):
        if one["end"]:
            yield words, one["end"]
            words = []
        elif (word := one["double"] or one["single"] or one["bare"]) is not None:
            words.append(word)
