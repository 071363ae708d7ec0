"""Which units a restart of ours has stopped, and has not brought up again: nobody's wish.

To systemd such a unit looks like one that a person has stopped. It is remembered in a file, so
that the next Prunella knows it too.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path


class Downed:
    """Units that are down by our doing, each with its last run."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "downed.json"
        self._runs: dict[str, str] | None = None

    def has(self, name: str, run: str) -> bool:
        """Whether that run, empty if systemd has forgotten which, was ended by us."""
        known = self._known().get(name)
        return known is not None and run in ("", known)

    def add(self, name: str, run: str) -> None:
        self._known()[name] = run
        self._write()

    def drop(self, name: str) -> None:
        """It is up again, or is to be down."""
        if self._known().pop(name, None) is not None:
            self._write()

    def _known(self) -> dict[str, str]:
        if self._runs is None:
            try:
                self._runs = {**json.loads(self._file.read_text())}
            except (OSError, ValueError, TypeError):
                self._runs = {}
        return self._runs

    def _write(self) -> None:
        # Where it cannot be written it is known for as long as we live, which is better than not.
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            draft = self._file.with_suffix(".new")
            draft.write_text(json.dumps(self._known()))
            draft.replace(self._file)
