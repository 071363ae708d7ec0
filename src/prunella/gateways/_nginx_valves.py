"""Valves that nginx looks at by itself for each request, so that turning one needs no reload.

``valves/SERVICE/SECOND/BUCKET`` is a file where nginx answers a request instead of the service.
BUCKET is a number from 0 to 99 that it draws for each request, SECOND is its clock: there is a link
for each second until the end of the lease, and nothing afterwards, so that the circuit ends without
anybody. All of a valve is one link, put in place of the one before in one step.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from math import ceil, floor
from pathlib import Path
from typing import NamedTuple

from prunella.errors import PermanentError
from prunella.gateways._nginx_conf import BUCKETS
from prunella.gateways._nginx_files import explained
from prunella.gateways._undo import undone_by

_LAG_S = 2  # nginx's clock stands still while it works on something
_LEASE_LIMIT_S = 3600.0
_MODE = 0o755
WIDE = 100


class Held(NamedTuple):
    """What a valve lets through, in percent, and until when, in seconds of wall time."""

    share: int = WIDE
    until: int = 0

    def at(self, wall_s: float) -> int:
        """The share at this time."""
        return self.share if wall_s < self.until else WIDE


class Valves:
    """All valves of one folder. Methods touch the disk, and change all or nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> Mapping[str, Held]:
        """Those that are not wide open, or were so lately."""
        with explained(f"cannot read {self._folder}"):
            try:
                found = [one for one in os.scandir(self._folder) if not one.name.startswith(".")]
            except FileNotFoundError:
                return {}
            return {one.name: self._held(Path(one.path)) for one in found}

    def prepare(self, share: int) -> None:
        """Have ready what valves of this share lead to."""
        with explained(f"cannot prepare valves in {self._folder}"):
            folder = self._folder / ".shares" / str(share)
            _make(folder)
            have = {one.name for one in folder.iterdir()}
            for bucket in range(share, BUCKETS):
                if str(bucket) not in have:
                    (folder / str(bucket)).touch()

    def turn(self, name: str, share: int, *, wall_s: float, lease_s: float) -> Held:
        """Set one, and answer what it was.

        A lease ends up to a second late; one longer than an hour ends after an hour.
        """
        with explained(f"cannot set the valve of {name} in {self._folder}"):
            before = self._held(self._folder / name)
            if share >= WIDE:
                self._remove(name)
                return before
            until = ceil(wall_s + min(lease_s, _LEASE_LIMIT_S))
            self._put(name, share, floor(wall_s) - _LAG_S, until)
            return before

    def put_back(self, name: str, held: Held, *, wall_s: float) -> None:
        """Make one what it was, until when it was to be so."""
        with explained(f"cannot set the valve of {name} back in {self._folder}"):
            if held.at(wall_s) >= WIDE:
                self._remove(name)
            else:
                self._put(name, held.share, floor(wall_s) - _LAG_S, held.until)

    @contextmanager
    def leaving(self, *, wall_s: float, timeout_s: float) -> Generator[None]:
        """Have callers close their connections meanwhile, and not longer, whatever becomes of us.

        A disk that has no room for that is no reason not to reload.
        """
        folder = self._folder / ".leaving"
        with suppress(OSError):
            _make(folder)
            for second in range(floor(wall_s) - _LAG_S, ceil(wall_s + timeout_s)):
                (folder / str(second)).touch()
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _held(self, link: Path) -> Held:
        try:
            words = link.readlink().name.rsplit(".", 2)
            return Held(int(words[1]), int(words[2]))
        except FileNotFoundError:
            return Held()
        except (OSError, ValueError, IndexError) as error:
            raise PermanentError(
                f"{link} is no valve of Prunella's: remove it, and all is let through"
            ) from error

    def _put(self, name: str, share: int, begin: int, until: int) -> None:
        self.prepare(share)
        answered = Path("../../.shares") / str(share)
        present = self._target(name)
        kept = self._folder / ".held"
        # two names in turn: the one in use is never written to
        letter = "b" if present is not None and present.name.startswith("a.") else "a"
        for stale in kept.glob(f"{letter}.{name}.*"):
            if stale.name.rsplit(".", 2)[0] == f"{letter}.{name}":
                shutil.rmtree(stale)
        folder = kept / f"{letter}.{name}.{share}.{until}"
        link = self._folder / f".{name}.new"

        def discard() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            link.unlink(missing_ok=True)

        with undone_by(discard):
            _make(folder)
            for second in range(begin, until):
                (folder / str(second)).symlink_to(answered)
            link.unlink(missing_ok=True)
            link.symlink_to(folder.relative_to(self._folder))
            link.replace(self._folder / name)
        if present is not None and present.parent == kept:
            shutil.rmtree(present, ignore_errors=True)  # the next turn tries again

    def _remove(self, name: str) -> None:
        present = self._target(name)
        (self._folder / name).unlink(missing_ok=True)
        if present is not None and present.parent == self._folder / ".held":
            shutil.rmtree(present, ignore_errors=True)

    def _target(self, name: str) -> Path | None:
        link = self._folder / name
        return self._folder / link.readlink() if link.is_symlink() else None


def _make(folder: Path) -> None:
    """A folder that nginx's workers can look into, whatever mask we were started with."""
    for one in reversed([folder, *folder.parents]):
        if not one.exists():
            one.mkdir()
            one.chmod(_MODE)
