"""One line of the table per figure, and the table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

_HEADINGS = ("figure", "ours", "peer", "ratio", "target", "")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        limit: what `ours` must not exceed, in the same unit; with `at_least`, must reach.
        ratio_limit: what ours / peer must not exceed.
        note: how it was measured, or why something is missing.
    """

    figure: str
    ours: float | None
    unit: str
    limit: float | None = None
    at_least: bool = False
    peer: float | None = None
    peer_name: str = ""
    ratio_limit: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        if self.ours is None or not self.peer:
            return None
        return self.ours / self.peer

    @property
    def met(self) -> bool | None:
        """None where there is no target, or where what it needs could not be measured."""
        verdicts: list[bool] = []
        if self.limit is not None and self.ours is not None:
            verdicts.append((self.ours >= self.limit) is self.at_least or self.ours == self.limit)
        if self.ratio_limit is not None and self.ratio is not None:
            verdicts.append(self.ratio <= self.ratio_limit)
        return all(verdicts) if verdicts else None

    def cells(self) -> tuple[str, ...]:
        peer = "" if self.peer is None else f"{_number(self.peer)} {self.unit}"
        if self.peer_name:
            peer = f"{peer} {self.peer_name}".strip()
        return (
            self.figure,
            "-" if self.ours is None else f"{_number(self.ours)} {self.unit}",
            peer,
            "" if self.ratio is None else f"{self.ratio:.2f}",
            self._target(),
            {True: "met", False: "MISSED", None: ""}[self.met],
        )

    def _target(self) -> str:
        parts: list[str] = []
        if self.limit is not None:
            sign = ">=" if self.at_least else "<="
            parts.append(f"{sign} {_number(self.limit)} {self.unit}")
        if self.ratio_limit is not None:
            parts.append(f"<= {self.ratio_limit:g} x peer")
        return ", ".join(parts)


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0-1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))]


def spread(values: Sequence[float]) -> str:
    """What a median hides: how many values, the least and the greatest of them."""
    return f"{len(values)} runs, {_number(min(values))} to {_number(max(values))}"


def middle(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def load_words() -> str:
    """The load of the machine now, with a warning where it spoils what is measured."""
    one, five, _ = os.getloadavg()
    cores = len(os.sched_getaffinity(0))
    words = f"load average {one:.1f} (1 min), {five:.1f} (5 min) on {cores} cores"
    return f"{words}: HIGH, times are worse than they need to be" if one > cores / 2 else words


def table(rows: Sequence[Row]) -> str:
    lines = [_HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADINGS))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    notes = [f"  {row.figure}: {row.note}" for row in rows if row.note]
    return "\n".join([*text, "", "Notes", *notes])
