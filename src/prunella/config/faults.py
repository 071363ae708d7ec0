"""What is wrong with a configuration, and exactly where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prunella.errors import PrunellaError


class Place(NamedTuple):
    """Where a value stands; places of one configuration are in reading order.

    In a file: line and column, from 1. In a Python mapping ``path`` is the dotted path, and
    ``line`` only keeps the order.
    """

    line: int
    column: int
    path: str = ""


START = Place(1, 1)


class Places(NamedTuple):
    """Where a service says what runs it, what it can be rolled back to, and its gateway.

    Without a section of its own, such a thing is where the service names its platform.
    """

    platform: Place
    release: Place
    gateway: Place


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong. ``path`` is the file, or the dotted path in a Python mapping.

    ``line`` and ``column`` count from 1; None where there is no text to point at.
    """

    path: str
    line: int | None
    column: int | None
    message: str

    def __str__(self) -> str:
        spot = "" if self.line is None else f":{self.line}:{self.column}"
        return f"{self.path}{spot}: {self.message}"


class ConfigFaults(PrunellaError):
    """The configuration cannot be used; everything found wrong with it, in reading order."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class Report:
    """Gathers faults during one check."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: set[tuple[Place, str]] = set()
        self._closed: set[Place] = set()

    def add(self, place: Place, message: str, *, alone: bool = False) -> None:
        """Keep a fault; `alone`: no later one at that place says anything new."""
        if place not in self._closed:
            self._found.add((place, message))
        if alone:
            self._closed.add(place)

    def __len__(self) -> int:
        return len(self._found)

    def conclude(self) -> None:
        """Raise ``ConfigFaults`` if anything was found."""
        if self._found:
            raise ConfigFaults([self._fault(*found) for found in sorted(self._found)])

    def _fault(self, place: Place, message: str) -> Fault:
        if place.path:
            return Fault(place.path, None, None, message)
        return Fault(self._file, place.line, place.column, message)
