"""The named series of a page in the text format of Prometheus or OpenMetrics. For probes.

A whole parser takes 0.2 s for a page of 1 MB, and the event loop with it; this one looks for the
names, and takes apart the lines that begin with one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from prunella.probes._selector import Selector, labels_of
from prunella.probes._wire import Trouble

SERIES_CAP = 10_000
_TYPED = re.compile(r"^#[ \t]+(?:TYPE|HELP)[ \t]+(\S+)", re.MULTILINE)
_SUFFIX = re.compile(r"_(?:total|bucket|count|sum)$")
_LABELS = r'\{((?:[^"{}\n]|"(?:[^"\\\n]|\\.)*")*)\}'


class Series(NamedTuple):
    """One series now; ``key`` names it among all of its page."""

    key: str
    labels: str
    value: float


class Found(NamedTuple):
    """What a page says of some selectors.

    Attributes:
        series: for each selector those that it picks, in the order of the page.
        missing: names of which the page says nothing at all.
    """

    series: tuple[Sequence[Series], ...]
    missing: tuple[str, ...]


class Reader:
    """Finds the series of some selectors on one page after the other."""

    def __init__(self, selectors: Iterable[Selector]) -> None:
        self._selectors = tuple(selectors)
        names = "|".join(re.escape(name) for name in {one.name for one in self._selectors})
        self._line = re.compile(
            rf"^[ \t]*({names})(?=[ \t{{])[ \t]*(?:{_LABELS})?[ \t]*(\S*)", re.MULTILINE
        )
        self._picked: dict[tuple[str, str], tuple[int, ...]] = {}  # by name and labels

    def read(self, body: bytes) -> Found | Trouble:
        """What is there; a line with one of the names that cannot be understood is trouble."""
        page = body.decode("utf-8", "replace")
        series: tuple[list[Series], ...] = tuple([] for _ in self._selectors)
        present: set[str] = set()
        count = 0
        for name, labels, text in self._line.findall(page):
            present.add(name)
            picked = self._picked.get((name, labels))
            if picked is None:
                picked = self._pick(name, labels)
            if not picked:
                continue
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if math.isnan(value):
                return Trouble(None, f"{name} is {text[:40]!r}, which is not a number")
            count += 1
            if count > SERIES_CAP:
                return Trouble(None, f"the page has more than {SERIES_CAP} series of {name}")
            for number in picked:
                series[number].append(Series(f"{name}{{{labels}", labels, value))
        wanted = dict.fromkeys(one.name for one in self._selectors)
        if absent := [name for name in wanted if name not in present]:
            typed = set(_TYPED.findall(page))
            absent = [name for name in absent if not typed & {name, _SUFFIX.sub("", name)}]
        return Found(series, tuple(absent))

    def _pick(self, name: str, labels: str) -> tuple[int, ...]:
        """Which selectors a series is for; remembered, since pages have the same ones again."""
        parsed = labels_of(labels)
        picked = tuple(
            number
            for number, one in enumerate(self._selectors)
            if one.name == name and one.picks(parsed)
        )
        if len(self._picked) >= 2 * SERIES_CAP:
            self._picked.clear()
        self._picked[name, labels] = picked
        return picked
