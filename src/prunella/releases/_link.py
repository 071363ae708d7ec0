"""The symbolic link that says which release of a service is deployed: read, and swapped at once.

For sources of releases that keep each release in a folder of its own, side by side.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from prunella.errors import PermanentError, TransientError
from prunella.ports import Remark
from prunella.releases._trouble import explained
from prunella.spec import ReleaseSpec


class LinkSpec(ReleaseSpec):
    """What every source has that deploys by swapping a link."""

    current: Path = Field(
        description="The symbolic link that leads to the deployed release; what runs starts there."
    )
    releases: Path | None = Field(
        default=None,
        description="The folder with one folder per release. Default: `releases` beside `current`.",
    )

    @property
    def folder(self) -> Path:
        """Where the releases are."""
        return self.current.parent / "releases" if self.releases is None else self.releases


class Link:
    """One such link. All methods touch the disk and return within one step of it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        """Where it leads, as it is written.

        Raises:
            TransientError: it is not there, or cannot be read.
            PermanentError: it is no link, or may not be read.
        """
        with explained(f"cannot read {self._path}"):
            try:
                return str(self._path.readlink())
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                raise PermanentError(
                    f"{self._path} is not a symbolic link, so nothing can take its place in one "
                    "step: move it into the folder of releases and link to it"
                ) from error

    def leads_to(self, written: str) -> Path:
        """The absolute path of what `read` answered."""
        return self._path.parent / written

    @contextmanager
    def alone(self) -> Generator[None]:
        """Keep other switches of Prunella away; a killed one keeps nobody away.

        Raises:
            TransientError: another one is under way, or the disk is full.
            PermanentError: the folder may not be written.
        """
        lock = self._path.with_name(f".{self._path.name}.lock")
        with explained(f"cannot open {lock}"):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            if not locked(descriptor):
                raise TransientError(f"{self._path} is being switched already")
            yield
        finally:
            os.close(descriptor)

    def swap(self, to: Path, *, expected: str) -> bool:
        """Lead to another folder from now on, unless it does not read `expected` any more.

        Whoever opens the link finds the old folder or the new one. The new link is relative, so
        that the whole can be moved or mounted elsewhere.

        Raises:
            TransientError: the disk is full or failing; the link is as it was.
            PermanentError: the folder may not be written.
        """
        draft = self._path.with_name(f".{self._path.name}.prunella")
        with explained(f"cannot replace {self._path}"):
            draft.unlink(missing_ok=True)  # of a switch that was killed here
            home = self._path.parent.resolve()
            draft.symlink_to(os.path.relpath(to.resolve(), home))
            # A person who deploys in this moment wins: nothing may stand between the next two.
            if self.read() != expected:
                draft.unlink()
                return False
            draft.replace(self._path)
            sync_folder(home)
        return True


def locked(descriptor: int) -> bool:
    """Take the lock of an open file or folder; False if somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def examine_folder(folder: Path) -> Iterator[Remark]:
    """What stands against making entries in a folder."""
    if not folder.is_dir():
        yield Remark(f"there is no folder {folder}", fault=True)
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Remark(f"{folder} may not be written by this user", fault=True)
